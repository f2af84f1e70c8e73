"""3D cells measured: volume and surface of known bodies, sections, grey levels over all voxels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cellseg.pipeline.measure import measure
from cellseg.pipeline.solid import measure_solid

VOXEL = (0.5, 0.2, 0.25)


def body(radii_um: tuple[float, float, float]) -> NDArray[np.int64]:
    """An ellipsoid in voxels of `VOXEL`, with a margin."""
    sides = [int(r / v) + 3 for r, v in zip(radii_um, VOXEL, strict=True)]
    along = np.ogrid[tuple(slice(-side, side + 1) for side in sides)]
    inside = sum((a * v / r) ** 2 for a, v, r in zip(along, VOXEL, radii_um, strict=True))
    return np.asarray(inside <= 1).astype(np.int64)


@pytest.mark.parametrize(
    ("radii", "surface"),
    [((6.0, 6.0, 6.0), 452.4), ((3.0, 6.0, 6.0), 312.2), ((9.0, 4.0, 4.0), 380.9)],
)
def test_volume_and_surface_of_ellipsoids(
    radii: tuple[float, float, float], surface: float
) -> None:
    labels = body(radii)
    found = measure_solid(
        labels, np.zeros((1, *labels.shape)), np.array([1]), ["w"], voxel_um=VOXEL
    )
    assert found["volume_um3"][0] == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.01)
    assert found["surface_um2"][0] == pytest.approx(surface, rel=0.05)


def test_sections_and_voxels_are_measured_each_for_what_they_tell() -> None:
    random = np.random.default_rng(0)
    labels = np.zeros((4, 12, 14), np.int64)
    labels[0, 2:5, 2:5], labels[1, 2:8, 2:6], labels[2, 3:6, 2:6] = 7, 7, 7
    labels[2, 8:11, 8:12], labels[3, 8:11, 8:12] = 3, 3
    pixels = random.integers(0, 999, (2, *labels.shape)).astype(np.uint16)
    origin = (5, 100, 200)
    found = measure_solid(
        labels, pixels, np.array([7, 3]), ["a", "b"], voxel_um=VOXEL, origin=origin
    )
    section = measure(labels[1], pixels[:, 1], [7], ["a", "b"], pixel_um=VOXEL[1:])
    for name in ("area_px", "perimeter_px", "solidity", "major_axis_px", "straight_edge"):
        assert found[name][0] == section[name][0]
    for row, label in enumerate((7, 3)):
        mask = labels == label
        values = pixels[1][mask].astype(float)
        assert found["volume_px"][row] == np.count_nonzero(mask)
        assert found["planes"][row] == mask.any(axis=(1, 2)).sum()
        assert found["mean_b"][row] == pytest.approx(values.mean())
        assert found["std_b"][row] == pytest.approx(values.std())
        assert found["max_b"][row] == values.max()
        for name, start, side, along in zip("zyx", origin, VOXEL, np.nonzero(mask), strict=True):
            assert found[f"{name}_px"][row] == pytest.approx(start + along.mean())
            assert found[f"{name}_um"][row] == pytest.approx((start + along.mean()) * side)


def test_neither_other_cells_nor_the_window_change_a_row() -> None:
    labels = body((2.0, 2.0, 2.0))
    wide = np.pad(labels, 3)
    wide[:3] = 2
    grey = np.random.default_rng(1).normal(size=(1, *wide.shape))
    alone = measure_solid(
        labels, grey[:, 3:-3, 3:-3, 3:-3], np.array([1]), ["w"], voxel_um=VOXEL, origin=(3, 3, 3)
    )
    among = measure_solid(wide, grey, np.array([1]), ["w"], voxel_um=VOXEL)
    assert {k: v.tolist() for k, v in alone.items()} == {k: v.tolist() for k, v in among.items()}


def test_without_the_size_of_a_voxel_only_px_are_known() -> None:
    labels = body((2.0, 2.0, 2.0))
    found = measure_solid(labels, np.zeros((1, *labels.shape)), np.array([1]), ["w"])
    assert found["volume_px"][0] == labels.sum()
    for name in ("volume_um3", "surface_um2", "z_um", "area_um2"):
        assert np.isnan(found[name][0])
