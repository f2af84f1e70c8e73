"""Overlay: changes that are not on disk yet, found by where they lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.change import Change, carry_out
from cellseg.pipeline.tiles import Box

__all__ = ["Overlay", "squares_of"]

SIDE = 256
"""Px on a side of the squares by which changes are found."""
Plane = tuple[int, int, int]
"""Layer, t and z."""


class Overlay:
    """Changes in their order, to be carried out on windows of label images."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self._changes: list[Change] = []
        self._places: dict[Plane, dict[tuple[int, int], list[int]]] = {}
        self._of: dict[int, list[int]] = defaultdict(list)
        self.add(changes)

    def add(self, changes: Iterable[Change]) -> None:
        """Add changes behind those that there are."""
        for change in changes:
            number = len(self._changes)
            self._changes.append(change)
            self._of[change.label].append(number)
            if change.drawn:
                squares = self._places.setdefault(change.plane, defaultdict(list))
                for square in squares_of(change.region):
                    squares[square].append(number)

    @property
    def layers(self) -> int:
        """How many label images they need."""
        return 1 + max((layer for layer, _, _ in self._places), default=-1)

    def carry_out(self, plane: Plane, labels: NDArray[np.uint32], window: Box) -> None:
        """Carry them out on the labels (h, w) of a window of a plane, in place."""
        squares = self._places.get(plane)
        if squares is None:
            return
        found = {number for square in squares_of(window) for number in squares.get(square, ())}
        carry_out((self._changes[number] for number in sorted(found)), labels, window)

    def of(self, label: int) -> list[Change]:
        """Return the changes of a cell, in order."""
        return [self._changes[number] for number in self._of.get(label, ())]

    @property
    def highest(self) -> int:
        """The highest label; 0 where there is none."""
        return max(self._of, default=0)

    def boxes(self) -> dict[Plane, list[Box]]:
        """Return the boxes of the changes of each plane."""
        found: dict[Plane, list[Box]] = defaultdict(list)
        for change in self._changes:
            if change.drawn:
                found[change.plane].append(change.region)
        return found


def squares_of(box: Box) -> Iterator[tuple[int, int]]:
    """Yield the squares, by which things are found, that a box has a part of."""
    for y in range(box.y0 // SIDE, -(-box.y1 // SIDE)):
        for x in range(box.x0 // SIDE, -(-box.x1 // SIDE)):
            yield y, x
