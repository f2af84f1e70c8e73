"""Decided: the cells that a block of tiles answers for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        cells = Cells(
            plane=np.zeros(len(index), np.int32),
            tile=np.full(len(index), tile, np.int32),
            index=index.astype(np.int32),
            boxes=found.boxes[index],
            centres=found.centres[index],
            scores=found.scores[index],
            classes=found.classes[index],
            seam=found.seams[index],
            digests=found.digests[index],
        )
        return cls(cells, Candidates.none())

    @classmethod
    def concatenate(cls, parts: Sequence[Decided]) -> Decided:
        """Return all parts, the cells in the order of their position; the first has all extras."""
        cells = Cells.concatenate([part.cells for part in parts])
        return cls(cells.take(cells.order()), parts[0].extra)
