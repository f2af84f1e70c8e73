"""Segmenters that are exact inside their window.

The grey levels of its images are the labels, or tell the plane whose cells it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from cellseg.models import Instances, Overlap
from cellseg.pipeline.tiles import Box

LEVELS = 1000
"""Grey levels of each plane that `Known` sees: the first one's are below it, the next one's below
twice it."""


class Exact:
    """Returns each grey level above 0 as one instance; run it with `normalise.method = "none"`."""

    key = "exact"

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        return [Instances.from_labels(plane[0].astype(np.int32)) for plane in planes]


class Known:
    """Returns the parts of known cells that lie in a window, at any overlap.

    Which plane it sees, the grey levels say.
    """

    def __init__(self, *planes: Instances, overlap: Overlap = "keep") -> None:
        self.planes = planes
        self.overlap = overlap
        digest = blake2b(digest_size=8)
        for cells in planes:
            for array in cells.to_arrays().values():
                digest.update(array.tobytes())
        self.key = digest.hexdigest()

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        return self.segment_at(planes, [(0, 0)] * len(planes))

    def segment_at(
        self, planes: Sequence[NDArray[np.float32]], corners: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        return [
            _inside(self.planes[int(plane.max()) // LEVELS], Box(y, x, y + h, x + w))
            for plane, (y, x), (h, w) in zip(
                planes, corners, (plane.shape[1:] for plane in planes), strict=True
            )
        ]


def _inside(cells: Instances, window: Box) -> Instances:
    found = []
    for index, sides in enumerate(cells.boxes.tolist()):
        box = Box(*sides)
        shared = box.intersect(window)
        if shared is not None:
            corner = shared.y0 - window.y0, shared.x0 - window.x0
            mask = cells.masks[index][shared.within(box).slices]
            found.append((corner, mask, float(cells.scores[index]), 1))
    return Instances.stack(found)


def cut(truth: Instances, window: Box) -> Instances:
    """What an exact segmenter of cells that may overlap finds in a window of their plane.

    Each cell's mask is cut at the window, in the cells' order, with their scores.
    """
    found = []
    for index, sides in enumerate(truth.boxes.tolist()):
        box = Box(*sides)
        inside = box.intersect(window)
        if inside is not None:
            part = truth.masks[index][inside.within(box).slices]
            score, class_ = float(truth.scores[index]), int(truth.classes[index])
            found.append(((inside.y0, inside.x0), part, score, class_))
    return Instances.stack(found)


class Counting(Exact):
    """Counts the windows it sees, and dies at one of them if told to."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.windows = 0
        self.dies_at = dies_at

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        if self.windows == self.dies_at:
            raise KeyboardInterrupt
        self.windows += len(planes)
        return super().segment(planes)
