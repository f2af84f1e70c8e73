"""OME-Zarr plates: every good field is found, and what is damaged costs no more than itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr

from cellseg.models.errors import CellsegError
from cellseg.pipeline import Config, read_workflow
from cellseg.pipeline.plan import Plan, plan
from cellseg.pipeline.plate import Field, discover
from plates import noise, write_group, write_image, write_plate

versions = pytest.mark.parametrize("version", ["0.4", "0.5"])
GROUPS = ("B/03/0", "B/03/1", "A/10/0", "A/2/0")


def fields(path: Path, pattern: str | None = None) -> list[Field]:
    return discover([path], pattern)


def planned(folder: Path, images: str, *overrides: str) -> Plan:
    (folder / "w.toml").write_text(f'images = "{images}"\n[model]\nname = "threshold"\n')
    workflow = read_workflow(folder / "w.toml", overrides, output=folder / "results")
    return plan(workflow, Config(device="cpu"))


@versions
def test_a_plate_is_its_fields(tmp_path: Path, version: str) -> None:
    path = tmp_path / "My plate.zarr"
    write_plate(path, dict.fromkeys(GROUPS, noise(40, 50)), version)
    model = ome_zarr_models.v04.HCS if version == "0.4" else ome_zarr_models.v05.HCS
    model.from_zarr(zarr.open_group(str(path), mode="r"))
    found = fields(path)
    # Columns in the order of the plate, which lists them as text.
    assert [field.group for field in found] == ["A/10/0", "A/2/0", "B/03/0", "B/03/1"]
    assert [field.well for field in found] == ["A10", "A02", "B03", "B03"]
    assert [field.site for field in found] == ["0", "0", "0", "1"]
    assert {field.plate for field in found} == {"My plate"}
    assert {field.acquisition for field in found} == {None}
    assert [field.name for field in found][2] == "My_plate_B_03_0"
    assert [field.path for field in found][2] == path / "B" / "03" / "0"
    # The same fields by a glob, or one of them, or a well: they know their plate.
    by_glob = discover([f"{path}/*/*/*"], None)
    assert sorted(by_glob, key=lambda field: field.name) == sorted(
        found, key=lambda field: field.name
    )
    assert fields(path / "B" / "03" / "1") == found[3:]
    assert fields(path / "B" / "03") == found[2:]
    # A field of a plate and the plate are no two images; a pattern is for file names.
    assert discover([path, path / "A" / "2" / "0"], "imagexpress") == found


@pytest.mark.parametrize(
    ("group", "well"),
    [("b/3/0", "B03"), ("AA/048/0", "AA48"), ("0/col7/0", "A07"), ("C/left/0", "C01")],
)
def test_a_well_has_one_spelling(tmp_path: Path, group: str, well: str) -> None:
    write_plate(tmp_path / "p.zarr", {group: noise(40, 50)})
    (field,) = fields(tmp_path / "p.zarr")
    assert (field.well, field.group) == (well, group)


@versions
def test_acquisitions_are_told_apart_where_there_are_several(tmp_path: Path, version: str) -> None:
    data = dict.fromkeys(("B/03/0", "B/03/1"), noise(40, 50))
    numbers = {"B/03/0": 3, "B/03/1": 7}
    write_plate(tmp_path / "p.zarr", data, version, acquisitions=numbers)
    assert [field.acquisition for field in fields(tmp_path / "p.zarr")] == ["3", "7"]
    write_plate(tmp_path / "q.zarr", data, version, acquisitions=dict.fromkeys(numbers, 3))
    assert [field.acquisition for field in fields(tmp_path / "q.zarr")] == [None, None]


@versions
def test_channels_and_pixel_size_of_a_field(tmp_path: Path, version: str) -> None:
    data = {"B/03/0": noise(2, 40, 50)}
    names = ("DAPI", "GFP")
    write_plate(tmp_path / "p.zarr", data, version, axes="cyx", channels=names, scale=0.325)
    (scene,) = planned(tmp_path, "p.zarr", 'model.channels=["GFP"]').scenes
    assert scene.channels == names
    assert scene.voxel == (1.0, 0.325, 0.325)
    assert scene.inputs.channels == (1,)
    assert scene.shape == (1, 2, 1, 40, 50)


def change(path: Path, version: str, kind: str, **parts: Any) -> None:
    """Replace keys of the plate or well metadata of a group."""
    file = path / (".zattrs" if version == "0.4" else "zarr.json")
    node = json.loads(file.read_text())
    (node if version == "0.4" else node["attributes"]["ome"])[kind].update(parts)
    file.write_text(json.dumps(node))


@versions
def test_what_is_damaged_costs_only_itself(tmp_path: Path, version: str) -> None:
    path = tmp_path / "p.zarr"
    groups = [*GROUPS, "C/03/0", "C/10/0", "C/2/0", "C/2/1"]
    write_plate(path, dict.fromkeys(groups, noise(40, 50)), version)
    listed = [{"path": group.rpartition("/")[0]} for group in groups]
    wells = [*listed, {"path": "Q/30"}, {"path": "A"}, {"path": "B/10"}]
    change(path, version, "plate", wells=wells)
    write_image(path / "Q" / "30" / "0", noise(40, 50), version=version)
    shutil.rmtree(path / "A" / "10")
    write_group(path / "B" / "03" / "1", {}, version)
    (path / "C" / "03" / ("zarr.json" if version == "0.5" else ".zattrs")).write_text("{")
    change(path / "C" / "10", version, "well", images=[])
    shutil.rmtree(path / "C" / "2" / "0")
    write_group(path / "B" / "10", {}, version)
    done = planned(tmp_path, "p.zarr")
    assert {scene.source.group for scene in done.scenes} == {"A/2/0", "B/03/0", "C/2/1"}
    reasons = {report.source.rpartition(".zarr/")[2]: report.reason for report in done.unreadable}
    for place, words in {
        "A/10": "p.zarr: lists the well A/10, which is not there.",
        "B/03/1": "B/03/1: not an OME-Zarr image: a zarr without multiscales metadata.",
        "C/03": "C/03: cannot be read: ",
        "C/10": "C/10: a well that lists no fields.",
        "C/2/0": "C/2/0: no such file or folder.",
        "Q/30": "p.zarr: lists the well Q/30, which is not on the plate: row 'Q' is none of A, B,",
        "A": "which is not on the plate: column '' is none of 03, 10, 2.",
        "B/10": "B/10: a well without metadata, so its fields are not known.",
    }.items():
        assert words in str(reasons.pop(place)), place
    assert not reasons
    assert len({report.name for report in done.unreadable}) == 8


@versions
@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"plate": {"wells": []}}, "a plate that lists no wells"),
        ({"plate": {}}, "cannot be read: 'wells'"),
        ({"plate": {"wells": ["A/1"]}}, "cannot be read: "),
        ({"bioformats2raw.layout": 3}, "a collection of images that holds none"),
        ({}, "a zarr without multiscales"),
    ],
)
def test_a_plate_without_anything_is_one_line(
    tmp_path: Path, metadata: dict[str, Any], words: str, version: str
) -> None:
    write_group(tmp_path / "p.zarr", metadata, version)
    with pytest.raises(CellsegError, match=rf"p\.zarr: .*{words}"):
        planned(tmp_path, "p.zarr")


@versions
def test_a_collection_is_a_folder_of_images(tmp_path: Path, version: str) -> None:
    path = tmp_path / "slides.zarr"
    write_group(path, {"bioformats2raw.layout": 3}, version)
    for number in (10, 2, 0):
        write_image(path / str(number), noise(40, 50, seed=number), version=version)
    found = fields(path)
    assert [field.name for field in found] == ["slides_0", "slides_2", "slides_10"]
    assert {(field.well, field.group, field.plate) for field in found} == {(None, None, None)}
    write_group(path / "OME", {"series": ["10", "0"]}, version)
    assert [field.name for field in fields(path)] == ["slides_10", "slides_0"]
    scenes = planned(tmp_path, "slides.zarr").scenes
    pixels = scenes[0].image.pixels.compute(scheduler="synchronous")
    np.testing.assert_array_equal(pixels[0, 0, 0], noise(40, 50, seed=10))


def test_two_plates_in_a_folder_are_both_read(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_plate(tmp_path / "in" / f"{name}.zarr", {"B/03/0": noise(40, 50)})
    found = fields(tmp_path / "in")
    assert [(field.plate, field.name) for field in found] == [
        ("one", "one_B_03_0"),
        ("two", "two_B_03_0"),
    ]
