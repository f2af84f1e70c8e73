"""Non-maximum suppression: of boxes that overlap the best, in time linear in their number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, most: float) -> Tensor:
    """Return which boxes stay, best first, as `torchvision.ops.batched_nms` has it.

    That compares all boxes with each that stays, which for the thousands of
    cells of a tile takes longer than the network. On a CPU only boxes whose
    centres are near each other are compared here.

    Parameters
    ----------
    boxes : float32 (N, 4) as x0, y0, x1, y1
    scores : float32 (N,)
        Of equal ones the first is the better.
    groups : int64 (N,)
        Only boxes of one group suppress each other.
    most : float
        IoU above which a box is dropped for a better one; above 0.

    Returns
    -------
    int64 (M,)
        Indices into `boxes`.
    """
    if boxes.is_cuda:
        kept: Tensor = batched_nms(boxes, scores, groups, most)
        return kept
    order = np.argsort(-scores.detach().numpy(), kind="stable")
    better, worse = _doubles(boxes.detach().numpy()[order], groups.numpy()[order], most)
    return torch.from_numpy(order[_stay(len(order), better, worse)])


def _stay(count: int, better: Indices, worse: Indices) -> NDArray[np.bool_]:
    """Return which of the boxes, best first, stay, given all pairs of doubles.

    Each round settles the boxes of which no better double is left: they stay, and
    theirs go. That is what going through them one by one comes to.
    """
    gone = np.zeros(count, bool)
    while len(worse):
        waits = np.zeros(count, bool)
        waits[worse] = True
        gone[worse[~waits[better]]] = True
        undecided = waits[better] & ~gone[better] & ~gone[worse]
        better, worse = better[undecided], worse[undecided]
    return ~gone


def _doubles(boxes: Floats, groups: NDArray[np.int64], most: float) -> tuple[Indices, Indices]:
    """Return all pairs of one group whose IoU is above `most`, the better one first."""
    found = [
        _overlapping(boxes, *pair, most)
        for pair in _near(boxes, groups, most)  # few at a time: all would take much memory
    ]
    if not found:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    first, second = (np.concatenate(each) for each in zip(*found, strict=True))
    return np.minimum(first, second), np.maximum(first, second)


def _overlapping(
    boxes: Floats, first: Indices, second: Indices, most: float
) -> tuple[Indices, Indices]:
    """Return the pairs whose IoU is above `most`, in torchvision's arithmetic."""
    one, other = boxes[first], boxes[second]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    inner = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.maximum(inner[:, 0], 0) * np.maximum(inner[:, 1], 0)
    with np.errstate(invalid="ignore"):  # of two boxes without area there is no IoU
        double = shared / (area[first] + area[second] - shared) > np.float32(most)
    return first[double], second[double]


def _near(
    boxes: Floats, groups: NDArray[np.int64], most: float
) -> Iterator[tuple[Indices, Indices]]:
    """Yield pairs of indices, each pair once, among which are all whose IoU is above `most`.

    An IoU above t asks for widths and heights that differ by less than the
    factor t, and for centres less than (1 - t) of the larger of them apart: so a box is
    compared with those of its own size, and of the octave above, in nine squares of a grid.
    """
    side = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0), np.float32(1e-3))
    octave = np.floor(np.log2(side)).astype(np.int64)
    centres = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
    octaves = np.unique(octave).tolist()
    steps = int(np.ceil(np.log2(1 / most)))
    for small in octaves:
        few = np.flatnonzero(octave == small)
        for large in range(small, small + steps + 1):
            if large in octaves:
                many = np.flatnonzero(octave == large)
                pair = _joined(centres, groups, few, many, (1 - most) * 2.0 ** (large + 1))
                # Of one octave each pair comes twice, and each box with itself.
                if large == small:
                    once = pair[0] < pair[1]
                    pair = pair[0][once], pair[1][once]
                yield pair


def _joined(
    centres: Floats, groups: NDArray[np.int64], few: Indices, many: Indices, reach: float
) -> tuple[Indices, Indices]:
    """Return pairs of two sets, of one group, whose centres are at most `reach` apart, and more."""
    square = np.floor(centres / max(reach, 1e-6)).astype(np.int64)
    square -= square.min(0, initial=0) - 1
    width, height = square.max(0, initial=0) + 2
    key = (groups * height + square[:, 1]) * width + square[:, 0]
    many = many[np.argsort(key[many], kind="stable")]
    keys = key[many]
    firsts, seconds = [], []
    for row in (-width, 0, width):
        start = np.searchsorted(keys, key[few] + row - 1, side="left")
        counts = np.searchsorted(keys, key[few] + row + 1, side="right") - start
        firsts.append(np.repeat(few, counts))
        ends = np.cumsum(counts)
        seconds.append(
            many[np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - ends + counts, counts)]
        )
    return np.concatenate(firsts), np.concatenate(seconds)
