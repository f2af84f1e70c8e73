"""Instances: the objects that a model found in one plane, as boxes and box-sized masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        boxes, masks, scores, classes = [], [], [], []
        for (y0, x0), mask, score, class_ in found:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if len(rows) == 0:
                continue
            top, bottom = int(rows[0]), int(rows[-1]) + 1
            left, right = int(columns[0]), int(columns[-1]) + 1
            boxes.append((y0 + top, x0 + left, y0 + bottom, x0 + right))
            masks.append(np.ascontiguousarray(mask[top:bottom, left:right], dtype=bool))
            scores.append(score)
            classes.append(class_)
        return cls(
            np.asarray(boxes, np.int32).reshape(-1, 4),
            tuple(masks),
            np.asarray(scores, np.float32),
            np.asarray(classes, np.uint8),
        )

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
        return np.array([np.count_nonzero(mask) for mask in self.masks], np.int64)

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
        origin = self.boxes[:, :2].min(axis=0)
        owner = np.full(tuple(self.boxes[:, 2:].max(axis=0) - origin), -1, np.int32)
        shared = False
        for index in np.argsort(-self.scores, kind="stable").tolist():
            view = owner[self._window(index, origin)]
            free = self.masks[index] & (view < 0)
            shared |= bool(np.count_nonzero(free) < np.count_nonzero(self.masks[index]))
            view[free] = index
        if not shared:
            return self
        return Instances.stack(
            [
                (
                    (int(self.boxes[index, 0]), int(self.boxes[index, 1])),
                    owner[self._window(index, origin)] == index,
                    float(self.scores[index]),
                    int(self.classes[index]),
                )
                for index in range(len(self))
            ]
        )

    def _window(self, index: int, origin: NDArray[np.integer]) -> tuple[slice, slice]:
        y0, x0, y1, x1 = (self.boxes[index] - np.tile(origin, 2)).tolist()
        return slice(y0, y1), slice(x0, x1)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the objects as a few arrays to store, a bit for each pixel of a mask."""
        bits = [np.packbits(mask) for mask in self.masks]
        return {
            "boxes": self.boxes,
            "scores": self.scores,
            "classes": self.classes,
            "bits": np.concatenate(bits) if bits else np.zeros(0, np.uint8),
        }

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
