"""Runs: cells as unbroken sequences of pixels along rows; there are far fewer than pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of N cells in one window, cell by cell, in a cell row by row and from left to right.

    A run is as long as can be: the pixels to its left and right are not of the cell.

    Parameters
    ----------
    cell : int64 (R,)
        The cell of each run, 0..N-1; every cell has one.
    y : int64 (R,)
        Its row in the window.
    start, stop : int64 (R,)
        Its first column in the window, and the one after its last.
    framed : int32 (H + 2, W + 2)
        The cell of each pixel of the window, -1 elsewhere and on a frame of 1 px around it.
    """

    cell: Integers
    y: Integers
    start: Integers
    stop: Integers
    framed: NDArray[np.int32]

    @classmethod
    def of(cls, labels: NDArray[Any], ids: NDArray[Any]) -> Runs:
        """Find the cells `ids` (N,) in integer labels (H, W).

        Raises
        ------
        ValueError
            If an id is repeated, 0 or not there.
        """
        height, width = labels.shape
        changes = np.ones(labels.shape, bool)
        np.not_equal(labels[:, 1:], labels[:, :-1], out=changes[:, 1:])
        at = np.flatnonzero(changes)
        length = np.diff(at, append=labels.size)
        y, start = np.divmod(at, max(width, 1))
        cell = _places(labels[y, start], ids)
        framed = np.full((height + 2, width + 2), -1, np.int32)
        framed[1:-1, 1:-1] = np.repeat(cell.astype(np.int32), length).reshape(labels.shape)
        inside = np.flatnonzero(cell >= 0)
        # Of 16-bit integers numpy sorts by radix.
        key = cell[inside].astype(np.uint16 if len(ids) <= 2**16 else np.int64)
        own = inside[np.argsort(key, kind="stable")]
        return cls(cell[own], y[own], start[own], start[own] + length[own], framed)

    @property
    def length(self) -> Integers:
        """Pixels of each run, int64 (R,)."""
        return self.stop - self.start

    @cached_property
    def first(self) -> Integers:
        """The first run of each cell, int64 (N,)."""
        return np.flatnonzero(np.diff(self.cell, prepend=-1))

    @cached_property
    def last(self) -> Integers:
        """The last run of each cell, int64 (N,)."""
        return np.append(self.first, len(self.cell))[1:] - 1


def _places(values: NDArray[Any], ids: NDArray[Any]) -> Integers:
    """Return where in `ids` each of `values` is, int64 of their shape; -1 where it is not or 0."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    places = np.full(len(values), -1)
    if len(ids):
        found = np.minimum(np.searchsorted(ascending, values), len(ids) - 1)
        places = np.where((ascending[found] == values) & (values != 0), order[found], -1)
    missing = np.flatnonzero(np.bincount(places[places >= 0], minlength=len(ids)) == 0)
    if len(missing):
        raise ValueError(f"id {ids[missing[0]]} is repeated or not among the labels of the window")
    return places
