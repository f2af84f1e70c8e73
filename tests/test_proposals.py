"""Proposals are cut all at once to what they are cut to one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import Overlap
from cellseg.models.proposals import SHARED, Proposals

SHAPE = (40, 50)
Found = list[tuple[tuple[int, int], NDArray[np.bool_], float, int]]


def proposals(
    seed: int, count: int, side: float, overlap: Overlap, sizes: Sequence[int]
) -> Proposals:
    """Return crowded objects: round, in two pieces or ragged, some beyond the plane's edge."""
    random = np.random.default_rng(seed)
    corners = random.uniform(-side / 2, np.array(SHAPE) - side / 2, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(1, side, (count, 2))], axis=1)
    masks = []
    for kind, size in zip(random.integers(0, 3, count), random.choice(sizes, count), strict=True):
        y, x = np.mgrid[:size, :size] / size - 0.5
        round_one = np.exp(-((2.2 * np.hypot(y, x)) ** 4))
        if kind == 1:
            round_one[size // 2 - 1 : size // 2 + 2] *= 0.3
        if kind == 2:
            round_one = np.round(random.random((size, size)), 1)
        masks.append(round_one.astype(np.float32))
    scores = np.round(random.random(count), 1).astype(np.float32)
    classes = random.integers(1, 4, count).astype(np.uint8)
    return Proposals.pasted(boxes, masks, scores, classes, SHAPE, overlap)


def one_by_one(found: Proposals, score: float, threshold: float, least: int) -> Found:
    """Cut proposals as `Proposals.cut` says, one after the other."""
    best, owner = np.zeros(SHAPE, np.float32), np.full(SHAPE, -1)
    kept, out = [], []
    for index in np.argsort(-found.scores, kind="stable").tolist():
        if found.scores[index] < score:
            continue
        y0, x0, y1, x1 = found.laid.boxes[index].tolist()
        window, probability = np.s_[y0:y1, x0:x1], found.laid[index]
        inside = probability >= threshold
        area, taken = inside.sum(), (inside & (owner[window] >= 0)).sum()
        if found.overlap == "resolve" and (area < least or taken > SHARED * area):
            continue
        won = inside & (probability > best[window]) if found.overlap == "resolve" else inside
        best[window][won], owner[window][won] = probability[won], index
        kept.append((index, window, won))
    for index, window, won in kept:
        mask = owner[window] == index if found.overlap == "resolve" else won
        pieces, _ = ndimage.label(mask)
        counts = np.bincount(pieces.ravel())[1:]
        if counts.max(initial=0) >= max(least, 1):
            mask = pieces == 1 + counts.argmax()
            corner = window[0].start, window[1].start
            out.append((corner, mask, float(found.scores[index]), int(found.classes[index])))
    return out


@pytest.mark.parametrize("overlap", ["resolve", "keep"])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 40),
    side=st.sampled_from([4.0, 12.0, 30.0]),
    score=st.sampled_from([0.0, 0.45]),
    threshold=st.sampled_from([0.2, 0.5]),
    least=st.sampled_from([1, 5]),
    sizes=st.sampled_from([(14,), (28,), (3, 9, 14)]),
)
def test_all_at_once_is_as_one_by_one(
    overlap: Overlap,
    seed: int,
    count: int,
    side: float,
    score: float,
    threshold: float,
    least: int,
    sizes: tuple[int, ...],
) -> None:
    found = proposals(seed, count, side, overlap, sizes)
    cut = found.cut(score, threshold, least)
    plain = one_by_one(found, score, threshold, least)
    assert len(cut) == len(plain)
    for box, mask, own, class_, (corner, expected, score_, of) in zip(
        cut.boxes.tolist(), cut.masks, cut.scores, cut.classes, plain, strict=True
    ):
        drawn, wanted = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
        drawn[box[0] : box[2], box[1] : box[3]] = mask
        height, width = expected.shape
        wanted[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = expected
        np.testing.assert_array_equal(drawn, wanted)
        assert (float(own), int(class_)) == (score_, of)
    assert cut.tight


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), together=st.sampled_from([1, 100, 10**6]), size=st.integers(2, 30)
)
def test_pasting_weighs_the_samples_around_each_pixel(seed: int, together: int, size: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(-5, 30, (6, 2))
    boxes = np.concatenate([low, low + random.uniform(0.2, 20, (6, 2))], axis=1)
    masks = random.random((6, size, size)).astype(np.float32)
    about = np.ones(6, np.float32), np.ones(6, np.uint8), SHAPE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellseg.models.proposals.TOGETHER_PX", together)
        found = Proposals.pasted(boxes, masks, *about, "keep")
    for index, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
        y0, x0, y1, x1 = found.laid.boxes[index].tolist()
        for pixels, low_, high, side in (
            (range(y0, y1), *box[::2], 0),
            (range(x0, x1), *box[1::2], 1),
        ):
            inside = [p for p in range(SHAPE[side]) if low_ <= p + 0.5 <= high]
            assert list(pixels) == inside
        y = (np.arange(y0, y1) + 0.5 - box[0]) * size / (box[2] - box[0]) - 0.5
        x = (np.arange(x0, x1) + 0.5 - box[1]) * size / (box[3] - box[1]) - 0.5
        at = np.meshgrid(y, x, indexing="ij")
        expected = ndimage.map_coordinates(mask.astype(float), at, order=1, mode="nearest")
        np.testing.assert_allclose(found.laid[index], expected, atol=1e-6)
