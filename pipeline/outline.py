"""Outlines: rings of corners around masks, along the edges of their pixels and so exact.

Pixels that share a side are one part. Of each part the ring around it comes first and then those
of its holes, none of which crosses or touches itself: valid polygons as OGC's Simple Feature
Access (06-103r4, 6.1.11) defines them. Rings may meet in a corner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ring = NDArray[np.int32]
"""Int32 (N, 2): x and y of corners in px, the upper left corner of the first pixel at 0, 0."""

TOGETHER = 2**21
"""Pixels that are traced at once: each takes some 50 bytes on the way."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """The rings of some masks.

    Parameters
    ----------
    corners : int32 (M, 2)
        x, y of all rings one after the other, none closed: the last corner meets the first.
        With y downwards, rings around run clockwise and holes the other way.
    ends : int64 (R,)
        Where in `corners` each ring ends.
    parts : int64 (R,)
        Which part a ring belongs to, ascending; of each, the first is the ring around it.
    owners : int64 (P,)
        Which mask a part belongs to, ascending.
    masks : int
        Number of masks.
    """

    corners: Ring
    ends: NDArray[np.int64]
    parts: NDArray[np.int64]
    owners: NDArray[np.int64]
    masks: int

    def polygons(self) -> Iterator[list[list[Ring]]]:
        """Yield, for each mask, its parts, each as the ring around it and those of its holes."""
        rings = np.split(self.corners, self.ends[:-1]) if len(self.ends) else []
        first = np.searchsorted(self.parts, np.arange(len(self.owners) + 1)).tolist()
        part = np.searchsorted(self.owners, np.arange(self.masks + 1)).tolist()
        for one, last in pairwise(part):
            yield [rings[first[p] : first[p + 1]] for p in range(one, last)]


def outlines(origins: NDArray[np.integer], masks: Sequence[Mask]) -> Outlines:
    """Trace masks.

    Parameters
    ----------
    origins : int (N, 2)
        y, x of the first pixel of each mask in the image.
    masks : sequence of bool (h, w)
    """
    reached = np.cumsum([mask.size for mask in masks])
    splits = np.flatnonzero(np.diff(reached // TOGETHER)) + 1
    groups = np.split(np.arange(len(masks)), splits)
    return _joined([_traced(origins[group], [masks[i] for i in group]) for group in groups])


def _joined(found: Sequence[Outlines]) -> Outlines:
    """Return the outlines of all masks."""
    parts, masks, corners = (
        np.cumsum([0, *counts[:-1]])
        for counts in zip(
            *((len(each.owners), each.masks, len(each.corners)) for each in found), strict=True
        )
    )
    return Outlines(
        np.concatenate([each.corners for each in found]),
        np.concatenate([each.ends + first for each, first in zip(found, corners, strict=True)]),
        np.concatenate([each.parts + first for each, first in zip(found, parts, strict=True)]),
        np.concatenate([each.owners + first for each, first in zip(found, masks, strict=True)]),
        sum(each.masks for each in found),
    )


def _traced(origins: NDArray[np.integer], masks: Sequence[Mask]) -> Outlines:
    """Trace some masks at once."""
    flat, widths, firsts, owners = _parts(masks)
    edges = _edges(flat, np.repeat(widths, np.diff(firsts)))
    order, ends = _rings(_following(*edges))
    starts, ways, _, parts = (values[order] for values in edges)
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)]
    before = np.arange(-1, len(order) - 1)
    before[begins] = ends - 1
    turns = ways != ways[before]
    owner = owners[parts[turns] - 1]
    y, x = np.divmod(starts[turns] - firsts[owner], widths[owner])
    # One pixel was added on every side.
    corners = np.stack([x + origins[owner, 1], y + origins[owner, 0]], axis=1) - 1
    ring_ends = np.cumsum(turns)[ends - 1]
    ring_parts = parts[begins].astype(np.int64) - 1
    return _sorted(Outlines(corners.astype(np.int32), ring_ends, ring_parts, owners, len(masks)))


def _parts(
    masks: Sequence[Mask],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the masks with a pixel around each, flat, as numbers of their parts from 1 on.

    And their widths, where each begins and the last ends, and the mask of each part.
    """
    from scipy import ndimage

    flat: list[NDArray[Any]] = [np.zeros(0, np.int32)]
    owners, widths, count = [], [], 0
    for number, mask in enumerate(masks):
        height, width = mask.shape
        labels = np.zeros((height + 2, width + 2), np.int32)
        found = ndimage.label(mask, output=labels[1:-1, 1:-1])
        if count:
            labels[labels > 0] += count
        flat.append(labels.ravel())
        widths.append(labels.shape[1])
        owners += [number] * found
        count += found
    first = np.cumsum([len(each) for each in flat])
    return (
        np.concatenate(flat).astype(np.int32, copy=False),
        np.asarray(widths, np.int64),
        first.astype(np.int64),
        np.asarray(owners, np.int64),
    )


Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]
SIDES = (
    ((-1, 0), (0, 0), (0, 1)),
    ((0, 1), (0, 1), (1, 1)),
    ((1, 0), (1, 1), (1, 0)),
    ((0, -1), (1, 0), (0, 0)),
)
"""For each way that an edge runs (east, south, west, north, its pixel on the right), as steps down
and to the right from the pixel: the one beyond, the corners where the edge starts and ends."""


