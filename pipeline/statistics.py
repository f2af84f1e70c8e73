"""Statistics of many columns at once, and how wells compare with control wells.

Values that are not known, NaN or infinite are left out everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "STATISTICS", "compare", "robust_z_scores", "statistics_of", "z_scores"]

Values = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STATISTICS = ("mean", "std", *(f"q{round(100 * q):02}" for q in QUANTILES))
MEDIAN = STATISTICS.index("q50")
NORMAL = 1.4826
"""Standard deviations of a normal distribution in one median absolute deviation."""
LEAST_WELLS = 2
"""Wells that it takes to say how much they differ."""


def statistics_of(values: Values) -> Values:
    """Return mean, standard deviation and quantiles of each row.

    The deviation is over N - 1, as pandas has it, and exactly 0 where all values are the same.
    Quantiles are exact, between two values by a straight line, as `numpy.quantile` has them.
    The order of the values changes no digit.

    Parameters
    ----------
    values : float64 (K, N)

    Returns
    -------
    float64 (K, 7)
        As `STATISTICS` names them; NaN where there is no value, or for a deviation only one.
    """
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)
    count = np.isfinite(ordered).sum(axis=1)
    found = np.full((len(values), len(STATISTICS)), np.nan)
    if not ordered.size:
        return found
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nan_to_num(ordered).sum(axis=1) / count
        off = np.nan_to_num(ordered - mean[:, None])
        spread = np.sqrt(np.square(off, out=off).sum(axis=1) / (count - 1))
    last = ordered[np.arange(len(count)), np.maximum(count - 1, 0)]
    alike = (count > 1) & (ordered[:, 0] == last)
    found[:, 0] = np.where(alike, last, mean)
    found[:, 1] = np.where(alike, 0.0, np.where(count > 1, spread, np.nan))
    for place, share in enumerate(QUANTILES, 2):
        found[:, place] = _quantile(ordered, count, share)
    return found


def _quantile(ordered: Values, count: NDArray[np.intp], share: float) -> Values:
    """Return a quantile of each row (K, N) of ascending values, NaN behind the first `count`."""
    place = np.maximum(count - 1, 0) * share
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    rows, part = np.arange(len(ordered)), place - below
    low, high = ordered[rows, below], ordered[rows, above]
    # As numpy does it, from the nearer end.
    return np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))


def z_scores(wells: Values, negative: NDArray[np.bool_]) -> Values:
    """Return how many standard deviations of the negative controls wells are above their mean.

    Parameters
    ----------
    wells : float64 (V, W)
        Values of the wells of one plate.
    negative : bool (W,)
        Which of them are negative controls.

    Returns
    -------
    float64 (V, W)
        NaN with fewer than two controls, and where they are all the same.
    """
    found = statistics_of(wells[:, negative])
    return _apart(wells, found[:, 0], found[:, 1])


def robust_z_scores(wells: Values, negative: NDArray[np.bool_]) -> Values:
    """Return the same with the median, and 1.4826 median absolute deviations; see `z_scores`."""
    controls = wells[:, negative]
    median = statistics_of(controls)[:, MEDIAN]
    off = statistics_of(np.abs(controls - median[:, None]))[:, MEDIAN]
    enough = np.isfinite(controls).sum(axis=1) >= LEAST_WELLS
    return _apart(wells, median, np.where(enough, NORMAL * off, np.nan))


def _apart(wells: Values, centre: Values, spread: Values) -> Values:
    known = np.where(spread > 0, spread, np.nan)
    result: Values = (wells - centre[:, None]) / known[:, None]
    return result


def compare(positive: Values, negative: Values) -> dict[str, NDArray[Any]]:
    """Return how well positive and negative control wells of a plate can be told apart.

    Z' = 1 - 3 (s+ + s-) / |m+ - m-| (Zhang, Chung and Oldenburg, J Biomol Screen 4, 1999) and
    SSMD = (m+ - m-) / sqrt(s+^2 + s-^2) (Zhang, Genomics 89, 2007, for independent groups), of
    means m and standard deviations s (over N - 1) of the wells' values.

    Parameters
    ----------
    positive, negative : float64 (V, wells)

    Returns
    -------
    dict of str to array (V,)
        Wells with a value, mean and deviation of both, ``z_prime`` and ``ssmd``: these NaN with
        fewer than two wells of a kind or without any spread, the first where means are equal.
    """
    of_positive, of_negative = statistics_of(positive), statistics_of(negative)
    spread = of_positive[:, 1] + of_negative[:, 1]
    spread = np.where(spread > 0, spread, np.nan)
    apart = of_positive[:, 0] - of_negative[:, 0]
    # Fewer than two wells have no deviation, and so no spread.
    both = np.where(np.isnan(spread), np.nan, np.hypot(of_positive[:, 1], of_negative[:, 1]))
    return {
        "positive_wells": np.isfinite(positive).sum(axis=1),
        "negative_wells": np.isfinite(negative).sum(axis=1),
        "positive_mean": of_positive[:, 0],
        "positive_std": of_positive[:, 1],
        "negative_mean": of_negative[:, 0],
        "negative_std": of_negative[:, 1],
        "z_prime": 1 - 3 * spread / np.where(apart != 0, np.abs(apart), np.nan),
        "ssmd": apart / both,
    }
