"""What strokes of one edit come to: a change of each cell that gains or loses a pixel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cellseg.pipeline.change import Change
from cellseg.pipeline.review.edited_image import EditedImage
from cellseg.pipeline.review.section import Section, Stroke, joined

__all__ = ["changes_of", "free_layer", "kind_of"]

Plane = tuple[int, int, int]
"""Layer, t and z."""


def changes_of(
    image: EditedImage, strokes: Sequence[Stroke], classes: Mapping[int, int] | None = None
) -> list[Change]:
    """Return the changes that strokes make, one stroke after the other.

    Parameters
    ----------
    image : EditedImage
    strokes : sequence of Stroke
    classes : mapping of int to int, optional
        The class of each label that is new.
    """
    planes: dict[Plane, list[Stroke]] = defaultdict(list)
    for stroke in strokes:
        planes[stroke.section.plane].append(stroke)
    drawn = [each for plane in sorted(planes) for each in _drawn(image, plane, planes[plane])]
    return _with_classes(image, drawn, classes or {})


def kind_of(changes: Sequence[Change]) -> str:
    """Return what changes come to: a new cell, one less, or other masks."""
    if any(change.class_before is None for change in changes):
        return "add"
    return "delete" if any(change.class_after is None for change in changes) else "redraw"


def free_layer(
    image: EditedImage, label: int, own: int, whole: Sequence[Section], merged: Iterable[int]
) -> int:
    """Return the label image that a cell of some sections goes to, if it can, its own one."""
    if not image.overlapping:
        return own
    free = np.array([0, label, *merged], np.uint32)
    for layer in sorted(range(image.layers), key=lambda number: number != own):
        views = ((image.labels(s.t, s.z, s.box, layer), s.mask) for s in whole)
        if all(np.isin(view[mask], free).all() for view, mask in views):
            return layer
    return image.layers


def _drawn(
    image: EditedImage, plane: Plane, strokes: Sequence[Stroke]
) -> list[tuple[int, Section, Section]]:
    """Return label, section before and after of each cell that strokes on a plane change."""
    layer, t, z = plane
    found = []
    for box in joined([stroke.section.box for stroke in strokes]):
        before = image.labels(t, z, box, layer)
        after = before.copy()
        for stroke in strokes:
            if (shared := stroke.section.box.intersect(box)) is not None:
                after[shared.within(box).slices][stroke.section.mask] = stroke.label
        other = before != after
        for label in np.union1d(before[other], after[other]).tolist():
            if label:
                masks = before == label, after == label
                around = Section(layer, t, z, box, masks[0] | masks[1]).tight
                assert around is not None  # noqa: S101 - it is in one of both
                part = around.box.within(box).slices
                was, becomes = (Section(*plane, around.box, mask[part]) for mask in masks)
                found.append((label, was, becomes))
    return found


def _with_classes(
    image: EditedImage, drawn: Sequence[tuple[int, Section, Section]], classes: Mapping[int, int]
) -> list[Change]:
    """Return what was drawn as changes that say whether each cell was there, and still is."""
    of: dict[int, list[tuple[Section, Section]]] = defaultdict(list)
    for label, was, becomes in drawn:
        of[label].append((was, becomes))
    both = {}
    for label, pairs in of.items():
        class_ = classes.get(label) or image.class_of(label)
        kept = any(becomes.mask.any() for _, becomes in pairs)
        known = label not in classes
        there = known and any(was.mask.any() for was, _ in pairs)
        if known and not (kept and there):
            cell = image.sections(label)
            there = bool(cell)
            pixels = sum(int(was.mask.sum()) for was, _ in pairs)
            kept = kept or sum(int(s.mask.sum()) for s in cell) > pixels
        both[label] = (class_ if there else None, class_ if kept else None)
    return [
        Change.between((label, *was.plane), was.box, was.mask, becomes.mask, both[label])
        for label, was, becomes in drawn
    ]
