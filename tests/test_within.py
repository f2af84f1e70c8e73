"""With a region the cells are those of the whole plane whose centre is inside, to the pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_stitch import blobs, discs, exact, overlapping, unreliable

from cellseg.models import Instances
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.interest import Interest
from cellseg.pipeline.stitch import EXTRA, Rules, stitch
from cellseg.pipeline.tiles import Blocks, Box, Grid
from cellseg.pipeline.within import decide_within, reach_px
from exact import cut

Segment = Callable[[Box], Instances]
Cell = tuple[tuple[int, ...], bytes, float, int]
"""Box, mask, score and seam."""


def cell(box: list[int], mask: NDArray[np.bool_], score: float, seam: int) -> Cell:
    return tuple(box), np.ascontiguousarray(mask).tobytes(), score, seam


def of_the_plane(grid: Grid, rules: Rules, segment: Segment, interest: Interest) -> list[Cell]:
    """Stitch the whole plane, then choose by hand."""
    tiles = [segment(grid.read(position)) for position in range(len(grid))]
    cells = stitch(grid, rules, tiles.__getitem__, segment)
    inside, found = interest.area().numbers(grid.plane) > 0, []
    columns = cells.tile, cells.index, cells.boxes, cells.scores, cells.seam, cells.centres
    for tile, index, box, score, seam, centre in zip(*(c.tolist() for c in columns), strict=True):
        mask = (cells.extra if tile == EXTRA else tiles[tile]).masks[index]
        y, x = np.floor(np.array(centre) + 0.5).astype(int).tolist()
        rows, columns_ = np.nonzero(mask)
        away = np.maximum(np.abs(rows + box[0] - y), np.abs(columns_ + box[1] - x)).min()
        if inside[y, x] and away <= 2 * grid.halo:
            found.append(cell(box, mask, score, seam))
    return sorted(found)


def of_the_region(
    grid: Grid, rules: Rules, segment: Segment, interest: Interest, block_px: int
) -> tuple[list[Cell], set[int]]:
    """Decide block by block; return the tiles that were looked at too."""
    tiles: dict[int, Candidates] = {}

    def load(position: int) -> Candidates:
        if position not in tiles:
            found = segment(grid.read(position))
            tiles[position] = Candidates.of_tile(found, grid, position, rules.margin)
        return tiles[position]

    blocks, found = Blocks(grid, block_px), []
    parts = np.array(sorted(interest.survey(grid).parts), np.int64)
    for block in np.unique(blocks.of(parts)).tolist():
        decided = decide_within(blocks, block, rules, load, segment, interest)
        cells = decided.cells
        assert np.array_equal(cells.order(), np.arange(len(cells)))
        columns = cells.tile, cells.index, cells.boxes, cells.scores, cells.seam
        for tile, index, box, score, seam in zip(*(c.tolist() for c in columns), strict=True):
            mask = (load(tile) if tile >= 0 else decided.extra).mask(index)
            found.append(cell(box, mask, score, seam))
    return sorted(found), set(tiles)


def box_in(shape: tuple[int, ...], sides: tuple[float, float, float, float]) -> Interest:
    """Return a box of any place and size, some of it perhaps outside."""
    (height, width), (a, b, c, d) = shape, sides
    y0, x0, y1, x1 = min(a, c) * height, min(b, d) * width, max(a, c) * height, max(b, d) * width
    return Interest(Box(0, 0, height, width), "box", (y0, x0, y1 + 1, x1 + 1))


SIDES = st.tuples(*[st.floats(-0.1, 1.1)] * 4)
BLOCKS = st.sampled_from([1, 60, 8192])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(10, 120), st.integers(10, 120)),
    count=st.integers(0, 50),
    largest=st.sampled_from([2.0, 8.0, 30.0, 120.0]),
    size=st.integers(12, 64),
    part=st.floats(0, 1.5),
    margin=st.integers(1, 6),
    window=st.sampled_from([1, 48, 4096]),
    depth=st.sampled_from([0, 0.75, 1]),
    sides=SIDES,
    block_px=BLOCKS,
)
def test_exact_tiles_give_the_cells_of_the_plane_whose_centre_is_inside(
    seed: int,
    shape: tuple[int, int],
    count: int,
    largest: float,
    size: int,
    part: float,
    margin: int,
    window: int,
    depth: float,
    sides: tuple[float, float, float, float],
    block_px: int,
) -> None:
    labels = blobs(seed, shape, count, largest)
    grid = Grid(Box(0, 0, *shape), size, 1 + int(part * size))
    rules = Rules(margin, overlap=0.4, window_px=window, depth=int(depth * grid.halo))
    interest = box_in(shape, sides)

    def segment(window: Box) -> Instances:
        return exact(window, labels)

    found, _ = of_the_region(grid, rules, segment, interest, block_px)
    assert found == of_the_plane(grid, rules, segment, interest)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(16, 70),
    halo=st.integers(5, 40),
    window=st.sampled_from([1, 60, 4096]),
    sides=SIDES,
    block_px=BLOCKS,
)
def test_so_they_are_whatever_the_segmenter_does(
    seed: int,
    size: int,
    halo: int,
    window: int,
    sides: tuple[float, float, float, float],
    block_px: int,
) -> None:
    labels, segmenter = discs(seed)[:100, :100], unreliable(seed)
    grid = Grid(Box(0, 0, *labels.shape), size, halo)
    rules = Rules(margin=2, overlap=0.4, window_px=window, depth=halo // 2)
    interest = box_in(labels.shape, sides)

    def segment(window: Box) -> Instances:
        return segmenter(window, labels)

    found, _ = of_the_region(grid, rules, segment, interest, block_px)
    assert found == of_the_plane(grid, rules, segment, interest)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 40),
    largest=st.integers(5, 14),
    size=st.integers(24, 64),
    halo=st.integers(8, 32),
    sides=SIDES,
    block_px=BLOCKS,
)
def test_so_they_are_where_cells_overlap(
    seed: int,
    count: int,
    largest: int,
    size: int,
    halo: int,
    sides: tuple[float, float, float, float],
    block_px: int,
) -> None:
    truth = overlapping(seed, (110, 120), count, largest)
    grid = Grid(Box(0, 0, 110, 120), size, halo)
    rules = Rules(2, overlap=0.4, window_px=4096, depth=halo // 2, overlapping=True)
    interest = box_in((110, 120), sides)

    def segment(window: Box) -> Instances:
        return cut(truth, window)

    found, _ = of_the_region(grid, rules, segment, interest, block_px)
    assert found == of_the_plane(grid, rules, segment, interest)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), y=st.integers(0, 400), x=st.integers(0, 400))
def test_no_tile_is_looked_at_that_is_further_off_than_a_cell_and_what_it_needs(
    seed: int, y: int, x: int
) -> None:
    random = np.random.default_rng(seed)
    labels = np.zeros((400, 400), np.int32)
    for label, (cy, cx) in enumerate(random.integers(0, 390, (300, 2)).tolist(), 1):
        labels[cy : cy + 8, cx : cx + 8] = label
    grid = Grid(Box(0, 0, 400, 400), 64, 12)
    interest = Interest(grid.plane, "box", (y, x, y + 20, x + 20))
    rules = Rules(margin=2, overlap=0.4, window_px=88, depth=9)
    _, asked = of_the_region(grid, rules, lambda w: exact(w, labels), interest, 8192)
    # Two cells in a row, at most, decide what becomes of one at the border.
    assert asked <= set(interest.survey(grid).tiles(reach_px(grid) + 3 * 8))
    assert len(interest.survey(grid).tiles(reach_px(grid))) <= 9


def test_a_cell_too_bent_for_its_tiles_belongs_to_no_region_whatever_their_size() -> None:
    labels = np.zeros((300, 300), np.int32)
    y, x = np.indices(labels.shape)
    distance = np.hypot(y - 150, x - 150)
    labels[(distance >= 100) & (distance < 110)] = 1
    labels[(distance >= 20) & (distance < 26)] = 2
    interest = Interest(Box(0, 0, 300, 300), "box", (140, 140, 160, 160))
    rules = Rules(margin=2, overlap=0.4, window_px=4096)
    for size in (32, 64, 512):
        grid = Grid(interest.plane, size, 16)
        found, _ = of_the_region(grid, rules, lambda w: exact(w, labels), interest, 8192)
        assert [box for box, *_ in found] == [(125, 125, 176, 176)]
