"""Labels against ground truth: average precision, F1 and panoptic quality.

Cells are matched one to one where their intersection over union (IoU) reaches
a threshold: as many pairs as possible, and of those choices the one with the
highest sum of IoU. Above 0.5 there is no choice; at 0.5 two halves of a cell
may tie; below, a cell may have several candidates.

Sources: average precision as TP / (TP + FP + FN), Caicedo et al., "Nucleus
segmentation across imaging experiments: the 2018 Data Science Bowl", Nature
Methods 2019, and Schmidt et al., "Cell detection with star-convex polygons",
MICCAI 2018, section 3; panoptic quality, Kirillov et al., "Panoptic
segmentation", CVPR 2019, section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.meeting import meeting, shared_pixels

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Side = NDArray[Any] | Instances

# Those of table 1 in Schmidt et al.
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


@dataclass(frozen=True)
class Score:
    """How many cells were found, at one IoU threshold.

    Scores of several images add up to the score over all their cells, as
    StarDist's ``matching_dataset(by_image=False)``. A ratio without a
    denominator is 1 where neither side has a cell, else 0.

    Parameters
    ----------
    threshold : float
        Two cells match from this IoU on, in (0, 1].
    true_positive, false_positive, false_negative : int
        Matched pairs, labels without a partner, true cells without a partner.
    matched_iou : float
        Sum of the IoU of the matched pairs.
    """

    threshold: float
    true_positive: int
    false_positive: int
    false_negative: int
    matched_iou: float

    def __add__(self, other: Score) -> Score:
        if self.threshold != other.threshold:
            raise ValueError(f"scores at IoU {self.threshold} and {other.threshold} do not add up")
        return Score(
            self.threshold,
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.matched_iou + other.matched_iou,
        )

    def _ratio(self, part: float, whole: float) -> float:
        """Return `part / whole`, by the convention for empty images where that is undefined."""
        if whole == 0:
            return float(self.true_positive + self.false_positive + self.false_negative == 0)
        return part / whole

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN)."""
        found = self.true_positive
        return self._ratio(found, found + self.false_positive + self.false_negative)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self._ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self._ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def _mean_cells(self) -> float:
        """Mean of the numbers of cells on the two sides."""
        return self.true_positive + (self.false_positive + self.false_negative) / 2

    @property
    def f1(self) -> float:
        """TP / (TP + FP / 2 + FN / 2)."""
        return self._ratio(self.true_positive, self._mean_cells)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the matched IoU / (TP + FP / 2 + FN / 2)."""
        return self._ratio(self.matched_iou, self._mean_cells)

    @property
    def mean_matched_iou(self) -> float:
        """Sum of the matched IoU / TP."""
        return self._ratio(self.matched_iou, self.true_positive)

    def row(self) -> dict[str, float]:
        """Return the score as ``iou, tp, fp, fn, ap, f1, pq, precision, recall``."""
        return {
            "iou": self.threshold,
            "tp": self.true_positive,
            "fp": self.false_positive,
            "fn": self.false_negative,
            "ap": self.average_precision,
            "f1": self.f1,
            "pq": self.panoptic_quality,
            "precision": self.precision,
            "recall": self.recall,
        }


def match(labels: Side, truth: Side, thresholds: Sequence[float] = THRESHOLDS) -> list[Score]:
    """Score one image.

    Parameters
    ----------
    labels, truth : integer arrays of one shape, or Instances on both sides
        A plane or a volume each; 0 is background, every other value a cell.
        Instances of one plane may overlap.
    thresholds : sequence of float
        In (0, 1].

    Returns
    -------
    list of Score
        One per threshold. Memory grows with the pixels and the overlapping
        pairs, never with cells times cells.

    Raises
    ------
    CellsegError
        If shapes differ, an image is not of integers, or a threshold is out of range.
    """
    overlaps = overlaps_of(labels, truth, thresholds)
    scores = []
    for threshold in thresholds:
        matched = overlaps.iou[overlaps.matched(threshold)]
        count = len(matched)
        scores.append(
            Score(
                float(threshold),
                count,
                int(np.count_nonzero(overlaps.own_areas[1:])) - count,
                int(np.count_nonzero(overlaps.true_areas[1:])) - count,
                fsum(matched),  # exact, so the numbering of the cells changes no bit
            )
        )
    return scores


def best_overlap(labels: Side, truth: Side) -> Floats:
    """Return, for each label in increasing order, its highest IoU with a true cell, (N,).

    Parameters and errors are those of `match`; of Instances, in their order.
    """
    overlaps = overlaps_of(labels, truth)
    best = np.zeros(len(overlaps.own_areas))
    np.maximum.at(best, overlaps.rows, overlaps.iou)
    return best[1:][overlaps.own_areas[1:] > 0]


class Adds(Protocol):
    """What adds up over images."""

    def __add__(self, other: Self, /) -> Self: ...


Pooled = TypeVar("Pooled", bound=Adds)


def pool(scores: Iterable[Sequence[Pooled]]) -> list[Pooled]:
    """Add the scores of several images, threshold by threshold; of none, return none."""
    pooled: list[Pooled] = []
    for image in scores:
        pooled = [a + b for a, b in zip(pooled, image, strict=True)] if pooled else list(image)
    return pooled


def _check(labels: NDArray[Any], truth: NDArray[Any], thresholds: Sequence[float]) -> None:
    """Refuse what cannot be scored."""
    for side, image in (("labels", labels), ("truth", truth)):
        if image.dtype.kind not in "iu":
            raise CellsegError(
                f"{side}: pixels are {image.dtype}, label images need integers."
                " Give a label image: 0 for background, one number for each cell."
            )
    if labels.shape != truth.shape:
        raise CellsegError(
            f"labels {labels.shape} and truth {truth.shape} differ in shape."
            " Give label images of the same plane or volume."
        )
    _check_thresholds(thresholds)


def _check_thresholds(thresholds: Sequence[float]) -> None:
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise CellsegError(
                f"IoU threshold {threshold} is out of range. Give values above 0 and up to 1."
            )


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs of a label and a true cell that share a pixel.

    Parameters
    ----------
    rows, columns : int64 (P,)
        Label and true cell of each pair, by their rank from 1 on; sorted by both.
    iou : float64 (P,)
        Their IoU.
    own_areas, true_areas : int64 (N + 1,), (M + 1,)
        Pixels of each label and true cell, by rank; the first is no cell.
    """

    rows: Integers
    columns: Integers
    iou: Floats
    own_areas: Integers
    true_areas: Integers

    def matched(self, threshold: float) -> Integers:
        """Return the pairs that are chosen at an IoU threshold, by their index."""
        near = np.flatnonzero(self.iou >= threshold)
        chosen: Integers = near[_assign(self.rows[near], self.columns[near], self.iou[near])]
        return chosen


