"""Recall by how much of a cell others cover, against cells made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.models.instances import Instances
from cellseg.pipeline.recall import ShareRecall, recall_by_share, recall_without_overlap, shares
from cellseg.pipeline.score import match, pool
from synthetic import discs


def bars(*spans: tuple[int, int]) -> Instances:
    """Cells of one row and some columns each."""
    return Instances.stack([((0, x0), np.ones((1, x1 - x0), bool), 1.0, 1) for x0, x1 in spans])


def planes(cells: Instances, shape: tuple[int, int]) -> np.ndarray:
    """Every mask in a plane of its own."""
    drawn = np.zeros((len(cells), *shape), bool)
    for plane, (y0, x0, y1, x1), mask in zip(drawn, cells.boxes, cells.masks, strict=True):
        plane[y0:y1, x0:x1] = mask
    return drawn


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12))
def test_shares_are_what_counting_every_pixel_gives(seed: int, count: int) -> None:
    cells = discs(seed, (40, 50), count)
    drawn = planes(cells, (40, 50))
    depth = drawn.sum(axis=0)
    expected = [((depth > 1) & plane).sum() / plane.sum() for plane in drawn]
    assert shares(cells) == pytest.approx(expected)


def test_each_cell_counts_in_the_class_of_its_share() -> None:
    # Of ten pixels, others cover 1, 2, 5 and 6; and of twenty 1 and 2, 5, 6.
    truth = bars((0, 10), (9, 29), (40, 50), (48, 68), (80, 90), (85, 105), (120, 130), (124, 144))
    assert shares(truth).tolist() == [0.1, 0.05, 0.2, 0.1, 0.5, 0.25, 0.6, 0.3]
    found = bars((0, 10), (40, 50), (48, 68), (80, 90), (124, 144))
    rows = [(each.name, each.cells, each.matched) for each in recall_by_share(found, truth)]
    assert rows == [
        ("0-10 %", 3, 2),
        ("10-25 %", 2, 1),
        ("25-50 %", 2, 2),
        ("50-100 %", 1, 0),
    ]
    assert recall_by_share(found, truth)[0].row()["recall"] == pytest.approx(2 / 3)


def test_one_label_finds_one_of_two_cells_that_share_a_place() -> None:
    truth = bars((0, 10), (0, 10))
    (*_, last) = recall_by_share(bars((0, 10)), truth)
    assert (last.cells, last.matched, last.recall) == (2, 1, 0.5)


def test_without_overlap_all_cells_are_in_the_first_class() -> None:
    labels = np.zeros((6, 20), np.int32)
    labels[:, :4], labels[:, 4:9], labels[:, 12:] = 1, 2, 5
    found = labels.copy()
    found[found == 2] = 0
    recall = recall_by_share(found, labels)
    assert [each.cells for each in recall] == [3, 0, 0, 0]
    assert recall[1].recall is None
    assert recall == recall_without_overlap(match(found, labels, [0.5])[0])


def test_images_add_up_and_classes_do_not() -> None:
    one = recall_by_share(bars((0, 10)), bars((0, 10), (4, 14)))
    assert pool([one, one])[3] == ShareRecall(0.5, 1.0, 4, 2)
    with pytest.raises(ValueError, match="do not add up"):
        one[0] + one[1]
