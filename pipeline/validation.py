"""How good a detector is on held-out images, what its scores mean, and which ones to report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.models import Segmenter
from cellseg.models.calibrate import Calibration, calibrated, fit
from cellseg.models.dataset import Sample
from cellseg.models.layers import from_layers
from cellseg.pipeline.score import Score, best_overlap, match, pool

THRESHOLDS = (0.5, 0.75, 0.9)
LEAST_SCORE = 0.05
"""Objects below this score of the network are not looked at when scores are calibrated."""
LEAST_CELLS = 100
"""With fewer true cells to validate on, calibration and threshold stay what they were."""
CHOICES = np.round(np.arange(0.3, 0.81, 0.05), 2)
"""Scores to choose the default threshold from."""


@dataclass(frozen=True)
class Validation:
    """How the averaged network does on the validation images.

    Parameters
    ----------
    scores : tuple of Score
        At the IoU of `THRESHOLDS`.
    calibration : (float, float)
        See `cellseg.models.weights.Card`.
    score : float
        Threshold, on the calibrated scale, at which `scores` were measured.
    """

    scores: tuple[Score, ...]
    calibration: Calibration = (1.0, 0.0)
    score: float = 0.5

    @property
    def text(self) -> str:
        """The accuracy in words."""
        found = " / ".join(f"{score.average_precision:.3f}" for score in self.scores)
        at = " / ".join(f"{score.threshold:g}" for score in self.scores)
        return f"AP {found} at IoU {at}"

    @property
    def accuracy(self) -> dict[str, float]:
        """The accuracy for the weights' card."""
        named = {f"ap_{score.threshold:g}": score.average_precision for score in self.scores}
        first = self.scores[0]
        named |= {"f1_0.5": first.f1, "pq_0.5": first.panoptic_quality}
        return {name: round(value, 4) for name, value in named.items()}


def quality(accuracy: dict[str, float]) -> float:
    """Return the mean of the AP at IoU 0.5 and 0.75, by which a training keeps its best weights."""
    return (accuracy["ap_0.5"] + accuracy["ap_0.75"]) / 2


def validate(segmenter: Segmenter, samples: Sequence[Sample]) -> tuple[Score, ...]:
    """Return the accuracy on `samples`, at the IoU of `THRESHOLDS`; every mask counts whole."""
    found = []
    for sample in samples:
        (instances,) = segmenter.segment([sample.image])
        found.append(match(instances, from_layers(sample.labels), THRESHOLDS))
    return tuple(pool(found))


def calibrate(
    segmenter: Segmenter, samples: Sequence[Sample], before: tuple[Calibration, float]
) -> tuple[Calibration, float]:
    """Return what the network's scores mean on `samples`, and from which one to report.

    Parameters
    ----------
    segmenter : Segmenter
        Not calibrated, and reporting all from `LEAST_SCORE` on.
    samples : sequence of Sample
    before : (calibration, score)
        Kept where fewer than `LEAST_CELLS` true cells could say otherwise.

    Returns
    -------
    calibration : (float, float)
    score : float
        That with the highest F1 at IoU 0.5, on the calibrated scale. A border that is a pixel
        off is no reason to leave a cell out, so higher IoU have no say.
    """
    cells = sum(len(np.unique(s.labels[s.labels > 0])) for s in samples)
    if cells < LEAST_CELLS:
        return before
    scores, overlaps = [np.zeros(0, np.float32)], [np.zeros(0)]
    for sample in samples:
        (instances,) = segmenter.segment([sample.image])
        overlaps.append(best_overlap(instances, from_layers(sample.labels)))
        scores.append(instances.scores)
    raw, iou = np.concatenate(scores), np.concatenate(overlaps)
    calibration = fit(raw, iou >= THRESHOLDS[0])
    return calibration, _best_threshold(calibrated(raw, calibration), iou, cells)


def _best_threshold(scores: NDArray[np.float32], iou: NDArray[np.float64], cells: int) -> float:
    """Return the one of `CHOICES` with the best F1 at IoU 0.5."""

    def half_f1(choice: float) -> float:
        kept = scores >= choice
        return np.count_nonzero(kept & (iou >= THRESHOLDS[0])) / (np.count_nonzero(kept) + cells)

    return float(max(CHOICES.tolist(), key=half_f1))
