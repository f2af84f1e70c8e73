"""A plate in the results: valid at any moment, lists what is there, has the input's pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v05
import pyarrow.parquet as pq
import pytest
import zarr

from cellseg.models.errors import CellsegError
from cellseg.pipeline import Config, Result, read_workflow, run
from cellseg.pipeline.evaluate import evaluate_paths
from cellseg.pipeline.export import Export
from cellseg.pipeline.image import open_image
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run
from exact import Exact
from plates import write_image, write_plate
from synthetic import cells

CPU = Config(device="cpu")
GROUPS = ("B/03/0", "B/03/1", "C/3/0")
versions = pytest.mark.parametrize("version", ["0.4", "0.5"])


def truth(number: int) -> Any:
    return cells(number, shape=(120, 140), count=20)[1].astype(np.uint16)


def setting(folder: Path, version: str, **options: Any) -> Path:
    """Write a plate whose grey levels are the labels, and a workflow for it."""
    fields = {group: truth(number) for number, group in enumerate(GROUPS)}
    write_plate(folder / "in.zarr", fields, version, **options)
    text = 'images = "in.zarr"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 96\nhalo = 20\n'
    (folder / "w.toml").write_text(text)
    return folder


def done(folder: Path, *overrides: str) -> Result:
    workflow = read_workflow(folder / "w.toml", overrides, output=folder / "results")
    return run(workflow, CPU, Exact())


def check(folder: Path, groups: tuple[str, ...] = GROUPS) -> zarr.Group:
    """Validate the plate in the results and all that it lists."""
    group = zarr.open_group(str(folder / "results" / "plate.zarr"), mode="r")
    plate = ome_zarr_models.v05.HCS.from_zarr(group)
    listed = [
        f"{well.path}/{image.path}"
        for well in plate.ome_attributes.plate.wells
        for image in ome_zarr_models.v05.Well.from_zarr(
            zarr.open_group(str(folder / "results" / "plate.zarr" / well.path), mode="r")
        ).ome_attributes.well.images
    ]
    assert listed == list(groups)
    return group


@versions
@pytest.mark.parametrize("separator", ["/", "."])
def test_a_plate_comes_out_as_a_plate(tmp_path: Path, version: str, separator: str) -> None:
    options: dict[str, Any] = {"channels": ("DAPI",), "axes": "yx"}
    if version == "0.4":
        options["chunk_key_encoding"] = {"name": "v2", "separator": separator}
    result = done(setting(tmp_path, version, **options))
    assert not result.failed
    check(tmp_path)
    assert {path.name for path in result.folder.iterdir()} == {
        "cells.parquet", "images.parquet", "wells.parquet", "overviews", "plate.zarr",
        "report.html", "run.json", "workflow.toml",
    }  # fmt: skip
    for number, name in enumerate(GROUPS):
        field = result.folder / "plate.zarr" / name
        opened = zarr.open_group(str(field), mode="r")
        ome_zarr_models.v05.Image.from_zarr(opened)
        ome_zarr_models.v05.Labels.from_zarr(opened["labels"])  # type: ignore[arg-type]
        ome_zarr_models.v05.ImageLabel.from_zarr(opened["labels/cells"])  # type: ignore[arg-type]
        image = open_image(field)
        assert image.channels == open_image(tmp_path / "in.zarr" / name).channels
        assert image.voxel == (1.0, 0.5, 0.5)
        pixels = np.asarray(image.pixels)[0, 0, 0]
        np.testing.assert_array_equal(pixels, truth(number))
        levels = [opened["1"][:], truth(number)[::2, ::2]]  # type: ignore[index]
        np.testing.assert_array_equal(*levels)
        labels = np.asarray(open_image(field / "labels").pixels)[0, 0, 0]
        np.testing.assert_array_equal(labels > 0, truth(number) > 0)
        table = pq.read_table(field / "tables" / "cells" / "table.parquet")
        assert table["label"].to_pylist() == list(range(1, labels.max() + 1))
        assert not [p for p in field.rglob("*") if p.name.endswith(".partial")]
    # No pixels were copied: one level of an input field is larger than all metadata.
    assert sum(p.is_symlink() for p in (result.folder / "plate.zarr").rglob("*")) >= 6


def test_the_plate_may_move_with_its_input(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    done(setting(tmp_path / "one", "0.4"))
    moved = Path(shutil.move(tmp_path / "one", tmp_path / "two"))
    image = open_image(moved / "results" / "plate.zarr" / "B" / "03" / "1")
    np.testing.assert_array_equal(np.asarray(image.pixels)[0, 0, 0], truth(1))


def test_only_what_is_done_is_listed_whenever_it_stops(tmp_path: Path) -> None:
    setting(tmp_path, "0.5")
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "results")
    going = Run(plan(workflow, CPU, Exact()), CPU)
    listed = []
    for step in going.steps():
        if step.report is not None:
            listed.append(step.report.place.group)  # type: ignore[union-attr]
            check(tmp_path, tuple(str(each) for each in listed))
        elif not listed:
            assert not (tmp_path / "results" / "plate.zarr" / "zarr.json").exists()
    assert listed == list(GROUPS)
    # A field whose input is another is taken from the lists before it is begun anew.
    write_image(tmp_path / "in.zarr" / GROUPS[0], truth(9))
    going = Run(plan(workflow, CPU, Exact()), CPU)
    steps = going.steps()
    next(steps)
    check(tmp_path, GROUPS[1:])
    for _ in steps:
        pass
    check(tmp_path)
    # And where nothing is left, there is no plate.
    shutil.rmtree(tmp_path / "in.zarr")
    write_plate(tmp_path / "in.zarr", {GROUPS[1]: truth(5)})
    going = Run(plan(workflow, CPU, Exact()), CPU)
    next(going.steps())
    assert not (tmp_path / "results" / "plate.zarr" / "zarr.json").exists()


def test_a_run_again_changes_nothing(tmp_path: Path) -> None:
    done(setting(tmp_path, "0.5"))
    before = {p: p.lstat().st_mtime_ns for p in (tmp_path / "results" / "plate.zarr").rglob("*")}
    assert done(tmp_path).cells
    after = {p: p.lstat().st_mtime_ns for p in (tmp_path / "results" / "plate.zarr").rglob("*")}
    assert before == after


def test_a_broken_field_costs_itself(tmp_path: Path) -> None:
    setting(tmp_path, "0.5")
    (tmp_path / "in.zarr" / GROUPS[1] / "zarr.json").write_text("{}")
    result = done(tmp_path)
    assert [report.name for report in result.failed] == ["in_B_03_1"]
    check(tmp_path, (GROUPS[0], GROUPS[2]))


def test_labels_are_found_by_evaluate_and_export(tmp_path: Path) -> None:
    result = done(setting(tmp_path, "0.4"))
    (tmp_path / "truth").mkdir()
    for number, group in enumerate(GROUPS):
        write_image(tmp_path / "truth" / f"in_{group.replace('/', '_')}.zarr", truth(number))
    pooled = evaluate_paths(result.folder, tmp_path / "truth").pooled
    assert {score.average_precision for score in pooled} == {1.0}
    assert list(Export(result.folder, "coco").steps()) == [
        report.name for report in result.images
    ]  # fmt: skip
    document = json.loads((result.folder / "cells.coco.json").read_text())
    assert len(document["annotations"]) == result.cells


def test_acquisitions_stay(tmp_path: Path) -> None:
    numbers = {"B/03/0": 1, "B/03/1": 4, "C/3/0": 4}
    done(setting(tmp_path, "0.4", acquisitions=numbers))
    group = check(tmp_path)
    ome: Any = group.attrs["ome"]
    assert [each["id"] for each in ome["plate"]["acquisitions"]] == [1, 4]
    well: Any = group["B/03"].attrs["ome"]
    assert [each["acquisition"] for each in well["well"]["images"]] == [1, 4]


def test_several_plates_are_written_by_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_plate(tmp_path / name / "p.zarr", {"B/03/0": truth(1)})
    write_plate(tmp_path / "q.zarr", {"B/03/0": truth(2)})
    text = 'images = ["one/p.zarr", "two/p.zarr", "q.zarr"]\n[normalise]\nmethod = "none"\n'
    (tmp_path / "w.toml").write_text(text)
    result = done(tmp_path)
    assert {path.name for path in result.folder.glob("*.zarr")} == {"p.zarr", "p-2.zarr", "q.zarr"}
    assert len(pq.read_table(result.cells_path)) == result.cells > 0


def test_what_cannot_be_linked_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    setting(tmp_path, "0.4")
    array = tmp_path / "in.zarr" / GROUPS[0] / "0" / ".zarray"
    node = json.loads(array.read_text())
    array.write_text(json.dumps(node | {"filters": [{"id": "delta", "dtype": "<u2"}]}))
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "results")
    (report,) = plan(workflow, CPU, Exact()).unreadable
    words = "has the filter 'delta', which zarr v3 does not read"
    assert words in str(report.reason)
    assert report.reason is not None
    assert 'Set [output] images to "copy"' in report.reason
    (tmp_path / "w.toml").write_text('images = "in.zarr/B/03/0"\n')
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "results")
    with pytest.raises(CellsegError, match="delta"):
        plan(workflow, CPU, Exact())


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": None},
        {"compressors": {"id": "zstd", "level": 3}},
        {"compressors": {"id": "gzip", "level": 3}},
        {"compressors": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 2}},
        {"order": "F"},
        {"fill_value": 7},
    ],
    ids=str,
)
def test_every_way_of_storing_v2_can_be_linked(tmp_path: Path, options: dict[str, Any]) -> None:
    done(setting(tmp_path, "0.4", **options))
    image = open_image(tmp_path / "results" / "plate.zarr" / GROUPS[2])
    np.testing.assert_array_equal(np.asarray(image.pixels)[0, 0, 0], truth(2))


def test_plates_of_one_name_and_names_like_theirs_stay_apart(tmp_path: Path) -> None:
    for number, path in enumerate(("x/a.zarr", "y/a.zarr", "z/a-2.zarr")):
        (tmp_path / path).parent.mkdir()
        write_plate(tmp_path / path, {"A/1/0": truth(number)}, "0.5")
    (tmp_path / "w.toml").write_text(
        'images = ["x/a.zarr", "y/a.zarr", "z/a-2.zarr"]\n[normalise]\nmethod = "none"\n'
    )
    result = done(tmp_path)
    places = {(report.place.plate, report.place.group) for report in result.images if report.place}
    assert len(places) == 3
    assert len({plate for plate, _ in places}) == 3


def test_a_damaged_well_does_not_rename_the_plate(tmp_path: Path) -> None:
    here = setting(tmp_path, "0.4")
    shutil.move(here / "in.zarr" / "C", here / "aside")
    assert len(done(here).failed) == 1
    check(here, GROUPS[:2])
    shutil.move(here / "aside", here / "in.zarr" / "C")
    assert not done(here).failed
    check(here)


def test_labels_beside_their_image_have_its_scale(tmp_path: Path) -> None:
    here = setting(tmp_path, "0.5", scale=0.5)
    result = done(here, "pixel_size_um=0.7")
    field = result.folder / "plate.zarr" / "B" / "03" / "0"
    image, labels = open_image(field), open_image(field / "labels" / "cells")
    assert image.voxel == labels.voxel == (1.0, 0.5, 0.5)
    assert pq.read_table(result.cells_path)["area_um2"][0].as_py() == pytest.approx(
        pq.read_table(result.cells_path)["area_px"][0].as_py() * 0.49
    )
