"""Non-maximum suppression: of boxes that overlap the best, in time linear in their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
LEAST_SIDE = 4.0
"""Px; smaller boxes are looked for as if they had this side, or the grid would be too fine."""


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
    # Side by side, as numpy is slow along axes of two or four.
    sides = np.ascontiguousarray(boxes.detach().numpy()[order].T)
    better, worse = _doubles(sides, groups.numpy()[order], most)
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
    """Return all pairs of one group whose IoU is above `most`, the better one first.

    Boxes are float32 (4, N), here and below.
    """
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
    x0, y0, x1, y1 = boxes
    area = (x1 - x0) * (y1 - y0)
    across = np.minimum(x1[first], x1[second]) - np.maximum(x0[first], x0[second])
    down = np.minimum(y1[first], y1[second]) - np.maximum(y0[first], y0[second])
    shared = np.maximum(across, 0) * np.maximum(down, 0)
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
    x0, y0, x1, y1 = boxes
    side = np.maximum(np.maximum(x1 - x0, y1 - y0), np.float32(LEAST_SIDE))
    octave = np.floor(np.log2(side)).astype(np.int64)
    middle = (x0 + x1) * np.float32(0.5), (y0 + y1) * np.float32(0.5)
    octaves = np.unique(octave).tolist()
    steps = int(np.ceil(np.log2(1 / most)))
    for small in octaves:
        few = np.flatnonzero(octave == small)
        for large in octaves:
            if small <= large <= small + steps:
                many = np.flatnonzero(octave == large)
                grid = _Grid.of(*middle, groups, (1 - most) * 2.0 ** (large + 1))
                yield grid.twins(many) if large == small else grid.joined(few, many)


@dataclass(frozen=True, eq=False)
class _Grid:
    """Squares of a grid, numbered; those of another group are others, and a border is empty.

    Parameters
    ----------
    square : int64 (N,)
        In which each box has its centre.
    width : int
        Squares in a row.
    count : int
    """

    square: NDArray[np.int64]
    width: int
    count: int

    @classmethod
    def of(cls, x: Floats, y: Floats, groups: NDArray[np.int64], side: float) -> _Grid:
        step = np.float32(1 / max(side, LEAST_SIDE))
        column, row = (((each - each.min()) * step).astype(np.int64) + 1 for each in (x, y))
        width, height = int(column.max()) + 2, int(row.max()) + 2
        square = (groups * height + row) * width + column
        return cls(square, width, (int(groups.max(initial=0)) + 1) * height * width)

    def twins(self, members: Indices) -> tuple[Indices, Indices]:
        """Return the pairs of a set that lie in one square or in neighbouring ones, each once."""
        first, second = self._pairs(members, members, [(0, 0), (1, 1)])
        # Within a square each pair comes twice, and each box with itself.
        once = (first < second) | (self.square[first] != self.square[second])
        below = self._pairs(members, members, [(self.width - 1, self.width + 1)])
        return np.concatenate([first[once], below[0]]), np.concatenate([second[once], below[1]])

    def joined(self, few: Indices, many: Indices) -> tuple[Indices, Indices]:
        """Return the pairs of two sets that lie in one square or in neighbouring ones."""
        rows = (-self.width, 0, self.width)
        return self._pairs(few, many, [(row - 1, row + 1) for row in rows])

    def _pairs(
        self, few: Indices, many: Indices, spans: Sequence[tuple[int, int]]
    ) -> tuple[Indices, Indices]:
        """Return each of `few` with those of `many` from one square to another, counted from it."""
        own = self.square[many]
        many = many[np.argsort(own, kind="stable")]
        starts = np.zeros(self.count + 1, np.int64)
        np.cumsum(np.bincount(own, minlength=self.count), out=starts[1:])
        here = self.square[few]
        begin = np.stack([starts[here + span[0]] for span in spans])
        counts = np.stack([starts[here + span[1] + 1] for span in spans]) - begin
        ends = np.cumsum(counts).reshape(counts.shape)
        at = np.arange(counts.sum()) + np.repeat(begin - ends + counts, counts.ravel())
        return np.repeat(np.tile(few, len(spans)), counts.ravel()), many[at]
