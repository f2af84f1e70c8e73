"""Scores that mean something: of objects with score 0.8, about 80 % are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Calibration = tuple[float, float]
"""Slope and offset on the scale of log odds."""
LEAST = 1e-6
PRIOR = 1e-3
"""Weight of the identity against each object, so that few or perfect ones give a finite fit."""


def _log_odds(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    inside = np.clip(scores.astype(np.float64), LEAST, 1 - LEAST)
    return np.asarray(np.log(inside / (1 - inside)))


def _probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def calibrated(scores: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float32]:
    """Return the share of objects with the network's scores (N,) that are right.

    Their order stays as it is.
    """
    slope, offset = calibration
    if (slope, offset) == (1.0, 0.0):
        return scores
    return _probability(slope * _log_odds(scores) + offset).astype(np.float32)


def raw_score(score: float, calibration: Calibration) -> float:
    """Return a network's score just below all that `calibrated` turns into `score` or more."""
    slope, offset = calibration
    if score <= 0:
        return 0.0
    return float(_probability((_log_odds(np.array([score])) - offset) / slope)[0]) - 1e-5


def fit(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> Calibration:
    """Fit a calibration to objects whose score and truth are known.

    Platt, "Probabilistic outputs for support vector machines", 1999, on the
    log odds of the network's score.

    Parameters
    ----------
    scores : float32 (N,)
        As the network gives them.
    right : bool (N,)
        Whether each matches a true cell.
    """
    # Late: only trainings fit, and the import takes a tenth of a second.
    from scipy.optimize import minimize

    odds, sign = _log_odds(scores), np.where(right, 1.0, -1.0)

    def loss(parameters: NDArray[np.float64]) -> float:
        slope, offset = parameters
        wrong = np.logaddexp(0, -sign * (slope * odds + offset)).sum()
        return float(wrong + PRIOR * max(len(odds), 100) * ((slope - 1) ** 2 + offset**2))

    found = minimize(loss, np.array([1.0, 0.0]), bounds=[(0.05, 20), (-20, 20)])
    return round(float(found.x[0]), 4), round(float(found.x[1]), 4)
