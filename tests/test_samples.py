"""Training reads cells that overlap as layers, from every form of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers
from cellseg.models.settings import NetworkSettings, TrainSettings
from cellseg.pipeline.coco import rle_of
from cellseg.pipeline.samples import median_diameter, read_samples
from cellseg.pipeline.to_masks import write_stack
from synthetic import discs

SHAPE = (70, 80)
CELLS = {f"f {seed}": discs(seed, SHAPE, 8) for seed in range(3)}


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    """Three images, and no labels yet."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in CELLS:
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", np.eye(*SHAPE, dtype=np.uint16))
    return TrainSettings(
        images=(str(tmp_path / "images"),), labels=(str(tmp_path / "labels"),), validation=0.3
    )


def write_coco(path: Path) -> None:
    """All cells, those with an odd number of the second class."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, cells) in enumerate(CELLS.items()):
        images.append({"id": number, "file_name": f"{name}.png", "height": 70, "width": 80})
        for i, (y0, x0, _, _) in enumerate(cells.boxes.tolist()):
            rle = rle_of((y0, x0), cells.masks[i], SHAPE)
            category = {"category_id": 10 + i % 2}
            annotations.append({"image_id": number, "segmentation": rle} | category)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


def check(settings: TrainSettings) -> None:
    training, validation = read_samples(settings)
    assert (len(training), len(validation)) == (2, 1)
    for sample in (*training, *validation):
        cells, expected = from_layers(sample.labels), CELLS[sample.name]
        assert len(sample.labels) > 1
        assert np.array_equal(cells.boxes, expected.boxes)
        assert all(map(np.array_equal, cells.masks, expected.masks))
    areas = np.concatenate([CELLS[sample.name].areas() for sample in training])
    diameters = 2 * np.sqrt(areas / np.pi)
    assert median_diameter(training) == pytest.approx(float(np.median(diameters)))


def test_stacks_are_read_whole(settings: TrainSettings) -> None:
    for name, cells in CELLS.items():
        write_stack(Path(settings.labels[0]) / f"{name}.tif", cells, SHAPE)
    check(settings)


def test_a_coco_file_or_a_folder_of_one_holds_the_labels_of_all(
    settings: TrainSettings, tmp_path: Path
) -> None:
    write_coco(Path(settings.labels[0]) / "all.json")
    check(settings)
    file = str(tmp_path / "labels" / "all.json")
    check(settings.model_copy(update={"labels": (file,)}))


def test_categories_are_classes_where_the_network_has_some(settings: TrainSettings) -> None:
    write_coco(Path(settings.labels[0]) / "all.json")
    assert all(sample.classes is None for sample in read_samples(settings)[0])
    two = settings.model_copy(update={"network": NetworkSettings(classes=2)})
    for sample in read_samples(two)[0]:
        assert sample.classes is not None
        assert sample.classes.tolist() == [0, 1, 2, 1, 2, 1, 2, 1, 2]
    file = Path(settings.labels[0]) / "all.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["category_id"] = 12
    file.write_text(json.dumps(document))
    with pytest.raises(CellsegError, match="category 3 of f 0, the network knows 1 to 2"):
        read_samples(two)


def test_each_covered_cell_has_the_class_of_most_of_its_pixels(
    settings: TrainSettings, tmp_path: Path
) -> None:
    square = np.ones((10, 10), bool)
    cells = Instances.stack([((5, 5), square, 1.0, 1), ((5, 8), square, 1.0, 1)])
    kinds = np.zeros(SHAPE, np.uint8)
    kinds[5:15, 5:12], kinds[5:15, 12:18] = 2, 1
    (tmp_path / "classes").mkdir()
    for name in CELLS:
        write_stack(Path(settings.labels[0]) / f"{name}.tif", cells, SHAPE)
        tifffile.imwrite(tmp_path / "classes" / f"{name}.tif", kinds)
    update = {
        "class_images": (str(tmp_path / "classes"),),
        "network": NetworkSettings(classes=2),
    }
    for sample in read_samples(settings.model_copy(update=update))[0]:
        assert sample.classes is not None
        assert sample.classes[1:].tolist() == [2, 1]


def test_a_stack_of_another_size_is_refused(settings: TrainSettings) -> None:
    for name, cells in CELLS.items():
        write_stack(Path(settings.labels[0]) / f"{name}.tif", cells, (90, 90))
    with pytest.raises(CellsegError, match=r"\(90, 90\) px do not fit the image's \(70, 80\)"):
        read_samples(settings)
