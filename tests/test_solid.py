"""3D cells measured: volume and surface of known bodies, sections, grey levels over all voxels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from cellseg.pipeline.body import COLUMNS
from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure
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
    cut = grey[:, 3:-3, 3:-3, 3:-3]
    one = np.array([1])
    every = Measure(groups=("shape", "intensity", "solid"))
    alone = measure_solid(labels, cut, one, ["w"], settings=every, voxel_um=VOXEL, origin=(3, 3, 3))
    among = measure_solid(wide, grey, one, ["w"], settings=every, voxel_um=VOXEL)
    assert {k: v.tobytes() for k, v in alone.items()} == {k: v.tobytes() for k, v in among.items()}


def test_without_the_size_of_a_voxel_only_px_are_known() -> None:
    labels = body((2.0, 2.0, 2.0))
    found = measure_solid(labels, np.zeros((1, *labels.shape)), np.array([1]), ["w"])
    assert found["volume_px"][0] == labels.sum()
    for name in ("volume_um3", "surface_um2", "z_um", "area_um2"):
        assert np.isnan(found[name][0])


def test_axes_extent_and_roundness_of_an_ellipsoid() -> None:
    labels = body((3.0, 6.0, 4.5))
    one, settings = np.array([1]), Measure(groups=("solid",))
    found = measure_solid(
        labels, np.zeros((0, *labels.shape)), one, [], settings=settings, voxel_um=VOXEL
    )
    expected = regionprops_table(  # type: ignore[no-untyped-call]
        labels, spacing=VOXEL, properties=("axis_major_length", "axis_minor_length", "extent")
    )
    assert found["long_axis_um"][0] == pytest.approx(expected["axis_major_length"][0], rel=1e-9)
    assert found["short_axis_um"][0] == pytest.approx(expected["axis_minor_length"][0], rel=1e-9)
    assert found["middle_axis_um"][0] == pytest.approx(9, rel=0.02)
    assert found["extent_3d"][0] == pytest.approx(expected["extent"][0], rel=1e-12)
    assert found["sphere_diameter_um"][0] == pytest.approx(2 * (3 * 6 * 4.5) ** (1 / 3), rel=0.01)
    assert 0.8 < found["sphericity"][0] < 0.97


def test_a_ball_is_as_round_as_can_be_and_a_voxel_has_no_axes() -> None:
    settings = Measure(groups=("solid",))
    for labels, roundness in ((body((6.0, 6.0, 6.0)), 1), (np.ones((1, 1, 1), np.int64), None)):
        nothing = np.zeros((0, *labels.shape))
        found = measure_solid(labels, nothing, np.array([1]), [], settings=settings, voxel_um=VOXEL)
        if roundness:
            assert found["sphericity"][0] == pytest.approx(roundness, abs=0.05)
        else:
            assert [found[f"{name}_axis_um"][0] for name in ("long", "middle", "short")] == [0] * 3
            assert found["extent_3d"][0] == 1


def test_the_edge_of_a_volume_is_its_surface_and_its_mass_lies_in_three_axes() -> None:
    labels = np.zeros((5, 6, 7), np.int64)
    labels[1:4, 1:5, 1:6] = 1
    grey = np.zeros((1, *labels.shape), np.uint16)
    grey[0, 1, 2, 3] = 1000
    grey[0, 2, 2:4, 2:5] = 7  # all that is inside
    found = measure_solid(labels, grey, np.array([1]), ["w"], voxel_um=VOXEL)
    assert found["edge_sum_w"][0] == 1000
    assert found["edge_mean_w"][0] == 1000 / (60 - 6)
    assert found["sum_w"][0] == 1042
    centre = np.array([2.0, 2.5, 3.0])
    off = (np.array([1, 2, 3]) * 1000 + centre * 42) / 1042 - centre
    assert found["mass_displacement_um_w"][0] == pytest.approx(np.linalg.norm(off * VOXEL))
    assert np.isnan(found["mass_displacement_px_w"][0])


def test_in_a_plane_the_columns_of_volumes_are_there_and_unknown() -> None:
    labels = np.ones((3, 4), np.uint32)
    found = measure(labels, np.zeros((0, 3, 4)), [1], [], settings=Measure(groups=("solid",)))
    for name in COLUMNS:
        assert np.isnan(found[name]).all()
