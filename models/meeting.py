"""Which boxes share a pixel, and how many pixels their masks share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.int32]
Pairs = NDArray[np.intp]
LEAST_BIN = 16
"""Px on a side."""


def spread(counts: NDArray[np.integer]) -> tuple[Pairs, Pairs]:
    """Return, for `counts[i]` items each, which i an item belongs to and its number in it."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def meeting(boxes: Boxes) -> Pairs:
    """Return the pairs of boxes that share a pixel.

    Boxes are sorted into square bins about twice their size, and compared
    within each: time goes with the number of boxes, not with its square.

    Parameters
    ----------
    boxes : int32 (N, 4)
        Half open y0, x0, y1, x1 in px.

    Returns
    -------
    intp (P, 2)
        i < j in each row; rows sorted.
    """
    if len(boxes) < 2:
        return np.empty((0, 2), np.intp)
    wide = boxes.astype(np.int64)
    side = max(2 * int(np.median(wide[:, 2:] - wide[:, :2])), LEAST_BIN)
    owner, bins = _binned(wide, side)
    order = np.argsort(bins, kind="stable")
    owner, bins = owner[order], bins[order]
    ends = np.searchsorted(bins, bins, side="right")
    first, number = spread(ends - np.arange(len(bins)) - 1)
    one, other = owner[first], owner[first + 1 + number]
    low = np.maximum(wide[one, :2], wide[other, :2])
    high = np.minimum(wide[one, 2:], wide[other, 2:])
    # Two large boxes share several bins; the one with the corner of what they share counts.
    keep = (low < high).all(axis=1) & (_bin(low, wide, side) == bins[first])
    pairs = np.sort(np.stack([one[keep], other[keep]], axis=1), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _bin(corners: NDArray[np.int64], boxes: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Return the number of the bin that each corner (N, 2) lies in."""
    columns = int(boxes[:, 3].max()) // side + 1
    found: NDArray[np.int64] = corners[:, 0] // side * columns + corners[:, 1] // side
    return found


def _binned(boxes: NDArray[np.int64], side: int) -> tuple[Pairs, NDArray[np.int64]]:
    """Return each box once for each bin it reaches into, and the number of that bin."""
    first, last = boxes[:, :2] // side, (boxes[:, 2:] - 1) // side
    spans = last - first + 1
    owner, number = spread(spans.prod(axis=1))
    step = np.stack(np.divmod(number, spans[owner, 1]), axis=1)
    return owner, _bin((first[owner] + step) * side, boxes, side)


def shared_pixels(
    boxes: Boxes, mask: Callable[[int], NDArray[np.bool_]], pairs: Pairs
) -> NDArray[np.int64]:
    """Return how many pixels the masks of each pair share, int64 (P,).

    Parameters
    ----------
    boxes : int32 (N, 4)
    mask : callable
        Gives mask i, bool of the shape of box i.
    pairs : intp (P, 2)
        Of boxes that share a pixel.
    """
    low = np.maximum(boxes[pairs[:, 0], :2], boxes[pairs[:, 1], :2])
    high = np.minimum(boxes[pairs[:, 0], 2:], boxes[pairs[:, 1], 2:])
    ones = np.concatenate([low, high], axis=1) - np.tile(boxes[pairs[:, 0], :2], 2)
    others = np.concatenate([low, high], axis=1) - np.tile(boxes[pairs[:, 1], :2], 2)
    shared = np.zeros(len(pairs), np.int64)
    columns = *pairs.T, *ones.T, *others.T
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for k, (i, j, y0, x0, y1, x1, v0, u0, v1, u1) in enumerate(rows):
        shared[k] = np.count_nonzero(mask(i)[y0:y1, x0:x1] & mask(j)[v0:v1, u0:u1])
    return shared
