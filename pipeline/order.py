"""Cells of all blocks in the order of their position, in runs of one length: their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from cellseg.pipeline.cells import Cells

BAND = 1024
"""Px of a plane's height that are sorted at a time."""
RUN = 2**16
"""Cells in a run; the last one is shorter."""


class InOrder(Protocol):
    """Facts of consecutive cells: `Cells`, or `cellseg.pipeline.overlaps.Overlaps`."""

    def __len__(self) -> int: ...

    def take(self, chosen: slice) -> Self:
        """Return consecutive ones."""
        ...

    @staticmethod
    def concatenate(parts: Sequence[Any]) -> Any:
        """Return all parts as one."""
        ...


Part = TypeVar("Part", bound=InOrder)


class SortedCells(Protocol):
    """Cells of one block, sorted by their centres' y, of which parts can be read."""

    @property
    def low(self) -> float:
        """The first centre's y in px."""
        ...

    @property
    def high(self) -> float:
        """The last centre's y in px."""
        ...

    def between(self, y0: float, y1: float) -> Cells:
        """Return the cells whose centre's y is at least `y0` and less than `y1`."""
        ...


def merged(blocks: Sequence[SortedCells]) -> Iterator[Cells]:
    """Yield the cells of a plane's blocks in order, band by band of its height."""
    low = int(min((block.low for block in blocks), default=0) // BAND)
    high = int(max((block.high for block in blocks), default=-1) // BAND)
    for band in range(low, high + 1):
        y0, y1 = band * BAND, (band + 1) * BAND
        inside = [block for block in blocks if block.low < y1 and block.high >= y0]
        cells = Cells.concatenate([block.between(y0, y1) for block in inside])
        yield cells.take(cells.order())


def runs(parts: Iterator[Part], none: Part, length: int = RUN) -> Iterator[Part]:
    """Yield the same cells in runs of `length`; at least one run, which may be `none`."""
    waiting, yielded = none, False
    for part in parts:
        waiting = none.concatenate([waiting, part])
        whole = len(waiting) // length * length
        for start in range(0, whole, length):
            yield waiting.take(slice(start, start + length))
            yielded = True
        waiting = waiting.take(slice(whole, None))
    if len(waiting) or not yielded:
        yield waiting


def on_plane(cells: Cells, plane: int) -> Cells:
    """Return the cells as those of a plane."""
    arrays = cells.to_arrays() | {"plane": np.full(len(cells), plane, np.int32)}
    return Cells.from_arrays(arrays)
