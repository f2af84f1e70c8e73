"""Cores cover a plane once, and the grid's arithmetic finds every tile that reads a pixel."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.pipeline.tiles import FAR, Box, Grid

sides = st.integers(1, 80)


@settings(max_examples=100, deadline=None)
@given(height=sides, width=sides, size=st.integers(1, 90), halo=st.integers(0, 40))
def test_cores_cover_the_plane_once_and_reads_lie_in_it(
    height: int, width: int, size: int, halo: int
) -> None:
    covered = np.zeros((height, width), int)
    plane = Box(0, 0, height, width)
    grid = Grid(plane, size, halo)
    for position in range(len(grid)):
        core, read = grid.core(position), grid.read(position)
        covered[core.slices] += 1
        assert read == core.grow(halo, plane)
        assert read.intersect(plane) == read
    assert (covered == 1).all()


@settings(max_examples=100, deadline=None)
@given(st.data(), sides, sides, st.integers(1, 40), st.integers(0, 60))
def test_reading_names_exactly_the_tiles_whose_window_meets_a_box(
    data: st.DataObject, height: int, width: int, size: int, halo: int
) -> None:
    y = data.draw(st.integers(0, height - 1))
    x = data.draw(st.integers(0, width - 1))
    box = Box(y, x, data.draw(st.integers(y + 1, height)), data.draw(st.integers(x + 1, width)))
    grid = Grid(Box(0, 0, height, width), size, halo)
    expected = [i for i in range(len(grid)) if grid.read(i).intersect(box)]
    assert grid.reading(box) == expected


def test_distance_inside_ignores_the_edges_of_the_image() -> None:
    plane, window = Box(0, 0, 100, 100), Box(0, 20, 50, 60)
    assert Box(0, 30, 10, 40).distance_inside(window, plane) == 10
    assert Box(45, 30, 48, 58).distance_inside(window, plane) == 2
    assert Box(0, 0, 100, 100).distance_inside(plane, plane) == FAR


def test_boxes_that_only_touch_share_nothing() -> None:
    assert Box(0, 0, 5, 5).intersect(Box(5, 0, 9, 5)) is None
    assert Box(0, 0, 5, 5).intersect(Box(4, 4, 9, 9)) == Box(4, 4, 5, 5)
