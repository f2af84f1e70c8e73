"""Depth: how deep in its cell each pixel lies, and how far from the cell's innermost one."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.patch import Floats, Patch
from cellseg.pipeline.runs import Integers

BEYOND = 2**40
"""Squared px that no cell is deep: what is beyond the image is not outside of a cell."""
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def squared_depth(patch: Patch) -> Integers:
    """Return the squared distance of each pixel to the nearest one outside its cell, int64 (P,).

    In px squared, from centre to centre. What is beyond the image does not count, as in
    CellProfiler; `BEYOND` where nothing is outside the cell.
    """
    cells = _with_the_beyond(patch)
    column = _along_columns(cells)
    flat, squared_column, width = cells.ravel(), column.ravel(), cells.shape[1]
    at, cell = (patch.y + 1) * width + patch.x + 1, patch.index
    depth = squared_column[at]
    place, x = np.arange(len(at)), patch.x + 1
    for step in range(1, width):
        deep = depth[place] > step * step
        place = place[deep]
        if not len(place):
            break
        for way in (-step, step):
            # At the edge of an image this stays at the frame, which is beyond it.
            there = at[place] + np.clip(x[place] + way, 0, width - 1) - x[place]
            inside = (flat[there] == cell[place]) | (flat[there] == -2)
            off = np.where(inside, squared_column[there], 0) + step * step
            depth[place] = np.minimum(depth[place], off)
    return np.asarray(np.minimum(depth, BEYOND))


def innermost(patch: Patch, depth: Integers) -> tuple[Integers, Integers]:
    """Return row and column of each cell's deepest pixel, of equals the first, int64 (N,) each."""
    deepest = depth == patch.greatest(depth)[patch.index]
    width = patch.pixels.shape[2]
    at = np.where(deepest, patch.y * width + patch.x, np.iinfo(np.int64).max)
    y, x = np.divmod(patch.least(at), width)
    return y, x


def way_to(patch: Patch, y: Integers, x: Integers) -> Floats:
    """Return how far each pixel is from one of its cell's, float64 (P,), on a way inside the cell.

    A way goes from pixel to pixel, diagonally too; infinite where there is none.

    Parameters
    ----------
    y, x : int64 (N,)
        Row and column of that pixel in the window.
    """
    dy, dx = patch.y - y[patch.index], patch.x - x[patch.index]
    tall, wide = np.abs(dy), np.abs(dx)
    way: Floats = np.maximum(tall, wide) + (sqrt(2) - 1) * np.minimum(tall, wide)
    flat, width = patch.framed.ravel(), patch.framed.shape[1]
    at = (patch.y + 1) * width + patch.x + 1
    # The next pixel of a shortest way: a diagonal step, or one along the longer side.
    diagonal = at - np.sign(dy) * width - np.sign(dx)
    straight = np.where(tall > wide, at - np.sign(dy) * width, at - np.sign(dx))
    goes_on = (flat[diagonal] == patch.index) & (tall > 0) & (wide > 0)
    goes_on |= (flat[straight] == patch.index) & (tall != wide)
    goes_on |= (tall == 0) & (wide == 0)
    bent = patch.total(~goes_on) > 0
    if bent.any():
        _around_corners(patch, way, bent, at, y, x)
    return way


def _around_corners(
    patch: Patch, way: Floats, bent: NDArray[np.bool_], at: Integers, y: Integers, x: Integers
) -> None:
    """Find the shortest ways in cells where not all of them are straight."""
    # Late, so that to read a workflow loads nothing heavy.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    flat, width = patch.framed.ravel(), patch.framed.shape[1]
    chosen = np.flatnonzero(bent[patch.index])
    node = np.full(flat.size, -1)
    node[at[chosen]] = np.arange(len(chosen))
    rows, columns, lengths = [], [], []
    for dy, dx in STEPS:
        to = at[chosen] + dy * width + dx
        linked = np.flatnonzero(flat[to] == patch.index[chosen])
        rows.append(linked)
        columns.append(node[to[linked]])
        lengths.append(np.full(len(linked), sqrt(dy * dy + dx * dx)))
    graph = coo_array(
        (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(chosen), len(chosen)),
    ).tocsr()
    graph.indices, graph.indptr = graph.indices.astype(np.int32), graph.indptr.astype(np.int32)
    starts = node[(y[bent] + 1) * width + x[bent] + 1]
    way[chosen] = dijkstra(graph, indices=starts, min_only=True)


def _with_the_beyond(patch: Patch) -> Integers:
    """Return the cell of each pixel, with a frame of 1 px that is -2 where it is off the image."""
    cells: Integers = patch.framed.astype(np.int64)
    bottom, right = (
        start + length for start, length in zip(patch.origin, patch.pixels.shape[1:], strict=True)
    )
    if patch.origin[0] == 0:
        cells[0] = -2
    if patch.origin[1] == 0:
        cells[:, 0] = -2
    if bottom == patch.shape[0]:
        cells[-1] = -2
    if right == patch.shape[1]:
        cells[:, -1] = -2
    return cells


def _along_columns(cells: Integers) -> Integers:
    """Return the squared distance to the nearest pixel of another cell in the same column."""
    columns = np.ascontiguousarray(cells.T)  # numpy accumulates along rows much faster
    nearest = np.minimum(_since_change(columns), _since_change(columns[:, ::-1])[:, ::-1])
    squared = np.where((columns == -2) | (nearest == BEYOND), BEYOND, nearest * nearest)
    return np.ascontiguousarray(squared.T)


def _since_change(cells: Integers) -> Integers:
    """Return how far left of each pixel in its row the nearest one of another cell is."""
    place = np.arange(cells.shape[1])
    changed = np.ones(cells.shape, bool)
    changed[:, 1:] = cells[:, 1:] != cells[:, :-1]
    first = np.maximum.accumulate(np.where(changed, place, 0), axis=1)
    beyond = np.take_along_axis(cells, np.maximum(first - 1, 0), axis=1) == -2
    distance: Integers = np.where(beyond, BEYOND, place - first + 1)
    return distance
