"""Recall of true cells by how much of each is covered by others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cellseg.models.instances import Instances
from cellseg.models.layers import overlapping_pairs
from cellseg.pipeline.score import Score, Side, overlaps_of

SHARES = (0.0, 0.10, 0.25, 0.50, 1.0)
"""Borders of the classes of share; each includes its upper border."""


@dataclass(frozen=True)
class ShareRecall:
    """How many of the true cells of one class of share were found.

    Parameters
    ----------
    low, high : float
        The part of a cell's area that other true cells cover too is above `low`, in the first
        class from it on, and up to `high`.
    cells, matched : int
        True cells, and those of them with a partner.
    """

    low: float
    high: float
    cells: int
    matched: int

    def __add__(self, other: ShareRecall) -> ShareRecall:
        if (self.low, self.high) != (other.low, other.high):
            raise ValueError(f"recalls of {self.name} and {other.name} do not add up")
        return ShareRecall(
            self.low, self.high, self.cells + other.cells, self.matched + other.matched
        )

    @property
    def recall(self) -> float | None:
        """Matched / cells; None without cells."""
        return self.matched / self.cells if self.cells else None

    @property
    def name(self) -> str:
        """The class in words, ``10-25 %``."""
        return f"{100 * self.low:.0f}-{100 * self.high:.0f} %"

    def row(self) -> dict[str, float | int | str | None]:
        """Return ``share, cells, matched, recall``."""
        return {
            "share": self.name,
            "cells": self.cells,
            "matched": self.matched,
            "recall": self.recall,
        }


def shares(instances: Instances) -> NDArray[np.float64]:
    """Return the part of each object's area that others cover too, float64 (N,) in [0, 1]."""
    covered = [np.zeros_like(mask) for mask in instances.masks]
    for pair in overlapping_pairs(instances):
        boxes = instances.boxes[pair]
        low, high = boxes[:, :2].max(axis=0), boxes[:, 2:].min(axis=0)
        one, other = (
            (slice(y0, y1), slice(x0, x1))
            for (y0, x0), (y1, x1) in zip(low - boxes[:, :2], high - boxes[:, :2], strict=True)
        )
        i, j = pair.tolist()
        both = instances.masks[i][one] & instances.masks[j][other]
        covered[i][one] |= both
        covered[j][other] |= both
    return np.array([np.count_nonzero(each) for each in covered]) / np.maximum(instances.areas(), 1)


def recall_by_share(labels: Side, truth: Side, threshold: float = 0.5) -> tuple[ShareRecall, ...]:
    """Return the recall of true cells in four classes of share: to 10, 25, 50 and 100 %.

    Parameters
    ----------
    labels, truth : Instances or integer arrays (H, W)
        In an array no cell covers another.
    threshold : float
        IoU from which a label and a true cell match, one to one, as in
        `cellseg.pipeline.score.match`.
    """
    own, true = (
        side if isinstance(side, Instances) else Instances.from_labels(side)
        for side in (labels, truth)
    )
    overlaps = overlaps_of(own, true, [threshold])
    matched = overlaps.columns[overlaps.matched(threshold)] - 1
    classes = np.searchsorted(SHARES[1:-1], shares(true), side="left")
    cells = np.bincount(classes, minlength=len(SHARES) - 1).tolist()
    found = np.bincount(classes[matched], minlength=len(SHARES) - 1).tolist()
    rows = zip(pairwise(SHARES), cells, found, strict=True)
    return tuple(ShareRecall(*borders, of, with_partner) for borders, of, with_partner in rows)


def recall_without_overlap(score: Score) -> tuple[ShareRecall, ...]:
    """Return the same where no true cell covers another, from the score of the image."""
    cells = score.true_positive + score.false_negative
    first, *rest = pairwise(SHARES)
    return (
        ShareRecall(*first, cells, score.true_positive),
        *(ShareRecall(*borders, 0, 0) for borders in rest),
    )
