"""What is predicted again in the place of pieces, where other cells lie over them."""

from __future__ import annotations

import pytest

from cellseg.pipeline.complete import in_place
from cellseg.pipeline.tiles import Box
from pools import Cell, Sides, found_of

WINDOW = Box(0, 0, 100, 140)
GIANT = (20, 60, 80, 400)
SMALL = [(22, x, 78, x + 9) for x in range(70, 130, 10)]
"""Cells that cover most of `CUT` together."""
CUT = (20, 60, 80, 140)
"""What a tile sees of `GIANT`."""
UPPER, LOWER = (20, 60, 60, 200), (60, 60, 80, 200)
"""Two cells of which `CUT` may be fused."""


@pytest.mark.parametrize(
    ("pieces", "cells", "expected"),
    [
        ([CUT], [GIANT], [0]),
        ([CUT], [*SMALL, GIANT], [6]),
        ([CUT], [GIANT, (20, 60, 80, 108)], [0]),
        ([CUT], [GIANT, (20, 60, 80, 300)], [0, 1]),
        ([CUT], [UPPER, LOWER], [0, 1]),
        ([CUT], [UPPER, LOWER, (25, 70, 35, 80)], [0, 1]),
        ([CUT, (40, 70, 60, 140)], [(42, 80, 50, 90), GIANT, (40, 70, 60, 180)], [1, 2]),
        ([CUT], [(0, 120, 30, 300), (0, 50, 22, 140)], []),
        ([CUT], [], []),
    ],
    ids=[
        "a giant",
        "a giant, not the small cells on it",
        "a giant, of which a tile sees little, not a cell of half the piece",
        "two giants that look the same in the window",
        "two cells, seen as one piece",
        "two cells seen as one piece, not the small one on one of them",
        "a giant and the large cell on it, each of a piece",
        "those beside it that reach into it",
        "nothing",
    ],
)
def test_the_cells_of_the_pieces_are_predicted_again_and_no_others(
    pieces: list[Sides], cells: list[Cell], expected: list[int]
) -> None:
    objects = [found_of(cell) for cell in cells]
    found = in_place(objects, [found_of(piece, window=WINDOW) for piece in pieces], 0.4)
    assert [objects.index(each) for each in found] == expected