def overlaps_of(labels: Side, truth: Side, thresholds: Sequence[float] = ()) -> Overlaps:
    """Return how labels and true cells overlap; parameters and errors are those of `match`."""
    if isinstance(labels, Instances) and isinstance(truth, Instances):
        _check_thresholds(thresholds)
        return _overlaps_of_instances(labels, truth)
    if isinstance(labels, Instances) or isinstance(truth, Instances):
        raise TypeError("labels and truth must both be arrays, or both Instances")
    _check(labels, truth, thresholds)
    return _overlaps_of_images(labels, truth)


def _overlaps_of_instances(labels: Instances, truth: Instances) -> Overlaps:
    """Return the overlaps of objects, each with its whole mask."""
    masks = labels.masks + truth.masks
    boxes = np.concatenate([labels.boxes, truth.boxes])
    pairs = meeting(boxes)
    pairs = pairs[(pairs[:, 0] < len(labels)) & (pairs[:, 1] >= len(labels))]
    shared = shared_pixels(boxes, masks.__getitem__, pairs)
    pairs, shared = pairs[shared > 0], shared[shared > 0]
    rows, columns = pairs[:, 0] + 1, pairs[:, 1] + 1 - len(labels)
    own_areas, true_areas = (np.append(0, side.areas()) for side in (labels, truth))
    iou = shared / (own_areas[rows] + true_areas[columns] - shared)
    return Overlaps(rows, columns, iou, own_areas, true_areas)


def _overlaps_of_images(labels: NDArray[Any], truth: NDArray[Any]) -> Overlaps:
    """Return the overlaps of label images."""
    own, true, lengths = _runs(labels, truth)
    own_areas, true_areas = np.bincount(own, lengths, 1), np.bincount(true, lengths, 1)
    both = (own > 0) & (true > 0)
    keys, inverse = np.unique(own[both] * len(true_areas) + true[both], return_inverse=True)
    shared = np.bincount(inverse, lengths[both], minlength=len(keys))
    rows, columns = np.divmod(keys, len(true_areas))
    iou = shared / (own_areas[rows] + true_areas[columns] - shared)
    return Overlaps(rows, columns, iou, own_areas.astype(np.int64), true_areas.astype(np.int64))


def _runs(labels: NDArray[Any], truth: NDArray[Any]) -> tuple[Integers, Integers, Integers]:
    """Cut two images into runs of one label and one true cell; return both and the lengths.

    Cells are numbered from 1 and 0 is background. Runs are many fewer than
    pixels, so what follows is fast.
    """
    own, true = labels.ravel(), truth.ravel()
    start = np.ones(own.size, bool)
    np.not_equal(own[1:], own[:-1], out=start[1:])
    start[1:] |= true[1:] != true[:-1]
    at = np.flatnonzero(start)
    lengths = np.diff(at, append=own.size)
    return _number(own[at]), _number(true[at]), lengths


def _number(values: NDArray[Any]) -> Integers:
    """Replace each value but 0 by its rank, from 1 on."""
    number = np.unique(values, return_inverse=True)[1] + 1
    number[values == 0] = 0
    return number


def _assign(rows: Integers, columns: Integers, iou: Floats) -> Integers:
    """Return the indices of the pairs in the best one-to-one choice among the given pairs.

    Parameters
    ----------
    rows, columns : int64 (P,)
        Label and true cell of each pair, sorted by row, then column.
    iou : float64 (P,)
        Their IoU.
    """
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    rest = np.flatnonzero(~alone)
    if not len(rest):
        return np.arange(len(rows))
    chosen = _assign_contested(_number(rows[rest] + 1), _number(columns[rest] + 1), iou[rest])
    return np.concatenate([np.flatnonzero(alone), rest[chosen]])


def _assign_contested(rows: Integers, columns: Integers, iou: Floats) -> Integers:
    """Do the work of `_assign` for rows and columns that are numbered from 1 without a gap."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    height, width = int(rows.max()), int(columns.max())
    own = np.arange(height)
    # A column for each row, at cost 2, means "no partner". A pair costs 1, less a share of its
    # IoU that adds up to under 1/2, so one more pair always outweighs any gain in IoU.
    costs = np.concatenate([1 - iou / (2 * height), np.full(height, 2.0)])
    graph = csr_array(
        (costs, (np.concatenate([rows - 1, own]), np.concatenate([columns - 1, width + own]))),
        shape=(height, width + height),
    )
    row, column = min_weight_full_bipartite_matching(graph)
    key = (row * width + column)[column < width]
    chosen: Integers = np.searchsorted((rows - 1) * width + columns - 1, key)
    return chosen
