"""Pieces of cells that no tile saw whole: which are left, and which belong together."""

from __future__ import annotations

from functools import partial

import pytest

from cellseg.pipeline.complete import Rules
from cellseg.pipeline.pieces import Pieces
from cellseg.pipeline.tiles import Blocks, Grid
from exact import cut
from pools import LONG, ROW, Cell, objects, pool_of

RULES = Rules(margin=2, overlap=0.4, window_px=4096, overlapping=True)
FLAT = Rules(margin=2, overlap=0.4, window_px=4096)
GIANT, SHIFTED = (20, 30, 80, 270), (22, 40, 82, 275)
LARGE = (20, 50, 80, 160)
ON_LARGE = [(22, x, 78, x + 9) for x in range(70, 130, 10)]
"""Cells that cover more than half of what the left tile sees of `LARGE`."""
P, Q = (40, 100, 60, 160), (46, 100, 66, 160)
P_CUT, Q_CUT = (40, 100, 60, 140), (46, 100, 66, 140)
"""A cell and its neighbour that covers 70 % of it, and what the left tile sees of them."""


def pieces(
    grid: Grid, *tiles: list[Cell], rules: Rules = RULES, scores: list[float] | None = None
) -> Pieces:
    return Pieces(pool_of(grid, *(objects(*cells, scores=scores) for cells in tiles)), rules, grid)


def cut_pieces(grid: Grid, *cells: Cell, rules: Rules = RULES) -> Pieces:
    """What an exact segmenter finds in each tile."""
    seen = partial(cut, objects(*cells))
    return Pieces(pool_of(grid, *(seen(grid.read(tile)) for tile in range(len(grid)))), rules, grid)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([P_CUT], [P], []),
        ([P_CUT], [(41, 101, 61, 161)], []),
        ([P_CUT], [], [0]),
        ([P_CUT, P], [], [0]),
        ([P_CUT, Q_CUT], [P, Q], []),
        ([P_CUT, Q_CUT], [P], [1]),
        ([P_CUT, Q_CUT], [Q], [0]),
        ([(20, 50, 80, 140)], [(20, 60, 80, 160), *ON_LARGE], [0, 1]),
        ([(40, 120, 60, 140)], [(20, 90, 80, 190)], [0]),
        ([(40, 110, 60, 140)], [(40, 110, 50, 160), (50, 110, 60, 160)], []),
    ],
    ids=[
        "another tile saw it whole",
        "and a pixel away",
        "no other tile saw it",
        "a whole one of the same tile is another cell",
        "two pieces, two whole cells",
        "two pieces, and only the one's cell",
        "two pieces, and only the other's cell",
        "small cells that lie over it",
        "a large cell that lies under it",
        "fused in one tile, two cells in the other",
    ],
)
def test_only_a_whole_cell_that_looks_like_it_explains_a_piece(
    left: list[Cell], right: list[Cell], expected: list[int]
) -> None:
    found = pieces(ROW, left, right)
    assert found.left.nonzero()[0].tolist() == expected


def test_cells_that_share_no_pixel_explain_a_piece_that_they_cover() -> None:
    found = pieces(ROW, [(20, 50, 80, 140)], [(20, 60, 80, 160), *ON_LARGE], rules=FLAT)
    assert not found.left[0]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([GIANT], [[0, 1, 2]]),
        ([GIANT, SHIFTED], [[0, 2, 4], [1, 3, 5]]),
        ([GIANT, (20, 40, 80, 280)], [[0, 2, 4], [1, 3, 5]]),
        ([GIANT, (40, 35, 60, 265)], [[0, 2, 4], [1, 3, 5]]),
        ([GIANT, (40, 70, 50, 118), (40, 110, 50, 130)], [[0, 3, 6]]),
        ([GIANT, (40, 70, 50, 130)], [[0, 2, 4], [1, 3]]),
        ([(20, 30, 50, 270), (50, 30, 80, 270)], [[0, 2, 4], [1, 3, 5]]),
    ],
    ids=[
        "a giant",
        "two giants, one over the other",
        "an exact tie: the middle tile shows the same of both",
        "one within the other",
        "a giant and small cells on it, each whole in a tile",
        "a giant and a cell on it that no tile saw whole",
        "side by side",
    ],
)
def test_pieces_of_one_cell_hang_together(cells: list[Cell], expected: list[list[int]]) -> None:
    assert cut_pieces(LONG, *cells).groups == expected


def test_a_small_piece_does_not_take_the_place_of_a_giant_that_its_tile_missed() -> None:
    found = pieces(LONG, [(20, 30, 80, 120)], [(40, 80, 50, 100)], [])
    assert found.groups == [[0], [1]]


def test_without_overlap_all_that_share_pixels_hang_together() -> None:
    assert cut_pieces(LONG, GIANT, SHIFTED, rules=FLAT).groups == [[0, 1, 2, 3, 4, 5]]


def test_the_block_of_the_first_tile_answers_for_a_group() -> None:
    found = cut_pieces(LONG, GIANT, (10, 110, 90, 290))
    assert found.groups == [[0, 2, 4], [1, 3, 5]]
    blocks = Blocks(LONG, 100)
    assert [found.of(blocks, block) for block in range(3)] == [found.groups, [], []]
    alone = cut_pieces(LONG, (10, 130, 90, 290))
    assert [alone.of(blocks, block) for block in range(3)] == [[], [[0, 1]], []]


def test_what_a_block_answers_for_rests_on_the_cells_that_explain_other_pieces() -> None:
    found = pieces(ROW, [P_CUT, Q_CUT], [P])
    assert set(found.rests_on(Blocks(ROW, 100), 0).tolist()) == {0, 1, 2}
    assert found.rests_on(Blocks(ROW, 100), 1).tolist() == []


def test_the_best_piece_comes_first_and_knows_its_window() -> None:
    found = pieces(ROW, [P_CUT, (10, 130, 15, 140)], scores=[0.5, 0.75])
    first, second = found.found([0, 1])
    assert (first.score, second.score) == (0.75, 0.5)
    assert first.window == second.window == ROW.read(0)
