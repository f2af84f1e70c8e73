"""A detector on annotated images: its masks and its boxes against the truth, at several scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from cellseg.models.dataset import Sample
from cellseg.models.detector import Detector
from cellseg.models.layers import from_layers
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.owner import Found
from cellseg.pipeline.score import Score, match, pool

IOUS = (0.5, 0.75, 0.9)
SCORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Score thresholds to choose from: after a short training a score of 0.5 means little yet."""


@dataclass(eq=False)
class Remembering:
    """Asks a network, and gives its last answer again for the same image."""

    ask: Callable[[NDArray[np.float32]], Found]
    image: NDArray[np.float32] | None = None
    found: Found | None = None

    def __call__(self, image: NDArray[np.float32]) -> Found:
        """Return what the network finds in an image (C, H, W)."""
        if self.found is None or self.image is None or not np.array_equal(self.image, image):
            self.image, self.found = image, self.ask(image)
        return self.found


@dataclass(frozen=True)
class Measured:
    """What a detector finds in all images together.

    Parameters
    ----------
    masks, boxes : dict
        By score threshold, the accuracy at each of `IOUS`.
    s_per_mpx : float
        Seconds a megapixel from pixels to masks at the lowest threshold.
    """

    masks: dict[float, list[Score]]
    boxes: dict[float, list[Score]]
    s_per_mpx: float


def measure(network: MaskRCNN, samples: Sequence[Sample], device: str) -> Measured:
    """Segment `samples` and score masks and boxes at each of `SCORES`.

    Boxes are those of the box head after its own suppression, as in the
    paper's box AP, so that they compare with and without a mask branch; the
    true ones are tight around the cells.
    """
    stride = network.backbone.stride
    detectors = {score: Detector(network, stride, score=score, device=device) for score in SCORES}
    once = Remembering(detectors[SCORES[0]].ask)
    for detector in detectors.values():
        detector.ask = once
    masks: dict[float, list[list[Score]]] = {score: [] for score in SCORES}
    boxes: dict[float, list[list[Score]]] = {score: [] for score in SCORES}
    seconds = 0.0
    for sample in samples:
        start = time.perf_counter()
        detectors[SCORES[0]].segment([sample.image])
        seconds += time.perf_counter() - start
        true = from_layers(sample.labels).boxes[:, [1, 0, 3, 2]] - 0.5
        found = once.found
        assert found is not None
        for score, detector in detectors.items():
            (instances,) = detector.segment([sample.image])
            (truth,) = sample.labels
            height, width = truth.shape
            masks[score].append(match(instances.to_labels((height, width)), truth, IOUS))
            kept = found.boxes[found.scores >= score]
            boxes[score].append(match_boxes(kept, true))
    return Measured(
        {score: pool(each) for score, each in masks.items()},
        {score: pool(each) for score, each in boxes.items()},
        seconds / sum(sample.labels.size for sample in samples) * 1e6,
    )


def match_boxes(found: NDArray[Any], true: NDArray[Any]) -> list[Score]:
    """Score boxes (N, 4) against true ones (M, 4), `x0, y0, x1, y1`, at each of `IOUS`.

    One to one, as many pairs as possible, and of those choices the one of the highest IoU.
    """
    sides = [torch.from_numpy(np.asarray(side, np.float64)) for side in (found, true)]
    iou = box_iou(*sides).numpy()
    scores = []
    for threshold in IOUS:
        # One more pair outweighs any gain in IoU, whose shares add up to under a half.
        worth = (iou >= threshold) * (1 + iou / (2 * max(len(true), 1)))
        rows, columns = linear_sum_assignment(worth, maximize=True)
        matched = iou[rows, columns]
        matched = matched[matched >= threshold]
        count = len(matched)
        wrong, missed = len(found) - count, len(true) - count
        scores.append(Score(threshold, count, wrong, missed, float(matched.sum())))
    return scores
