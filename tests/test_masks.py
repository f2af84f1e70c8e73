"""Cells come whole from every form of file, and a stack is told from a volume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers, to_layers
from cellseg.pipeline.coco import rle_of
from cellseg.pipeline.masks import MaskSource, find_masks, read_pair
from cellseg.pipeline.to_masks import write_stack
from synthetic import discs

SHAPE = (30, 40)


def same(one: Instances, other: Instances) -> bool:
    return np.array_equal(one.boxes, other.boxes) and all(
        map(np.array_equal, one.masks, other.masks)
    )


def write_coco(path: Path, name: str, cells: Instances) -> Path:
    """One image, with compressed run lengths."""
    annotations: list[dict[str, Any]] = [
        {
            "image_id": 1,
            "category_id": class_,
            "segmentation": rle_of((box[0], box[1]), mask, SHAPE),
            "score": score,
        }
        for box, mask, class_, score in zip(
            cells.boxes.tolist(),
            cells.masks,
            cells.classes.tolist(),
            cells.scores.tolist(),
            strict=True,
        )
    ]
    image = {"id": 1, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]}
    categories = [{"id": 1}, {"id": 2}]
    document = {"images": [image], "annotations": annotations, "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def write_layers(path: Path, layers: np.ndarray) -> Path:
    """A group of label images, as a run writes it."""
    names = [f"cells_{i + 1}" if i else "cells" for i in range(len(layers))]
    group = zarr.create_group(path, zarr_format=3, overwrite=True)
    axes = [{"name": axis, "type": "space"} for axis in "zyx"[-layers[0].ndim :]]
    scale = {"type": "scale", "scale": [1.0] * layers[0].ndim}
    dataset: dict[str, Any] = {"path": "0", "coordinateTransformations": [scale]}
    for name, layer in zip(names, layers, strict=True):
        image = group.create_group(name)
        image.create_array("0", data=layer)
        multiscale: dict[str, Any] = {"name": name, "axes": axes, "datasets": [dataset]}
        image.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "image-label": {}}
    group.attrs["ome"] = {"version": "0.5", "labels": names}
    return path


def read(path: Path) -> Instances:
    (source,) = find_masks(path).values()
    return source.read(1).instances()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(0, 9))
def test_cells_that_overlap_come_back_whole_from_every_form(
    tmp_path: Path, seed: int, count: int
) -> None:
    cells = discs(seed, SHAPE, count)
    write_stack(tmp_path / "a.tif", cells, SHAPE)
    layers = write_layers(tmp_path / "labels.zarr", to_layers(cells, SHAPE))
    coco = write_coco(tmp_path / "c.json", "a.png", cells)
    for path in (tmp_path / "a.tif", layers, coco):
        assert same(read(path), cells), path
    assert read(coco).scores.tolist() == cells.scores.tolist()
    (source,) = find_masks(coco).values()
    drawn, classes = source.read(1).label_layers()
    assert same(from_layers(drawn), cells)
    assert classes is not None
    assert classes.tolist() == [0] + [1] * len(cells)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float32])
def test_a_stack_may_hold_any_one_value_holes_and_empty_planes(tmp_path: Path, dtype: type) -> None:
    planes: NDArray[Any] = np.zeros((3, *SHAPE), dtype)
    planes[0, 2:9, 3:8] = 7
    planes[0, 4:6, 5] = 0
    planes[2, 5:20, 5:30] = 7
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack")
    cells = read(tmp_path / "a.tif")
    assert cells.boxes.tolist() == [[2, 3, 9, 8], [5, 5, 20, 30]]
    assert cells.areas().tolist() == [33, 375]


def volume(binary: bool) -> np.ndarray:
    labels = np.zeros((3, *SHAPE), np.uint16)
    labels[:, 4:9, 4:9] = 1
    labels[1:, 20:25, 20:30] = 1 if binary else 2
    return labels


def test_a_binary_tiff_with_as_many_planes_as_its_partner_is_a_volume(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume(binary=True), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", volume(binary=False), photometric="minisblack")
    one, other = MaskSource(tmp_path / "a.tif"), MaskSource(tmp_path / "b.tif")
    assert [side.label_image() is None for side in read_pair(one, other)] == [False, False]
    assert one.read(3).shape == (3, *SHAPE)
    assert len(one.read(3).instances()) == 1
    # In a plane of its own, every binary plane is a cell.
    assert one.read(1).shape == SHAPE
    assert len(one.read(1).instances()) == 3
    assert other.read(1).label_image() is not None
    # Two binary ones are stacks, even of as many cells.
    assert [side.shape for side in read_pair(one, one)] == [SHAPE, SHAPE]


def test_a_volume_in_layers_has_each_cell_once(tmp_path: Path) -> None:
    first, second = volume(binary=False), np.zeros((3, *SHAPE), np.uint16)
    second[:2, 6:22, 6:25] = 3
    path = write_layers(tmp_path / "labels.zarr", np.stack([first, second]))
    (source,) = find_masks(path).values()
    masks = source.read(3)
    assert (masks.shape, source.planes()) == ((3, *SHAPE), 3)
    assert masks.instances().areas().tolist() == [75, 100, 608]
    assert masks.label_layers()[0].shape == (2, *SHAPE)


def test_any_labels_will_do_and_a_label_in_two_layers_is_one_cell(tmp_path: Path) -> None:
    layers = np.zeros((2, *SHAPE), np.int32)
    layers[0, 2:5, 3:9], layers[1, 4:9, 3:9], layers[1, 20:22, 3] = 9, 9, 2**31 - 1
    assert read(write_layers(tmp_path / "a.zarr", layers)).areas().tolist() == [42, 2]
    layers[layers > 9] = 3
    assert read(write_layers(tmp_path / "b.zarr", layers)).areas().tolist() == [2, 42]


def test_a_folder_gives_its_images_or_else_its_json(tmp_path: Path) -> None:
    cells = discs(1, SHAPE, 3)
    write_coco(tmp_path / "one.json", "a.png", cells)
    write_coco(tmp_path / "two.json", "sub/b.ome.tif", cells)
    assert sorted(find_masks(tmp_path)) == ["a", "b"]
    write_coco(tmp_path / "three.json", "a.tif", cells)
    with pytest.raises(CellsegError, match=r"one\.json and three\.json have one name, a"):
        find_masks(tmp_path)
    write_stack(tmp_path / "c.tif", cells, SHAPE)
    assert list(find_masks(tmp_path)) == ["c"]


def test_two_images_of_one_name_in_a_coco_file_are_refused(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}/a.png", "height": 3, "width": 3} for i in (1, 2)]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(CellsegError, match="two images are called a"):
        find_masks(tmp_path / "c.json")


def test_what_are_no_labels_is_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "grey.tif", np.full(SHAPE, 0.5, np.float32))
    (source,) = find_masks(tmp_path / "grey.tif").values()
    for labels in (source.read(1).instances, source.read(1).label_layers):
        with pytest.raises(CellsegError, match=r"grey\.tif: pixels are float32"):
            labels()
    with pytest.raises(CellsegError, match="no such label image or folder"):
        find_masks(tmp_path / "missing.json")
