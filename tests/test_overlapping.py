"""Cells that overlap come out whole, in layers: the same for any tiling, workers or death."""

from __future__ import annotations

import csv
import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05 import Labels

from cellseg.models import CellsegError, Instances
from cellseg.pipeline import Config, Result, Workflow, pyramid, read_workflow, run
from cellseg.pipeline.files import own_name
from cellseg.pipeline.image import open_image
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.job import Job
from cellseg.pipeline.keys import Keys
from cellseg.pipeline.ome_zarr import label_layers
from cellseg.pipeline.overview import OUTLINE, SHARED
from cellseg.pipeline.pictures import read_picture
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run
from cellseg.pipeline.tiles import Box
from exact import LEVELS, Known
from synthetic import discs

CPU = Config(device="cpu")
MAY_DIFFER = ("run.json", "workflow.toml", "report.html")
"""Files that say when and where a run was."""
SHAPE = (300, 340)
Rows = list[dict[str, Any]]


@pytest.fixture
def cells() -> Instances:
    """Discs up to four deep, one of them larger than any halo."""
    large = discs(5, SHAPE, 1, (60, 61))
    return Instances.concatenate([discs(3, SHAPE, 110), large])


def write(folder: Path, shape: tuple[int, int], planes: int = 1, size: int = 96) -> Path:
    """Write an image of noise, whose cells are told by the segmenter alone, and a workflow."""
    random = np.random.default_rng(planes)
    levels = (
        random.integers(0, LEVELS, (planes, *shape)) + np.arange(planes)[:, None, None] * LEVELS
    )
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        folder / "a.tif", levels.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"}
    )
    text = 'images = "a.tif"\n[normalise]\nmethod = "none"\n[tiling]\nskip_background = false\n'
    (folder / "w.toml").write_text(f"{text}size = {size}\nhalo = 32\n[output]\ncsv = true\n")
    return folder / "w.toml"


def workflow(toml: Path, name: str, *overrides: str) -> Workflow:
    return read_workflow(toml, overrides, output=toml.parent / name)


def layers_of(here: ImageResults, z: int = 0) -> NDArray[np.uint32]:
    """Return the layers of a plane, (L, H, W)."""
    labels = here.labels
    return np.stack([labels.read(0, z, Box(0, 0, *SHAPE), layer=n) for n in range(labels.layers)])


def in_order(cells: Instances) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the order of the cells' labels in one plane, and their centres, by their pixels."""
    centres = []
    for box, mask in zip(cells.boxes, cells.masks, strict=True):
        y, x = mask.nonzero()
        centres.append((box[0] + y.mean(), box[1] + x.mean()))
    found = np.array(centres).reshape(-1, 2)
    return np.lexsort((found[:, 1], found[:, 0])), found


def full(cells: Instances, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return all masks in the size of the plane, bool (N, H, W), in the order of labels."""
    masks = np.zeros((len(cells), *shape), bool)
    for row, index in enumerate(in_order(cells)[0].tolist()):
        masks[row][Box(*cells.boxes[index].tolist()).slices] = cells.masks[index]
    return masks


def table(result: Result, *without: str) -> Rows:
    rows: Rows = pq.read_table(result.cells_path).to_pylist()
    return [{name: row[name] for name in row if name not in without} for row in rows]


def digest(folder: Path) -> dict[str, str]:
    """Hash every file of a results folder that must not depend on how the run went."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in MAY_DIFFER and path.suffix != ".log"
    }


def check(rows: Rows, layers: NDArray[np.uint32], cells: Instances, first: int = 1) -> None:
    """Compare labels and table with what numpy makes of the cells' masks."""
    masks = full(cells, SHAPE)
    depth = masks.sum(axis=0)
    assert np.array_equal((layers > 0).sum(axis=0), depth)
    assert [row["label"] for row in rows] == list(range(first, first + len(masks)))
    for row, mask in zip(rows, masks, strict=True):
        assert np.array_equal(layers[row["layer"] - 1] == row["label"], mask)
        others = np.flatnonzero((masks & mask).any(axis=(1, 2))) + first
        assert row["overlaps_with"] == [n for n in others.tolist() if n != row["label"]]
        assert row["overlap_px"] == np.count_nonzero(mask & (depth > 1))
        assert row["area_px"] == np.count_nonzero(mask)


