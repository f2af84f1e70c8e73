"""Where a model is right: its cells paired with the truth, split by size, group and score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.score import THRESHOLDS, Score, pool

Floats = NDArray[np.float64]
Row = dict[str, Any]

IOUS = (*THRESHOLDS, 0.95)
MATCH = 0.5
"""IoU from which a cell counts as found where nothing else is said."""
CLASSES = ((0, 8), (8, 12), (12, 20), (20, 30), (30, 45), (45, np.inf))
"""Diameters in px, from and up to but not including."""
SIZES = (*CLASSES[:2], (0, 12), *CLASSES[2:])
BINS = 10


@dataclass(frozen=True)
class Cells:
    """The cells of a label image, in the order of their labels.

    Parameters
    ----------
    labels : int64 (N,)
        Their values in the label image.
    diameter_px : float64 (N,)
        That of the disc of the same area.
    iou : float64 (N,)
        IoU with the partner on the other side; 0 without one.
    """

    labels: NDArray[np.int64]
    diameter_px: Floats
    iou: Floats

    def within(self, low: float, high: float) -> NDArray[np.bool_]:
        """Return which cells have a diameter from `low` to under `high` px."""
        return (self.diameter_px >= low) & (self.diameter_px < high)


@dataclass(frozen=True)
class Outcome:
    """What a model found in one image.

    Parameters
    ----------
    name, group : str
        The image, and what it is counted with.
    scores : tuple of Score
        One for each of `IOUS`.
    true, found : Cells
        The two sides.
    confidence : float64 (N,)
        The model's score of each cell in `found`.
    pixels : int
        Size of the image.
    seconds : float
        Spent in the model.
    """

    name: str
    group: str
    scores: tuple[Score, ...]
    true: Cells
    found: Cells
    confidence: Floats
    pixels: int
    seconds: float


def partners(labels: NDArray[np.integer], truth: NDArray[np.integer]) -> tuple[Cells, Cells]:
    """Pair found and true cells one to one where their IoU is `MATCH` or more.

    These are as many pairs as `cellseg.pipeline.score.match` counts. Above one
    half there is no choice; a cell with two candidates at exactly one half is
    made up of the two, which touch no other cell, so either will do.

    Parameters
    ----------
    labels, truth : integers (H, W)
        0 is background.

    Returns
    -------
    found, true : Cells
    """
    own, own_index = np.unique(labels, return_inverse=True)
    true, true_index = np.unique(truth, return_inverse=True)
    own_area, true_area = np.bincount(own_index.ravel()), np.bincount(true_index.ravel())
    both, shared = np.unique(own_index.ravel() * len(true) + true_index.ravel(), return_counts=True)
    rows, columns = np.divmod(both, len(true))
    iou = shared / (own_area[rows] + true_area[columns] - shared)
    near = np.flatnonzero((own[rows] != 0) & (true[columns] != 0) & (iou >= MATCH))
    own_iou, true_iou = np.zeros(len(own)), np.zeros(len(true))
    for pair in near[np.argsort(-iou[near], kind="stable")].tolist():
        if own_iou[rows[pair]] == 0 and true_iou[columns[pair]] == 0:
            own_iou[rows[pair]] = true_iou[columns[pair]] = iou[pair]
    return _cells(own, own_area, own_iou), _cells(true, true_area, true_iou)


def _cells(values: NDArray[np.integer], areas: NDArray[np.integer], iou: Floats) -> Cells:
    cell = values != 0
    return Cells(values[cell].astype(np.int64), 2 * np.sqrt(areas[cell] / np.pi), iou[cell])


def mean_ap(scores: Sequence[Score]) -> float:
    """Return the mean AP over IoU 0.5, 0.55 ... 0.9; 0.95 does not count, as in `THRESHOLDS`."""
    chosen = [s.average_precision for s in scores if s.threshold in THRESHOLDS]
    return float(np.mean(chosen))


def size_name(low: float, high: float) -> str:
    """Return a range of diameters in words, in px."""
    if low == 0:
        return f"<{high:g}"
    return f">={low:g}" if np.isinf(high) else f"{low:g}-{high:g}"


def size_class(diameters_px: Floats) -> str:
    """Return the one of `CLASSES` that the median lies in, in words."""
    if not len(diameters_px):
        return "no cells"
    median = float(np.median(diameters_px))
    low, high = next(each for each in CLASSES if each[0] <= median < each[1])
    return f"cells {size_name(low, high)} px"


def summary(outcomes: Sequence[Outcome]) -> Row:
    """Return what all images together come to, cells pooled."""
    scores = pool(outcome.scores for outcome in outcomes)
    first = scores[0]
    return {
        "images": len(outcomes),
        "cells": first.true_positive + first.false_negative,
        **_precisions(scores),
        "mean_ap": mean_ap(scores),
        "f1": first.f1,
        "precision": first.precision,
        "recall": first.recall,
        "pq": first.panoptic_quality,
        "image_ap_0.5": float(np.mean([o.scores[0].average_precision for o in outcomes])),
        "s_per_mpx": sum(o.seconds for o in outcomes) / sum(o.pixels for o in outcomes) * 1e6,
    }


def by_iou(outcomes: Sequence[Outcome]) -> Row:
    """Return the AP at each of `IOUS`, cells pooled."""
    scores = pool(outcome.scores for outcome in outcomes)
    return {f"{score.threshold:g}": score.average_precision for score in scores}


def by_size(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return a row for each of `SIZES`: true cells and how many are found, false ones by theirs."""
    false = np.concatenate([o.found.diameter_px[o.found.iou == 0] for o in outcomes])
    rows = []
    for low, high in SIZES:
        iou = np.concatenate([o.true.iou[o.true.within(low, high)] for o in outcomes])
        row: Row = {"diameter_px": size_name(low, high), "cells": len(iou)}
        for least in (0.5, 0.75, 0.9):
            row[f"recall_{least:g}"] = float(np.mean(iou >= least)) if len(iou) else None
        rows.append(row | {"false_cells": int(np.sum((false >= low) & (false < high)))})
    return rows


