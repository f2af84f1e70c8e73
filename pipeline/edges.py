"""Edges: how long the outline of each cell is, and how straight along the axes."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.patch import Floats, Patch
from cellseg.pipeline.runs import Integers

KINDS = np.zeros(50, np.int64)
"""What a pixel adds to the perimeter, by its neighbours at the edge: 1, the root of 2, or half of
both. The pixel itself counts 1, one beside it 2, one across a corner 10."""
for _kind, _codes in enumerate(([5, 7, 15, 17, 25, 27], [21, 33], [13, 23]), start=1):
    KINDS[_codes] = _kind


def perimeter(patch: Patch) -> Floats:
    """Return the perimeter of each cell, float64 (N,), in px.

    Benkrid and Crookes, "Design and FPGA implementation of a perimeter
    estimator", as `skimage.measure.perimeter` with neighborhood 4, with
    "the same cell" in place of "foreground".
    """
    row = patch.framed.shape[1]
    straight, diagonal = (1, -1, row, -row), (row + 1, row - 1, 1 - row, -1 - row)
    inside = patch.at[patch.edge]
    at, cell = inside + 2 * (inside // (row - 2)) + row + 1, patch.index[patch.edge]
    border = np.full(patch.framed.size, -1, np.int32)
    border[at] = cell
    code = np.ones(len(at), np.int8)
    for weight, steps in ((2, straight), (10, diagonal)):
        for step in steps:
            code += weight * (border[at + step] == cell).astype(np.int8)
    seen = np.bincount(4 * cell + KINDS[code], minlength=4 * patch.count).reshape(-1, 4)
    length: Floats = seen[:, 1] + seen[:, 2] * sqrt(2) + seen[:, 3] * ((1 + sqrt(2)) / 2)
    return length


def straight_edge(patch: Patch) -> Floats:
    """Return the longest straight edge along an axis over the cell's diameter, float64 (N,).

    The edge: the most pixels in unbroken sequence along one row (column) of
    which none has the same cell above it (below, to its left, to its right).
    The diameter: that of the circle of the same area. So a disc of 24 px has
    about 0.3, a square 0.9, and a disc cut in two along a tile border 1.4.
    """
    longest = np.zeros(patch.count, np.int64)
    for cells in (patch.framed, np.ascontiguousarray(patch.framed.T)):
        for step in (1, -1):
            _runs_along_rows(cells, step, longest)
    diameter: Floats = np.sqrt(patch.area * (4 / pi))
    return longest / diameter


def _runs_along_rows(cells: NDArray[np.int32], step: int, longest: Integers) -> None:
    """Raise `longest` (N,) to the longest run of pixels whose neighbour `step` rows on differs.

    Parameters
    ----------
    cells : int32 (H, W)
        The cell of each pixel, -1 for none; a frame of 1 px has none.
    """
    inner = cells[1:-1]
    edge: NDArray[np.bool_] = inner != cells[1 + step : len(cells) - 1 + step]
    edge &= inner >= 0
    at = np.flatnonzero(edge)
    cell = inner[np.divmod(at, inner.shape[1])]
    # The frame is in every row, so a run cannot go on in the next one.
    ends = np.append(np.flatnonzero((np.diff(at) != 1) | (np.diff(cell) != 0)), len(at) - 1)
    if len(at):
        np.maximum.at(longest, cell[ends], np.diff(ends, prepend=-1))
