"""Candidates of two looks are matched one to one, and tell cells that lie over each other apart."""

from __future__ import annotations

import pytest

from cellseg.pipeline.matches import Matches
from cellseg.pipeline.tiles import Box, Grid
from pools import ROW, Cell, objects, pool_of

A, B = (40, 80, 60, 100), (40, 86, 60, 106)
A_MOVED, B_MOVED = (40, 81, 60, 101), (40, 87, 60, 107)
"""A cell and its neighbour that covers 70 % of it, and the same a pixel further right."""
FUSED, LARGER, SMALLER = (40, 80, 60, 120), (40, 80, 60, 104), (40, 98, 60, 120)
BARS = (40, 100, 48, 140), (52, 100, 60, 140)
"""What the left tile sees of `HORSESHOE`, and `ON_BARS` lies over both."""
HORSESHOE = (40, 100, 48, 195), (52, 100, 60, 195), (40, 190, 60, 195)
ON_BARS = (40, 100, 60, 136)
WIDE, UPPER, LOWER = (40, 20, 62, 170), (40, 20, 50, 170), (50, 20, 62, 170)
"""One fused of two of which no tile sees all; the left tile sees most."""


def matches(
    *tiles: tuple[Cell, ...], completed: tuple[Cell, ...] = (), grid: Grid = ROW
) -> Matches:
    found = [objects(*cells) for cells in tiles]
    return Matches(pool_of(grid, *found, completed=completed), grid)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([A], [A_MOVED], {(0, 1)}),
        ([A], [(40, 100, 60, 120)], set()),
        ([A, B], [A_MOVED, B_MOVED], {(0, 2), (1, 3)}),
        ([A, B], [B_MOVED], {(1, 2)}),
        ([A, B], [B_MOVED, (40, 72, 60, 92)], {(0, 3), (1, 2)}),
        ([A], [(40, 78, 60, 98), (40, 82, 60, 102)], {(0, 1)}),
        ([A, A_MOVED], [A_MOVED, A], {(0, 3), (1, 2)}),
        ([A, A], [A, A], {(0, 2), (1, 3)}),
    ],
    ids=[
        "two views of one cell",
        "side by side, no pixel shared",
        "each of two cells with itself",
        "missed by one tile, and its neighbour is not in its place",
        "the most alike is another's, the next one is free",
        "exact tie of two for one",
        "the same pixels, in any order",
        "exact tie of two for two",
    ],
)
def test_the_most_alike_are_matched_first_and_each_once(
    left: list[Cell], right: list[Cell], expected: set[tuple[int, int]]
) -> None:
    found = matches(tuple(left), tuple(right))
    pairs = [(i, j) for i in range(len(left)) for j in range(len(left), len(left) + len(right))]
    touching = [pair for pair in pairs if found.agree(*pair, 0)]
    assert {pair for pair in touching if found.matched(*pair)[0]} == expected
    assert {(i, j) for i, j in touching if found.matched(j, i)[0]} == expected


def test_a_match_rests_on_those_that_took_a_better_one_away() -> None:
    found = matches((A, B), (B_MOVED, (40, 72, 60, 92)))
    assert found.matched(0, 3) == (True, frozenset({0, 1, 2, 3}))
    assert found.matched(1, 2) == (True, frozenset({1, 2}))


@pytest.mark.parametrize(
    ("left", "right", "pair", "expected"),
    [
        ([A], [A_MOVED], (0, 1), False),
        ([A, B], [A_MOVED, B_MOVED], (0, 2), False),
        ([A, B], [A_MOVED, B_MOVED], (0, 3), True),
        ([A, B], [A_MOVED, B_MOVED], (1, 2), True),
        ([A, A_MOVED], [A, A_MOVED], (0, 3), True),
        ([A, B], [B_MOVED], (0, 2), True),
        ([A], [B_MOVED], (0, 1), False),
        ([FUSED], [LARGER, SMALLER], (0, 1), False),
        ([FUSED], [LARGER, SMALLER], (0, 2), False),
        ([LARGER, SMALLER], [FUSED], (1, 2), False),
    ],
    ids=[
        "two views of one cell",
        "two views, and a neighbour over both",
        "a cell and a neighbour that covers 70 % of it",
        "the neighbour and the cell",
        "two cells a pixel apart",
        "one tile missed the cell",
        "one tile saw the one, the other the other",
        "fused and the larger part, its match",
        "fused and the smaller part",
        "the smaller part and fused, tiles exchanged",
    ],
)
def test_what_a_tile_shows_side_by_side_is_apart(
    left: list[Cell], right: list[Cell], pair: tuple[int, int], expected: bool
) -> None:
    found, (i, j) = matches(tuple(left), tuple(right)), pair
    assert found.apart([i], [j])[0] is expected
    assert found.apart([j], [i])[0] is expected


