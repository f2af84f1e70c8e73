"""Cores cover a plane once, and the grid's arithmetic finds every tile that reads a pixel."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.pipeline.tiles import FAR, Blocks, Box, Grid
from cellseg.pipeline.workflow import Tiling

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


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    size, margin = draw(st.integers(32, 500)), draw(st.integers(1, 100))
    return Tiling(size=size, halo=draw(st.integers(margin + 1, 4 * size)), margin=margin)


@settings(max_examples=200, deadline=None)
@given(tilings(), st.integers(1, 64), st.integers(1, 700), st.integers(1, 700))
def test_tiles_of_an_image_that_is_seen_larger_or_smaller_cover_it_once_and_hold_the_same_cells(
    given: Tiling, eighths: int, height: int, width: int
) -> None:
    zoom = eighths / 8
    tiling = given.at_zoom(zoom)
    if zoom == 1:
        assert tiling == given
        return
    assert tiling.size % 32 == 0
    assert tiling.size == 64 or abs(tiling.size * zoom - given.size) <= 16 * zoom
    assert given.halo <= tiling.halo * zoom
    assert given.margin <= tiling.margin * zoom
    assert tiling.margin < tiling.halo
    assert (tiling.margin - 1) * zoom < given.margin
    assert (tiling.halo - 8) * zoom < max(given.halo, given.margin + zoom + 1)
    grid = Grid(Box(0, 0, height, width), tiling.size, tiling.halo)
    covered = np.zeros((height, width), int)
    for position in range(len(grid)):
        covered[grid.core(position).slices] += 1
        read = grid.read(position)
        assert read.y0 % 8 == read.x0 % 8 == 0
    assert (covered == 1).all()


def test_a_tile_costs_the_same_at_every_magnification() -> None:
    found = {zoom: Tiling().at_zoom(zoom) for zoom in (0.125, 0.5, 1, 2.25, 8)}
    assert {zoom: (t.size, t.halo, t.margin) for zoom, t in found.items()} == {
        0.125: (8192, 512, 32),
        0.5: (2048, 128, 8),
        1: (1024, 64, 4),
        2.25: (448, 32, 2),
        8: (128, 8, 1),
    }


def test_distance_inside_ignores_the_edges_of_the_image() -> None:
    plane, window = Box(0, 0, 100, 100), Box(0, 20, 50, 60)
    assert Box(0, 30, 10, 40).distance_inside(window, plane) == 10
    assert Box(45, 30, 48, 58).distance_inside(window, plane) == 2
    assert Box(0, 0, 100, 100).distance_inside(plane, plane) == FAR


def test_boxes_that_only_touch_share_nothing() -> None:
    assert Box(0, 0, 5, 5).intersect(Box(5, 0, 9, 5)) is None
    assert Box(0, 0, 5, 5).intersect(Box(4, 4, 9, 9)) == Box(4, 4, 5, 5)


@settings(max_examples=100, deadline=None)
@given(
    height=sides,
    width=sides,
    size=st.integers(1, 40),
    halo=st.integers(0, 60),
    side_px=st.integers(1, 120),
    seed=st.integers(0, 1000),
)
def test_blocks_hold_each_tile_once_and_readers_are_counted(
    height: int, width: int, size: int, halo: int, side_px: int, seed: int
) -> None:
    plane = Box(0, 0, height, width)
    grid = Grid(plane, size, halo)
    blocks = Blocks(grid, side_px)
    held = [tile for block in range(len(blocks)) for tile in blocks.tiles(block)]
    assert sorted(held) == list(range(len(grid)))
    covered = np.zeros((height, width), int)
    for block in range(len(blocks)):
        covered[blocks.region(block).slices] += 1
        tiles = blocks.tiles(block)
        assert (blocks.of(np.array(tiles)) == block).all()
        assert all(grid.core(t).intersect(blocks.region(block)) == grid.core(t) for t in tiles)
    assert (covered == 1).all()
    random = np.random.default_rng(seed)
    low = random.integers(0, (height, width), (5, 2))
    high = random.integers(low + 1, np.array([height, width]) + 1)
    boxes = np.concatenate([low, high], axis=1).astype(np.int32)
    expected = [len(grid.reading(Box(*sides))) for sides in boxes.tolist()]
    assert grid.readers(boxes).tolist() == expected
