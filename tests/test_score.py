from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.pipeline.score import Score, best_overlap, match, pool
from synthetic import discs

Labels = NDArray[Any]

RATIOS = ["ap", "f1", "pq", "precision", "recall"]

small = arrays(np.uint16, (4, 5), elements=st.integers(0, 4), fill=st.nothing())
low_and_high = st.sampled_from([0.05, 0.1, 0.2, 1 / 3, 0.5, 0.6, 2 / 3, 1.0])


def ious(labels: Labels, truth: Labels) -> NDArray[np.float64]:
    """The whole table, cell against cell, as it is defined."""
    own, true = ([v for v in np.unique(side) if v] for side in (labels, truth))
    table = np.zeros((len(own), len(true)))
    for (i, a), (j, b) in itertools.product(enumerate(own), enumerate(true)):
        union = np.count_nonzero((labels == a) | (truth == b))
        table[i, j] = np.count_nonzero((labels == a) & (truth == b)) / union
    return table


def best(table: NDArray[np.float64], threshold: float) -> tuple[int, float]:
    """Most pairs, then most IoU, over every one-to-one choice there is."""
    if table.shape[0] > table.shape[1]:
        table = table.T
    rows = range(table.shape[0])
    tried = [(0, 0.0)]
    for columns in itertools.permutations(range(table.shape[1]), table.shape[0]):
        good = [table[r, c] for r, c in zip(rows, columns, strict=True) if table[r, c] >= threshold]
        tried.append((len(good), math.fsum(good)))
    return max(tried)


@settings(max_examples=100, deadline=None)
@given(small, small, low_and_high)
def test_matching_is_the_best_of_all(labels: Labels, truth: Labels, threshold: float) -> None:
    table = ious(labels, truth)
    (score,) = match(labels, truth, [threshold])
    count, total = best(table, threshold)
    assert score.true_positive == count
    assert score.matched_iou == pytest.approx(total, abs=1e-9)
    assert score.true_positive + score.false_positive == table.shape[0]
    assert score.true_positive + score.false_negative == table.shape[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), low_and_high)
def test_many_cells_match_as_in_a_dense_assignment(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.permutation(25).reshape(5, 5), np.ones((4, 4), np.int64))
    truth = np.kron(rng.permutation(36).reshape(6, 6), np.ones((4, 4), np.int64))[2:22, 1:21]
    table = ious(labels, truth)
    good = table >= threshold
    near = np.where(good, 1 + table / 100, 0)
    pairs = linear_sum_assignment(near, maximize=True)
    (score,) = match(labels, truth, [threshold])
    assert score.true_positive == np.count_nonzero(good[pairs])
    assert score.matched_iou == pytest.approx(table[pairs][good[pairs]].sum())


@settings(max_examples=60, deadline=None)
@given(small, small)
@example(  # whose IoU add up to another last bit in another order
    np.array([[0] * 5, [0, 0, 0, 0, 1], [1, 1, 1, 1, 3], [3, 3, 2, 0, 3]]),
    np.array([[0] * 5, [0, 0, 0, 1, 1], [1, 1, 1, 3, 3], [3, 3, 2, 0, 1]]),
)
def test_sides_and_numbers_are_exchangeable(labels: Labels, truth: Labels) -> None:
    forth, back = match(labels, truth), match(truth, labels)
    for a, b in zip(forth, back, strict=True):
        assert (a.true_positive, a.false_positive) == (b.true_positive, b.false_negative)
        assert a.average_precision == b.average_precision
        assert a.panoptic_quality == pytest.approx(b.panoptic_quality)
    renumbered = np.array([0, 2**40, 7, -3, 5])[labels]
    assert match(renumbered, truth.astype(np.uint64)) == forth


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(small, small), min_size=1, max_size=4))
def test_pooled_scores_are_those_of_one_mosaic(images: list[tuple[Labels, Labels]]) -> None:
    pooled = pool(match(labels, truth) for labels, truth in images)
    own, true = (
        np.stack([np.where(pair[side] > 0, pair[side] + 9 * n, 0) for n, pair in enumerate(images)])
        for side in (0, 1)
    )
    for score, whole in zip(pooled, match(own, true), strict=True):
        assert score.true_positive == whole.true_positive
        assert score.false_positive == whole.false_positive
        assert score.false_negative == whole.false_negative
        assert score.matched_iou == pytest.approx(whole.matched_iou)


def test_a_known_case() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 0], [2, 2, 0, 0, 3, 0]])
    labels = np.array([[9, 9, 9, 0, 0, 0], [8, 8, 0, 7, 0, 0]])
    (score,) = match(labels, truth, [0.7])
    assert score == Score(0.7, 2, 1, 1, 1.75)
    assert score.average_precision == 2 / 4
    assert score.f1 == score.precision == score.recall == 2 / 3
    assert score.panoptic_quality == 1.75 / 3
    assert score.mean_matched_iou == 0.875
    assert [s.true_positive for s in match(labels, truth, [0.75, 0.76, 1])] == [2, 1, 1]


