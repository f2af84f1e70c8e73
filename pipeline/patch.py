"""Patch: the cells of one window as a list of their pixels, and sums over each cell's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.measure_settings import Measure

Columns = dict[str, NDArray[Any]]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Near = Callable[[float, float], Floats]
"""Gives the centres y, x (M, 2) in px of the plane of all of its cells, those measured too, whose y
is at least the first number and less than the second, in any order."""


@dataclass(frozen=True, eq=False)
class Patch:
    """The cells to measure in one window of a plane, as a list of their P pixels.

    Parameters
    ----------
    count : int
        Number of cells, N; cell ``i`` is the one at ``ids[i]`` of `measure`.
    index : int64 (P,)
        The cell of each pixel, 0..N-1, in raster order; every cell has a pixel.
    y, x : int64 (P,)
        Row and column of each pixel in the window.
    pixels : (C, H, W)
        The window of the image, any real dtype.
    channels : tuple of C str
        Their names.
    pixel_um : (float, float) or None
        Height and width of a pixel in um.
    origin : (int, int)
        Row and column in the plane of the window's first pixel.
    settings : Measure
        The workflow's `[measure]`.
    occupied : bool (H, W)
        Where any cell of the image lies, measured here or not, in whatever layer. The window
        reaches as far around the cells as the chosen groups need (`Group.reach`), or to the edge
        of the image: what is not in the window is not in the image.
    near : Near or None
        The centres of the cells of the plane; None: no other cells than these are there.
    """

    count: int
    index: Integers
    y: Integers
    x: Integers
    pixels: NDArray[Any]
    channels: tuple[str, ...]
    pixel_um: tuple[float, float] | None = None
    origin: tuple[int, int] = (0, 0)
    settings: Measure = field(default_factory=Measure)
    occupied: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    near: Near | None = None

    def total(self, values: NDArray[Any]) -> Floats:
        """Sum `values` (P,) over each cell's pixels; float64 (N,), exact for sums below 2**53."""
        summed = np.bincount(self.index, values, minlength=self.count)
        return summed.astype(np.float64, copy=False)  # numpy counts nothing as int64

    def least(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the smallest of `values` (P,) in each cell, (N,), of the same dtype."""
        found = np.empty(self.count, values.dtype)
        found[self.index] = values
        np.minimum.at(found, self.index, values)
        return found

    def greatest(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the largest of `values` (P,) in each cell, (N,), of the same dtype."""
        found = np.empty(self.count, values.dtype)
        found[self.index] = values
        np.maximum.at(found, self.index, values)
        return found

    def intensity(self, channel: int) -> Floats:
        """Return the value of channel number `channel` at each pixel, float64 (P,)."""
        values: NDArray[Any] = self.pixels[channel][self.y, self.x]
        return values.astype(np.float64)

    @cached_property
    def area(self) -> Integers:
        """Pixels in each cell, int64 (N,)."""
        return np.bincount(self.index, minlength=self.count).astype(np.int64)

    @cached_property
    def framed(self) -> Integers:
        """The cell of each pixel of the window, -1 elsewhere and on a frame of 1 px around it.

        int64 (H + 2, W + 2).
        """
        height, width = self.pixels.shape[1:]
        cells = np.full((height + 2, width + 2), -1, np.int64)
        cells[self.y + 1, self.x + 1] = self.index
        return cells

    @cached_property
    def corner(self) -> tuple[Integers, Integers]:
        """First row and first column of each cell's box in the window, int64 (N,) each."""
        return self.least(self.y), self.least(self.x)

    @cached_property
    def centre(self) -> tuple[Floats, Floats]:
        """Row and column of each cell's centroid in its own box, float64 (N,) each."""
        top, left = self.corner
        y, x = self.y - top[self.index], self.x - left[self.index]
        return self.total(y) / self.area, self.total(x) / self.area
