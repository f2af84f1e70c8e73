"""Neighbours: exact distances however far, the disc in the image, and what a cell touches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.neighbours import disc_in_rectangle
from cellseg.pipeline.patch import Floats, Near
from cellseg.pipeline.solid import measure_solid

ALONE = Measure(groups=("neighbours",), neighbour_distance_px=30)


def near(centres: Floats) -> Near:
    """What gives those of some centres that are asked for."""
    y = centres[:, -2]
    return lambda y0, y1: centres[(y >= y0) & (y < y1)]


def points(centres: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    labels = np.zeros(shape, np.int64)
    labels[tuple(centres.T)] = np.arange(1, len(centres) + 1)
    return labels


def found(labels: NDArray[np.int64], ids: list[int], **about: Any) -> dict[str, Any]:
    settings = about.pop("settings", ALONE)
    return measure(labels, np.zeros((0, *labels.shape)), ids, [], settings=settings, **about)


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_all_cells_of_the_plane(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (5000, 4000)
    centres = np.unique(random.integers(0, shape, (25, 2)), axis=0)
    centres[:8] = centres[0] + [[i // 3 * 9, i % 3 * 11] for i in range(8)]
    centres = np.minimum(centres, np.array(shape) - 1)
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    for cell, (y, x) in enumerate(centres):  # each alone in a window
        got = found(
            np.ones((1, 1), np.int64),
            [1],
            origin=(int(y), int(x)),
            near=near(centres.astype(float)),
            extent=shape,
            pixel_um=(0.5, 0.5),
        )
        nearest = np.sort(apart[cell])
        assert got["nearest_px"][0] == pytest.approx(nearest[0], rel=1e-12)
        assert got["second_nearest_px"][0] == pytest.approx(nearest[1], rel=1e-12)
        assert got["nearest_um"][0] == got["nearest_px"][0] / 2
        assert got["neighbours"][0] == (apart[cell] <= 30).sum()


def test_a_centre_exactly_as_far_as_the_distance_counts() -> None:
    labels = points(np.array([[0, 0], [18, 24], [0, 31]]), (40, 40))
    got = found(labels, [1, 2, 3])
    assert got["neighbours"].tolist() == [1, 2, 1]
    assert got["nearest_px"][0] == 30


def test_what_there_is_not_is_nan() -> None:
    got = found(points(np.array([[2, 2]]), (9, 9)), [1])
    assert got["neighbours"][0] == 0
    for name in ("nearest_px", "second_nearest_px", "nearest_um", "density_per_mm2"):
        assert np.isnan(got[name][0])
    pair = found(points(np.array([[2, 2], [2, 6]]), (9, 9)), [1, 2])
    assert pair["nearest_px"].tolist() == [4, 4]
    assert np.isnan(pair["second_nearest_px"]).all()


def test_the_density_counts_what_of_the_disc_lies_in_the_image() -> None:
    labels = points(np.array([[50, 50], [0, 0], [50, 60]]), (101, 101))
    got = found(labels, [1, 2, 3], pixel_um=(2.0, 2.0))
    assert got["density_per_px2"][0] == pytest.approx(2 / (np.pi * 900))
    # In the corner a quarter of the disc, and half a pixel to two sides.
    assert got["density_per_px2"][1] == pytest.approx(1 / (np.pi * 225 + 30 + 0.25), rel=1e-4)
    assert got["density_per_mm2"][0] == pytest.approx(got["density_per_px2"][0] * 1e6 / 4)


@pytest.mark.parametrize("seed", range(4))
def test_a_disc_in_a_rectangle(seed: int) -> None:
    random = np.random.default_rng(seed)
    y0, x0 = random.uniform(-2, 0.5, 2)
    y1, x1 = y0 + random.uniform(0.1, 3), x0 + random.uniform(0.1, 3)
    side = np.linspace(-1, 1, 2001)
    y, x = np.meshgrid(side, side, indexing="ij")
    inside = (y * y + x * x <= 1) & (y >= y0) & (y <= y1) & (x >= x0) & (x <= x1)
    area = disc_in_rectangle(1.0, *(np.array([v]) for v in (y0, x0, y1, x1)))
    assert area[0] == pytest.approx(inside.mean() * 4, abs=3e-3)


def test_a_distance_in_um_and_pixels_that_are_not_square() -> None:
    labels = points(np.array([[0, 0], [0, 10], [4, 0]]), (20, 20))
    settings = Measure(groups=("neighbours",), neighbour_distance_um=5)
    got = found(labels, [1, 2, 3], settings=settings, pixel_um=(1.5, 0.5))
    assert got["nearest_um"][0] == pytest.approx(5)
    assert got["second_nearest_um"][0] == pytest.approx(6)
    assert got["neighbours"].tolist() == [1, 1, 0]
    assert got["nearest_px"][0] == pytest.approx(10)


def test_touching_is_the_share_of_the_edge_beside_other_cells() -> None:
    labels = np.zeros((8, 12), np.int64)
    labels[2:6, 2:6], labels[2:6, 6:10] = 1, 2
    got = found(labels, [1, 2])
    assert got["touching_fraction"].tolist() == [4 / 12, 4 / 12]
    assert found(np.where(labels == 1, 1, 0), [1])["touching_fraction"].tolist() == [0]
    occupied = np.ones(labels.shape, bool)
    assert found(labels, [1], occupied=occupied)["touching_fraction"].tolist() == [1]


def test_3d_cells_are_apart_in_space() -> None:
    labels = np.zeros((6, 20, 20), np.int64)
    labels[0, 2:5, 2:5], labels[5, 2:5, 2:5], labels[0:2, 2:5, 14:17] = 1, 2, 3
    voxel = (2.0, 0.5, 0.5)
    got = measure_solid(
        labels, np.zeros((0, *labels.shape)), np.arange(1, 4), [], settings=ALONE, voxel_um=voxel
    )
    centres = np.array([[0, 3, 3], [5, 3, 3], [0.5, 3, 15]]) * voxel
    apart = np.sort(np.linalg.norm(centres[:, None] - centres, axis=2), axis=1)
    np.testing.assert_allclose(got["nearest_um"], apart[:, 1])
    np.testing.assert_allclose(got["second_nearest_px"], apart[:, 2] * 2)
    assert got["neighbours"].tolist() == [2, 2, 2]
    assert np.isnan(got["density_per_px2"]).all()
