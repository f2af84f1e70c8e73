"""Hulls: the convex hull of each cell's pixels, row by row, and how wide it is in every direction.

A hull is that of the middles of all edges of pixels, as scikit-image takes it, in integers of
half a pixel, so that no pixel is in it or out of it by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.patch import Floats, Integers, Patch

NOWHERE = np.iinfo(np.int64).max // 8  # beyond any column, and safe to double
BATCH = 2**16
"""Pairs of corners that are compared at once: few enough to stay in the cache."""
SHORT = 2**13
"""Px; products of lengths below it, in half pixels, fit into 32 bits."""


@dataclass(frozen=True, eq=False)
class Hulls:
    """The pixels whose centre is in or on the convex hull of each of N cells.

    Parameters
    ----------
    height : int64 (N,)
        Rows of each cell.
    left, right : int64 (rows of all cells,)
        First and last column in each row, from the cell's box; there is one in every row.
    """

    height: Integers
    left: Integers
    right: Integers

    @classmethod
    def of(cls, patch: Patch) -> Hulls:
        """Find the hulls of the cells of a window."""
        runs, (top, left) = patch.runs, patch.corner
        height = patch.size[0]
        first_row = np.cumsum(height) - height
        row = (first_row - top)[runs.cell] + runs.y
        begins = np.flatnonzero(np.diff(row, prepend=-1))
        ends = np.append(begins, len(row))[1:] - 1
        filled = row[begins]
        corner = left[runs.cell[begins]]
        first, last = runs.start[begins] - corner, runs.stop[ends] - 1 - corner
        starts = (_hull_start(height, filled, side) for side in (first, -last))
        return cls(height, next(starts), -next(starts))

    @property
    def area(self) -> Integers:
        """Pixels in each hull, int64 (N,)."""
        first_row = np.cumsum(self.height) - self.height
        return np.add.reduceat(self.right - self.left + 1, first_row)

    def feret(self) -> tuple[Floats, Floats]:
        """Return the greatest and the least distance of parallel lines around each cell, in px.

        Around the outline of the hull's pixels half way to those outside, the middles of
        their edges, of which `skimage.measure.regionprops` takes the greatest distance
        too. One pixel is 1 px by 0.71, a row of five 5 by 1. The least is taken across each side
        of the outline's hull (Shamos 1978: one of the two lines lies on a side).
        """
        longest, least = np.zeros(len(self.height)), np.zeros(len(self.height))
        for cells, y, x in self._polygons():
            size = max(int(y.max()), int(x.max()), -int(x.min()))
            kind = np.int32 if size < 2 * SHORT else np.int64
            y, x = y.astype(kind), x.astype(kind)
            longest[cells] = np.sqrt(_farthest(y, x)) / 2
            least[cells] = _narrowest(y, x) / 2
        return longest, least

    def _polygons(self) -> Iterator[tuple[Integers, Integers, Integers]]:
        """Yield some cells (n,), and y and x (n, V) of the corners of each in half px, in order.

        The last corner is repeated where there are fewer.
        """
        owners, ys, xs = self._corners()
        count = np.bincount(owners, minlength=len(self.height))
        first, by_count = np.cumsum(count) - count, np.argsort(count, kind="stable")
        start = 0
        while start < len(by_count):
            some = max(BATCH // int(count[by_count[start]]) ** 2, 1)
            cells = by_count[start : start + some]
            steps = np.arange(count[cells[-1]])
            at = first[cells][:, None] + np.minimum(steps, count[cells][:, None] - 1)
            yield cells, ys[at], xs[at]
            start += some

    def _corners(self) -> tuple[Integers, Integers, Integers]:
        """Return owner, y and x in half px of the corners, cell by cell, around each cell."""
        every = np.arange(len(self.left))
        (at, x), (at_right, x_right) = (
            _corners(self.height, every, side) for side in (self.left, -self.right)
        )
        halves = 2 * self.height + 1
        owner = np.repeat(np.arange(len(self.height)), halves)
        first = np.cumsum(halves) - halves
        # Down along the left side and up along the right one.
        at_right, x_right = at_right[::-1], -x_right[::-1]
        owners = np.concatenate([owner[at], owner[at_right]])
        order = np.argsort(owners, kind="stable")
        owners = owners[order]
        y = np.concatenate([at, at_right])[order] - first[owners]
        return owners, y, np.concatenate([x, x_right])[order]


def _hull_start(height: Integers, filled: Integers, first: Integers) -> Integers:
    """Return the first column in the hull for each row of each cell, int64 (rows of all cells,).

    Parameters
    ----------
    height : int64 (N,)
        Rows of each cell; the first and the last one are filled.
    filled : int64 (F,)
        The rows that have a pixel, of all rows of all cells.
    first : int64 (F,)
        First column with a pixel in each.
    """
    at, x = _corners(height, filled, first)
    cell = np.repeat(np.arange(len(height)), height)
    middle = 2 * np.arange(len(cell)) + cell + 1  # h rows have 2 h + 1 half rows
    left = np.searchsorted(at, middle, side="right") - 1
    y0, y1 = at[left], at[left + 1]
    crossing = x[left] * (y1 - middle) + x[left + 1] * (middle - y0)
    column: Integers = -(-crossing // (2 * (y1 - y0)))
    return column


def _corners(height: Integers, filled: Integers, first: Integers) -> tuple[Integers, Integers]:
    """Return the corners of the left side of each hull: their half row of all, and x in half px.

    Parameters
    ----------
    height, filled, first
        See `_hull_start`.
    """
    cell = np.repeat(np.arange(len(height)), height)
    inner = 2 * filled + cell[filled] + 1
    half = np.full(2 * len(cell) + len(height), NOWHERE)
    half[inner] = 2 * first - 1
    half[inner - 1] = 2 * first
    half[inner + 1] = np.minimum(half[inner + 1], 2 * first)
    at, owner = np.flatnonzero(half < NOWHERE), np.repeat(np.arange(len(height)), 2 * height + 1)
    x = half[at]
    # A point on or right of the line through its neighbours is no corner of the hull. All such
    # points go at once: no corner is ever one, so what is left in the end are the corners.
    while True:
        same, dy, dx = owner[at[:-2]] == owner[at[2:]], np.diff(at), np.diff(x)
        keep = np.ones(len(at), bool)
        keep[1:-1] = ~same | (dx[:-1] * dy[1:] < dx[1:] * dy[:-1])
        if keep.all():
            return at, x
        at, x = at[keep], x[keep]


def _farthest(y: NDArray[np.signedinteger], x: NDArray[np.signedinteger]) -> Integers:
    """Return the greatest squared distance of two of the corners (n, V) of each cell, (n,)."""
    down, right = y[:, :, None] - y[:, None], x[:, :, None] - x[:, None]
    down *= down
    right *= right
    down += right
    return down.reshape(len(y), -1).max(axis=1).astype(np.int64)


def _narrowest(y: NDArray[np.signedinteger], x: NDArray[np.signedinteger]) -> Floats:
    """Return the least width of the polygon of the corners (n, V) of each cell, (n,)."""
    down, right = np.roll(y, -1, axis=1) - y, np.roll(x, -1, axis=1) - x
    across = down[:, :, None] * x[:, None]
    across -= right[:, :, None] * y[:, None]
    # Corners go down the left side and up the right one: no corner is left of a side.
    width = across.max(axis=2) - (down * x - right * y)
    length = np.hypot(down, right, dtype=np.float64)
    known = np.where(length > 0, length, 1)
    narrowest: Floats = np.where(length > 0, width / known, np.inf).min(axis=1)
    return narrowest