def test_every_cell_comes_back_whole_and_its_row_says_with_whom_it_overlaps(
    tmp_path: Path, cells: Instances
) -> None:
    result = run(workflow(write(tmp_path, SHAPE), "out"), CPU, Known(cells))
    rows, here = table(result), result.image("a")
    layers = layers_of(here)
    check(rows, layers, cells)
    assert len(layers) == full(cells, SHAPE).sum(axis=0).max() == 4
    assert max(row["overlap_px"] for row in rows) > 0
    pixels = open_image(tmp_path / "a.tif").read(0, 0, Box(0, 0, *SHAPE), [0])[0].astype(int)
    for row, mask in zip(rows, full(cells, SHAPE), strict=True):
        assert row["sum_0"] == pixels[mask].sum()
        assert (row["y_px"], row["x_px"]) == pytest.approx(np.argwhere(mask).mean(axis=0))
    with (result.folder / "cells.csv").open(newline="") as file:
        for row, line in zip(rows, csv.DictReader(file), strict=True):
            assert line["overlaps_with"] == " ".join(map(str, row["overlaps_with"]))
            assert line["layer"] == str(row["layer"])
            assert line["overlap_px"] == str(row["overlap_px"])


def test_the_labels_are_a_group_of_label_images_that_open_one_by_one(
    tmp_path: Path, cells: Instances
) -> None:
    result = run(workflow(write(tmp_path, SHAPE), "out"), CPU, Known(cells))
    path = result.image("a").labels.path
    listed = Labels.from_zarr(zarr.open_group(path, mode="r")).ome_attributes.labels
    assert listed == ["cells", "cells_2", "cells_3", "cells_4"]
    paths = label_layers(path)
    assert paths == [path / name for name in listed]
    read = [open_image(each).read(0, 0, Box(0, 0, *SHAPE), [0])[0] for each in paths]
    assert np.array_equal(np.stack(read), layers_of(result.image("a")))


@pytest.mark.parametrize("size", [48, 100, 200])
def test_tiling_changes_no_layer_and_no_row(tmp_path: Path, cells: Instances, size: int) -> None:
    toml = write(tmp_path, SHAPE)
    whole = run(workflow(toml, "whole", "tiling.size=1024"), CPU, Known(cells))
    tiled = run(workflow(toml, "tiled", f"tiling.size={size}"), CPU, Known(cells))
    assert np.array_equal(layers_of(tiled.image("a")), layers_of(whole.image("a")))
    assert table(tiled, "seam") == table(whole, "seam")


def test_planes_are_spread_over_layers_one_by_one(tmp_path: Path) -> None:
    planes = [discs(0, SHAPE, 60), Instances.empty(), discs(1, SHAPE, 3), discs(2, SHAPE, 90)]
    toml = write(tmp_path, SHAPE, 4)
    result = run(workflow(toml, "out", "link.z=false"), CPU, Known(*planes))
    rows: Rows = table(result)
    for z, cells in enumerate(planes):
        mine = [row for row in rows if row["z"] == z]
        first = mine[0]["label"] if mine else 1
        check(mine, layers_of(result.image("a"), z), cells, first)
    assert len(rows) == sum(map(len, planes))


@pytest.fixture
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several regions, and cells that reach over their borders."""
    monkeypatch.setattr(pyramid, "CHUNK", 64)
    monkeypatch.setattr(pyramid, "SHARD", 64)


@pytest.mark.usefixtures("small_regions")
def test_regions_add_up_to_the_same_as_one(tmp_path: Path, cells: Instances) -> None:
    result = run(workflow(write(tmp_path, SHAPE), "out"), CPU, Known(cells))
    check(table(result), layers_of(result.image("a")), cells)


def test_two_workers_write_the_same_bytes_as_one(tmp_path: Path, cells: Instances) -> None:
    toml = write(tmp_path, SHAPE)
    one = run(workflow(toml, "one"), CPU, Known(cells))
    two = run(workflow(toml, "two"), Config(device="cpu", workers=2, threads=1), Known(cells))
    assert not two.failed
    assert digest(one.folder) == digest(two.folder)


@pytest.mark.usefixtures("small_regions")
def test_left_between_any_two_units_a_run_ends_in_the_same_bytes(
    tmp_path: Path, cells: Instances
) -> None:
    toml = write(tmp_path, (SHAPE), size=150)
    expected = run(workflow(toml, "whole"), CPU, Known(cells))
    left_in = set()
    settings = workflow(toml, "left")
    while True:
        steps = Run(plan(settings, CPU, Known(cells)), CPU).steps()
        step = next(steps)
        del steps
        if step.report is not None:
            break
        left_in.add(step.stage)
    result = run(settings, CPU, Known(cells))
    assert {"segment", "complete", "share", "layer", "paint"} <= left_in
    assert digest(result.folder) == digest(expected.folder)
    assert list(result.images[0].seconds) == []


SLOW = """
import sys
sys.path.insert(0, {tests!r})
from exact import Known
from synthetic import discs
from cellseg.pipeline import Config, pyramid, read_workflow, run

