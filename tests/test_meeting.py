"""Pairs of boxes and what their masks share are those of comparing all with all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.models.meeting import meeting, shared_pixels, spread


def boxes(seed: int, count: int, largest: int) -> NDArray[np.int32]:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 300, (count, 2))
    return np.concatenate(
        [corners, corners + random.integers(1, largest + 1, (count, 2))], axis=1
    ).astype(np.int32)


@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), largest=st.sampled_from([1, 20, 400]))
def test_meeting_finds_the_pairs_that_share_a_pixel_each_once(
    seed: int, count: int, largest: int
) -> None:
    found = boxes(seed, count, largest)
    expected = [
        [i, j]
        for i in range(count)
        for j in range(i + 1, count)
        if (np.maximum(found[i, :2], found[j, :2]) < np.minimum(found[i, 2:], found[j, 2:])).all()
    ]
    assert meeting(found).tolist() == expected


@given(seed=st.integers(0, 10**6), count=st.integers(2, 30))
def test_shared_pixels_are_those_of_whole_planes(seed: int, count: int) -> None:
    random, found = np.random.default_rng(seed), boxes(seed, count, 40)
    masks = [random.random((y1 - y0, x1 - x0)) < 0.5 for y0, x0, y1, x1 in found.tolist()]
    planes = np.zeros((count, 400, 400), bool)
    for plane, mask, (y0, x0, y1, x1) in zip(planes, masks, found.tolist(), strict=True):
        plane[y0:y1, x0:x1] = mask
    pairs = meeting(found)
    shared = shared_pixels(found, masks.__getitem__, pairs)
    assert shared.tolist() == [np.count_nonzero(planes[i] & planes[j]) for i, j in pairs]


def test_spread_counts_within_each() -> None:
    owner, number = spread(np.array([2, 0, 3]))
    assert owner.tolist() == [0, 0, 2, 2, 2]
    assert number.tolist() == [0, 1, 0, 1, 2]
