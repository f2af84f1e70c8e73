"""A candidate: one object as one window saw it, and the geometry of comparing two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.pipeline.tiles import Box

SEAMS = ("interior", "resolved", "joined", "cut_by_image")
"""What became of a cell, by code: seen by one tile; agreed on by several or predicted
again; joined from pieces; seen by one tile at the edge of the image."""
INTERIOR, RESOLVED, JOINED, CUT_BY_IMAGE = range(4)


@dataclass(eq=False)
class Candidate:
    """One object as one window saw it.

    Parameters
    ----------
    tile, index : int
        Which window saw it, and its number there; the pair is unique. Windows
        beyond the grid count on behind its last tile.
    box : Box
        Tight box in px of the plane.
    mask : bool, of the box's shape
    score, class_
        See `cellseg.models.Instances`.
    window : Box
        What the segmenter saw.
    distance : int
        Px from the box to the nearest edge of the window that is not the image's.
    whole : bool
        Whether that distance is at least the margin.
    in_core : bool
        Whether a pixel lies in the core of its tile.
    seam : int
        Code into `SEAMS`.
    changed : bool
        Whether no tile file holds this mask.
    met : bool
        Whether another tile saw something in the same place.
    """

    tile: int
    index: int
    box: Box
    mask: NDArray[np.bool_]
    score: float
    class_: int
    window: Box
    distance: int
    whole: bool
    in_core: bool = True
    seam: int = INTERIOR
    changed: bool = False
    met: bool = False
    area: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the pixels once."""
        self.area = int(np.count_nonzero(self.mask))

    @property
    def key(self) -> tuple[int, int]:
        """The window and the number in it."""
        return self.tile, self.index

    @property
    def weight(self) -> tuple[int, int]:
        """Score and distance from the window's edge, as integers: sums in any order agree."""
        return round(self.score * 2**20), self.distance

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Sort key, heaviest first."""
        score, distance = self.weight
        return -score, -distance, self.tile, self.index

    def part(self, box: Box) -> NDArray[np.bool_]:
        """Return a view of the mask inside `box`, which must lie inside the candidate's own."""
        return self.mask[box.within(self.box).slices]

    def area_in(self, window: Box) -> int:
        """Return the number of pixels inside `window`."""
        shared = self.box.intersect(window)
        return int(np.count_nonzero(self.part(shared))) if shared else 0

    def shared(self, other: Candidate) -> int:
        """Return the number of pixels in both masks."""
        box = self.box.intersect(other.box)
        return int(np.count_nonzero(self.part(box) & other.part(box))) if box else 0

    def same_cell(self, other: Candidate, overlap: float) -> bool:
        """Whether two whole candidates share `overlap` of the smaller one."""
        return self.shared(other) >= overlap * min(self.area, other.area)

    def same_where_both_saw(self, other: Candidate, overlap: float) -> bool:
        """Whether two candidates, cut ones too, agree on what both their windows show."""
        window = self.window.intersect(other.window)
        if window is None:
            return False
        smaller = min(self.area_in(window), other.area_in(window))
        return smaller > 0 and self.shared(other) >= overlap * smaller

    def give(self, other: Candidate) -> None:
        """Leave the shared pixels to `other`, and of the rest keep the largest piece."""
        if not self.shared(other):
            return
        box = self.box.intersect(other.box)
        assert box is not None  # noqa: S101 - they share pixels
        self.mask = self.mask.copy()
        self.part(box)[other.part(box)] = False
        pieces, count = ndimage.label(self.mask, np.ones((3, 3)))
        if count > 1:
            self.mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
        self.changed, self.seam = True, max(self.seam, RESOLVED)


def around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of `boxes`."""
    return Box(
        min(b.y0 for b in boxes),
        min(b.x0 for b in boxes),
        max(b.y1 for b in boxes),
        max(b.x1 for b in boxes),
    )


def join(pieces: Sequence[Candidate], tile: int) -> Candidate:
    """Return one whole candidate, numbered as the only one of window `tile`, out of `pieces`."""
    box = around([piece.box for piece in pieces])
    mask = np.zeros(box.shape, bool)
    for piece in pieces:
        mask[piece.box.within(box).slices] |= piece.mask
    best = min(pieces, key=lambda piece: piece.rank)
    return Candidate(
        tile=tile,
        index=0,
        box=box,
        mask=mask,
        score=best.score,
        class_=best.class_,
        window=around([piece.window for piece in pieces]),
        distance=0,
        whole=True,
        seam=JOINED,
        changed=True,
    )


def corners(boxes: Sequence[Box]) -> NDArray[np.int32]:
    """Return boxes as int32 (N, 4)."""
    return np.array([(b.y0, b.x0, b.y1, b.x1) for b in boxes], np.int32).reshape(-1, 4)


def meeting(one: NDArray[np.int32], other: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Return the pairs of boxes, one of each array (N, 4) and (M, 4), that share a pixel."""
    order = np.argsort(other[:, 0], kind="stable")
    ends = np.searchsorted(other[order, 0], one[:, 2], side="left")
    pairs = []
    for i, end in enumerate(ends.tolist()):
        near = order[:end]
        hits = (other[near, 2] > one[i, 0]) & (other[near, 1] < one[i, 3])
        hits &= other[near, 3] > one[i, 1]
        pairs += [(i, j) for j in sorted(near[hits].tolist())]
    return pairs


def meeting_across(candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Return the pairs i < j from different windows whose boxes share a pixel, sorted."""
    boxes = corners([c.box for c in candidates])
    order = np.argsort(boxes[:, 0], kind="stable")
    tops = boxes[order, 0]
    pairs = []
    for position, i in enumerate(order.tolist()):
        end = int(np.searchsorted(tops, boxes[i, 2], side="left"))
        later = order[position + 1 : end]
        hits = (boxes[later, 1] < boxes[i, 3]) & (boxes[i, 1] < boxes[later, 3])
        pairs += [(min(i, j), max(i, j)) for j in later[hits].tolist()]
    return sorted((i, j) for i, j in pairs if candidates[i].tile != candidates[j].tile)
