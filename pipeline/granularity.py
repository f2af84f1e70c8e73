"""Granularity: how much of a cell's light is lost when ever larger bright grains are removed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.patch import Columns, Floats, Patch
from cellseg.pipeline.runs import Integers

STRAY = 3
"""By how many of its pixels a coarser image may be off, that is stretched to the finer one."""


def granularity(patch: Patch) -> Columns:
    """Return the granular spectrum of each channel in each cell, in per cent of its mean.

    As CellProfiler's MeasureGranularity: of the image, looked at every `granularity_step_px`
    px, its opening by a disc is taken away. From what is left ever more is eroded by a cross,
    and the rest grown back under it; what a cell's mean loses from one size to the next is
    the spectrum, over its mean in the image (the first value is less what the background
    was). Growing back ends after `granularity_growth` steps, so that a cell's values follow
    from its surroundings; in CellProfiler it goes on through the whole image. NaN where the
    image is less than two of these pixels high or wide, or the cell's mean is 0 or less.
    """
    columns: Columns = {}
    for number, channel in enumerate(patch.channels):
        spectrum = _spectrum(patch, number)
        for size, values in enumerate(spectrum, 1):
            columns[f"granularity_{size}_{channel}"] = values
    return columns


def granularity_reach(settings: Measure) -> int:
    """Return how far around a cell its granularity depends on, in px."""
    background = settings.granularity_background_step * (
        2 * settings.granularity_background_radius + STRAY
    )
    grown = settings.granularity_length + settings.granularity_growth
    return settings.granularity_step_px * (background + grown + STRAY)


def _spectrum(patch: Patch, channel: int) -> list[Floats]:
    """Return what each cell's mean loses at each size, in per cent; float64 (N,) each."""
    settings = patch.settings
    length, step = settings.granularity_length, settings.granularity_step_px
    mean = patch.total(patch.intensity(channel)) / patch.area
    rows, columns = (Axis.of(patch, axis, step) for axis in (0, 1))
    if min(rows.size, columns.size) < 2:
        return [np.full(patch.count, np.nan)] * length
    pixels = patch.pixels[channel][rows.within][:, columns.within].astype(np.float64)
    grains = np.maximum(pixels - _background(pixels, rows, columns, settings), 0)
    start, lost = np.where(mean > 0, mean, np.nan), []
    eroded = grains
    for _ in range(length):
        eroded = _cross(eroded, np.minimum)
        grown = _grown(eroded, grains, settings.granularity_growth)
        rest = _at_cells(patch, grown, rows, columns)
        lost.append((mean - rest) * 100 / start)
        mean = rest
    return lost


@dataclass(frozen=True, eq=False)
class Axis:
    """Every how many px of one axis of a plane a coarser image has a pixel, in one window.

    Parameters
    ----------
    length : int
        Px of the axis of the whole plane.
    size : float
        Pixels of the coarser image along it, a part too.
    first : int
        The number of the window's first one.
    within : int64 (n,)
        Where each is in the window.
    """

    length: int
    size: float
    first: int
    within: Integers

    @classmethod
    def of(cls, patch: Patch, axis: int, step: int) -> Axis:
        """Return what is looked at of an axis of a patch's window."""
        start, length = patch.origin[axis], patch.shape[axis]
        stop, size = start + patch.pixels.shape[1 + axis], length // step
        first = -(-start // step)
        last = min(-(-stop // step), size)
        return cls(length, size, first, np.arange(first, last) * step - start)

    def coarser(self, step: int) -> Axis:
        """Return every how many of these an even coarser image has one."""
        first = -(-self.first // step)
        last = -(-(self.first + len(self.within)) // step)
        size = int(self.size)
        return Axis(size, size / step, first, np.arange(first, last) * step - self.first)

    def between(self, at: Integers) -> tuple[Integers, Floats]:
        """Return between which of its pixels, and how far on, pixels of the finer axis lie.

        The coarser image is stretched so that its last pixel is on the finer one's last.
        """
        place = at * (self.size - 1) / max(self.length - 1, 1) - self.first
        place = np.clip(place, 0, len(self.within) - 1)
        low = np.minimum(place.astype(np.int64), max(len(self.within) - 2, 0))
        return low, place - low


def _background(pixels: Floats, rows: Axis, columns: Axis, settings: Measure) -> Floats:
    """Return what is larger than a grain: an opening by a disc, of an even coarser image."""
    # Late, so that to read a workflow loads nothing heavy.
    from scipy import ndimage

    step, radius = settings.granularity_background_step, settings.granularity_background_radius
    down, across = rows.coarser(step), columns.coarser(step)
    coarse = pixels[down.within][:, across.within]
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = y * y + x * x <= radius * radius
    opened = ndimage.grey_erosion(coarse, footprint=disc, mode="reflect")
    opened = ndimage.grey_dilation(opened, footprint=disc, mode="reflect")
    if step == 1:
        return np.asarray(opened)
    numbers = (axis.first + np.arange(len(axis.within)) for axis in (rows, columns))
    (low_y, y), (low_x, x) = (
        axis.between(at) for axis, at in zip((down, across), numbers, strict=True)
    )
    return _blended(opened, low_y[:, None], y[:, None], low_x[None], x[None])


def _blended(image: Floats, low_y: Integers, y: Floats, low_x: Integers, x: Floats) -> Floats:
    """Interpolate an image linearly, `y` rows below `low_y` and `x` columns beside `low_x`."""
    height, width = image.shape
    high_y, high_x = np.minimum(low_y + 1, height - 1), np.minimum(low_x + 1, width - 1)
    upper = image[low_y, low_x] * (1 - x) + image[low_y, high_x] * x
    lower = image[high_y, low_x] * (1 - x) + image[high_y, high_x] * x
    blended: Floats = upper * (1 - y) + lower * y
    return blended


def _at_cells(patch: Patch, image: Floats, rows: Axis, columns: Axis) -> Floats:
    """Average an image over the pixels of each cell, float64 (N,)."""
    (low_y, y), (low_x, x) = (
        rows.between(patch.y + patch.origin[0]),
        columns.between(patch.x + patch.origin[1]),
    )
    return patch.total(_blended(image, low_y, y, low_x, x)) / patch.area


def _cross(image: Floats, choose: np.ufunc) -> Floats:
    """Return the least (or largest) of each pixel and its four neighbours."""
    found = image.copy()
    choose(found[1:], image[:-1], out=found[1:])
    choose(found[:-1], image[1:], out=found[:-1])
    choose(found[:, 1:], image[:, :-1], out=found[:, 1:])
    choose(found[:, :-1], image[:, 1:], out=found[:, :-1])
    return found


def _grown(seed: Floats, under: NDArray[np.float64], steps: int) -> Floats:
    """Let a seed grow under an image, as far as it can in some steps."""
    for _ in range(steps):
        grown = np.minimum(_cross(seed, np.maximum), under)
        if np.array_equal(grown, seed):
            break
        seed = grown
    return seed
