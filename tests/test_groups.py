"""What holds for every optional group: no tile, window, order or place changes a value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances
from cellseg.pipeline import (
    Config,
    Result,
    Workflow,
    read_workflow,
    region,
    run,
    table,
    tasks,
    volume_table,
)
from cellseg.pipeline import order as orders
from cellseg.pipeline.measure import MEASUREMENTS, Columns, empty, measure, reach
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.plan import plan
from cellseg.pipeline.solid import measure_solid
from exact import LEVELS, Exact, Known
from sections import ellipsoids
from synthetic import cells, discs

CPU = Config(device="cpu")
GROUPS = tuple(name for name in MEASUREMENTS if name not in ("shape", "intensity", "solid"))
SMALL = {
    "granularity_length": 2,
    "granularity_step_px": 2,
    "granularity_background_step": 2,
    "granularity_background_radius": 2,
    "granularity_growth": 4,
}
"""What makes the reach of granularity less than the images of these tests."""
SETTINGS = Measure.model_validate({"groups": GROUPS, "texture_scales_px": (1, 3), **SMALL})
CHANNELS = ["a", "b"]


def image(seed: int, shape: tuple[int, int] = (170, 190)) -> tuple[NDArray[np.int64], Pixels]:
    """Cells of all sizes, some of one pixel, two channels, the second dark here and there."""
    grey, labels = cells(seed, shape=shape, count=60, radius=(0.6, 12))
    second = np.where(labels % 5 == 0, 0, grey[::-1, ::-1] // 2)
    return labels.astype(np.int64), np.stack([grey, second]).astype(np.uint16)


Pixels = NDArray[np.uint16]


def ids_in(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(labels[labels > 0])


def close(found: Columns, expected: Columns, without: Sequence[str] = ()) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        if name not in without:
            assert found[name].dtype == values.dtype, name
            np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_the_reach_is_the_largest_of_the_groups() -> None:
    for group in GROUPS:
        alone = SETTINGS.model_copy(update={"groups": (group,)})
        assert 0 <= reach(alone) <= reach(SETTINGS)
    assert reach(Measure(groups=("ring",))) == 12
    assert reach(Measure(groups=GROUPS)) == 956


def test_no_order_and_no_number_of_labels_changes_a_value() -> None:
    labels, pixels = image(0)
    ids = ids_in(labels)
    expected = measure(labels, pixels, ids, CHANNELS, settings=SETTINGS)
    order = np.random.default_rng(0).permutation(len(ids))
    shuffled = measure(labels, pixels, ids[order], CHANNELS, settings=SETTINGS)
    close(shuffled, {name: values[order] for name, values in expected.items()})
    numbers = np.concatenate([[0], 7 + 3 * order])
    renamed = numbers[np.searchsorted(np.concatenate([[0], ids]), labels)]
    close(measure(renamed, pixels, 7 + 3 * order, CHANNELS, settings=SETTINGS), expected)


def test_translation_changes_positions_only() -> None:
    labels, pixels = image(1, (90, 100))
    around = reach(SETTINGS)
    even = around + around % 4  # granularity looks at every second, and of these every second px
    found = []
    for shift in (0, 4):
        margin = (even + shift, even + 4 - shift)
        wide, grey = np.pad(labels, (margin,) * 2), np.pad(pixels, ((0, 0), margin, margin))
        found.append(measure(wide, grey, ids_in(labels), CHANNELS, settings=SETTINGS))
    moved = [name for name in found[0] if name.startswith(("y_", "x_", "edge_", "density_"))]
    # Granularity's coarser images are stretched to the whole one, so that it depends on place.
    moved += [name for name in found[0] if name.startswith("granularity_")]
    close(found[1], found[0], moved)
    for axis in "yx":
        np.testing.assert_allclose(found[1][f"{axis}_px"] - found[0][f"{axis}_px"], 4)


@pytest.mark.parametrize("seed", range(2))
def test_a_cell_follows_from_what_lies_within_reach(seed: int) -> None:
    labels, pixels = image(seed)
    ids, around, shape = ids_in(labels), reach(SETTINGS), labels.shape
    expected = measure(labels, pixels, ids, CHANNELS, settings=SETTINGS)
    centres = np.stack([expected["y_px"], expected["x_px"]], axis=1)
    for row in range(0, len(ids), 7):
        y, x = np.nonzero(labels == ids[row])
        low = max(y.min() - around, 0), max(x.min() - around, 0)
        window = slice(low[0], y.max() + 1 + around), slice(low[1], x.max() + 1 + around)
        alone = np.where(labels == ids[row], 9, 0)[window]
        found = measure(
            alone,
            pixels[:, *window],
            [9],
            CHANNELS,
            settings=SETTINGS,
            origin=low,
            occupied=labels[window] > 0,
            near=lambda y0, y1: centres[(centres[:, 0] >= y0) & (centres[:, 0] < y1)],
            extent=(shape[0], shape[1]),
        )
        close(found, {name: values[row : row + 1] for name, values in expected.items()})


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_its_columns_without_cells_and_channels(group: str) -> None:
    settings = SETTINGS.model_copy(update={"groups": (group,)})
    for channels in ([], ["a"], CHANNELS):
        none = empty(settings, channels)
        pixels = np.ones((len(channels), 1, 1), np.uint8)
        one = measure(np.ones((1, 1), np.int64), pixels, [1], channels, settings=settings)
        assert list(none) == list(one)
        assert [v.dtype for v in none.values()] == [v.dtype for v in one.values()]
        assert {len(values) for values in none.values()} == {0}


def test_3d_cells_have_every_column() -> None:
    labels = ellipsoids(3, (8, 40, 50), 12, apart=2, touching=True).astype(np.int64)
    pixels = np.random.default_rng(0).integers(0, 255, (2, *labels.shape)).astype(np.uint8)
    ids = ids_in(labels)
    found = measure_solid(labels, pixels, ids, CHANNELS, settings=SETTINGS, voxel_um=(1, 0.5, 0.5))
    assert set(empty(SETTINGS, CHANNELS)) <= set(found)
    assert all(len(values) == len(ids) for values in found.values())
    for row, id_ in enumerate(ids):
        mask = labels == id_
        a, b = (plane[mask].astype(float) for plane in pixels)
        assert found["pearson_a_b"][row] == pytest.approx(np.corrcoef(a, b)[0, 1])
        z = mask.sum(axis=(1, 2)).argmax()
        section = measure(
            labels[z], pixels[:, z], [id_], CHANNELS, settings=SETTINGS, pixel_um=(0.5, 0.5)
        )
        for name in ("ring_mean_a", "background_b", "hu_1", "texture_entropy_3_a", "radial_cv_1_a"):
            assert found[name][row] == pytest.approx(section[name][0], nan_ok=True), name


def workflow(folder: Path, name: str, *overrides: str) -> Workflow:
    return read_workflow(folder / "w.toml", overrides, output=folder / name)


def write(folder: Path, head: str) -> None:
    keys = "texture_scales_px = [1, 3]\n"
    keys += "".join(f"{key} = {value}\n" for key, value in SMALL.items())
    groups = ", ".join(f'"{group}"' for group in GROUPS)
    text = f'{head}[normalise]\nmethod = "none"\n[measure]\ngroups = [{groups}]\n{keys}'
    (folder / "w.toml").write_text(f"{text}[output]\noverview = false\n")


def rows_of(result: Result) -> pa.Table:
    assert not result.failed
    return pq.read_table(result.cells_path).drop_columns(["seam"])


def same_rows(found: pa.Table, expected: pa.Table) -> None:
    assert found.schema == expected.schema
    for name in expected.column_names:
        if pa.types.is_floating(expected.schema.field(name).type):
            pair = found[name].to_numpy(), expected[name].to_numpy()
            np.testing.assert_allclose(*pair, rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            assert found[name].equals(expected[name]), name


def test_no_tiling_and_no_window_changes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, pixels = image(4)
    head = 'images = "a.ome.tif"\n[model]\nname = "threshold"\nchannels = [0]\n'
    write(tmp_path, head)
    both = np.stack([labels.astype(np.uint16), *pixels])
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", both, metadata=metadata)
    expected = rows_of(run(workflow(tmp_path, "whole", "tiling.size=512"), CPU, Exact()))
    names = ["0", "1", "2"]
    truth = measure(labels, both, ids_in(labels), names, settings=SETTINGS, pixel_um=(0.5, 0.5))
    order = np.lexsort((truth["x_px"], truth["y_px"]))
    for name, values in truth.items():
        got = expected[name].to_numpy()
        np.testing.assert_allclose(got, values[order], rtol=1e-9, atol=1e-9, err_msg=name)
    monkeypatch.setattr(table, "READ", 90)
    monkeypatch.setattr(table, "WINDOW", 40)
    for size, halo in ((64, 24), (48, 12)):
        tiles = f"tiling.size={size}", f"tiling.halo={halo}"
        same_rows(rows_of(run(workflow(tmp_path, f"t{size}", *tiles), CPU, Exact())), expected)


def test_cells_that_overlap_are_among_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (150, 160)
    known: Instances = discs(2, shape, 40, (3, 12))
    levels = np.random.default_rng(1).integers(0, LEVELS, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", levels)
    write(tmp_path, 'images = "a.tif"\n[tiling]\nskip_background = false\n')
    whole = rows_of(run(workflow(tmp_path, "whole"), CPU, Known(known)))
    assert len(np.unique(whole["layer"].to_numpy())) > 1
    monkeypatch.setattr(table, "READ", 70)
    monkeypatch.setattr(table, "WINDOW", 50)
    tiles = "tiling.size=48", "tiling.halo=30"
    same_rows(rows_of(run(workflow(tmp_path, "tiled", *tiles), CPU, Known(known))), whole)
    centres = np.stack([whole["y_px"].to_numpy(), whole["x_px"].to_numpy()], axis=1)
    apart = np.sort(np.linalg.norm(centres[:, None] - centres, axis=2), axis=1)
    np.testing.assert_allclose(whole["nearest_px"].to_numpy(), apart[:, 1], atol=1e-9)


def test_volumes_by_any_tiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.stack([ellipsoids(seed, (8, 60, 70), 40, apart=2, touching=True) for seed in (1, 2)])
    metadata = {"axes": "TZYX", "spacing": 0.5, "unit": "um"}
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, truth, imagej=True, resolution=(4.0, 4.0), metadata=metadata)
    write(tmp_path, 'images = "v.tif"\n')
    expected = rows_of(run(workflow(tmp_path, "whole", "link.least_planes=1"), CPU, Exact()))
    monkeypatch.setattr(volume_table, "WINDOW", 30)
    monkeypatch.setattr(volume_table, "PLANES", 3)
    tiles = "link.least_planes=1", "tiling.size=32", "tiling.halo=24"
    same_rows(rows_of(run(workflow(tmp_path, "tiled", *tiles), CPU, Exact())), expected)
    for t in (0, 1):
        there = expected["t"].to_numpy() == t
        centres = np.stack([expected[f"{axis}_um"].to_numpy()[there] for axis in "zyx"], axis=1)
        apart = np.sort(np.linalg.norm(centres[:, None] - centres, axis=2), axis=1)
        nearest = expected["nearest_um"].to_numpy()[there]
        np.testing.assert_allclose(nearest, apart[:, 1], atol=1e-9)


def test_centres_are_found_in_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, _ = image(6)
    tifffile.imwrite(tmp_path / "a.tif", labels.astype(np.uint16))
    write(tmp_path, 'images = "a.tif"\n')
    expected = rows_of(run(workflow(tmp_path, "one"), CPU, Exact()))
    for module in (orders, tasks, region):
        monkeypatch.setattr(module, "RUN", 5)
    monkeypatch.setattr(orders.runs, "__defaults__", (5,))
    same_rows(rows_of(run(workflow(tmp_path, "many"), CPU, Exact())), expected)


def test_a_distance_in_um_needs_the_size_of_a_pixel(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), np.uint16))
    write(tmp_path, 'images = "a.tif"\n')
    asked = workflow(tmp_path, "out", "measure.neighbour_distance_um=20")
    with pytest.raises(CellsegError, match="neighbour_distance_um is given, but the size"):
        plan(asked, CPU, Exact())
