"""Every pixel belongs to a polygon by its centre alone, in whatever window it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from cellseg.pipeline.polygons import Feature, crossing, edges_of, rectangle
from cellseg.pipeline.tiles import Box

PLANE = Box(0, 0, 60, 80)


def star(seed: int, corners: int = 9) -> NDArray[np.float64]:
    """A ring that does not cross itself."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, corners))
    around = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.asarray((30, 40) + random.uniform(5, 50, (corners, 1)) * around)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    corner=st.tuples(st.integers(0, 50), st.integers(0, 70)),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 80)),
    step=st.integers(1, 7),
)
def test_a_window_shows_what_the_plane_does(
    seed: int, corner: tuple[int, int], shape: tuple[int, int], step: int
) -> None:
    feature = Feature("", (edges_of([star(seed), star(seed + 1, 4)]),))
    whole = feature.inside(PLANE)
    (y, x), (height, width) = corner, shape
    window = Box(y, x, min(y + height, 60), min(x + width, 80))
    assert np.array_equal(feature.inside(window), whole[window.slices])
    assert np.array_equal(feature.inside(window, step), whole[window.slices][::step, ::step])
    rows, columns = np.nonzero(whole)
    if len(rows):
        bounds = feature.bounds
        assert bounds.y0 <= rows.min()
        assert bounds.x0 <= columns.min()
        assert bounds.y1 > rows.max()
        assert bounds.x1 > columns.max()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), halves=st.booleans())
def test_of_polygons_that_share_sides_each_pixel_belongs_to_exactly_one(
    seed: int, halves: bool
) -> None:
    random = np.random.default_rng(seed)
    # Corners on the middles of pixels too, where sides run through them.
    inner = random.uniform(0, 1, (12, 2)) * (60, 80)
    inner = np.floor(inner) + 0.5 if halves else inner
    points = np.unique(np.concatenate([inner, [(0, 0), (0, 80), (60, 0), (60, 80)]]), axis=0)
    triangles = [points[corners] for corners in Delaunay(points).simplices]
    count = sum(Feature("", (edges_of([t]),)).inside(PLANE).astype(int) for t in triangles)
    assert np.array_equal(count, np.ones((60, 80), int))


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((10, 20, 30, 50), Box(10, 20, 30, 50)),
        ((10.4, 20.4, 30.4, 50.4), Box(10, 20, 30, 50)),
        ((10.5, 20.5, 30.5, 50.5), Box(10, 20, 30, 50)),
        ((10.6, 20.6, 30.6, 50.6), Box(11, 21, 31, 51)),
        ((-5, -5, 500, 500), PLANE),
    ],
)
def test_a_rectangle_is_the_pixels_whose_centres_it_holds(
    sides: tuple[float, float, float, float], expected: Box
) -> None:
    drawn = np.zeros((60, 80), bool)
    drawn[expected.slices] = True
    feature = Feature("", (rectangle(*sides),))
    assert np.array_equal(feature.inside(PLANE), drawn)
    assert feature.bounds.intersect(PLANE) == expected


def test_a_hole_is_outside_and_polygons_of_a_feature_add_up() -> None:
    outer = np.array([(0, 0), (0, 20), (20, 20), (20, 0)], float)
    ring = edges_of([outer, outer / 2 + 5])
    feature = Feature("", (ring, rectangle(0, 10, 5, 40)))
    expected = np.zeros((60, 80), bool)
    expected[:20, :20] = True
    expected[5:15, 5:15] = False
    expected[:5, 10:40] = True
    assert np.array_equal(feature.inside(PLANE), expected)


def test_a_polygon_between_the_centres_of_pixels_holds_none() -> None:
    feature = Feature("", (rectangle(10.6, 10.6, 11.4, 30),))
    assert not feature.inside(PLANE).any()
    assert feature.bounds.intersect(PLANE) is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1, 1000]))
def test_an_outline_that_does_not_cross_itself_passes(seed: int, scale: float) -> None:
    assert crossing(edges_of([star(seed, 200) * scale])) is None


def test_a_crossing_is_found_and_said_where_and_touching_is_none() -> None:
    eight = np.array([(0, 0), (10, 10), (10, 0), (0, 10)], float)
    found = crossing(edges_of([eight]))
    assert found == pytest.approx((5, 5))
    long = np.array([(0, 0), (0, 90_000), (70_000, 90_000), (-10, 45_000)], float)
    assert crossing(edges_of([long])) is not None
    touching = np.array([(0, 0), (5, 5), (0, 10), (10, 10), (5, 5), (10, 0)], float)
    assert crossing(edges_of([touching])) is None
    hole = np.array([(-1, 2), (4, 2), (4, 4)], float)
    square = np.array([(0, 0), (0, 10), (10, 10), (10, 0)], float)
    assert crossing(edges_of([square, hole])) is not None
