"""Decided: the cells that a block of tiles answers for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.cells import Cells


@dataclass(frozen=True, eq=False)
class Decided:
    """Cells of a block, and the masks among them that no tile holds."""

    cells: Cells
    extra: Candidates

    @classmethod
    def uncontested(cls, found: Candidates, tile: int, kept: NDArray[np.bool_]) -> Decided:
        """Return the `kept` candidates of a tile as they are."""
        index = np.flatnonzero(kept)
        tiles = np.full(len(index), tile)
        cells = described(lambda name: getattr(found, name), index, tiles, index)
        return cls(cells, Candidates.none())

    @classmethod
    def concatenate(cls, parts: Sequence[Decided]) -> Decided:
        """Return all parts, the cells in the order of their position; the first has all extras."""
        cells = Cells.concatenate([part.cells for part in parts])
        return cls(cells.take(cells.order()), parts[0].extra)


def described(
    column: Callable[[str], NDArray[Any]],
    chosen: NDArray[np.integer],
    tile: NDArray[np.integer],
    index: NDArray[np.integer],
) -> Cells:
    """Return some candidates as cells of the first plane.

    Parameters
    ----------
    column : callable
        A field of `Candidates` for each candidate.
    chosen : integers (N,)
        Their numbers.
    tile, index : integers (N,)
        Where their masks lie: see `Cells`.
    """
    return Cells(
        plane=np.zeros(len(chosen), np.int32),
        tile=tile.astype(np.int32),
        index=index.astype(np.int32),
        boxes=column("boxes")[chosen],
        centres=column("centres")[chosen],
        areas=column("areas")[chosen].astype(np.int64),
        scores=column("scores")[chosen],
        classes=column("classes")[chosen],
        seam=column("seams")[chosen],
        digests=column("digests")[chosen],
    )