pyramid.CHUNK = pyramid.SHARD = 64
run(read_workflow({toml!r}, output={output!r}), Config(device="cpu"), Known(discs(3, {shape}, 110)))
"""


@pytest.mark.usefixtures("small_regions")
def test_killed_at_any_moment_a_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    toml, known = write(tmp_path, SHAPE), Known(discs(3, SHAPE, 110))
    expected = run(workflow(toml, "whole"), CPU, known)
    output = tmp_path / "killed"
    script = SLOW.format(
        tests=str(Path(__file__).parent), toml=str(toml), output=str(output), shape=SHAPE
    )
    for stage in ("share", "overlaps", "layer", "paint", "measure"):
        process = subprocess.Popen([sys.executable, "-c", script])
        while process.poll() is None and not list(output.glob(f"images/a/work/{stage}/*/*")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    result = run(workflow(toml, "killed"), CPU, known)
    assert digest(result.folder) == digest(expected.folder)
    assert not list(result.folder.rglob("*.partial"))


@pytest.mark.usefixtures("small_regions")
@pytest.mark.parametrize("stage", ["share", "overlaps"])
def test_a_full_disk_ends_the_run_and_it_goes_on_when_there_is_room(
    tmp_path: Path, cells: Instances, stage: str
) -> None:
    toml, known = write(tmp_path, SHAPE), Known(cells)
    expected = run(workflow(toml, "expected"), CPU, known)
    planned = plan(workflow(toml, "out"), CPU, known)
    work = planned.results.image("a").folder / "work"
    steps = Run(planned, CPU).steps()
    while not (work / "run").is_dir():
        next(steps)
    del steps
    home = work / stage / Keys.of(planned.scenes[0]).labels
    home.mkdir(parents=True, exist_ok=True)
    # Nothing that is written to this device finds room.
    (home / f"0000000.safetensors{own_name()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        run(workflow(toml, "out"), CPU, known)
    result = run(workflow(toml, "out"), CPU, known)
    assert digest(result.folder) == digest(expected.folder)


def test_measured_again_the_rows_still_say_what_overlaps(tmp_path: Path, cells: Instances) -> None:
    toml = write(tmp_path, SHAPE)
    first: Result = run(workflow(toml, "out"), CPU, Known(cells))
    before, labels = table(first), digest(first.image("a").labels.path)
    groups = 'measure.groups=["shape"]'
    again = run(workflow(toml, "out", groups), CPU, Known(cells))
    assert list(again.images[0].seconds) == ["order", "measure", "finish"]
    assert digest(again.image("a").labels.path) == labels
    rows = table(again)
    assert rows == [{name: row[name] for name in rows[0]} for row in before]
    assert rows == table(run(workflow(toml, "fresh", groups), CPU, Known(cells)))


def test_labels_of_the_earlier_layout_are_made_anew(tmp_path: Path, cells: Instances) -> None:
    toml = write(tmp_path, SHAPE)
    expected = run(workflow(toml, "expected"), CPU, Known(cells))
    old = tmp_path / "out" / "images" / "a" / "labels.zarr"
    group = zarr.create_group(old, zarr_format=3)
    group.create_array("0", shape=SHAPE, dtype="uint32")[:] = 3
    group.attrs.put({"ome": {"multiscales": []}, "cellseg": {"key": "of an earlier format"}})
    result = run(workflow(toml, "out"), CPU, Known(cells))
    assert digest(result.folder) == digest(expected.folder)


def test_without_overlap_there_is_one_layer(tmp_path: Path, cells: Instances) -> None:
    toml, apart = write(tmp_path, SHAPE), cells.disjoint()
    kept = run(workflow(toml, "kept"), CPU, Known(apart))
    resolved = run(workflow(toml, "resolved"), CPU, Known(apart, overlap="resolve"))
    for result in (kept, resolved):
        check(table(result), layers_of(result.image("a")), apart)
        assert result.image("a").labels.layers == 1
        assert {tuple(row["overlaps_with"]) for row in table(result)} == {()}
    assert {"share", "layer"} <= set(kept.images[0].seconds)
    assert not {"share", "layer"} & set(resolved.images[0].seconds)


def test_what_is_done_with_overlap_is_part_of_what_identifies_a_run(
    tmp_path: Path, cells: Instances
) -> None:
    toml = write(tmp_path, SHAPE)
    resolved = run(workflow(toml, "out"), CPU, Known(cells, overlap="resolve"))
    assert resolved.image("a").labels.layers == 1
    kept = run(workflow(toml, "out"), CPU, Known(cells))
    check(table(kept), layers_of(kept.image("a")), cells)
    keyless = Known(cells)
    del keyless.overlap
    again = run(workflow(toml, "out"), CPU, keyless)
    assert table(again) == table(run(workflow(toml, "r"), CPU, Known(cells, overlap="resolve")))


def test_another_word_for_overlap_is_refused(tmp_path: Path, cells: Instances) -> None:
    known = Known(cells, overlap="both")  # type: ignore[arg-type]
    with pytest.raises(CellsegError, match="segmenter Known: overlap is 'both'; it must be"):
        run(workflow(write(tmp_path, SHAPE), "out"), CPU, known)


def test_equal_masks_are_one_cell(tmp_path: Path) -> None:
    one = discs(0, SHAPE, 20)
    twice = Instances.concatenate([one, one.take(range(10))])
    result = run(workflow(write(tmp_path, SHAPE, size=1024), "out"), CPU, Known(twice))
    check(table(result), layers_of(result.image("a")), one)


def test_an_image_without_cells_has_one_empty_layer(tmp_path: Path) -> None:
    result = run(workflow(write(tmp_path, SHAPE), "out"), CPU, Known(Instances.empty()))
    here = result.image("a")
    assert result.cells == 0
    assert not layers_of(here).any()
    assert here.labels.layers == 1
    names = pq.read_table(result.cells_path).column_names
    assert names[12:16] == ["area_um2", "layer", "overlap_px", "overlaps_with"]


def test_five_thousand_cells_in_one_tile(tmp_path: Path) -> None:
    shape = (800, 800)
    cells = discs(0, shape, 5000, (5, 9))
    toml = write(tmp_path, shape, size=1024)
    result = run(workflow(toml, "out", "output.csv=false"), CPU, Known(cells))
    found = pq.read_table(result.cells_path)
    labels, depth = result.image("a").labels, np.zeros(shape, int)
    for box, mask in zip(cells.boxes.tolist(), cells.masks, strict=True):
        depth[Box(*box).slices] += mask
    layers = [labels.read(0, 0, Box(0, 0, *shape), layer=n) for n in range(labels.layers)]
    assert np.array_equal(sum((layer > 0).astype(int) for layer in layers), depth)
    assert sum(found["area_px"].to_pylist()) == depth.sum()
    areas = np.array(found["area_px"]), np.array(found["overlap_px"])
    assert (areas[1] <= areas[0]).all()


def test_outlines_of_covered_cells_show_through(tmp_path: Path) -> None:
    square = np.ones((60, 60), bool)
    cells = Instances.stack([((50, 50), square, 0.9, 1), ((80, 80), square, 0.8, 1)])
    result = run(workflow(write(tmp_path, SHAPE, size=1024), "out"), CPU, Known(cells))
    picture = read_picture(result.image("a").overview_path)
    assert tuple(picture[50, 70]) == tuple(picture[139, 100]) == OUTLINE
    # The edges of each inside the other.
    assert tuple(picture[80, 95]) == tuple(picture[109, 95]) == SHARED
    assert tuple(picture[95, 80]) == tuple(picture[95, 109]) == SHARED
    assert len(set(picture[95, 95].tolist())) == 1


def test_a_job_without_overlap_has_no_stages_for_it(tmp_path: Path, cells: Instances) -> None:
    for overlap, added in (("keep", {"share", "layer"}), ("resolve", set())):
        known = Known(cells, overlap=overlap)  # type: ignore[arg-type]
        planned = plan(workflow(write(tmp_path, SHAPE), "out"), CPU, known)
        job = Job(planned.scenes[0], planned.results)
        assert set(job.route()) - {"share", "layer"} | added == set(job.route())
        assert job.rules.overlapping == (overlap == "keep")
