"""Rings: the free pixels around each cell, and the grey levels of its background and cytoplasm.

A pixel that is in no cell is in the ring of the cell nearest to it, of all that are equally near:
so rings enter no cell, meet half way, and follow from nothing but where cells lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.patch import Columns, Floats, Patch
from cellseg.pipeline.runs import Integers

FAR = 40_000
"""Squared px beyond any ring: with two squares of its width added it still fits 16 bits."""


def ring(patch: Patch) -> Columns:
    """Return what lies around each cell: area of its ring, and of each channel what is in it.

    Mean, population standard deviation and sum of the ring, and the cell's mean over the
    ring's; NaN (sum: 0) where no pixel is left, the ratio also where the ring's mean is 0.
    """
    settings = patch.settings
    around = Ring.around(patch, settings.ring_gap_px, settings.ring_px)
    columns: Columns = {"ring_area_px": around.area}
    for number, channel in enumerate(patch.channels):
        values = around.values(patch, number)
        total, mean = around.total(values), around.mean(values)
        off = values - mean[around.index]
        columns[f"ring_mean_{channel}"] = mean
        columns[f"ring_std_{channel}"] = np.sqrt(around.mean(off * off))
        columns[f"ring_sum_{channel}"] = total
        columns[f"ring_ratio_{channel}"] = over(_inside(patch, number), mean)
    return columns


def background(patch: Patch) -> Columns:
    """Return each channel's grey level beside each cell, and how the cell stands out from it.

    The median of a ring that keeps a distance from every cell, as bright specks and cells
    that were missed move it least; the cell's mean less it, and over it. NaN where no pixel
    is left, the ratio also where the background is 0.
    """
    settings = patch.settings
    around = Ring.around(patch, settings.background_gap_px, settings.background_px)
    columns: Columns = {"background_area_px": around.area}
    for number, channel in enumerate(patch.channels):
        level, inside = around.median(patch, number), _inside(patch, number)
        columns[f"background_{channel}"] = level
        columns[f"contrast_{channel}"] = inside - level
        columns[f"contrast_ratio_{channel}"] = over(inside, level)
    return columns


def ring_reach(settings: Measure) -> int:
    """Return how far around a cell its ring depends on: it is where no other cell is nearer."""
    return 2 * (settings.ring_gap_px + settings.ring_px)


def background_reach(settings: Measure) -> int:
    """Return how far around a cell its background depends on."""
    return 2 * (settings.background_gap_px + settings.background_px)


def over(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Return `a` over `b`, float64, NaN where `b` is 0."""
    nothing = np.full(np.shape(a), np.nan)
    quotient: Floats = np.divide(a, b, out=nothing, where=np.asarray(b) != 0)
    return quotient


def _inside(patch: Patch, channel: int) -> Floats:
    return patch.total(patch.intensity(channel)) / patch.area


