"""A cell that no tile saw whole: predicted again in a larger window, or joined from its pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellseg.models import Instances
from cellseg.models.scale import STEPS
from cellseg.pipeline.candidate import JOINED, RESOLVED, Candidates, Mask
from cellseg.pipeline.tiles import Box, Grid

Predict = Callable[[Box], Instances]
"""The segmenter's objects in a window of the plane, boxes in px of the plane."""


@dataclass(frozen=True)
class Rules:
    """How candidates are judged; see `[tiling]` and `[stitch]` of the workflow.

    Parameters
    ----------
    margin : int
        Px that a whole candidate keeps from the edges of its window.
    overlap : float
        Shared area over the smaller one from which two candidates are one cell.
    window_px : int
        Longest side of a window in which a large cell is predicted again.
    depth : int
        Px that a candidate outside its tile's core keeps from there, to count: near
        the edge of what it sees, a network finds cells where there are none.
    overlapping : bool
        Whether cells may share pixels, as the model's `overlap` says: then all keep
        their masks whole, however much of one lies under others.
    """

    margin: int
    overlap: float
    window_px: int
    depth: int = 0
    overlapping: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """One object: its box in px of the plane, its mask, and what is known of it.

    Of a piece, what its tile reads is the window.
    """

    box: Box
    mask: Mask
    score: float
    class_: int
    distance: int = 0
    seam: int = RESOLVED
    look: int = 0
    window: Box | None = None

    @property
    def area(self) -> int:
        """Its pixels."""
        return int(np.count_nonzero(self.mask))

    def part(self, box: Box) -> Mask:
        """Return a view of the mask inside `box`, which must lie inside the object's own."""
        return self.mask[box.within(self.box).slices]

    def area_in(self, window: Box) -> int:
        """Return the number of pixels inside `window`."""
        shared = self.box.intersect(window)
        return int(np.count_nonzero(self.part(shared))) if shared else 0

    def shared(self, other: Found) -> int:
        """Return the number of pixels in both masks."""
        box = self.box.intersect(other.box)
        return int(np.count_nonzero(self.part(box) & other.part(box))) if box else 0


def around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of `boxes`."""
    return Box(
        min(b.y0 for b in boxes),
        min(b.x0 for b in boxes),
        max(b.y1 for b in boxes),
        max(b.x1 for b in boxes),
    )


def joined(pieces: Sequence[Found]) -> Found:
    """Return one object out of its pieces, the best first."""
    box = around([piece.box for piece in pieces])
    mask = np.zeros(box.shape, bool)
    for piece in pieces:
        mask[piece.box.within(box).slices] |= piece.mask
    return Found(box, mask, pieces[0].score, pieces[0].class_, seam=JOINED)


@dataclass
class Completion:
    """The cells of one block that no tile saw whole, as they are found.

    Parameters
    ----------
    grid : Grid
    rules : Rules
    predict : callable
        See `Predict`.
    """

    grid: Grid
    rules: Rules
    predict: Predict
    looks: int = 0

    def complete(self, pieces: Sequence[Found]) -> list[Found]:
        """Return the cells of which no tile saw more than these pieces, the best one first.

        They are predicted again in a window that holds them whole; beyond
        `Rules.window_px`, or where the segmenter then finds nothing, joined.
        """
        seen = joined(pieces)
        box, again = seen.box, list[Found]()
        while True:
            window = _aligned(box.grow(self.grid.halo, self.grid.plane))
            if max(window.shape) > self.rules.window_px:
                return self._numbered([seen])
            again = self._predicted(window, pieces)
            cut = [found.box for found in again if found.distance < self.rules.margin]
            if not cut:
                break
            # The margin too, or a window no larger than that might never grow.
            more = max(window.shape) // 2 + self.rules.margin
            box = around([seen.box, *cut]).grow(more, self.grid.plane)
        found_again = sum(f.shared(seen) for f in again) >= self.rules.overlap * seen.area
        return self._numbered(again) + ([] if found_again else self._numbered([seen]))

    def _predicted(self, window: Box, pieces: Sequence[Found]) -> list[Found]:
        """Return what the segmenter finds in `window` in the place of some pieces."""
        found = self.predict(window)
        objects = [
            Found(
                box := Box(*found.boxes[i].tolist()),
                found.masks[i],
                float(found.scores[i]),
                int(found.classes[i]),
                box.distance_inside(window, self.grid.plane),
            )
            for i in range(len(found))
        ]
        least, seen = self.rules.overlap, joined(pieces)
        if self.rules.overlapping:
            return in_place(objects, pieces, least)
        return [f for f in objects if f.shared(seen) >= least * min(f.area, seen.area)]

    def _numbered(self, together: Sequence[Found]) -> list[Found]:
        """Return objects of one look at the image, as such."""
        self.looks += 1
        return [
            Found(f.box, f.mask, f.score, f.class_, f.distance, f.seam, self.looks)
            for f in together
        ]


def in_place(objects: Sequence[Found], pieces: Sequence[Found], least: float) -> list[Found]:
    """Return the objects that pieces belong to, where others may lie over them.

    Those most like a piece inside its window, and of others those that lie mostly in what
    these leave of the pieces, as where one piece turns out to be of two cells.

    Parameters
    ----------
    objects, pieces : sequence of Found
    least : float
        Shared area over the smaller one from which an object may be that of a piece.
    """
    chosen = set[int]()
    for piece in pieces:
        likeness = [_likeness(piece, each, least) for each in objects]
        best = max(likeness, default=0.0)
        chosen.update(k for k, like in enumerate(likeness) if like == best > 0)
    left = _without(joined(pieces), [objects[k] for k in chosen])
    shared = [each.shared(left) for each in objects]
    chosen.update(k for k, px in enumerate(shared) if px and px >= least * objects[k].area)
    return [objects[k] for k in sorted(chosen)]


def _likeness(piece: Found, found: Found, least: float) -> float:
    """Return the IoU of a piece and an object inside the piece's window, 0 if they share little."""
    shared, area = piece.shared(found), piece.area
    inside = found.area_in(piece.window) if piece.window else found.area
    alike = shared > 0 and shared >= least * min(area, inside)
    return shared / (area + inside - shared) if alike else 0.0


def _without(found: Found, others: Sequence[Found]) -> Found:
    """Return an object without the pixels of others."""
    mask = found.mask.copy()
    for other in others:
        both = found.box.intersect(other.box)
        if both:
            mask[both.within(found.box).slices] &= ~other.part(both)
    return replace(found, mask=mask)


def _aligned(window: Box) -> Box:
    """Return a window that begins where magnified tiles do: see `cellseg.models.scale`."""
    return Box(window.y0 // STEPS * STEPS, window.x0 // STEPS * STEPS, window.y1, window.x1)


def as_candidates(found: Sequence[Found]) -> Candidates:
    """Return completed cells as candidates: whole, and each a match for those of any tile."""
    instances = Instances.stack([((f.box.y0, f.box.x0), f.mask, f.score, f.class_) for f in found])
    yes = np.ones(len(found), bool)
    return Candidates.of(
        instances,
        np.array([f.distance for f in found], np.int32),
        whole=yes,
        in_core=yes,
        seams=np.array([f.seam for f in found], np.uint8),
        looks=np.array([f.look for f in found], np.int32),
    )
