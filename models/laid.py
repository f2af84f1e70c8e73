"""Laid: crops of a plane end to end in one array, so that a step is one for all of them.

A tile holds thousands of small masks. numpy takes about a microsecond to begin
anything, as long as to look through one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Laid", "Places", "contested"]

Integers = NDArray[np.int64]


class Places(NamedTuple):
    """Pixels that are set in some crops, crop by crop and row by row.

    Parameters
    ----------
    at : int64 (K,)
        Where each lies among the values.
    crop : int64 (K,)
        The number of its crop.
    id : int64 (K,)
        Its place in the plane, y * width + x; x and y may lie outside.
    """

    at: Integers
    crop: Integers
    id: Integers


@dataclass(frozen=True, eq=False)
class Laid:
    """Crops of a plane, each row by row, one after the other.

    Parameters
    ----------
    boxes : integer (N, 4) as y0, x0, y1, x1
        Half open, in px of the plane; may be empty.
    values : (P,)
        What the crops hold, P the sum of their sizes.
    """

    boxes: NDArray[Any]
    values: NDArray[Any]

    @classmethod
    def of(cls, boxes: NDArray[np.integer], crops: Sequence[NDArray[Any]]) -> Laid:
        """Lay crops end to end; each has the shape of its box."""
        kind = crops[0].dtype if len(crops) else np.dtype(bool)
        flat = [crop.ravel() for crop in crops]
        return cls(boxes, np.concatenate(flat) if flat else np.zeros(0, kind))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return a crop (h, w), a view."""
        (start, end), (height, width) = self._bounds[index], self._shapes[index]
        return self.values[start:end].reshape(height, width)

    @cached_property
    def sides(self) -> Integers:
        """Height and width of each crop, int64 (N, 2)."""
        boxes = self.boxes.astype(np.int64)
        sides: Integers = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
        return sides

    @cached_property
    def ends(self) -> Integers:
        """Where each crop ends among the values, int64 (N,)."""
        ends: Integers = np.cumsum(self.sides[:, 0] * self.sides[:, 1])
        return ends

    @cached_property
    def starts(self) -> Integers:
        """Where each crop begins, int64 (N,)."""
        return self.ends - self.sides[:, 0] * self.sides[:, 1]

    @cached_property
    def _bounds(self) -> list[list[int]]:
        bounds: list[list[int]] = np.column_stack([self.starts, self.ends]).tolist()
        return bounds

    @cached_property
    def _shapes(self) -> list[list[int]]:
        shapes: list[list[int]] = self.sides.tolist()
        return shapes

    @cached_property
    def rows(self) -> Rows:
        """The rows of all crops."""
        heights, widths = self.sides.T
        crop = np.repeat(np.arange(len(self)), heights)
        within = np.arange(len(crop)) - np.repeat(np.cumsum(heights) - heights, heights)
        wide = widths[crop]
        start = self.starts[crop] + within * wide
        return Rows(crop, within + self.boxes[crop, 0], start, start + wide)

    def places(self, where: NDArray[np.bool_], width: int) -> Places:
        """Return the pixels for which `where` (P,) holds, in a plane of a width in px."""
        at, rows = np.flatnonzero(where), self.rows
        counts = np.diff(np.searchsorted(at, np.append(rows.start, len(self.values))))
        shift = rows.y * width + self.boxes[rows.crop, 1] - rows.start
        return Places(at, np.repeat(rows.crop, counts), at + np.repeat(shift, counts))

    def counts(self, where: NDArray[np.bool_]) -> Integers:
        """Return for how many pixels of each crop `where` (P,) holds, int64 (N,)."""
        sums = np.concatenate([[0], np.cumsum(where, dtype=np.int64)])
        return np.asarray(sums[self.ends] - sums[self.starts], np.int64)

    def without(self, where: NDArray[np.bool_], crops: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return `where` (P,), False in all of some crops."""
        if not len(crops):
            return where
        where = where.copy()
        for start, end in (self._bounds[index] for index in crops.tolist()):
            where[start:end] = False
        return where

    def spans(self, where: NDArray[np.bool_]) -> Spans:
        """Return from where to where each row has pixels for which `where` (P,) holds."""
        at, rows = np.flatnonzero(where), self.rows
        bounds = np.searchsorted(at, np.append(rows.start, len(self.values)))
        count = np.diff(bounds)
        row = np.flatnonzero(count)
        first = at[bounds[row]] - rows.start[row]
        last = at[bounds[row + 1] - 1] - rows.start[row]
        return Spans(rows.crop[row], rows.y[row], first, last + 1, count[row])


class Rows(NamedTuple):
    """The rows of crops: of each the crop, y in the plane, and where it begins and ends."""

    crop: Integers
    y: Integers
    start: Integers
    end: Integers


class Spans(NamedTuple):
    """Rows of crops that have pixels: crop, y, first and last column (half open), and how many.

    Columns count from the crop's first one.
    """

    crop: Integers
    y: Integers
    first: Integers
    last: Integers
    pixels: Integers

    def tight(self, boxes: NDArray[np.integer]) -> tuple[Integers, Integers]:
        """Return the crops that have a pixel, and the tight box of each, int64 (M, 4)."""
        crops, begins = np.unique(self.crop, return_index=True)
        if not len(crops):
            return crops, np.zeros((0, 4), np.int64)
        ends = np.append(begins[1:], len(self.crop)) - 1
        left = np.minimum.reduceat(self.first, begins) + boxes[crops, 1]
        right = np.maximum.reduceat(self.last, begins) + boxes[crops, 1]
        return crops, np.column_stack([self.y[begins], left, self.y[ends] + 1, right])

    def in_one_piece(self, count: int) -> NDArray[np.bool_]:
        """Return which of so many crops surely hang together, bool (N,): most cells do.

        Rows without gaps, each of which touches the next one.
        """
        doubtful = self.pixels != self.last - self.first
        follows = self.crop[1:] == self.crop[:-1]
        touches = (self.first[1:] < self.last[:-1]) & (self.first[:-1] < self.last[1:])
        doubtful[1:] |= follows & ~(touches & (self.y[1:] == self.y[:-1] + 1))
        whole = np.ones(count, bool)
        whole[self.crop[doubtful]] = False
        return whole


def contested(places: Integers, size: int) -> NDArray[np.bool_]:
    """Return which of some places in a plane of so many px there are several of, bool (K,)."""
    numbers = np.arange(len(places), dtype=np.int32)
    last = np.empty(size, np.int32)
    last[places] = numbers
    beaten = places[last[places] != numbers]
    if not len(beaten):
        return np.zeros(len(places), bool)
    several = np.zeros(size, bool)
    several[beaten] = True
    return several[places]
