"""Instances: the objects that a model found in one plane, as boxes and box-sized masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.laid import Laid, Places, contested


@dataclass(frozen=True, eq=False)
class Instances:
    """Objects found in one plane.

    Masks are crops, so memory grows with the cells and never with the plane;
    they may overlap.

    Parameters
    ----------
    boxes : int32 (N, 4)
        Half-open boxes ``y0, x0, y1, x1`` in px; each is the tight box of its mask.
    masks : tuple of N bool arrays
        Mask ``i`` has the shape of box ``i`` and holds at least one pixel.
    scores : float32 (N,)
        Confidence in [0, 1].
    classes : uint8 (N,)
        Class of the object; 1 is the first class, 0 is never used.
    """

    boxes: NDArray[np.int32]
    masks: tuple[NDArray[np.bool_], ...]
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Check that the four fields describe the same objects."""
        count = len(self.masks)
        expected = {"boxes": (count, 4), "scores": (count,), "classes": (count,)}
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"Instances: {name} has shape {got}, {count} masks need {shape}")
        for box, mask in zip(self.boxes.tolist(), self.masks, strict=True):
            if mask.shape != (box[2] - box[0], box[3] - box[1]):
                raise ValueError(f"Instances: a mask of shape {mask.shape} does not fit box {box}")

    def __len__(self) -> int:
        return len(self.masks)

    @classmethod
    def empty(cls) -> Instances:
        """Return no objects."""
        return cls.stack([])

    @classmethod
    def stack(
        cls,
        found: Sequence[tuple[tuple[int, int], NDArray[np.bool_], float, int]],
    ) -> Instances:
        """Build from one ``(corner y0 x0, mask, score, class)`` per object.

        Masks are cut to their tight boxes; objects without a pixel are left out.
        """
        corners = [(y, x, y + len(mask), x + mask.shape[1]) for (y, x), mask, _, _ in found]
        masks = [np.asarray(mask, bool) for _, mask, _, _ in found]
        boxes = np.asarray(corners, np.int64).reshape(-1, 4)
        scores = np.asarray([score for _, _, score, _ in found], np.float32)
        classes = np.asarray([class_ for _, _, _, class_ in found], np.uint8)
        return cls.cut(Laid.of(boxes, masks), scores, classes)

    @classmethod
    def cut(
        cls,
        laid: Laid,
        scores: NDArray[np.float32],
        classes: NDArray[np.uint8],
        order: NDArray[np.intp] | None = None,
        least: int = 1,
    ) -> Instances:
        """Cut masks to their tight boxes; objects without a pixel are left out.

        Parameters
        ----------
        laid : Laid of bool
            The masks, in boxes that hold them.
        scores, classes
            See `Instances`.
        order : int (M,), optional
            Those that are taken, in which order; by default all as they come.
        least : int
            Smaller ones are left out, in px.
        """
        spans = laid.spans(laid.values)
        kept, boxes = spans.tight(laid.boxes)
        if least > 1:
            large = np.bincount(spans.crop, spans.pixels, len(laid))[kept] >= least
            kept, boxes = kept[large], boxes[large]
        if order is not None:
            place = np.full(len(laid), -1)
            place[kept] = np.arange(len(kept))
            chosen = place[order]
            chosen = chosen[chosen >= 0]
            kept, boxes = kept[chosen], boxes[chosen]
        inside = (boxes - np.tile(laid.boxes[kept, :2], 2)).tolist()
        masks = [
            np.ascontiguousarray(laid[index][y0:y1, x0:x1])
            for index, (y0, x0, y1, x1) in zip(kept.tolist(), inside, strict=True)
        ]
        return cls(boxes.astype(np.int32), tuple(masks), scores[kept], classes[kept])

    @cached_property
    def laid(self) -> Laid:
        """The masks end to end."""
        return Laid.of(self.boxes, self.masks)

    def places(self, width: int) -> Places:
        """Return the pixels of all masks, in a plane of a width in px."""
        return self.laid.places(self.laid.values, width)

    @property
    def tight(self) -> bool:
        """Whether each box is the tight box of its mask, which holds a pixel."""
        kept, boxes = self.laid.spans(self.laid.values).tight(self.boxes)
        return len(kept) == len(self) and np.array_equal(boxes, self.boxes)

    @classmethod
    def from_labels(cls, labels: NDArray[np.integer]) -> Instances:
        """Cut a label image (H, W) into one instance a label, in label order, scores 1."""
        from scipy import ndimage

        values, dense = np.unique(labels, return_inverse=True)
        dense = dense.reshape(labels.shape)
        if len(values) and values[0] != 0:
            values, dense = np.concatenate([[0], values]), dense + 1
        found = ndimage.find_objects(dense, max_label=max(len(values) - 1, 0))
        return cls.stack(
            [
                ((window[0].start, window[1].start), dense[window] == index, 1.0, 1)
                for index, window in enumerate(found, 1)
            ]
        )

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Instances:
        """Return the objects at `indices`, in that order."""
        order = np.asarray(indices, dtype=np.intp)
        return Instances(
            self.boxes[order],
            tuple(self.masks[i] for i in order),
            self.scores[order],
            self.classes[order],
        )

    def shifted(self, dy: int, dx: int) -> Instances:
        """Return the same objects with every box moved by `dy`, `dx` px."""
        move = np.array([dy, dx, dy, dx], np.int32)
        return Instances(self.boxes + move, self.masks, self.scores, self.classes)

    def areas(self) -> NDArray[np.int64]:
        """Return the number of pixels in each mask, int64 (N,)."""
        return self.laid.counts(self.laid.values)

    def to_labels(self, shape: tuple[int, int]) -> NDArray[np.uint32]:
        """Draw the objects as labels 1..N, uint32 of `shape`; earlier objects lie on top."""
        labels = np.zeros(shape, np.uint32)
        for index in range(len(self) - 1, -1, -1):
            y0, x0, y1, x1 = self.boxes[index].tolist()
            labels[y0:y1, x0:x1][self.masks[index]] = index + 1
        return labels

    def disjoint(self) -> Instances:
        """Return the objects without shared pixels: each goes to the highest score.

        Of equal scores the earlier object wins. Objects left without a pixel go.
        """
        if not len(self):
            return self
        origin, end = self.boxes[:, :2].min(axis=0), self.boxes[:, 2:].max(axis=0)
        height, width = (end - origin).tolist()
        places = self.shifted(*(-origin).tolist()).places(width)
        shared = contested(places.id, height * width)
        if not shared.any():
            return self
        rank = np.empty(len(self), np.int64)
        rank[np.argsort(-self.scores, kind="stable")] = np.arange(len(self))
        claims = np.flatnonzero(shared)
        order = np.lexsort((rank[places.crop[claims]], places.id[claims]))
        claims = claims[order]
        loses = places.id[claims][1:] == places.id[claims][:-1]
        mine = self.laid.values.copy()
        mine[places.at[claims[1:][loses]]] = False
        return Instances.cut(Laid(self.boxes, mine), self.scores, self.classes)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the objects as a few arrays to store, a bit for each pixel of a mask."""
        return {
            "boxes": self.boxes,
            "scores": self.scores,
            "classes": self.classes,
            "bits": self.packed(),
        }

    def packed(self) -> NDArray[np.uint8]:
        """Return the masks, a bit for each pixel of a box, each mask from a new byte."""
        sizes = self.laid.ends - self.laid.starts
        padded = -(-sizes // 8) * 8
        shift = np.cumsum(padded) - padded - self.laid.starts
        wide = np.zeros(int(padded.sum()), bool)
        wide[np.arange(len(self.laid.values)) + np.repeat(shift, sizes)] = self.laid.values
        return np.packbits(wide)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Instances:
        """Return what `to_arrays` stored."""
        boxes = arrays["boxes"]
        shapes = boxes[:, 2:] - boxes[:, :2]
        areas = shapes.prod(axis=1, dtype=np.int64)
        ends = np.cumsum((areas + 7) // 8)
        bits = arrays["bits"]
        masks = []
        for shape, area, end in zip(shapes.tolist(), areas.tolist(), ends.tolist(), strict=True):
            unpacked = np.unpackbits(bits[end - (area + 7) // 8 : end], count=area)
            masks.append(unpacked.view(bool).reshape(shape))
        return cls(boxes, tuple(masks), arrays["scores"], arrays["classes"])

    @classmethod
    def concatenate(cls, parts: Sequence[Instances]) -> Instances:
        """Return the objects of all `parts`, in order."""
        parts = [*parts, cls.empty()]
        return cls(
            np.concatenate([part.boxes for part in parts]),
            tuple(mask for part in parts for mask in part.masks),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.classes for part in parts]),
        )
