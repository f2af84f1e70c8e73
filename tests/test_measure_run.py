"""Tables of whole runs: as measured on the whole image, whatever the tiles; channels by choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.models.channel_settings import MaxOf
from cellseg.pipeline import Config, Result, read_workflow, run, table
from cellseg.pipeline.inputs import Inputs
from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.measured import Measured
from cellseg.pipeline.plan import plan
from cellseg.pipeline.tiles import Box
from exact import Exact
from synthetic import cells

CPU = Config(device="cpu")
EVERY = Measure(groups=("shape", "intensity", "solid"), percentiles=(1, 50, 99.5))
HEAD = """images = "a.ome.tif"
[normalise]
method = "none"
[output]
overview = false
[model]
name = "threshold"
channels = ["cells"]
[measure]
groups = ["shape", "intensity", "solid"]
percentiles = [1, 50, 99.5]
"""


@pytest.fixture
def slide(tmp_path: Path) -> NDArray[np.uint16]:
    """Three channels, the first of which holds the true labels, and a workflow beside them."""
    grey, labels = cells(3, shape=(230, 280), count=80, radius=(2, 14))
    pixels = np.stack([labels, grey, grey[::-1] // 3]).astype(np.uint16)
    metadata = {"axes": "CYX", "Channel": {"Name": ["cells", "DAPI", "w3"]}}
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=metadata | size)
    (tmp_path / "w.toml").write_text(HEAD)
    return pixels


def result_of(folder: Path, name: str, *overrides: str) -> Result:
    workflow = read_workflow(folder / "w.toml", overrides, output=folder / name)
    result = run(workflow, CPU, Exact())
    assert not result.failed
    return result


def test_tiles_give_what_the_whole_image_gives(
    tmp_path: Path, slide: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = result_of(tmp_path, "whole", "tiling.size=1024")
    labels = whole.image("a").labels.read(0, 0, Box(0, 0, 230, 280))
    ids = np.arange(1, labels.max() + 1)
    names = ("cells", "DAPI", "w3")
    expected = measure(labels, slide, ids, names, settings=EVERY, pixel_um=(0.5, 0.5))
    monkeypatch.setattr(table, "READ", 130)
    monkeypatch.setattr(table, "WINDOW", 50)
    tiled = result_of(tmp_path, "tiled", "tiling.size=64", "tiling.halo=32")
    for result in (whole, tiled):
        rows = pq.read_table(result.cells_path)
        assert set(expected) <= set(rows.column_names)
        for name, values in expected.items():
            got = rows[name].to_numpy()
            if values.dtype.kind == "i":
                assert rows[name].null_count == 0
                np.testing.assert_array_equal(got, values, name)
            else:
                np.testing.assert_allclose(got, values, rtol=1e-9, atol=1e-9, err_msg=name)
                assert rows[name].null_count == np.isnan(values).sum()
        # A plane has no shape in 3D: the columns are there, and hold nothing.
        assert rows["sphericity"].null_count == len(rows)
        assert rows["feret_max_um"].type == pa.float64()


def test_channels_by_choice_in_the_order_wanted(tmp_path: Path, slide: NDArray[np.uint16]) -> None:
    every = pq.read_table(result_of(tmp_path, "every").cells_path)
    some = pq.read_table(
        result_of(tmp_path, "some", 'measure.channels=["w3", 1, "DAPI"]').cells_path
    )
    of_cells = [name for name in every.column_names if name.endswith("_cells")]
    assert set(every.column_names) - set(some.column_names) == set(of_cells)
    places = [some.column_names.index(name) for name in ("mean_w3", "mean_DAPI")]
    assert places == sorted(places)
    for name in some.column_names:
        assert some[name].equals(every[name]), name
    none = pq.read_table(result_of(tmp_path, "none", "measure.channels=[]").cells_path)
    assert not [name for name in none.column_names if name.startswith("mean_")]
    assert none["solidity"].equals(every["solidity"])


def test_a_channel_that_is_not_there_is_told_before_the_run(
    tmp_path: Path, slide: NDArray[np.uint16]
) -> None:
    overrides = ['measure.channels=["DAPY"]']
    workflow = read_workflow(tmp_path / "w.toml", overrides, output=tmp_path / "out")
    line = r"no channel 'DAPY'; there are 3: 'DAPI', .* or by index 0 to 2"
    with pytest.raises(CellsegError, match=line):
        plan(workflow, CPU, Exact())
    assert not (tmp_path / "out").exists()


def test_planes_that_the_model_sees_are_chosen_by_name() -> None:
    inputs = Inputs.of([MaxOf(max=("a", "c"))], ("a", "b", "c"), "image.tif")
    measured = Measured.of(["max_a_c", "b", 0], inputs, ("a", "b", "c"), "image.tif")
    assert measured.names == ("max_a_c", "b", "a")
    assert measured.channels == (0, 1, 2)
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 2, 2)
    np.testing.assert_array_equal(measured.see(pixels), pixels[[2, 1, 0]])
    one = Measured.of([2], inputs, ("a", "b", "c"), "image.tif")
    assert one.channels == (2,)
    assert one.see(pixels[2:]) is not None
    with pytest.raises(CellsegError, match=r"no channel 3; there are 4: .*, or by index 0 to 2"):
        Measured.of([3], inputs, ("a", "b", "c"), "image.tif")
