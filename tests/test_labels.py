"""The labels on disk are valid OME-Zarr, whole or not there, and say what was painted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05 import ImageLabel, Labels

from cellseg.models import Instances
from cellseg.pipeline import pyramid
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.labels import LabelStore, layer_name
from cellseg.pipeline.paint import paint
from cellseg.pipeline.pyramid import Shape, regions
from cellseg.pipeline.stitch import Rules, stitch
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.voxel import Voxel


def write(
    store: LabelStore, key: str, truth: Sequence[NDArray[np.uint32]], voxel_um: Voxel | None = None
) -> None:
    """Paint layers of labels (T, Z, Y, X) each, their regions in an order of their own."""
    shape: Shape = truth[0].shape
    store.start(key, shape, voxel_um, len(truth))
    grid = regions(Box(0, 0, *shape[2:]))
    for position in reversed(range(len(grid))):
        for t, z, layer in np.ndindex(*shape[:2], len(truth)):
            _paint(store, t, z, grid.core(position), truth[layer][t, z], layer)
    store.finish(shape[0], shape[1])


def _paint(
    store: LabelStore, t: int, z: int, region: Box, plane: NDArray[np.uint32], layer: int = 0
) -> None:
    store.paint(t, z, region, lambda box: plane[box.slices], layer)


def volume(shape: Shape) -> NDArray[np.uint32]:
    """Blocks of labels in every plane."""
    z, y, x = np.indices(shape[1:])
    labels = (1 + y // 40 + 1000 * (x // 50) + 100_000 * z) * (((y // 40) + (x // 50)) % 3 > 0)
    return np.stack([labels * (t + 1) for t in range(shape[0])]).astype(np.uint32)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 1, 90, 70), "yx"),
        ((1, 1, 1, 1), "yx"),
        ((1, 3, 300, 520), "zyx"),
        ((2, 1, 300, 520), "tyx"),
        ((2, 3, 64, 64), "tzyx"),
        ((1, 1, 2900, 3100), "yx"),
    ],
)
def test_labels_come_back_and_validate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Shape, axes: str, layers: int
) -> None:
    # Small shards, so that a small image has several regions and levels of several shards.
    monkeypatch.setattr(pyramid, "SHARD", 512)
    truth = [volume(shape) + 1000 * layer for layer in range(layers)]
    store = LabelStore(tmp_path / "labels.zarr")
    write(store, "k", truth, (2.0, 0.5, 0.25))
    assert store.layers == layers
    group = zarr.open_group(store.path, mode="r")
    names = [layer_name(layer) for layer in range(layers)]
    assert (
        Labels.from_zarr(group).ome_attributes.labels
        == names
        == ["cells", "cells_2", "cells_3"][:layers]
    )
    for layer, name in enumerate(names):
        for t, z in np.ndindex(*shape[:2]):
            plane = truth[layer][t, z]
            assert np.array_equal(store.read(t, z, Box(0, 0, *shape[2:]), layer=layer), plane)
            half = Box(0, 0, -(-shape[2] // 2), -(-shape[3] // 2))
            assert np.array_equal(store.read(t, z, half, 0, layer), plane[half.slices])
        image = group[name]
        assert isinstance(image, zarr.Group)
        _check_image(image, truth[layer], axes)


def _check_image(group: zarr.Group, truth: NDArray[np.uint32], axes: str) -> None:
    shape = truth.shape
    model = ImageLabel.from_zarr(group)
    multiscale = model.ome_attributes.multiscales[0]
    assert "".join(str(axis.name) for axis in multiscale.axes) == axes
    for level, dataset in enumerate(multiscale.datasets):
        array = group[dataset.path]
        assert isinstance(array, zarr.Array)
        step = 2**level
        lead = tuple(0 for length in shape[:2] if length > 1)
        assert np.array_equal(array[lead], truth[0, 0][::step, ::step])
        scale = dataset.model_dump()["coordinateTransformations"][0]["scale"]
        assert list(scale[-2:]) == [0.5 * step, 0.25 * step]
    assert max(group[multiscale.datasets[-1].path].shape[-2:]) <= 256  # type: ignore[union-attr]


def test_a_label_image_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.zarr")

    truth = np.ones((1, 1, 100, 300), np.uint32)
    store.start("k", truth.shape, None)
    store.paint(0, 0, Box(0, 0, 100, 300), lambda box: truth[0, 0][box.slices])
    assert store.key() is None
    assert store.started("k")
    assert not store.started("other")
    assert store.layers == 0
    write(store, "k", [truth])
    assert store.key() == "k"
    assert not store.started("k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.zarr"]


def test_what_a_killed_writer_leaves_is_swept_and_empty_shards_have_no_file(tmp_path: Path) -> None:
    store, truth = LabelStore(tmp_path / "labels.zarr"), np.zeros((1, 1, 300, 300), np.uint32)
    store.start("k", truth.shape, None)
    left = tmp_path / "labels.zarr.partial" / "cells" / "0" / "c" / "0" / ".1234.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    store.paint(0, 0, Box(0, 0, 300, 300), lambda box: truth[0, 0][box.slices])
    store.finish(1, 1)
    assert {path.name for path in store.path.rglob("*") if path.is_file()} == {"zarr.json"}
    assert not store.read(0, 0, Box(0, 0, 300, 300)).any()


def test_another_size_of_a_voxel_is_written_to_all_layers(tmp_path: Path) -> None:
    store, truth = LabelStore(tmp_path / "labels.zarr"), volume((1, 1, 60, 300))
    write(store, "k", [truth, truth], (1.0, 0.5, 0.5))
    store.rescale((1.0, 0.25, 0.75))
    for layer in range(2):
        group = zarr.open_group(store.path / layer_name(layer), mode="r")
        levels = ImageLabel.from_zarr(group).ome_attributes.multiscales[0].datasets
        scales = [d.model_dump()["coordinateTransformations"][0]["scale"] for d in levels]
        assert [list(scale) for scale in scales] == [[0.25, 0.75], [0.5, 1.5]]
    assert store.key() == "k"


def test_labels_begun_again_with_other_layers_keep_nothing(tmp_path: Path) -> None:
    store, truth = LabelStore(tmp_path / "labels.zarr"), volume((1, 1, 60, 70))
    store.start("k", truth.shape, None, 0)
    assert store.started("k")
    write(store, "k", [truth] * 3)
    write(store, "k", [truth])
    assert store.layers == 1
    assert sorted(path.name for path in store.path.iterdir()) == ["cells", "zarr.json"]


@pytest.mark.parametrize("region", [7, 33, 500])
def test_regions_of_any_size_paint_the_same_plane(region: int) -> None:
    random = np.random.default_rng(3)
    labels = np.zeros((90, 120), np.int32)
    y, x = np.indices(labels.shape)
    for label in range(1, 40):
        cy, cx, radius = random.uniform(0, 90), random.uniform(0, 120), random.uniform(2, 12)
        labels[((y - cy) ** 2 + (x - cx) ** 2 <= radius**2) & (labels == 0)] = label
    plane, grid = Box(0, 0, 90, 120), Grid(Box(0, 0, 90, 120), 40, 30)

    def exact(window: Box) -> Instances:
        return Instances.from_labels(labels[window.slices]).shifted(window.y0, window.x0)

    def load(position: int) -> Instances:
        return exact(grid.read(position))

    cells = stitch(grid, Rules(2, 0.4, 4096), load, exact)
    painted = np.zeros(labels.shape, np.uint32)
    pieces = Grid(plane, region, 0)

    def packed(position: int) -> Candidates:
        return Candidates.of_tile(load(position), grid, position, 2)

    for position in range(len(pieces)):
        box = pieces.core(position)
        painted[box.slices] = paint(cells, 11 + np.arange(len(cells)), packed, box)
    assert np.array_equal(painted > 0, labels > 0)
    assert painted[painted > 0].min() == 11
    pairs = np.unique(np.stack([painted.ravel(), labels.ravel()]), axis=1).shape[1]
    assert pairs == len(np.unique(labels)) == len(np.unique(painted))


@pytest.mark.parametrize(("length", "chunk"), [(1, 1), (512, 512), (520, 260), (1030, 344)])
def test_chunks_of_a_small_image_hold_no_more_than_it(
    tmp_path: Path, length: int, chunk: int
) -> None:
    """A field of 520 px in chunks of 512 px would be written at four times its size."""
    store = LabelStore(tmp_path / "labels.zarr")
    store.start("k", (1, 1, length, 5000), None)
    array = zarr.open_array(tmp_path / "labels.zarr.partial" / "cells" / "0", mode="r")
    assert array.chunks == (chunk, 512)
    assert array.shards is not None
    assert array.shards[0] - length < -(-length // chunk)
    assert array.shards[1] == 4096
