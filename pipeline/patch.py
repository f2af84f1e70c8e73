"""Patch: the cells of one window as a list of their pixels, and sums over each cell's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.runs import Integers, Runs

Columns = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]
Near = Callable[[float, float], Floats]
"""Gives the centres y, x (M, 2) in px of the plane of all of its cells, those measured too, whose y
is at least the first number and less than the second, in any order; of 3D cells z, y, x (M, 3),
with planes counted in px too."""


def white(dtype: np.dtype[Any]) -> float:
    """Return the highest grey level that a type can hold; 1 of floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


@dataclass(frozen=True, eq=False)
class Patch:
    """The cells to measure in one window of a plane, as a list of their P pixels, cell by cell.

    All pixels of the first cell come first, then those of the second: in a cell they are in
    raster order. So what belongs to a cell follows from its own pixels, in their own order.

    Parameters
    ----------
    count : int
        Number of cells, N; cell ``i`` is the one at ``ids[i]`` of `measure`.
    runs : Runs
        Their pixels, as runs along rows.
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
    extent : (int, int) or None
        Height and width of the plane; None: the window is all of it.
    solid_centres : float64 (N, 3) or None
        Of 3D cells, of which these are sections: z, y, x in px, planes counted in px too.
    tops : tuple of C float or None
        The highest grey level that each channel can have; None: what the type of `pixels` holds.
    """

    count: int
    runs: Runs
    pixels: NDArray[Any]
    channels: tuple[str, ...]
    pixel_um: tuple[float, float] | None = None
    origin: tuple[int, int] = (0, 0)
    settings: Measure = field(default_factory=Measure)
    occupied: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    near: Near | None = None
    extent: tuple[int, int] | None = None
    solid_centres: Floats | None = None
    tops: tuple[float, ...] | None = None

    @cached_property
    def first(self) -> Integers:
        """The first pixel of each cell, int64 (N,)."""
        return np.cumsum(self.area) - self.area

    @cached_property
    def index(self) -> Integers:
        """The cell of each pixel, int64 (P,): 0..N-1, ascending."""
        return self.spread(np.arange(self.count))

    @cached_property
    def at(self) -> Integers:
        """Where each pixel is in the window, row by row: ``y * W + x``, int64 (P,)."""
        runs = self.runs
        length = runs.length
        before = np.cumsum(length) - length
        start = runs.y * self.pixels.shape[2] + runs.start
        return np.repeat(start - before, length) + np.arange(length.sum())

    @cached_property
    def y(self) -> Integers:
        """Row of each pixel in the window, int64 (P,)."""
        return np.repeat(self.runs.y, self.runs.length)

    @cached_property
    def x(self) -> Integers:
        """Column of each pixel in the window, int64 (P,)."""
        return self.at - self.y * self.pixels.shape[2]

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give each pixel the value of its cell: from (N,) to (P,), of the same dtype."""
        return np.repeat(values, self.area)

    def total(self, values: NDArray[Any]) -> Floats:
        """Sum `values` (P,) over each cell's pixels; float64 (N,), exact for sums below 2**53."""
        return np.add.reduceat(values.astype(np.float64, copy=False), self.first)

    def least(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the smallest of `values` (P,) in each cell, (N,), of the same dtype."""
        return np.minimum.reduceat(values, self.first)

    def greatest(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the largest of `values` (P,) in each cell, (N,), of the same dtype."""
        return np.maximum.reduceat(values, self.first)

    @cached_property
    def edge(self) -> Integers:
        """Which of the pixels are at their cell's edge, int64 (E,), ascending; each cell has some.

        Above, below or beside them is none of the same cell, as beyond the image.
        """
        return np.flatnonzero(self.at_edge.reshape(-1)[self.at])

    @cached_property
    def at_edge(self) -> NDArray[np.bool_]:
        """Where in the window the pixels of `edge` are, bool (H, W)."""
        cells = self.framed
        inner = cells[1:-1, 1:-1]
        edge = inner != cells[:-2, 1:-1]
        for other in (cells[2:, 1:-1], cells[1:-1, :-2], cells[1:-1, 2:]):
            edge |= inner != other
        edge &= inner >= 0
        return edge

    @cached_property
    def places(self) -> tuple[Floats, ...]:
        """Where each pixel is along y and x, from its cell's box, float64 (P,) each."""
        runs, (top, left) = self.runs, self.corner
        y = np.repeat((runs.y - top[runs.cell]).astype(np.float64), runs.length)
        return y, (self.x - self.spread(left)).astype(np.float64)

    @property
    def centres(self) -> tuple[Floats, ...]:
        """The centroid of each cell along the axes of `places`, float64 (N,) each."""
        return self.centre

    @property
    def sides_um(self) -> tuple[float, ...] | None:
        """Size of a pixel along the axes of `places`, in um; None if it is not known."""
        return self.pixel_um

    def levels(self, channel: int) -> NDArray[Any]:
        """Return the value of channel `channel` at each pixel, (P,), of the dtype of `pixels`."""
        return self.pixels[channel].reshape(-1)[self.at]

    def intensity(self, channel: int) -> Floats:
        """Return the value of channel number `channel` at each pixel, float64 (P,)."""
        return self.levels(channel).astype(np.float64)

    @cached_property
    def area(self) -> Integers:
        """Pixels in each cell, int64 (N,)."""
        return np.add.reduceat(self.runs.length, self.runs.first)

    @property
    def framed(self) -> NDArray[np.int32]:
        """The cell of each pixel of the window, -1 elsewhere and on a frame of 1 px around it.

        int32 (H + 2, W + 2).
        """
        return self.runs.framed

    def top(self, channel: int) -> float:
        """Return the highest grey level that channel number `channel` can have; of floats 1."""
        return self.tops[channel] if self.tops else white(self.pixels.dtype)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Height and width of the plane."""
        height, width = self.extent or self.pixels.shape[1:]
        return height, width

    @cached_property
    def corner(self) -> tuple[Integers, Integers]:
        """First row and first column of each cell's box in the window, int64 (N,) each."""
        runs = self.runs
        return runs.y[runs.first], np.minimum.reduceat(runs.start, runs.first)

    @cached_property
    def size(self) -> tuple[Integers, Integers]:
        """Height and width of each cell's box, int64 (N,) each."""
        runs, (top, left) = self.runs, self.corner
        return runs.y[runs.last] + 1 - top, np.maximum.reduceat(runs.stop, runs.first) - left

    @cached_property
    def centre(self) -> tuple[Floats, Floats]:
        """Row and column of each cell's centroid in its own box, float64 (N,) each."""
        runs, (top, left) = self.runs, self.corner
        y, x = runs.y - top[runs.cell], runs.start - left[runs.cell]
        twice = x + x + runs.length - 1  # twice the middle of a run
        return (
            np.add.reduceat(y * runs.length, runs.first) / self.area,
            np.add.reduceat(twice * runs.length, runs.first) / (2 * self.area),
        )
