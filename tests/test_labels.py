"""The label image on disk is valid OME-Zarr, whole or not there, and says what was painted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05 import ImageLabel

from cellseg.models import Instances
from cellseg.pipeline import labels as labels_module
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.labels import LabelStore, Shape, regions
from cellseg.pipeline.paint import paint
from cellseg.pipeline.stitch import Rules, stitch
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.voxel import Voxel


def write(
    store: LabelStore, key: str, truth: NDArray[np.uint32], voxel_um: Voxel | None = None
) -> None:
    """Paint a label image (T, Z, Y, X), its regions in an order of their own."""
    shape: Shape = truth.shape
    store.start(key, shape, voxel_um)
    grid = regions(Box(0, 0, *shape[2:]))
    for position in reversed(range(len(grid))):
        for t in range(shape[0]):
            for z in range(shape[1]):
                plane = truth[t, z]
                store.paint(t, z, grid.core(position), lambda box, p=plane: p[box.slices])  # type: ignore[misc]
    store.finish(shape[0], shape[1])


def volume(shape: Shape) -> NDArray[np.uint32]:
    """Blocks of labels in every plane."""
    z, y, x = np.indices(shape[1:])
    labels = (1 + y // 40 + 1000 * (x // 50) + 100_000 * z) * (((y // 40) + (x // 50)) % 3 > 0)
    return np.stack([labels * (t + 1) for t in range(shape[0])]).astype(np.uint32)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Shape, axes: str
) -> None:
    # Small shards, so that a small image has several regions and levels of several shards.
    monkeypatch.setattr(labels_module, "SHARD", 512)
    monkeypatch.setattr(labels_module, "REGION", 1024)
    truth = volume(shape)
    store = LabelStore(tmp_path / "labels.zarr")
    write(store, "k", truth, (2.0, 0.5, 0.25))
    whole = Box(0, 0, *shape[2:])
    for t in range(shape[0]):
        for z in range(shape[1]):
            assert np.array_equal(store.read(t, z, whole), truth[t, z])
            half = store.read(t, z, Box(0, 0, -(-shape[2] // 2), -(-shape[3] // 2)), 0)
            assert np.array_equal(half, truth[t, z][: half.shape[0], : half.shape[1]])
    group = zarr.open_group(store.path, mode="r")
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
    write(store, "k", truth)
    assert store.key() == "k"
    assert not store.started("k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.zarr"]


def test_what_a_killed_writer_leaves_is_swept_and_empty_shards_have_no_file(tmp_path: Path) -> None:
    store, truth = LabelStore(tmp_path / "labels.zarr"), np.zeros((1, 1, 300, 300), np.uint32)
    store.start("k", truth.shape, None)
    left = tmp_path / "labels.zarr.partial" / "0" / "c" / "0" / ".1234.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    store.paint(0, 0, Box(0, 0, 300, 300), lambda box: truth[0, 0][box.slices])
    store.finish(1, 1)
    assert {path.name for path in store.path.rglob("*") if path.is_file()} == {"zarr.json"}
    assert not store.read(0, 0, Box(0, 0, 300, 300)).any()


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
