"""Candidates: what one tile saw, as arrays; masks stay packed until one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline.tiles import FAR, Box, Grid

SEAMS = ("interior", "resolved", "joined", "cut_by_image", "edited")
"""What became of a cell, by code: only one tile could see it; several could, or it was
predicted again; joined from pieces; only one tile could see it, at the edge of the image."""
INTERIOR, RESOLVED, JOINED, CUT_BY_IMAGE = range(4)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The objects that one window shows, boxes in px of the plane.

    Parameters
    ----------
    boxes : int32 (N, 4)
    scores : float32 (N,)
    classes : uint8 (N,)
    areas : int32 (N,)
        Pixels of each mask.
    centres : float64 (N, 2)
        Mean y, x of each mask's pixels; the same bits from whichever tile.
    digests : uint64 (N,)
        Equal where box and mask are.
    distances : int32 (N,)
        Px from the box to the nearest edge of the window that is not the image's.
    whole : bool (N,)
        Whether that distance is at least the margin.
    in_core : bool (N,)
        Whether a pixel lies in the core of the tile.
    seams : uint8 (N,)
        Codes into `SEAMS`.
    looks : int32 (N,)
        Which window saw it, where several windows share one set; 0 in a tile's.
    bits : uint8
        The masks, a bit for each pixel of a box, each from a new byte.
    """

    boxes: NDArray[np.int32]
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    areas: NDArray[np.int32]
    centres: NDArray[np.float64]
    digests: NDArray[np.uint64]
    distances: NDArray[np.int32]
    whole: NDArray[np.bool_]
    in_core: NDArray[np.bool_]
    seams: NDArray[np.uint8]
    looks: NDArray[np.int32]
    bits: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def of_tile(cls, found: Instances, grid: Grid, position: int, margin: int) -> Candidates:
        """Describe what the segmenter found in a tile, boxes in px of the plane."""
        window, core = grid.read(position), grid.core(position)
        distances = _distances(found.boxes, window, grid.plane)
        seams = np.full(len(found), INTERIOR, np.uint8)
        seams[_at_edge(found.boxes, grid.plane)] = CUT_BY_IMAGE
        seams[grid.readers(found.boxes) > 1] = RESOLVED
        in_core = _reach(core, found)
        return cls.of(found, distances, whole=distances >= margin, in_core=in_core, seams=seams)

    @classmethod
    def of(
        cls,
        found: Instances,
        distances: NDArray[np.int32],
        *,
        whole: NDArray[np.bool_],
        in_core: NDArray[np.bool_],
        seams: NDArray[np.uint8],
        looks: NDArray[np.int32] | None = None,
    ) -> Candidates:
        """Measure masks, and pack them."""
        areas, centres = _measure(found)
        return cls(
            boxes=found.boxes,
            scores=found.scores,
            classes=found.classes,
            areas=areas.astype(np.int32),
            centres=centres,
            digests=_digests(found),
            distances=distances,
            whole=whole,
            in_core=in_core,
            seams=seams,
            looks=np.zeros(len(found), np.int32) if looks is None else looks,
            bits=found.packed(),
        )

    @classmethod
    def none(cls) -> Candidates:
        """Return no candidates."""
        flags = np.zeros(0, bool)
        nothing = np.zeros(0, np.int32), np.zeros(0, np.uint8)
        return cls.of(Instances.empty(), nothing[0], whole=flags, in_core=flags, seams=nothing[1])

    def mask(self, index: int) -> Mask:
        """Return a mask, bool of its box's shape."""
        start, end, height, width = self._places[index]
        unpacked = np.unpackbits(self.bits[start:end], count=height * width)
        mask: Mask = unpacked.view(bool).reshape(height, width)
        return mask

    @cached_property
    def _places(self) -> list[list[int]]:
        """First and last byte, height and width of each mask."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]).astype(np.int64)
        lengths = (sides.prod(axis=1) + 7) // 8
        ends = np.cumsum(lengths)
        rows: list[list[int]] = np.column_stack([ends - lengths, ends, sides]).tolist()
        return rows

    @cached_property
    def contested(self) -> NDArray[np.bool_]:
        """Which of them another tile could see too, or are cut, bool (N,)."""
        contested: NDArray[np.bool_] = ~self.whole | (self.seams == RESOLVED)
        return contested

    def instances(self) -> Instances:
        """Return the same objects with their masks unpacked."""
        masks = tuple(self.mask(index) for index in range(len(self)))
        return Instances(self.boxes, masks, self.scores, self.classes)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fields as arrays to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Candidates:
        """Return what `to_arrays` stored."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def _distances(boxes: NDArray[np.int32], window: Box, plane: Box) -> NDArray[np.int32]:
    """Return `Box.distance_inside` of each box (N, 4), int32 (N,)."""
    edges = np.array([window.y0, window.x0, window.y1, window.x1])
    ends = np.array([plane.y0, plane.x0, plane.y1, plane.x1])
    gaps = np.abs(boxes - edges)[:, edges != ends]
    nearest: NDArray[np.int32] = gaps.min(axis=1, initial=FAR).astype(np.int32)
    return nearest


def _at_edge(boxes: NDArray[np.int32], plane: Box) -> NDArray[np.bool_]:
    ends = np.array([plane.y0, plane.x0, plane.y1, plane.x1])
    at_edge: NDArray[np.bool_] = (boxes == ends).any(axis=1)
    return at_edge


def _reach(core: Box, found: Instances) -> NDArray[np.bool_]:
    """Return which masks have a pixel in the core, bool (N,)."""
    low = np.maximum(found.boxes[:, :2], (core.y0, core.x0))
    high = np.minimum(found.boxes[:, 2:], (core.y1, core.x1))
    reach = np.asarray((low < high).all(axis=1), bool)
    partly = reach & ~((low == found.boxes[:, :2]) & (high == found.boxes[:, 2:])).all(axis=1)
    for index in np.flatnonzero(partly).tolist():
        box = Box(*found.boxes[index].tolist())
        shared = box.intersect(core)
        assert shared is not None  # noqa: S101 - it reaches the core
        reach[index] = bool(found.masks[index][shared.within(box).slices].any())
    return reach


def _measure(found: Instances) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return area and centre of each mask, int64 (N,) and float64 (N, 2).

    From sums of whole numbers from the plane's corner: the same bits from every tile.
    """
    laid, count = found.laid, len(found)
    at, rows = np.flatnonzero(laid.values), laid.rows
    bounds = np.searchsorted(at, np.append(rows.start, len(laid.values)))
    pixels = np.diff(bounds)
    # Sums over runs as differences of sums from the start, so that empty rows count as such.
    columns = np.concatenate([[0], np.cumsum(at)])[bounds]
    x = np.diff(columns) - pixels * rows.start + pixels * laid.boxes[rows.crop, 1]
    sums = np.zeros((3, count), np.int64)
    for total, each in zip(sums, (pixels, pixels * rows.y, x), strict=True):
        np.add.at(total, rows.crop, each)
    areas = sums[0]
    return areas, (sums[1:] / np.maximum(areas, 1)).T


def _digests(found: Instances) -> NDArray[np.uint64]:
    """Return what tells each mask and its box from others, uint64 (N,)."""
    boxes, masks = found.boxes.astype(np.int64).tobytes(), found.laid.values.tobytes()
    size = len(boxes) // max(len(found), 1)
    bounds = zip(found.laid.starts.tolist(), found.laid.ends.tolist(), strict=True)
    digests = [
        blake2b(boxes[index * size : (index + 1) * size] + masks[start:end], digest_size=8).digest()
        for index, (start, end) in enumerate(bounds)
    ]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
