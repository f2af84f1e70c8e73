"""Whether configurations find the same cells: F1 between any two, and AP against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import accuracy
from benchmarks.pairs import Pair
from benchmarks.speed_runs import Configuration
from cellseg.models import Segmenter
from cellseg.models.settings import MaskRCNNSettings
from cellseg.pipeline import Config
from cellseg.pipeline.image import open_image
from cellseg.pipeline.inference import settled
from cellseg.pipeline.named_model import NamedModel
from cellseg.pipeline.score import Score, match, pool
from cellseg.pipeline.tiles import Box

MATCH = 0.5
APS = (0.5, 0.75)
CROP = 1536
"""Height and width of what is looked at of a slide, px."""
REFERENCE = {"device": "cpu", "precision": "float32", "inference": "torch"}
"""What all are compared with, as far as this version has these keys."""
Labels = NDArray[np.integer[Any]]
Row = dict[str, Any]


def reference() -> Configuration:
    """Return eager arithmetic in float32 on the CPU."""
    known = {key: value for key, value in REFERENCE.items() if key in Config.model_fields}
    return Configuration(tuple(known.items()))


def model_of(configuration: Configuration) -> Segmenter:
    """Return the shipped model as a configuration has it."""
    model = MaskRCNNSettings()
    return NamedModel(model, settled(configuration.config, model)).loaded()


def crop_of(slide: Path, side: int = CROP) -> NDArray[Any]:
    """Return the middle of the first channel of a slide, (1, h, w)."""
    image = open_image(slide)
    height, width = (int(length) for length in image.pixels.shape[3:])
    y, x = max(height - side, 0) // 2, max(width - side, 0) // 2
    return image.read(0, 0, Box(y, x, min(y + side, height), min(x + side, width)), [0])


def labels_of(pixels: NDArray[Any], model: Segmenter) -> Labels:
    """Return the cells of an image (C, H, W) as labels."""
    height, width = pixels.shape[1:]
    return accuracy.segment(model, pixels).to_labels((height, width))


def look(
    configuration: Configuration, pairs: Sequence[Pair], crop: NDArray[Any] | None
) -> tuple[dict[str, list[Labels]], list[Score]]:
    """Return the labels of images with a truth and of the slide, and the pooled scores."""
    model, channels = model_of(configuration), MaskRCNNSettings().channels
    cases = [accuracy.measure(model, channels, pair, lambda *_: "") for pair in pairs]
    labels: dict[str, list[Labels]] = {"images": [case.labels for case in cases]}
    if crop is not None:
        labels["slide"] = [labels_of(crop, model)]
    return labels, pool(case.outcome.scores for case in cases)


def agreement(
    configurations: Sequence[Configuration], pairs: Sequence[Pair], crop: NDArray[Any] | None
) -> tuple[list[Row], list[Row]]:
    """Compare configurations, and the reference before them.

    Returns
    -------
    pairs, accuracy : list of dict
        F1 at IoU 0.5 between any two, images with a truth and the slide by themselves; AP of
        each, and how far it is from the reference's.
    """
    chosen = list(dict.fromkeys([reference(), *configurations]))
    looks = {each.name: look(each, pairs, crop) for each in chosen}
    between = [
        {"one": one, "other": other, "on": where} | _compared(looks[one][0], looks[other][0], where)
        for one, other in itertools.combinations(looks, 2)
        for where in looks[one][0]
        if looks[one][0][where]
    ]
    if not pairs:
        return between, []
    first = _aps(looks[chosen[0].name][1])
    return between, [
        {"configuration": name}
        | _aps(scores)
        | {f"{key}_off": value - first[key] for key, value in _aps(scores).items()}
        for name, (_, scores) in looks.items()
    ]


def _compared(one: Mapping[str, list[Labels]], other: Mapping[str, list[Labels]], on: str) -> Row:
    both = zip(one[on], other[on], strict=True)
    (score,) = pool(match(mine, its, [MATCH]) for mine, its in both)
    alone = score.false_positive, score.false_negative
    return {"f1": score.f1, "cells": score.true_positive + alone[1], "only_in_one": sum(alone)}


def _aps(scores: Sequence[Score]) -> dict[str, float]:
    """Return the AP at each IoU of `APS`."""
    of = {round(score.threshold, 3): score.average_precision for score in scores}
    return {f"ap_{iou}": of[iou] for iou in APS}
