"""What napari's brush, eraser and bucket have done, read from its own notes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.tiles import Box

__all__ = ["Painted", "touched"]


class Painted:
    """What a brush, eraser or bucket did at one go, in the layer's own px.

    Parameters
    ----------
    ranges : list of (int, int)
        First and end along each axis.
    values : integers, of that shape
    mask : bool, of that shape
    """

    def __init__(self, ranges: list[tuple[int, int]], values: Any, mask: NDArray[np.bool_]) -> None:
        self.ranges, self.values, self.mask = ranges, values, mask

    @classmethod
    def of(cls, atom: Any) -> Painted:
        """Read napari's note of it: a box with a mask, or indices."""
        sides = getattr(atom, "slice_key", None)
        if sides is not None:
            ranges = [(int(side.start), int(side.stop)) for side in sides]
            shape = [stop - start for start, stop in ranges]
            mask = np.ones(shape, bool) if atom.mask is None else np.reshape(atom.mask, shape)
            return cls(ranges, np.full(shape, atom.new_value, np.uint32), mask)
        indices, _, new = atom
        ranges = [(int(np.min(axis)), int(np.max(axis)) + 1) for axis in indices]
        values = np.zeros([stop - start for start, stop in ranges], np.uint32)
        mask = np.zeros(values.shape, bool)
        place = tuple(np.asarray(a) - start for a, (start, _) in zip(indices, ranges, strict=True))
        values[place], mask[place] = new, True
        return cls(ranges, values, mask)

    @property
    def boxes(self) -> Iterator[tuple[tuple[int, ...], Box]]:
        """The planes that it lies in, each with its box."""
        *lead, (y0, y1), (x0, x1) = self.ranges
        for place in product(*(range(low, high) for low, high in lead)):
            yield place, Box(y0, x0, y1, x1)

    def paint(self, labels: NDArray[np.uint32], lead: tuple[int, ...], box: Box) -> None:
        """Paint it onto the labels of a box of a plane."""
        first = [low for low, _ in self.ranges[: len(lead)]]
        place = tuple(n - low for n, low in zip(lead, first, strict=True))
        ends = [high for _, high in self.ranges[: len(lead)]]
        if not all(low <= n < high for n, low, high in zip(lead, first, ends, strict=True)):
            return
        (y0, y1), (x0, x1) = self.ranges[-2:]
        inside = labels[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0]
        mask = self.mask[place]
        inside[mask] = self.values[place][mask]


def touched(atoms: Iterable[Painted]) -> dict[tuple[int, ...], Box]:
    """Return the box that a stroke has touched in each plane, by the place along other axes."""
    found: dict[tuple[int, ...], Box] = {}
    for atom in atoms:
        for place, box in atom.boxes:
            old = found.get(place, box)
            found[place] = Box(
                min(old.y0, box.y0),
                min(old.x0, box.x0),
                max(old.y1, box.y1),
                max(old.x1, box.x1),
            )
    return found
