"""Radial: how a channel is spread from a cell's centre to its edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.depth import innermost, squared_depth, way_to
from cellseg.pipeline.patch import Columns, Floats, Patch
from cellseg.pipeline.ring import over
from cellseg.pipeline.runs import Integers

WEDGES = 8


def radial(patch: Patch) -> Columns:
    """Return of each ring from the centre outwards what part of each channel it holds.

    As CellProfiler's MeasureObjectIntensityDistribution without objects as centres: the
    centre is the pixel deepest in the cell, of equals the first; a pixel's place is its way
    from there over that way and its distance to the edge, plus 0.001 px.
    ``radial_fraction``: part of the cell's sum (CellProfiler: FracAtD); ``radial_mean``:
    that over the ring's part of the pixels (MeanFrac); ``radial_cv``: standard deviation
    over mean of the means in eight wedges (RadialCV), 0 where the ring is empty. NaN where
    these would be something over 0. Pixels that are not joined to the centre do not count.
    """
    bins = patch.settings.radial_bins
    depth = squared_depth(patch)
    y, x = innermost(patch, depth)
    ring = _rings(depth, way_to(patch, y, x), bins)
    wedge = _wedges(patch, y, x)
    joined = ring >= 0
    place = ((patch.index * bins + ring) * WEDGES + wedge)[joined]
    counts = _sums(patch, place, np.ones(len(place)), bins)
    part = over(counts.sum(axis=2), counts.sum(axis=(1, 2))[:, None])
    columns: Columns = {}
    for number, channel in enumerate(patch.channels):
        sums = _sums(patch, place, patch.intensity(number)[joined], bins)
        fraction = over(sums.sum(axis=2), sums.sum(axis=(1, 2))[:, None])
        mean = fraction / (part + np.finfo(float).eps)
        spread = _variation(sums, counts)
        for each in range(bins):
            columns[f"radial_fraction_{each + 1}_{channel}"] = fraction[:, each]
            columns[f"radial_mean_{each + 1}_{channel}"] = mean[:, each]
            columns[f"radial_cv_{each + 1}_{channel}"] = spread[:, each]
    return columns


def _rings(depth: Integers, way: Floats, bins: int) -> Integers:
    """Return the ring of each pixel from 0, int64 (P,); -1 for one not joined to the centre."""
    joined = np.isfinite(way)
    way = np.where(joined, way, 0)
    place = way / (way + np.sqrt(depth) + 0.001)
    return np.where(joined, np.minimum((place * bins).astype(np.int64), bins - 1), -1)


def _wedges(patch: Patch, y: Integers, x: Integers) -> Integers:
    """Return the eighth of a turn around the centre that each pixel is in, int64 (P,)."""
    dy, dx = patch.y - y[patch.index], patch.x - x[patch.index]
    return np.asarray((dy > 0) + 2 * (dx > 0) + 4 * (np.abs(dy) > np.abs(dx)))


def _sums(patch: Patch, place: Integers, values: Floats, bins: int) -> Floats:
    """Sum `values` by cell, ring and wedge, float64 (N, bins, 8)."""
    size = patch.count * bins * WEDGES
    summed = np.bincount(place, values, minlength=size).astype(np.float64, copy=False)
    return summed.reshape(patch.count, bins, WEDGES)


def _variation(sums: Floats, counts: Floats) -> Floats:
    """Return the coefficient of variation of the wedges' means, float64 (N, bins)."""
    filled: NDArray[np.bool_] = counts > 0
    means = np.where(filled, sums / np.maximum(counts, 1), 0)
    number = np.maximum(filled.sum(axis=2), 1)
    mean = means.sum(axis=2) / number
    off = np.where(filled, means - mean[..., None], 0)
    spread = over(np.sqrt((off * off).sum(axis=2) / number), mean)
    return np.where(filled.any(axis=2), spread, 0)
