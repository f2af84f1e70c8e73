"""Shapes of cells: what moving, turning and scaling do to them, and calipers by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage.morphology import convex_hull_image

from cellseg.pipeline.measure import Columns, measure
from cellseg.pipeline.measure_settings import Measure

SHAPE = Measure(groups=("shape",))
Mask = NDArray[np.bool_]


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """A cell of any form: compact, hollow, torn or thin."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    field = ndimage.gaussian_filter(random.random(shape), draw(st.floats(0, 4)))
    mask: Mask = field >= np.quantile(field, draw(st.floats(0, 0.99)))
    return mask


def shape_of(mask: Mask, pixel_um: tuple[float, float] | None = None) -> Columns:
    labels = mask.astype(np.uint8)
    return measure(labels, np.zeros((0, *mask.shape)), [1], [], settings=SHAPE, pixel_um=pixel_um)


def outline(mask: Mask) -> NDArray[np.float64]:
    """The middles of all edges of the pixels in the convex hull, (N, 2)."""
    hull = convex_hull_image(mask) if mask.sum() > 1 else mask  # type: ignore[no-untyped-call]
    middles = [(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]
    return np.concatenate([np.argwhere(hull) + middle for middle in middles])


@settings(max_examples=60, deadline=None)
@given(masks())
def test_calipers_by_brute_force(mask: Mask) -> None:
    points = outline(mask)
    corners = points[ConvexHull(points).vertices]
    sides = np.roll(corners, -1, axis=0) - corners
    across = np.stack([sides[:, 1], -sides[:, 0]]) / np.linalg.norm(sides, axis=1)
    found = shape_of(mask)
    least = np.ptp(corners @ across, axis=0).min()
    most = np.linalg.norm(corners[:, None] - corners, axis=2).max()
    assert found["feret_min_px"][0] == pytest.approx(least, rel=1e-9)
    assert found["feret_max_px"][0] == pytest.approx(most, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(masks())
def test_turning_and_mirroring_change_nothing_but_the_direction(mask: Mask) -> None:
    here = shape_of(mask)
    position = {"y_px", "x_px", "y_um", "x_um"}
    for turned, of in ((mask.T, 1), (mask[::-1], -1), (np.rot90(mask), 1)):
        there = shape_of(turned)
        for name in set(here) - position - {"orientation_rad"}:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-9, atol=1e-6)
        if of == -1 and here["eccentricity"][0] > 0.05:
            turn = abs(there["orientation_rad"][0] + here["orientation_rad"][0])
            assert min(turn, math.pi - turn) < 1e-6


@settings(max_examples=60, deadline=None)
@given(masks())
def test_twice_the_size(mask: Mask) -> None:
    # Every pixel becomes four: exact are areas, boxes and holes; the axes follow from the moments
    # of a pixel's own parts; calipers go through middles of edges, so that they double but for less
    # than 1.5 px.
    small, large = shape_of(mask), shape_of(np.repeat(np.repeat(mask, 2, 0), 2, 1))
    assert large["area_px"][0] == 4 * small["area_px"][0]
    assert large["extent"][0] == small["extent"][0]
    assert large["equivalent_diameter_px"][0] == pytest.approx(
        2 * small["equivalent_diameter_px"][0]
    )
    assert large["y_px"][0] == pytest.approx(2 * small["y_px"][0] + 0.5)
    # The second moments of a pixel's four parts about its middle are a quarter.
    for axis in ("major_axis_px", "minor_axis_px"):
        squared = (4 * (small[axis][0] / 4) ** 2 + 1 / 4) * 16
        assert large[axis][0] ** 2 == pytest.approx(squared, rel=1e-9, abs=1e-6)
    for caliper in ("feret_max_px", "feret_min_px"):
        assert abs(large[caliper][0] - 2 * small[caliper][0]) < 1.5
    assert large["euler_number"][0] == small["euler_number"][0]


@pytest.mark.parametrize("pixel_um", [None, (0.5, 0.5), (0.5, 0.25)])
def test_lengths_in_um_where_a_pixel_is_a_square(pixel_um: tuple[float, float] | None) -> None:
    found = shape_of(np.ones((3, 8), bool), pixel_um)
    for name in ("perimeter", "major_axis", "feret_max", "feret_min", "equivalent_diameter"):
        um = found[f"{name}_um"][0]
        if pixel_um == (0.5, 0.5):
            assert um == found[f"{name}_px"][0] / 2
        else:
            assert math.isnan(um)


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("one pixel", ["#"], (1, 1, math.sqrt(0.5), 1, -math.pi / 4)),
        ("row", ["#####"], (1, 5, 1, math.pi * 20 / 9, math.pi / 2)),
        ("column", ["#", "#", "#"], (1, 3, 1, math.pi * 12, 0)),
        ("ring", ["###", "#.#", "###"], (0, math.sqrt(13), 3, math.pi / 2, None)),
        ("two pieces", ["#..#"], (2, 4, 1, 1, math.pi / 2)),
        ("corners meet", ["#.", ".#"], (1, None, None, 1, math.pi / 4)),
        ("a hole between corners", [".#.", "#.#", ".#."], (0, 3, None, None, None)),
    ],
)
def test_small_cells_by_hand(
    name: str, rows: list[str], expected: tuple[float | None, ...]
) -> None:
    found = shape_of(np.array([[letter == "#" for letter in row] for row in rows]))
    columns = "euler_number", "feret_max_px", "feret_min_px", "form_factor", "orientation_rad"
    for column, value in zip(columns, expected, strict=True):
        if value is not None:
            assert found[column][0] == pytest.approx(value), (name, column)
    assert all(np.isfinite(found[column]).all() for column in found if "_um" not in column)


def test_a_cell_too_long_for_short_integers() -> None:
    mask = np.zeros((3, 20_000), bool)
    mask[1] = mask[0, 0] = mask[2, -1] = True
    found = shape_of(mask)
    assert found["feret_max_px"][0] == pytest.approx(math.hypot(2, 20_000), rel=1e-9)
    assert 1 < found["feret_min_px"][0] < 3
