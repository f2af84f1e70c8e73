"""What is exported from a results folder comes back cell by cell, and no file is half written."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import to_layers
from cellseg.pipeline import exported
from cellseg.pipeline.cli import main
from cellseg.pipeline.evaluate import evaluate_paths
from cellseg.pipeline.export import EXPORTERS, Export
from cellseg.pipeline.masks import find_masks
from cellseg.pipeline.results import Results
from cellseg.pipeline.table import FIRST
from cellseg.pipeline.tiles import Box
from synthetic import discs

SHAPE = (60, 70)
MASKS = ("coco", "masks")
"""The forms that `find_masks` reads back."""


def results(folder: Path, images: dict[str, list[Instances]]) -> Path:
    """A results folder of images with some planes of cells each, as a run leaves it."""
    written = Results(folder)
    for name, planes in images.items():
        rows, first = [], 1
        image = written.image(name)
        layered = [to_layers(cells, SHAPE) for cells in planes]
        count = max(len(layers) for layers in layered)
        image.labels.clear()
        image.labels.start("key", (1, len(planes), *SHAPE), None, count)
        for z, (cells, layers) in enumerate(zip(planes, layered, strict=True)):
            shifted = np.where(layers > 0, layers + first - 1, 0).astype(np.uint32)
            for layer, labels in enumerate(shifted):
                image.labels.paint(0, z, Box(0, 0, *SHAPE), partial(cut, labels), layer)
            for i, (y0, x0, y1, x1) in enumerate(cells.boxes.tolist()):
                layer = int(np.argmax([(part == first + i).any() for part in shifted]))
                rows.append(
                    {"image": name, "label": first + i, "t": 0, "z": z, "layer": layer + 1}
                    | {"y_px": (y0 + y1 - 1) / 2, "x_px": (x0 + x1 - 1) / 2}
                    | {"y0_px": y0, "x0_px": x0, "y1_px": y1, "x1_px": x1}
                    | {"class": int(cells.classes[i]), "score": float(cells.scores[i])}
                )
            first += len(cells)
        image.labels.finish(1, len(planes))
        schema = pa.schema([(column, FIRST[column]) for column in exported.COLUMNS])
        table = pa.Table.from_pylist(rows, schema=schema)
        image.write_cells("key", "key", [table] if rows else [], schema, {})
    states = [{"name": n, "source": f"/data/{n}.ome.tif", "state": "done"} for n in images]
    states.append({"name": "broken", "source": "/data/broken.tif", "state": "failed"})
    written.write_run({"images": states})
    return folder


def cut(labels: np.ndarray, box: Box) -> np.ndarray:
    return labels[box.slices]


def same(one: Instances, other: Instances) -> bool:
    return np.array_equal(one.boxes, other.boxes) and all(
        map(np.array_equal, one.masks, other.masks)
    )


def exports(folder: Path, form: str, output: Path | None = None) -> Path:
    going = Export(folder, form, output)
    assert list(going.steps()) == [image.name for image in going.images]
    return going.output


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(0, 3))
def test_every_form_gives_back_the_very_cells(
    tmp_path: Path, seed: int, count: int, other: int
) -> None:
    images = {"a": discs(seed, SHAPE, count), "b.c": discs(seed + 1, SHAPE, other)}
    folder = results(tmp_path / "out", {name: [cells] for name, cells in images.items()})
    for form in MASKS:
        found = find_masks(exports(folder, form))
        assert sorted(found) == ["a", "b.c"]
        for name, cells in images.items():
            back = found[name].read(1).instances()
            assert same(back, cells), form
            if form == "coco":
                assert back.scores.tolist() == cells.scores.tolist()


def test_a_pixel_under_several_cells_comes_back_as_often(tmp_path: Path) -> None:
    ones = np.ones((9, 9), bool)
    deep = Instances.stack([((5 + i, 5), ones, 1.0, 1) for i in range(4)])
    folder = results(tmp_path / "out", {"a": [deep]})
    stack = tifffile.imread(exports(folder, "masks") / "a.tif")
    assert stack.shape == (4, *SHAPE)
    assert stack.dtype == np.uint8
    assert set(np.unique(stack).tolist()) == {0, 255}
    assert (stack > 0).sum(axis=0)[:, 6].tolist() == [
        *[0] * 5, 1, 2, 3, 4, 4, 4, 4, 4, 4, 3, 2, 1, *[0] * 43,
    ]  # fmt: skip


def test_coco_says_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = discs(5, SHAPE, 30)
    cells = Instances(
        cells.boxes, cells.masks, cells.scores, (1 + np.arange(30) % 3).astype(np.uint8)
    )
    folder = results(tmp_path / "out", {"a": [cells]})
    whole = exports(folder, "coco", tmp_path / "elsewhere" / "c.json").read_bytes()
    document = json.loads(whole)
    assert document["images"] == [{"id": 1, "file_name": "a.ome.tif", "height": 60, "width": 70}]
    assert [category["id"] for category in document["categories"]] == [1, 2, 3]
    for i, one in enumerate(document["annotations"]):
        y0, x0, y1, x1 = cells.boxes[i].tolist()
        assert one["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert one["area"] == cells.masks[i].sum()
        assert (one["label"], one["image_id"], one["iscrowd"]) == (i + 1, 1, 0)
        assert one["category_id"] == cells.classes[i]
    # The same bytes however many cells are read together.
    monkeypatch.setattr(exported, "BATCH", 4)
    monkeypatch.setattr(exported, "WINDOW", 16)
    assert exports(folder, "coco").read_bytes() == whole


def test_each_plane_of_a_volume_is_an_image(tmp_path: Path) -> None:
    planes = [discs(1, SHAPE, 4), Instances.empty(), discs(2, SHAPE, 3)]
    folder = results(tmp_path / "out", {"v": planes})
    for form in MASKS:
        found = find_masks(exports(folder, form))
        assert sorted(found) == ["v_t0_z0", "v_t0_z1", "v_t0_z2"]
        for z, cells in enumerate(planes):
            assert same(found[f"v_t0_z{z}"].read(1).instances(), cells)
    names = [
        image["file_name"] for image in json.loads(exports(folder, "coco").read_text())["images"]
    ]
    assert names[0] == "v_t0_z0.ome.tif"


def test_the_sections_of_a_3d_cell_are_in_the_image_of_their_plane(tmp_path: Path) -> None:
    volume = np.zeros((3, *SHAPE), np.uint32)
    volume[:, 5:20, 5:20], volume[0, 30:35, 30:40], volume[2, 32:40, 30:36] = 1, 2, 2
    folder = results(tmp_path / "out", {"v": [Instances.empty()] * 3})
    image = Results(folder).image("v")
    image.labels.start("key", (1, 3, *SHAPE), None, 1)
    for z, plane in enumerate(volume):
        image.labels.paint(0, z, Box(0, 0, *SHAPE), partial(cut, plane))
    image.labels.finish(1, 3)
    boxes = [(5, 5, 20, 20), (30, 30, 40, 40)]
    same_in_both = {"image": "v", "t": 0, "z": 1, "z0_px": 0, "z1_px": 3, "layer": 1, "class": 1}
    rows = [
        same_in_both
        | {"label": n, "score": 1.0, "y_px": (y0 + y1) / 2, "x_px": (x0 + x1) / 2}
        | {"y0_px": y0, "x0_px": x0, "y1_px": y1, "x1_px": x1}
        for n, (y0, x0, y1, x1) in enumerate(boxes, 1)
    ]
    schema = pa.schema([(column, FIRST[column]) for column in exported.COLUMNS])
    image.write_cells("key", "key", [pa.Table.from_pylist(rows, schema=schema)], schema, {})
    for form in MASKS:
        found = find_masks(exports(folder, form))
        for z, plane in enumerate(volume):
            truth = Instances.from_labels(plane.astype(np.int32))
            assert same(found[f"v_t0_z{z}"].read(1).instances(), truth)


def test_an_export_scores_full_marks_against_its_results(tmp_path: Path) -> None:
    folder = results(tmp_path / "out", {"a": [discs(3, SHAPE, 9)], "b": [discs(4, SHAPE, 5)]})
    truth = exports(folder, "coco")
    found = evaluate_paths(folder, truth)
    assert {score.average_precision for score in found.pooled} == {1.0}
    assert sum(each.cells for each in found.recall) == 14
    assert all(each.matched == each.cells for each in found.recall)


def test_an_export_that_stops_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    folder = results(tmp_path / "out", {"a": [discs(3, SHAPE, 4)], "b": [discs(4, SHAPE, 4)]})
    going = Export(folder, "coco")
    going.output.write_text("old")
    steps = going.steps()
    next(steps)
    steps.close()
    assert going.output.read_text() == "old"
    assert [path.name for path in folder.iterdir() if "cells.coco" in path.name] == [
        "cells.coco.json"
    ]


def test_the_command_says_what_it_wrote_and_mistakes_in_one_line(tmp_path: Path) -> None:
    folder = results(tmp_path / "out", {"a": [discs(3, SHAPE, 4)]})

    def cellseg(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["export", *map(str, arguments)])
        return result.exit_code, result.output

    assert cellseg(folder, "--to", "coco") == (0, f"1 image in {folder / 'cells.coco.json'}\n")
    code, text = cellseg(folder, "--to", "masks", "-o", tmp_path / "stacks")
    assert (code, [path.name for path in (tmp_path / "stacks").iterdir()]) == (0, ["a.tif"])
    for arguments, words in (
        ((folder, "--to", "cocoa"), "Did you mean coco?"),
        ((tmp_path / "nowhere", "--to", "coco"), "no results folder of cellseg"),
    ):
        code, text = cellseg(*arguments)
        assert (code, len(text.splitlines())) == (2, 1), text
        assert words in text
    help_text = cellseg("--help")[1]
    assert all(exporter.output in help_text for exporter in EXPORTERS.values())


def test_results_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    folder = results(tmp_path / "out", {"a": [discs(3, SHAPE, 4)]})
    Results(folder).image("a").cells_path.unlink()
    with pytest.raises(CellsegError, match="Run the workflow again"):
        Export(folder, "coco")
    Results(folder).write_run({"images": []})
    with pytest.raises(CellsegError, match="none of its images is done"):
        Export(folder, "coco")