def test_any_candidates_of_two_objects_may_tell_them_apart() -> None:
    three = Grid(Box(0, 0, 100, 150), 50, 60)
    found = matches((A,), (B,), (A, B), grid=three)
    assert not found.apart([0], [1])[0]
    apart, rests_on = found.apart([0, 2], [1, 3])
    assert apart
    assert rests_on == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("left", "completed", "pair", "expected"),
    [
        ([ON_BARS, *BARS], [HORSESHOE], (0, 3), True),
        ([ON_BARS, BARS[0]], [HORSESHOE], (0, 2), False),
        ([ON_BARS, BARS[0], (52, 100, 90, 140)], [HORSESHOE], (0, 3), False),
        ([ON_BARS, BARS[0], (52, 100, 60, 136)], [HORSESHOE], (0, 3), False),
        ([ON_BARS, BARS[0], ((46, 100, 48, 140), BARS[1])], [HORSESHOE], (0, 3), False),
        ([(40, 20, 50, 140), (50, 20, 62, 140)], [WIDE, UPPER], (2, 3), False),
        ([(40, 20, 50, 140), (50, 20, 62, 140)], [WIDE, LOWER], (2, 3), False),
        (
            [(40, 20, 60, 140), (43, 20, 63, 140)],
            [(40, 20, 60, 170), (43, 20, 63, 171)],
            (2, 3),
            True,
        ),
        ([(40, 20, 60, 140)], [(40, 20, 60, 170), (40, 20, 60, 171)], (1, 2), False),
    ],
    ids=[
        "a cell that the window cuts into two pieces and one that lies over both",
        "the window shows one piece of it only",
        "the other cut one lies mostly beside it",
        "the other one in it is a whole cell",
        "the other cut one shares pixels with its match: another cell",
        "fused and its upper part, both cut",
        "fused and its lower part, both cut",
        "two cells that no tile saw whole",
        "one cell completed twice",
    ],
)
def test_what_a_tile_shows_of_cells_that_it_cuts_tells_them_apart(
    left: list[Cell], completed: list[Cell], pair: tuple[int, int], expected: bool
) -> None:
    found, (i, j) = matches(tuple(left), (), completed=tuple(completed)), pair
    assert found.apart([i], [j])[0] is expected
    assert found.apart([j], [i])[0] is expected


@pytest.mark.parametrize(
    ("left", "right", "least", "expected"),
    [
        ((40, 100, 60, 140), (40, 100, 60, 180), 1.0, True),
        ((40, 100, 60, 140), (40, 90, 60, 180), 0.8, True),
        ((40, 100, 60, 140), (40, 90, 60, 180), 0.81, False),
        ((20, 80, 80, 140), (40, 90, 60, 110), 0.4, False),
        ((40, 110, 60, 140), (20, 90, 80, 180), 0.4, False),
        ((40, 80, 60, 100), (40, 100, 60, 120), 0.0, False),
    ],
    ids=[
        "a piece and its cell, counted where both are known",
        "at the least share",
        "just below it",
        "a small cell on a piece",
        "a small piece on a cell",
        "no pixel shared",
    ],
)
def test_two_agree_if_they_share_enough_of_either(
    left: Cell, right: Cell, least: float, expected: bool
) -> None:
    assert matches((left,), (right,)).agree(0, 1, least) is expected
