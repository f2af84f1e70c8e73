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
        boxes = [Box(*sides) for sides in found.boxes.tolist()]
        in_core = np.array(
            [_reaches(core, box, mask) for box, mask in zip(boxes, found.masks, strict=True)], bool
        )
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
        measured = [
            _measure(box, mask) for box, mask in zip(found.boxes.tolist(), found.masks, strict=True)
        ]
        areas, centres, digests = zip(*measured, strict=True) if measured else ((), (), ())
        bits = [np.packbits(mask) for mask in found.masks]
        return cls(
            boxes=found.boxes,
            scores=found.scores,
            classes=found.classes,
            areas=np.array(areas, np.int32),
            centres=np.array(centres, np.float64).reshape(-1, 2),
            digests=np.array(digests, np.uint64),
            distances=distances,
            whole=whole,
            in_core=in_core,
            seams=seams,
            looks=np.zeros(len(found), np.int32) if looks is None else looks,
            bits=np.concatenate(bits) if bits else np.zeros(0, np.uint8),
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


def _reaches(core: Box, box: Box, mask: Mask) -> bool:
    """Whether a pixel of the mask lies in the core."""
    shared = box.intersect(core)
    if shared is None or shared == box:
        return shared is not None
    return bool(mask[shared.within(box).slices].any())


def _measure(box: list[int], mask: Mask) -> tuple[int, tuple[float, float], int]:
    """Return area, centre and digest of a mask."""
    y0, x0, y1, x1 = box
    rows = np.count_nonzero(mask, axis=1)
    columns = np.count_nonzero(mask, axis=0)
    area = int(rows.sum())
    # Sums of whole numbers from the plane's corner: the same bits from every tile.
    y = (int(rows @ np.arange(y1 - y0)) + y0 * area) / area
    x = (int(columns @ np.arange(x1 - x0)) + x0 * area) / area
    digest = blake2b(np.array(box, np.int64).tobytes() + mask.tobytes(), digest_size=8)
    return area, (y, x), int.from_bytes(digest.digest(), "little")