def by_group(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return a row for each group of images, the largest first."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.group].append(outcome)
    rows = []
    for name in sorted(groups, key=lambda name: (-len(groups[name]), name)):
        scores = pool(outcome.scores for outcome in groups[name])
        cells = sum(len(outcome.true.labels) for outcome in groups[name])
        row = {"group": name, "images": len(groups[name]), "cells": cells}
        rows.append(row | _precisions(scores) | {"f1": scores[0].f1})
    return rows


def by_score(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return a row for each tenth of the score that holds an object: the share that is right."""
    confidence = np.concatenate([outcome.confidence for outcome in outcomes])
    right = np.concatenate([outcome.found.iou > 0 for outcome in outcomes])
    tenth = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    return [
        {
            "score": f"{index / BINS:g}-{(index + 1) / BINS:g}",
            "objects": int(np.count_nonzero(tenth == index)),
            "mean_score": float(confidence[tenth == index].mean()),
            "matched": float(right[tenth == index].mean()),
        }
        for index in np.unique(tenth).tolist()
    ]


def calibration_error(rows: Sequence[Row]) -> float | None:
    """Return the expected calibration error of the rows of `by_score`; None without an object.

    The mean over all objects of the distance between the mean score and the
    matched share of their bin (Guo et al., "On calibration of modern neural
    networks", ICML 2017, section 2).
    """
    if not rows:
        return None
    weights = [row["objects"] for row in rows]
    return float(np.average([abs(r["mean_score"] - r["matched"]) for r in rows], weights=weights))


def by_image(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return a row for each image, so that two models can be compared image by image."""
    return [
        {
            "image": outcome.name,
            "group": outcome.group,
            "cells": len(outcome.true.labels),
            "found": len(outcome.found.labels),
            **_precisions(outcome.scores),
            "mean_ap": mean_ap(outcome.scores),
        }
        for outcome in outcomes
    ]


def _precisions(scores: Sequence[Score]) -> Row:
    """Return the AP at the three IoU that are printed."""
    shown = (s for s in scores if s.threshold in (0.5, 0.75, 0.9))
    return {f"ap_{score.threshold:g}": score.average_precision for score in shown}
