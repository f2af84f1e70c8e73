"""Instances keep every pixel of every mask through cutting, storing and separating."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cellseg.models import Instances

label_images = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 5)
)


@settings(max_examples=60, deadline=None)
@given(label_images)
def test_labels_come_back_from_instances_and_from_storage(labels: NDArray[np.int32]) -> None:
    found = Instances.from_labels(labels)
    stored = Instances.from_arrays(found.to_arrays())
    expected = np.searchsorted(np.unique(labels[labels > 0]), labels) + 1
    expected[labels == 0] = 0
    for instances in (found, stored):
        assert np.array_equal(instances.to_labels(labels.shape), expected)
    assert found.areas().sum() == (labels > 0).sum()


@settings(max_examples=60, deadline=None)
@given(st.lists(hnp.arrays(bool, (6, 7)), max_size=5), st.randoms(use_true_random=False))
def test_disjoint_gives_each_pixel_to_the_best_and_loses_none(
    masks: list[NDArray[np.bool_]], random: st.DataObject
) -> None:
    found = Instances.stack([((3, 4), mask, k / 10, 1) for k, mask in enumerate(masks)])
    apart = found.disjoint()
    drawn = np.zeros((20, 20), int)
    best = np.full((20, 20), -1.0)
    for instances, total in ((apart, drawn),):
        for box, mask, score in zip(
            instances.boxes.tolist(), instances.masks, instances.scores, strict=True
        ):
            total[box[0] : box[2], box[1] : box[3]] += mask
            view = best[box[0] : box[2], box[1] : box[3]]
            view[mask] = score
    assert drawn.max(initial=0) <= 1
    for k, mask in enumerate(masks):
        assert (best[3:9, 4:11][mask] >= np.float32(k / 10)).all()


def test_boxes_are_tight_and_objects_without_pixels_are_left_out() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:4, 5:8] = True
    found = Instances.stack([((10, 20), mask, 0.5, 2), ((0, 0), np.zeros((3, 3), bool), 1.0, 1)])
    assert found.boxes.tolist() == [[12, 25, 14, 28]]
    assert found.masks[0].shape == (2, 3)
    assert found.classes.tolist() == [2]


def test_shifted_moves_boxes_alone() -> None:
    found = Instances.stack([((1, 2), np.ones((2, 2), bool), 1.0, 1)])
    assert found.shifted(10, -1).boxes.tolist() == [[11, 1, 13, 3]]


def test_fields_that_do_not_fit_each_other_are_refused() -> None:
    good = Instances.stack([((0, 0), np.ones((2, 2), bool), 1.0, 1)])
    with pytest.raises(ValueError, match="scores has shape"):
        Instances(good.boxes, good.masks, np.ones(2, np.float32), good.classes)
    with pytest.raises(ValueError, match="does not fit box"):
        Instances(
            good.boxes + np.array([0, 0, 1, 0], np.int32), good.masks, good.scores, good.classes
        )


def test_no_objects_are_no_special_case() -> None:
    none = Instances.empty()
    assert len(none) == len(none.disjoint()) == len(none.shifted(1, 1)) == 0
    assert len(Instances.from_arrays(none.to_arrays())) == 0
    assert len(Instances.concatenate([none, none])) == 0
    assert not none.to_labels((4, 5)).any()
