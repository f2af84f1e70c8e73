"""Correlation: how two channels go together in a cell, for every pair of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from cellseg.pipeline.patch import Columns, Floats, Patch
from cellseg.pipeline.ring import over


def correlation(patch: Patch) -> Columns:
    """Return Pearson's, Manders' and overlap coefficients of every pair of channels.

    As CellProfiler's MeasureColocalization defines them; see Manders, Verbeek and Aten,
    "Measurement of co-localization of objects in dual-colour confocal images", Journal of
    Microscopy 1993. Bright: at least `manders_threshold` of the channel's largest grey level
    in the cell. Pearson's is NaN where a channel is constant, the slope where the first
    is. The others are 0 where no pixel is bright in both, and NaN where one would be 0 / 0.
    """
    columns: Columns = {}
    number = range(len(patch.channels))
    values = [patch.intensity(each) for each in number]
    off = [_off(patch, each) for each in values]
    bright = [each >= _threshold(patch, each)[patch.index] for each in values]
    for a, b in combinations(number, 2):
        pair = f"{patch.channels[a]}_{patch.channels[b]}"
        together = patch.total(off[a] * off[b])
        squared = [patch.total(off[each] * off[each]) for each in (a, b)]
        pearson = over(together, np.sqrt(squared[0] * squared[1]))
        columns[f"pearson_{pair}"] = np.clip(pearson, -1, 1)
        columns[f"slope_{pair}"] = over(together, squared[0])
        both = bright[a] & bright[b]
        in_both = [values[each] * both for each in (a, b)]
        nowhere = patch.total(both) == 0
        for place, each in enumerate((a, b)):
            whole = patch.total(values[each] * bright[each])
            share = over(patch.total(in_both[place]), whole)
            columns[f"manders_{place + 1}_{pair}"] = np.where(nowhere, 0, share)
        product = patch.total(in_both[0] * in_both[1])
        powers = [patch.total(each * each) for each in in_both]
        overlap = over(product, np.sqrt(powers[0] * powers[1]))
        columns[f"overlap_{pair}"] = np.where(nowhere, 0, overlap)
        for place, power in enumerate(powers):
            columns[f"overlap_k{place + 1}_{pair}"] = np.where(nowhere, 0, over(product, power))
    return columns


def _off(patch: Patch, values: Floats) -> Floats:
    """Return how far each pixel is off its cell's mean; exactly 0 where a cell is constant."""
    above = values - patch.least(values)[patch.index]
    mean: Floats = patch.total(above) / patch.area
    return np.asarray(above - mean[patch.index])


def _threshold(patch: Patch, values: Floats) -> Floats:
    return patch.settings.manders_threshold * patch.greatest(values)
