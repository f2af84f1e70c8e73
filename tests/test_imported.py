"""Annotations become a training set that a training takes, with a list of what was left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from annotated import geojson_of, labelme, labelme_of, rois_of
from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers, to_layers
from cellseg.models.settings import TrainSettings
from cellseg.pipeline.cli import main
from cellseg.pipeline.imported import Import
from cellseg.pipeline.samples import read_samples
from cellseg.pipeline.training import read_fine_tuning
from cellseg.pipeline.training_set import TrainingSet
from synthetic import discs

SHAPE = (70, 80)
CELLS = {f"f{seed}": discs(seed, SHAPE, 8) for seed in range(3)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three grey pictures, as labelme shows them, and one in colours that nobody annotated."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, name in enumerate(CELLS):
        grey = np.random.default_rng(seed).integers(0, 255, SHAPE, np.uint8)
        picture = np.stack([grey] * 3, axis=2) if seed else grey
        (folder / f"{name}.png").write_bytes(imagecodecs.png_encode(picture))
    colours = np.zeros((*SHAPE, 3), np.uint8)
    colours[..., 1] = 7
    (folder / "bare.png").write_bytes(imagecodecs.png_encode(colours))
    return folder


def write(form: str, folder: Path) -> None:
    for name, cells in CELLS.items():
        if form == "labelme":
            labelme_of(folder / f"{name}.json", cells, SHAPE, f"{name}.png")
        elif form == "geojson":
            geojson_of(folder / f"{name}.geojson", cells)
        elif form == "rois":
            rois_of(folder / f"{name}_rois.zip", cells)
        else:
            tifffile.imwrite(folder / f"{name}.tif", to_layers(cells, SHAPE)[0].astype(np.uint16))


def trained(folder: Path) -> list[Sample]:
    settings = read_fine_tuning(folder, "nuclei")
    assert isinstance(settings, TrainSettings)
    training, validation = read_samples(settings)
    return [*training, *validation]


@pytest.mark.parametrize("form", ["labelme", "geojson", "rois", "labels"])
def test_what_is_imported_is_trained_on(images: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "drawn").mkdir()
    write(form, tmp_path / "drawn")
    going = Import(tmp_path / "drawn", images, tmp_path / "set")
    assert list(going.steps()) == list(CELLS)
    assert [str(each) for each in going.skipped] == [
        f"{images / 'bare.png'}: nothing is drawn in it; it is left out"
    ]
    samples = trained(tmp_path / "set")
    assert sorted(sample.name for sample in samples) == list(CELLS)
    for sample in samples:
        assert sample.image.shape == (1, *SHAPE)
        expected = CELLS[sample.name]
        if form == "labels":
            expected = from_layers(to_layers(expected, SHAPE)[:1])
        found = from_layers(sample.labels)
        assert np.array_equal(found.boxes, expected.boxes)
        assert all(map(np.array_equal, found.masks, expected.masks))


def test_files_that_give_nothing_are_listed(images: Path, tmp_path: Path) -> None:
    shapes: list[dict[str, Any]] = [{"shape_type": "point", "points": [[1, 2]]}]
    square = [{"points": [[2, 3], [8, 3], [8, 9], [2, 9]]}]
    labelme(images / "f0.json", shapes + square, SHAPE, "f0.png")
    labelme(images / "f1.json", shapes, SHAPE, "f1.png")
    labelme(images / "f2.json", square, (9, 9), "f2.png")
    labelme(images / "lost.json", square, SHAPE, "lost.png")
    labelme(images / "again.json", square, SHAPE, "f0.png")
    (images / "package.json").write_text("{}")
    (images / "f0_seg.npy").write_bytes(b"pickle")
    labelme(images / "bare.json", [], SHAPE, "bare.png")
    result = CliRunner().invoke(main, ["import", str(images), "-o", str(tmp_path / "set")])
    assert result.exit_code == 1
    assert "2 images with 1 cells" in result.output
    report = (tmp_path / "set" / "report.txt").read_text().splitlines()
    told = [line.replace(f"{images}/", "") for line in report]
    assert told[0] == f"2 images with 1 cells in {tmp_path / 'set'}"
    assert "skipped: f0.json: again.json is of an image f0 too" in told
    assert f"skipped: lost.json: no image lost in {images}" in told
    assert "skipped: f2.png: f2.json: drawn over 9 x 9 px, the image has 70 x 80 px" in told
    assert any("package.json: no COCO file" in line for line in told)
    assert any("f0_seg.npy: a pickle of CellPose" in line for line in told)
    assert any("f1.json: shape 1 (cell): a point, which is no area" in line for line in told)
    assert any("f1.png: none of its shapes is a cell" in line for line in told)
    # A picture in which nothing was drawn shows what is no cell.
    assert TrainingSet(tmp_path / "set").names() == ["bare", "f0"]
    assert not tifffile.imread(tmp_path / "set" / "labels" / "bare.tif").any()
    assert tifffile.imread(tmp_path / "set" / "images" / "bare.tif").shape == (3, *SHAPE)


def test_label_images_below_zero_are_no_cells(images: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    for name, value in (("f0", -1), ("f1", 3)):
        labels = np.zeros(SHAPE, np.int16)
        labels[5:9, 5:9] = value
        tifffile.imwrite(tmp_path / "drawn" / f"{name}.tif", labels)
    going = Import(tmp_path / "drawn", images, tmp_path / "set")
    list(going.steps())
    assert going.cells == 1
    assert any("labels below 0. Renumber them" in str(each) for each in going.skipped)


def test_classes_are_chosen_by_name(images: Path, tmp_path: Path) -> None:
    square = [[2, 3], [8, 3], [8, 9], [2, 9]]
    shapes = [
        {"points": [[x + 20 * n, y] for x, y in square], "label": label}
        for n, label in enumerate(("dead", "live", "dirt"))
    ]
    labelme(images / "f1.json", shapes, SHAPE, "f1.png")
    arguments = ["import", str(images / "f1.json"), "--images", str(images), "--channel", "0"]
    arguments += ["--classes", "live, dead", "-o", str(tmp_path / "set")]
    result = CliRunner().invoke(main, arguments)
    assert "1 images with 2 cells" in result.output
    assert "called dirt, which is not asked for" in result.output
    kinds = tifffile.imread(tmp_path / "set" / "classes" / "f1.tif")
    assert [kinds[5, 4], kinds[5, 24], kinds[5, 44]] == [2, 1, 0]
    assert "--classes" not in (tmp_path / "set" / "report.txt").read_text()
    arguments[-3] = "dead, alive"
    assert "--classes: no cell is called alive" in CliRunner().invoke(main, arguments).output


def test_one_image_and_one_file_belong_together(images: Path, tmp_path: Path) -> None:
    rois_of(tmp_path / "RoiSet.zip", CELLS["f0"])
    going = Import(tmp_path / "RoiSet.zip", images / "f2.png", tmp_path / "set")
    assert (list(going.steps()), going.cells, going.skipped) == (["f2"], 8, [])
    with pytest.raises(CellsegError, match="none of its images"):
        Import(tmp_path / "RoiSet.zip", images, tmp_path / "set")
    with pytest.raises(CellsegError, match="no images"):
        Import(tmp_path / "RoiSet.zip", tmp_path / "nowhere", tmp_path / "set")


def test_nothing_to_import_is_an_error(images: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(CellsegError, match=r"a\.json: nothing to import\. .*no COCO file"):
        Import(tmp_path / "a.json", images, tmp_path / "set")


def test_an_image_that_is_added_again_takes_the_place_of_the_old(tmp_path: Path) -> None:
    written, pixels = TrainingSet(tmp_path / "set"), np.zeros((1, *SHAPE), np.uint16)
    written.add("a", pixels, CELLS["f0"])
    assert (tmp_path / "set" / "labels" / "a.zarr").is_dir()
    written.add("a", pixels, Instances.empty(), classed=True)
    names = sorted(str(p.relative_to(tmp_path / "set")) for p in (tmp_path / "set").glob("*/*"))
    assert names == ["classes/a.tif", "images/a.tif", "labels/a.tif"]
