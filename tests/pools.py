"""Small hand-made pools of candidates: rectangles that tiles in a row, and later looks, found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellseg.models import Instances
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.complete import Found, as_candidates
from cellseg.pipeline.pool import Pool
from cellseg.pipeline.tiles import FAR, Box, Grid

Sides = tuple[int, int, int, int]
Cell = Sides | tuple[Sides, ...]
"""A rectangle y0, x0, y1, x1, or several that are one object."""

ROW = Grid(Box(0, 0, 100, 200), 100, 40)
"""Two tiles: the left one reads columns 0 to 140, the right one 60 to 200."""
LONG = Grid(Box(0, 0, 100, 300), 100, 20)
"""Three tiles: they read columns 0 to 120, 80 to 220 and 180 to 300."""


def objects(*cells: Cell, scores: Sequence[float] | None = None) -> Instances:
    """Objects out of rectangles, of score 1 or these."""
    found = []
    for number, cell in enumerate(cells):
        sides = [Box(*each) for each in np.reshape(cell, (-1, 4)).tolist()]
        mask = np.zeros((max(s.y1 for s in sides), max(s.x1 for s in sides)), bool)
        for each in sides:
            mask[each.slices] = True
        found.append(((0, 0), mask, scores[number] if scores else 1.0, 1))
    return Instances.stack(found)


def found_of(cell: Cell, look: int = 0, window: Box | None = None) -> Found:
    """One object out of rectangles: a cell completed in a look, or the piece of a window."""
    one = objects(cell)
    return Found(Box(*one.boxes[0].tolist()), one.masks[0], 1.0, 1, FAR, look=look, window=window)


def pool_of(grid: Grid, *tiles: Instances, completed: Sequence[Cell] = ()) -> Pool:
    """All that the tiles found, in their order, then completed cells, each in a look of its own.

    Whole is what keeps 2 px from the edges of its window.
    """
    sets = [Candidates.of_tile(found, grid, tile, 2) for tile, found in enumerate(tiles)]
    sets.append(as_candidates([found_of(cell, look) for look, cell in enumerate(completed, 1)]))
    wanted = [np.ones(len(found), bool) for found in sets]
    pool = Pool(lambda _: range(len(sets)), sets.__getitem__, wanted.__getitem__)
    return pool.gather(grid.plane)