def test_two_halves_tie_at_exactly_one_half() -> None:
    truth = np.array([[1, 1, 1, 1]])
    halves = np.array([[1, 1, 2, 2]])
    assert match(halves, truth, [0.5]) == [Score(0.5, 1, 1, 0, 0.5)]
    assert match(truth, halves, [0.5]) == [Score(0.5, 1, 0, 1, 0.5)]
    assert match(halves, truth, [0.500001]) == [Score(0.500001, 0, 2, 1, 0.0)]


def test_below_one_half_more_pairs_win_over_the_best_pair() -> None:
    # 1 overlaps A best, but only if it takes B can 2 have A.
    labels = np.array([[1] * 5 + [2] * 3])
    truth = np.array([[2] * 2 + [1] * 6])
    assert ious(labels, truth).tolist() == [[3 / 8, 2 / 5], [1 / 2, 0]]
    assert match(labels, truth, [0.3]) == [Score(0.3, 2, 0, 0, 0.9)]
    assert match(labels, truth, [0.45]) == [Score(0.45, 1, 1, 1, 0.5)]


def test_empty_images() -> None:
    none, one = np.zeros((3, 3), np.uint8), np.eye(3, dtype=np.uint8)
    for labels, truth, value in ((none, none, 1), (one, none, 0), (none, one, 0), (one, one, 1)):
        for score in match(labels, truth):
            assert {score.row()[ratio] for ratio in RATIOS} == {value}
            assert score.mean_matched_iou == value
    assert pool([]) == []


def test_volumes_are_matched_whole() -> None:
    truth = np.zeros((3, 4, 4), np.uint16)
    truth[:, 1:3, 1:3] = 5
    labels = truth.copy()
    labels[2] = 0
    (score,) = match(labels, truth, [0.6])
    assert score == Score(0.6, 1, 0, 0, 8 / 12)


def test_scores_at_different_thresholds_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Score(0.5, 1, 1, 1, 0.7) + Score(0.6, 1, 1, 1, 0.7)


@pytest.mark.parametrize(
    ("labels", "truth", "thresholds", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), [0.5], r"\(2, 3\).*\(3, 2\) differ"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), [0.5], "labels: pixels are float64"),
        (np.zeros((2, 3), int), np.zeros((2, 3), bool), [0.5], "truth: pixels are bool"),
        (np.zeros((2, 3), int), np.zeros((2, 3), int), [0], "threshold 0 is out of range"),
        (np.zeros((2, 3), int), np.zeros((2, 3), int), [50], "threshold 50 is out of range"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    labels: Labels, truth: Labels, thresholds: list[float], message: str
) -> None:
    with pytest.raises(CellsegError, match=message):
        match(labels, truth, thresholds)


def planes(cells: Instances, shape: tuple[int, int]) -> Labels:
    drawn = np.zeros((len(cells), *shape), bool)
    for plane, (y0, x0, y1, x1), mask in zip(drawn, cells.boxes, cells.masks, strict=True):
        plane[y0:y1, x0:x1] = mask
    return drawn


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 5), low_and_high)
def test_cells_that_overlap_are_matched_by_their_whole_masks(
    seed: int, count: int, true_count: int, threshold: float
) -> None:
    own, true = discs(seed, (30, 34), count), discs(seed + 1, (30, 34), true_count)
    table = np.zeros((len(own), len(true)))
    for (i, a), (j, b) in itertools.product(
        enumerate(planes(own, (30, 34))), enumerate(planes(true, (30, 34)))
    ):
        table[i, j] = np.count_nonzero(a & b) / np.count_nonzero(a | b)
    (score,) = match(own, true, [threshold])
    count, total = best(table, threshold)
    assert score.true_positive == count
    assert score.matched_iou == pytest.approx(total, abs=1e-9)
    assert score.true_positive + score.false_positive == len(own)
    assert score.true_positive + score.false_negative == len(true)
    assert best_overlap(own, true) == pytest.approx(table.max(axis=1, initial=0))


@settings(max_examples=60, deadline=None)
@given(small, small)
def test_objects_without_overlap_score_as_their_label_images(labels: Labels, truth: Labels) -> None:
    own, true = Instances.from_labels(labels), Instances.from_labels(truth)
    assert match(own, true) == match(labels, truth)
    assert best_overlap(own, true).tolist() == best_overlap(labels, truth).tolist()


def test_what_lies_under_another_cell_is_found_too() -> None:
    cells = Instances.stack([((0, 0), np.ones((6, 6), bool), 1.0, 1)] * 3)
    assert match(cells, cells, [0.9]) == [Score(0.9, 3, 0, 0, 3.0)]
    assert match(cells.take([0]), cells, [0.9]) == [Score(0.9, 1, 0, 2, 1.0)]


def test_the_two_sides_must_be_of_one_kind() -> None:
    with pytest.raises(TypeError, match="both"):
        match(Instances.empty(), np.zeros((2, 2), int))
    with pytest.raises(CellsegError, match="threshold 2 is out of range"):
        match(Instances.empty(), Instances.empty(), [2])
