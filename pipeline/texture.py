"""Texture: how often grey levels lie next to each other in a cell, by Haralick's features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.patch import Columns, Floats, Patch
from cellseg.pipeline.ring import over
from cellseg.pipeline.runs import Integers

FEATURES = (
    "angular_second_moment",
    "contrast",
    "correlation",
    "variance",
    "inverse_difference",
    "sum_average",
    "sum_variance",
    "sum_entropy",
    "entropy",
    "difference_variance",
    "difference_entropy",
    "information_1",
    "information_2",
)
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))
TOGETHER = 512
"""Cells whose grey levels are counted at a time, so that memory is bounded."""


def texture(patch: Patch) -> Columns:
    """Return Haralick's 13 features of each channel at each scale, averaged over four directions.

    As CellProfiler's MeasureTexture, which asks `mahotas.features.haralick` to ignore zeros:
    Haralick, Shanmugam and Dinstein, "Textural features for image classification", 1973.
    Of pixels in the cell that are `scale` steps apart along a row, a column or a diagonal,
    neither of the grey level 0. NaN where there are none in one of the directions.
    """
    columns: Columns = {}
    levels = patch.settings.texture_levels
    for number, channel in enumerate(patch.channels):
        grey = grey_levels(patch, number)
        for scale in patch.settings.texture_scales_px:
            features = np.zeros((patch.count, len(FEATURES)))
            for y, x in DIRECTIONS:
                pairs = Pairs.of(patch, grey, (y * scale, x * scale))
                features += pairs.features(patch.greatest(grey), levels)
            for name, values in zip(FEATURES, features.T, strict=True):
                columns[f"texture_{name}_{scale}_{channel}"] = values / len(DIRECTIONS)
    return columns


def grey_levels(patch: Patch, channel: int) -> Integers:
    """Return the grey level of each pixel of a channel, int64 (P,) from 0.

    First of 256, as CellProfiler and `skimage.util.img_as_ubyte` round them, and of these of
    `texture_levels`.
    """
    low, high = _span(patch, channel)
    share = (patch.intensity(channel) - low) / np.where(high > low, high - low, 1)
    fine = np.rint(np.clip(share, 0, 1) * 255)
    # The order of operations of `skimage.exposure.rescale_intensity`, down to the last bit.
    coarse: Integers = (fine / 255 * (patch.settings.texture_levels - 1)).astype(np.int64)
    return coarse


def _span(patch: Patch, channel: int) -> tuple[Floats, Floats]:
    """Return the grey levels that become 0 and the highest level, for each pixel."""
    chosen = patch.settings.texture_range
    if chosen == "cell":
        values = patch.intensity(channel)
        least, most = patch.least(values), patch.greatest(values)
        return least[patch.index], most[patch.index]
    if chosen == "type":
        chosen = 0.0, patch.top(channel)
    return np.float64(chosen[0]), np.float64(chosen[1])  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of pixels of one cell each, in one direction, as K pairs of grey levels.

    Parameters
    ----------
    count : int
        Cells, N.
    index : int64 (K,)
        The cell of each pair, ascending.
    a, b : int64 (K,)
        Its grey levels, above 0.
    """

    count: int
    index: Integers
    a: Integers
    b: Integers

    @classmethod
    def of(cls, patch: Patch, grey: Integers, step: tuple[int, int]) -> Pairs:
        """Find the pairs that are a step y, x apart."""
        margin = max(map(abs, step))
        height, width = patch.pixels.shape[1] + 2 * margin, patch.pixels.shape[2] + 2 * margin
        cells, levels = np.full(height * width, -1), np.zeros(height * width, np.int64)
        at = (patch.y + margin) * width + patch.x + margin
        cells[at], levels[at] = patch.index, grey
        there = at + step[0] * width + step[1]
        both = (cells[there] == patch.index) & (grey > 0) & (levels[there] > 0)
        return cls(patch.count, patch.index[both], grey[both], levels[there][both])

    def features(self, top: Integers, levels: int) -> Floats:
        """Return Haralick's features, float64 (N, 13); NaN for a cell without a pair.

        Parameters
        ----------
        top : int64 (N,)
            Each cell's highest grey level.
        levels : int
            Grey levels that there are.
        """
        found = np.empty((self.count, len(FEATURES)))
        for start in range(0, self.count, TOGETHER):
            stop = min(start + TOGETHER, self.count)
            first, last = np.searchsorted(self.index, (start, stop))
            own = slice(first, last)
            part = Pairs(stop - start, self.index[own] - start, self.a[own], self.b[own])
            found[start:stop] = part._features(top[start:stop], levels)
        return found

    def _features(self, top: Integers, levels: int) -> Floats:
        number = np.bincount(self.index, minlength=self.count).astype(np.float64)
        level = np.arange(levels)
        alone = self._histogram(self.a, levels) + self._histogram(self.b, levels)
        total = self._histogram(self.a + self.b, 2 * levels)
        apart = self._histogram(np.abs(self.a - self.b), levels)
        # Of whole numbers, so that a constant cell varies by exactly 0.
        first, second = alone @ level, alone @ (level * level)
        squares = total @ np.arange(2 * levels) ** 2
        contrast = apart @ (level * level)
        spread = second * 2 * number - first * first
        product = (squares - contrast) / 2  # of both orders: a b + b a
        covariance = product * 2 * number - first * first
        share = over(apart, number[:, None])
        sum_average, variance = over(first, number), over(spread, 4 * number * number)
        joint = self._joint(levels, number)
        entropy = joint.total(-joint.share * np.log2(joint.share), number)
        single = _entropy(over(alone, 2 * number[:, None]))
        off = 2 * single - entropy
        columns = (
            joint.total(joint.share**2, number),
            over(contrast, number),
            np.where(spread > 0, over(covariance, spread), np.where(number > 0, 1, np.nan)),
            variance,
            (share / (1.0 + level * level)).sum(axis=1),
            sum_average,
            over(squares * number - first * first, number * number),
            _entropy(over(total, number[:, None])),
            entropy,
            (share * share).sum(axis=1) / (top + 1) - 1 / (top + 1.0) ** 2,
            _entropy(share),
            -off / np.where(single > 0, single, 1),
            np.sqrt(np.maximum(1 - np.exp(-2 * off), 0)),
        )
        return np.stack(columns, axis=1)

    def _histogram(self, values: Integers, size: int) -> Floats:
        """Count `values` in each cell, float64 (N, size)."""
        counts = np.bincount(self.index * size + values, minlength=self.count * size)
        return counts.reshape(self.count, size).astype(np.float64)

    def _joint(self, levels: int, number: Floats) -> _Joint:
        """Return the entries of the co-occurrence matrices."""
        low, high = np.minimum(self.a, self.b), np.maximum(self.a, self.b)
        key = np.sort((self.index * levels + low) * levels + high)
        start = np.flatnonzero(np.diff(key, prepend=-1))
        counts = np.diff(start, append=len(key))
        cell, pair = np.divmod(key[start], levels * levels)
        times = np.where(pair // levels == pair % levels, 1, 2)
        return _Joint(cell, counts / (times * number[cell]), times)


@dataclass(frozen=True, eq=False)
class _Joint:
    """The entries above 0 of N co-occurrence matrices.

    Parameters
    ----------
    cell : int64 (K,)
        The matrix of each entry.
    share : float64 (K,)
        What the entry is.
    times : int64 (K,)
        2 where it is there mirrored too.
    """

    cell: Integers
    share: Floats
    times: Integers

    def total(self, values: Floats, number: Floats) -> Floats:
        """Sum `values` (K,) over each matrix, float64 (N,); NaN where it has no pairs."""
        summed = np.bincount(self.cell, values * self.times, minlength=len(number))
        return np.where(number > 0, summed, np.nan)


def _entropy(shares: Floats) -> Floats:
    """Return the entropy in bits of each row of shares, float64 (N,)."""
    logarithms: NDArray[np.float64] = np.log2(np.where(shares > 0, shares, 1))
    entropy: Floats = -(np.where(shares > 0, shares, 0) * logarithms).sum(axis=1)
    return np.where(np.isnan(shares).any(axis=1), np.nan, entropy)
