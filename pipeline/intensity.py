"""Intensity: the grey levels of a cell, of its edge, and where in it they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.patch import Columns, Floats, Integers, Patch
from cellseg.pipeline.ranked import Ranked


def intensity(patch: Patch) -> Columns:
    """Return the columns of the group `intensity` for each channel, in grey levels of the image.

    The measurements of CellProfiler's MeasureObjectIntensity, but for these: percentiles are
    numpy's (CellProfiler takes the rank ``n * q`` in place of ``(n - 1) * q``), what is beyond
    the image counts as outside of a cell, and grey levels stay what they are in the file.

    Sums of integer images are exact below 2**53; a cell of constant value has deviations
    and a mass displacement of exactly 0.
    """
    columns: Columns = {}
    for number, channel in enumerate(patch.channels):
        levels = patch.levels(number)
        found = _of_channel(patch, levels) | _at_edge(patch, levels)
        columns |= {f"{what}_{channel}": values for what, values in found.items()}
    return columns


def _of_channel(patch: Patch, levels: NDArray[Any]) -> Columns:
    """Return what the values (P,) of one channel are in each cell."""
    ranked = Ranked(levels, patch)
    sums = _Sums.of(levels, ranked.least, patch.first, patch.area)
    median = ranked.percentile(50)
    percentiles = {
        percentile_name(percent): ranked.percentile(percent)
        for percent in patch.settings.percentiles
    }
    return {
        "mean": sums.total / patch.area,
        "std": sums.deviation,
        "min": ranked.least,
        "max": ranked.greatest,
        "sum": sums.total,
        "median": median,
        "mad": ranked.median_deviation(median),
        **percentiles,
        **_mass_displacement(patch, sums),
    }


def percentile_name(percent: float) -> str:
    """Return what a percentile is called: p05, p50, p99p9; a point would be part of a path."""
    whole, _, rest = f"{percent:g}".partition(".")
    return f"p{whole:0>2}" + (f"p{rest}" if rest else "")


def _at_edge(patch: Patch, levels: NDArray[Any]) -> Columns:
    """Return what the values (P,) of one channel are at the edge of each cell."""
    first = np.searchsorted(patch.edge, patch.first)
    count = np.diff(first, append=len(patch.edge))
    values = levels[patch.edge]
    least = np.minimum.reduceat(values, first).astype(np.float64)
    sums = _Sums.of(values, least, first, count)
    return {
        "edge_mean": sums.total / count,
        "edge_std": sums.deviation,
        "edge_min": least,
        "edge_max": np.maximum.reduceat(values, first).astype(np.float64),
        "edge_sum": sums.total,
    }


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over the values of each cell.

    Parameters
    ----------
    total, least : float64 (N,)
    above : float64 (P,)
        Each value less the least one of its cell.
    deviation : float64 (N,)
        The standard deviation of all values of a cell, over their number.
    """

    total: Floats
    least: Floats
    above: Floats
    deviation: Floats

    @classmethod
    def of(cls, levels: NDArray[Any], least: Floats, first: Integers, count: Integers) -> _Sums:
        """Sum up values (P,), of which the `count` from `first` on are those of a cell."""
        values = levels.astype(np.float64)
        total = np.add.reduceat(values, first)
        above = values - np.repeat(least, count)
        off = above - np.repeat(np.add.reduceat(above, first) / count, count)
        off *= off
        return cls(total, least, above, np.sqrt(np.add.reduceat(off, first) / count))


def _mass_displacement(patch: Patch, sums: _Sums) -> Columns:
    """Return the distance from the centroid to the centre weighted by grey level.

    In px of a plane, and in um: NaN where the pixel size is unknown, and in px in 3D. 0 where
    there is no light. Where grey levels are below 0, the least one of the cell weighs nothing.
    """
    above = patch.total(sums.above)
    weight = above + patch.area * np.maximum(sums.least, 0)
    known = np.where(weight > 0, weight, 1)
    # Around the centroid a constant weighs nothing: what is above the least value is enough.
    off = [
        (patch.total(place * sums.above) - centre * above) / known
        for place, centre in zip(patch.places, patch.centres, strict=True)
    ]
    sides = patch.sides_um or (np.nan,) * len(off)
    um = np.sqrt(sum((side * along) ** 2 for side, along in zip(sides, off, strict=True)))
    plane = len(off) == 2
    px = np.hypot(*off) if plane else np.full(patch.count, np.nan)
    return {"mass_displacement_px": px, "mass_displacement_um": um}
