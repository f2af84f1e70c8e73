"""Ranked: the values of each cell in ascending order, and what follows from the order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.patch import Floats, Integers, Patch

FEW = 2**16
"""Cells whose number fits into 16 bits."""


class Ranked:
    """Some values of N cells, sorted within each.

    Parameters
    ----------
    values : real (P,)
        At each pixel of `patch`; finite.
    patch : Patch
    """

    def __init__(self, values: NDArray[Any], patch: Patch) -> None:
        self.values: Floats = _sorted(values, patch).astype(np.float64, copy=False)
        self.first, self.count = patch.first, patch.area

    @property
    def least(self) -> Floats:
        """The smallest value of each cell, float64 (N,)."""
        return self.values[self.first]

    @property
    def greatest(self) -> Floats:
        """The largest value of each cell, float64 (N,)."""
        return self.values[self.first + self.count - 1]

    def percentile(self, percent: float) -> Floats:
        """Return a percentile of each cell, float64 (N,), as `numpy.percentile` defines it.

        By its method ``linear``, bit by bit: between the two values nearest to the rank
        ``(n - 1) * percent / 100``, that in proportion.
        """
        rank = (self.count - 1) * (percent / 100)
        below = np.floor(rank)
        part, place = rank - below, self.first + below.astype(np.int64)
        low = self.values[place]
        high = self.values[np.minimum(place + 1, self.first + self.count - 1)]
        step = high - low
        return np.where(part < 0.5, low + step * part, high - step * (1 - part))

    def median_deviation(self, median: Floats) -> Floats:
        """Return the median of the distances of all values to `median` (N,), float64 (N,)."""
        half = (self.count - 1) // 2 + 1
        deviation = self._nearest(median, half)
        even = self.count % 2 == 0
        next_one = self._nearest(median, np.where(even, half + 1, half))
        return np.where(even, (deviation + next_one) / 2, deviation)

    def _nearest(self, middle: Floats, rank: Integers) -> Floats:
        """Return the distance to `middle` of the value that is the `rank`-th (N,) nearest to it.

        The nearest ones lie side by side. The further up they begin, the nearer is the first and
        the farther the last of them; where they change places, the farther of both is nearest.
        """
        low, high = np.zeros_like(rank), self.count - rank
        span = int(high.max(initial=0))
        for _ in range(span.bit_length()):
            begin = (low + high) // 2
            first, last = self._ends(middle, begin, rank)
            reached = last >= first
            high = np.where(reached, begin, high)
            low = np.where(reached, low, np.minimum(begin + 1, high))
        here = np.maximum(*self._ends(middle, high, rank))
        before = np.maximum(*self._ends(middle, np.maximum(high - 1, 0), rank))
        return np.minimum(here, before)

    def _ends(self, middle: Floats, begin: Integers, rank: Integers) -> tuple[Floats, Floats]:
        """Return how far below `middle` the first of `rank` values is, how far above the last."""
        at = self.first + begin
        return middle - self.values[at], self.values[at + rank - 1] - middle


def _sorted(values: NDArray[Any], patch: Patch) -> NDArray[Any]:
    """Return `values` (P,) in ascending order within each cell.

    Cell and value are sorted as one number where both fit into 32 or 64 bits: numpy does that
    many times as fast as by two keys.
    """
    size, dtype = values.dtype.itemsize, values.dtype
    if dtype.kind == "f":
        values = values + dtype.type(0)  # 0 and -0 are equal, and have no order
    if size > 4:
        return values[_order(values, patch)]
    small = size <= 2 and patch.count <= FEW
    whole, shift = (np.uint32, 16) if small else (np.uint64, 32)
    key = patch.spread(np.arange(patch.count).astype(whole) << whole(shift))
    key |= _as_unsigned(values)
    key.sort()
    key &= whole(2**shift - 1)
    return _as_before(key.astype(f"u{size}"), dtype)


def _order(values: NDArray[Any], patch: Patch) -> Integers:
    """Return the order of the values, cell by cell."""
    order = np.argsort(values)
    cell = patch.index[order]
    # Of 16-bit integers numpy sorts by radix.
    key = cell.astype(np.uint16) if patch.count <= FEW else cell
    return order[np.argsort(key, kind="stable")]


def _as_unsigned(values: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned integers of as many bits in the order of the values."""
    size, kind = values.dtype.itemsize, values.dtype.kind
    bits = values.view(f"u{size}")
    if kind == "u":
        return bits
    sign = bits.dtype.type(1 << (8 * size - 1))
    if kind == "i":
        return bits ^ sign
    # Floats are sign and size: the larger the size the larger the number, or below 0 the smaller.
    return np.where(bits & sign, ~bits, bits | sign)


def _as_before(bits: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values again of which `_as_unsigned` made `bits`."""
    if dtype.kind == "u":
        return bits
    sign = bits.dtype.type(1 << (8 * dtype.itemsize - 1))
    if dtype.kind == "i":
        return (bits ^ sign).view(dtype)
    return np.where(bits & sign, bits ^ sign, ~bits).view(dtype)