@dataclass(frozen=True, eq=False)
class Ring:
    """The rings around N cells as a list of their K pixels, cell by cell and in raster order.

    Parameters
    ----------
    index : int64 (K,)
        The cell of each pixel; one between cells may be there for each of them.
    y, x : int64 (K,)
        Row and column in the window.
    area : int64 (N,)
        Pixels of each ring; it may have none.
    """

    index: Integers
    y: Integers
    x: Integers
    area: Integers

    @classmethod
    def around(cls, patch: Patch, gap: int, width: int) -> Ring:
        """Return the free pixels more than `gap` and at most `gap + width` px from each cell.

        Distances are from centre to centre of pixels.
        """
        limit = gap + width
        squared = squared_distance(patch.occupied, limit)
        within = (squared > gap * gap) & (squared <= limit * limit)
        y, x = within.nonzero()
        columns = squared.shape[1] + 2 * limit
        cells = np.full((squared.shape[0] + 2 * limit, columns), -1, np.int64)
        cells[limit:-limit, limit:-limit] = patch.framed[1:-1, 1:-1]
        at = (y + limit) * columns + x + limit
        index, at = np.divmod(_nearest(cells, at, squared[y, x], limit), cells.size)
        y, x = np.divmod(at, columns)
        area = np.bincount(index, minlength=patch.count).astype(np.int64)
        return cls(index, y - limit, x - limit, area)

    def values(self, patch: Patch, channel: int) -> Floats:
        """Return the value of channel number `channel` at each pixel, float64 (K,)."""
        values: NDArray[Any] = patch.pixels[channel][self.y, self.x]
        return values.astype(np.float64)

    def total(self, values: Floats) -> Floats:
        """Sum `values` (K,) over each ring, float64 (N,)."""
        summed = np.bincount(self.index, values, minlength=len(self.area))
        return summed.astype(np.float64, copy=False)

    def mean(self, values: Floats) -> Floats:
        """Average `values` (K,) over each ring, float64 (N,); NaN where it has no pixel."""
        return over(self.total(values), self.area)

    def median(self, patch: Patch, channel: int) -> Floats:
        """Return the median of channel number `channel` in each ring, float64 (N,), or NaN."""
        values = _in_order(self.index, self.values(patch, channel))
        found = np.full(len(self.area), np.nan)
        some = self.area > 0
        start, area = (np.cumsum(self.area) - self.area)[some], self.area[some]
        found[some] = (values[start + (area - 1) // 2] + values[start + area // 2]) / 2
        return found


def _in_order(index: Integers, values: Floats) -> Floats:
    """Sort `values` within each cell, cell by cell; faster than by two keys."""
    order = np.argsort(values)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    placed = np.sort(index * len(order) + rank)
    found: Floats = values[order[placed % max(len(order), 1)]]
    return found


def squared_distance(occupied: NDArray[np.bool_], limit: int) -> NDArray[np.uint16]:
    """Return the squared distance of each pixel to the nearest occupied one, up to `limit` px.

    Parameters
    ----------
    occupied : bool (H, W)
    limit : int
        At most 100.

    Returns
    -------
    uint16 (H, W)
        In px squared; more than ``limit ** 2`` where it is further.
    """
    squared = np.where(occupied, np.uint16(0), np.uint16(FAR))
    for axis in (squared, squared.T):  # the second time from what is nearest in each column
        before = axis.copy(order="K")
        for step in range(1, min(limit, len(axis) - 1) + 1):
            further = before + np.uint16(step * step)
            np.minimum(axis[step:], further[:-step], out=axis[step:])
            np.minimum(axis[:-step], further[step:], out=axis[:-step])
    return squared


def _nearest(cells: Integers, at: Integers, squared: NDArray[np.uint16], limit: int) -> Integers:
    """Return every pair of a pixel and a cell at exactly the distance of its nearest cell.

    Parameters
    ----------
    cells : int64 (H, W)
        The cell of each pixel, -1 for none, with a margin of `limit`.
    at : int64 (P,)
        Where the pixels are in it.
    squared : uint16 (P,)
        Their squared distance.

    Returns
    -------
    int64 (K,)
        Cell times the size of `cells` plus `at`, ascending.
    """
    ys, xs, counts = _circles(limit)
    steps = ys * cells.shape[1] + xs
    flat, pairs = cells.ravel(), [np.zeros(0, np.int64)]
    for column in range(steps.shape[1]):
        more = counts[squared] > column
        at, squared = at[more], squared[more]
        cell = flat[at + steps[squared, column]]
        known = cell >= 0
        pairs.append(cell[known] * cells.size + at[known])
    found = np.sort(np.concatenate(pairs))
    return found[np.diff(found, prepend=-1) > 0]  # numpy's unique takes fifty times as long


@lru_cache(maxsize=4)
def _circles(limit: int) -> tuple[Integers, Integers, Integers]:
    """Return the steps y and x of each squared length, (limit ** 2 + 1, most), and their number."""
    along = np.arange(-limit, limit + 1)
    y, x = (axis.ravel() for axis in np.meshgrid(along, along, indexing="ij"))
    squared = y * y + x * x
    order = np.argsort(squared, kind="stable")
    order = order[squared[order] <= limit * limit]
    counts = np.bincount(squared[order], minlength=limit * limit + 1)
    place = np.arange(len(order)) - (np.cumsum(counts) - counts)[squared[order]]
    ys, xs = np.zeros((2, len(counts), counts.max()), np.int64)
    ys[squared[order], place], xs[squared[order], place] = y[order], x[order]
    return ys, xs, counts
