"""Which candidates of overlapping tiles are one cell, and which one is kept, whole.

The contract (design, section 4), in two passes over blocks of tiles. The first
finds the pieces that tiles' windows cut off cells which no tile saw whole, and
completes those cells. The second decides: where tiles disagree, the heaviest set
of candidates that do not contradict each other wins. Where cells may overlap, two
candidates are two cells if a tile shows both (see `Matches`). A block sees the candidates
around it, and as far beyond as its own decisions reach, so blocks may be done in
any order, by any worker, and agree at their borders. Each holds only candidates
that another tile could have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline.candidate import SEAMS, Candidates
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.complete import Completion, Predict, Rules, as_candidates
from cellseg.pipeline.contest import Contest
from cellseg.pipeline.decided import Decided
from cellseg.pipeline.pieces import Pieces
from cellseg.pipeline.pool import Pool, overlapping, settled
from cellseg.pipeline.tiles import Blocks, Box, Grid

__all__ = ["EXTRA", "SEAMS", "Neighbours", "Rules", "Stitched", "complete", "decide", "stitch"]

EXTRA = -1
"""In place of a tile's position: the mask is in `Stitched.extra`."""
HELD = 256
"""Sets of candidates, those of a block and its neighbours."""

Load = Callable[[int], Candidates]


def complete(blocks: Blocks, block: int, rules: Rules, load: Load, predict: Predict) -> Candidates:
    """Return the cells that no tile saw whole and that a block answers for.

    Parameters
    ----------
    blocks : Blocks
    block : int
        Number of the block.
    rules : Rules
    load : callable
        Candidates of the tile at a position.
    predict : callable
        See `Predict`.
    """
    grid = blocks.grid
    pool = Pool(grid.reading, load, lambda tile: load(tile).contested)
    pieces = settled(
        pool.gather(_surroundings(blocks, block)),
        lambda pool: Pieces(pool, rules, grid),
        lambda pieces: pieces.rests_on(blocks, block),
    )
    completion = Completion(grid, rules, predict)
    groups = [g for g in pieces.of(blocks, block) if pieces.pool.in_core[g].any()]
    return as_candidates([cell for g in groups for cell in completion.complete(pieces.found(g))])


def _surroundings(blocks: Blocks, block: int) -> Box:
    """Return what a block's decisions rest on, but for large cells."""
    return blocks.region(block).grow(2 * blocks.grid.halo, blocks.grid.plane)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The candidates of all windows of a plane: its tiles, and behind them its blocks.

    Parameters
    ----------
    blocks : Blocks
    tile : callable
        Candidates of the tile at a position.
    completed : callable
        What `complete` returned for a block.
    extents : mapping
        For each block that has completed cells, the box around them.
    """

    blocks: Blocks
    tile: Load
    completed: Load
    extents: Mapping[int, Box]

    @property
    def tiles(self) -> int:
        """Number of tiles, and of the first window that is a block."""
        return len(self.blocks.grid)

    def load(self, window: int) -> Candidates:
        """Return the candidates of a window."""
        return self.tile(window) if window < self.tiles else self.completed(window - self.tiles)

    def windows(self, box: Box) -> list[int]:
        """Return the windows that may show something in a box."""
        large = [block for block, extent in self.extents.items() if extent.intersect(box)]
        return self.blocks.grid.reading(box) + [self.tiles + block for block in large]

    def contested(self, window: int) -> NDArray[np.bool_]:
        """Return which candidates of a window others may contradict, bool (N,)."""
        found = self.load(window)
        if window >= self.tiles:
            return np.ones(len(found), bool)
        contested, read = found.contested, self.blocks.grid.read(window)
        for block in self.windows(read):
            if block >= self.tiles:
                large = self.load(block).boxes
                for box in large[overlapping(large, read)].tolist():
                    contested = contested | overlapping(found.boxes, Box(*box))
        return contested

    def owner(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the block that each window belongs to, int64 (N,)."""
        tiles = np.minimum(windows, self.tiles - 1)
        return np.where(windows < self.tiles, self.blocks.of(tiles), windows - self.tiles)


def decide(neighbours: Neighbours, block: int, rules: Rules) -> Decided:
    """Return the cells that a block answers for: those whose best candidate is one of its own.

    Parameters
    ----------
    neighbours : Neighbours
    block : int
        Number of the block.
    rules : Rules
    """
    contested = lru_cache(maxsize=HELD)(neighbours.contested)
    pool = Pool(neighbours.windows, neighbours.load, contested)
    pool = pool.gather(_surroundings(neighbours.blocks, block))
    if block in neighbours.extents:
        pool = pool.gather(neighbours.extents[block])
    contest = settled(
        pool,
        lambda pool: Contest(
            pool, rules, neighbours.owner(pool.window) == block, neighbours.blocks.grid
        ),
        lambda contest: contest.rests_on,
    )
    parts = [contest.decided(neighbours.tiles, block)]
    parts += [
        Decided.uncontested(neighbours.load(tile), tile, ~contested(tile))
        for tile in neighbours.blocks.tiles(block)
    ]
    return Decided.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Stitched(Cells):
    """The cells of one plane, with the masks that no tile holds."""

    extra: Instances


def stitch(
    grid: Grid,
    rules: Rules,
    load: Callable[[int], Instances],
    predict: Predict,
    block_px: int = 8192,
) -> Stitched:
    """Decide the cells of one plane, all in memory.

    Parameters
    ----------
    grid : Grid
    rules : Rules
    load : callable
        What was found in the tile at a position, boxes in px of the plane.
    predict : callable
        See `Predict`.
    block_px : int
        Side of the blocks; changes nothing.

    Returns
    -------
    Stitched
        The cells, by position. Masks of different tiles share no pixel, but where
        `Rules.overlapping`: there each is as its tile saw it.
    """
    blocks = Blocks(grid, block_px)

    @cache
    def tile(position: int) -> Candidates:
        return Candidates.of_tile(load(position), grid, position, rules.margin)

    completed = [complete(blocks, b, rules, tile, predict) for b in range(len(blocks))]
    extents = {b: extent_of(found) for b, found in enumerate(completed) if len(found)}
    neighbours = Neighbours(blocks, tile, completed.__getitem__, extents)
    decided = [decide(neighbours, block, rules) for block in range(len(blocks))]
    firsts = np.cumsum([0, *(len(d.extra) for d in decided)])
    cells = Cells.concatenate([d.cells for d in decided])
    cells = cells.take(cells.order())
    own = cells.tile < 0
    cells.index[own] += firsts[-1 - cells.tile[own]].astype(np.int32)
    cells.tile[own] = EXTRA
    return Stitched(
        **cells.to_arrays(), extra=Instances.concatenate([d.extra.instances() for d in decided])
    )


def extent_of(found: Candidates) -> Box:
    """Return the box around some candidates."""
    low, high = found.boxes[:, :2].min(axis=0), found.boxes[:, 2:].max(axis=0)
    return Box(*low.tolist(), *high.tolist())
