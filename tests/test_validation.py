"""Scores are calibrated, and the threshold chosen, on what was held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.models.calibrate import calibrated
from cellseg.models.dataset import Sample
from cellseg.models.layers import to_layers
from cellseg.pipeline.score import best_overlap
from cellseg.pipeline.validation import (
    CHOICES,
    THRESHOLDS,
    Validation,
    calibrate,
    quality,
    validate,
)


@dataclass
class Known:
    """Finds what it is told, plane after plane."""

    found: list[Instances]

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        (plane,) = planes
        return [self.found[int(plane[0, 0, 0])]]


def boastful(images: int, cells: int = 100) -> tuple[Known, list[Sample]]:
    """A segmenter that is right for a share of scores**2 of its 8 x 8 px cells."""
    random, found, samples = np.random.default_rng(0), [], []
    for index in range(images):
        truth, objects = np.zeros((100, 100), np.int32), []
        for cell in range(cells):
            y, x = divmod(cell, 10)
            score = float(random.uniform(0.1, 0.99))
            objects.append(((10 * y, 10 * x), np.ones((8, 8), bool), score, 1))
            if random.random() < score**2:
                truth[10 * y : 10 * y + 8, 10 * x : 10 * x + 8] = cell + 1
        found.append(Instances.stack(objects))
        image = np.full((1, 100, 100), index, np.float32)
        samples.append(Sample(f"i{index}", image, truth[None]))
    return Known(found), samples


def test_scores_come_to_mean_the_share_that_is_right() -> None:
    segmenter, samples = boastful(30)
    calibration, threshold = calibrate(segmenter, samples, ((1.0, 0.0), 0.5))
    raw = np.linspace(0.3, 0.95, 14, dtype=np.float32)
    assert calibrated(raw, calibration) == pytest.approx(raw**2, abs=0.08)
    assert threshold in CHOICES
    # Reporting an object pays from half of the F1 that is reached.
    assert 0.3 <= threshold <= 0.5


def test_with_few_cells_what_was_known_before_stays() -> None:
    segmenter, samples = boastful(1, cells=20)
    assert calibrate(segmenter, samples, ((1.7, 0.2), 0.65)) == ((1.7, 0.2), 0.65)


def test_overlaps_are_those_of_each_label_in_order() -> None:
    truth = np.zeros((10, 30), np.int32)
    truth[:, :10], truth[:, 20:] = 5, 9
    labels = np.zeros_like(truth)
    labels[:5, :10], labels[:, 12:15], labels[:, 20:] = 7, 3, 8
    assert best_overlap(labels, truth).tolist() == [0.0, 0.5, 1.0]
    assert best_overlap(np.zeros_like(labels), truth).tolist() == []


def test_a_validation_pools_its_images_and_names_its_numbers() -> None:
    segmenter, samples = boastful(2)
    scores = validate(segmenter, samples)
    assert [score.threshold for score in scores] == list(THRESHOLDS)
    right = sum(len(np.unique(sample.labels)) - 1 for sample in samples)
    assert scores[0].average_precision == pytest.approx(right / 200)
    measured = Validation(scores)
    assert quality(measured.accuracy) == pytest.approx(right / 200, abs=1e-4)
    assert list(measured.accuracy) == ["ap_0.5", "ap_0.75", "ap_0.9", "f1_0.5", "pq_0.5"]


def test_cells_that_overlap_are_validated_whole() -> None:
    ones = np.ones((20, 20), bool)
    deep = Instances.stack([((y, 4 * y), ones, 0.9, 1) for y in range(12)] * 9)
    image = np.zeros((1, 40, 70), np.float32)
    layers = to_layers(deep, (40, 70))
    assert len(layers) > 9
    sample = Sample("deep", image, layers)
    assert [score.true_positive for score in validate(Known([deep]), [sample])] == [108] * 3
    # A label image of them would show a fraction, and call most of them wrong.
    _, threshold = calibrate(Known([deep]), [sample], ((1.0, 0.0), 0.5))
    assert threshold in CHOICES
    assert best_overlap(deep, deep).min() == 1