def _edges(parts: NDArray[np.int32], widths: NDArray[np.int64]) -> Edges:
    """Return the edges between a part and what is outside it, by where they start.

    Of each: the corner at its start, which way it runs, the corner at its end, its part. A corner
    is called like the pixel to its lower right.
    """
    pixels = np.flatnonzero(parts)
    down = widths[pixels]
    found = []
    for way, sides in enumerate(SIDES):
        beyond, start, end = (pixels + y * down + x for y, x in sides)
        outer = np.flatnonzero(parts[beyond] == 0)
        found.append((start[outer], np.full(len(outer), way), end[outer], parts[pixels[outer]]))
    starts, ways, ends, owners = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.argsort(starts, kind="stable")
    return starts[order], ways[order], ends[order], owners[order]


def _following(
    starts: NDArray[np.int64],
    ways: NDArray[np.int64],
    ends: NDArray[np.int64],
    parts: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Return the edge that follows each.

    Where two pixels meet in a corner only, two edges start. If they are of one part the ring goes
    over to the other pixel, so that it never comes back to the corner; if not it goes round its
    own.
    """
    following = np.searchsorted(starts, ends)
    two = np.flatnonzero(np.append(starts[1:], -1)[following] == ends)
    one = following[two]
    own = np.where(ways[one] == (ways[two] + 1) % 4, one, one + 1)
    across = 2 * one + 1 - own
    following[two] = np.where(parts[across] == parts[two], across, own)
    return following


def _rings(following: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the edges in the order of their rings, and where each ring ends."""
    ahead, seen = following.tolist(), bytearray(len(following))
    order, ends = [], []
    for edge in range(len(ahead)):
        if seen[edge]:
            continue
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = ahead[edge]
        ends.append(len(order))
    return np.asarray(order, np.int64), np.asarray(ends, np.int64)


def _sorted(found: Outlines) -> Outlines:
    """Return the rings by their part, in each the one around it first."""
    lengths = np.diff(found.ends, prepend=0)
    first = found.ends - lengths
    ring = np.repeat(np.arange(len(lengths)), lengths)
    after = np.arange(1, len(ring) + 1)
    after[found.ends - 1] = first
    x, y = found.corners.astype(np.int64).T
    areas = np.zeros(len(lengths), np.int64)
    np.add.at(areas, ring, x * y[after] - x[after] * y)
    order = np.lexsort((areas < 0, found.parts))
    chosen = np.repeat(first[order] - np.cumsum(lengths[order]) + lengths[order], lengths[order])
    corners = found.corners[chosen + np.arange(len(ring))]
    return replace(found, corners=corners, ends=np.cumsum(lengths[order]), parts=found.parts[order])
