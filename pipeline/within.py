"""The cells whose centre lies in a region of interest, and no look at more than they rest on.

They are those of a run without the region, to the pixel. So all is decided as in
`cellseg.pipeline.stitch`, of the candidates that meet the region and of what these rest on:

1. A candidate that no window cut is a cell's whole mask, and its box is around its centre: of
   all tiles that read a pixel of the region, those that meet it are looked at.
2. A cell that no tile saw whole shares a pixel with one of its pieces. Where it is up to twice the
   halo long, that piece reaches within twice the halo of its centre, or of any cell that it
   contradicts: so pieces this near are followed, as far as they hang together, and their cells
   completed. Of a longer cell, a tile shows as much if its own pixels come that near.
3. What the verdict on a candidate rests on is looked at in turn, and the tiles that show it.

A cell so bent that none of its pixels lies within twice the halo of its centre would be found or
not by the tiles' size: it belongs to no region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.candidate import Candidates, Mask
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.complete import Completion, Found, Predict, Rules, around, as_candidates
from cellseg.pipeline.contest import Contest
from cellseg.pipeline.decided import Decided
from cellseg.pipeline.interest import Interest, centre_pixels
from cellseg.pipeline.pieces import Pieces
from cellseg.pipeline.pool import Pool, overlapping, settled
from cellseg.pipeline.stitch import Load, Neighbours, extent_of
from cellseg.pipeline.tiles import Blocks, Box, Grid

Pieced = tuple[tuple[int, int], ...]
"""Pieces that hang together, as tile and number in it."""
HALOS = 2
"""Halos around the region, and around what its cells rest on, where pieces are looked for."""


def reach_px(grid: Grid) -> int:
    """Return the px around a region within which pieces of its cells are looked for."""
    return HALOS * grid.halo


@dataclass(frozen=True, eq=False)
class Completed:
    """The cells near some boxes that no tile saw whole, each predicted once.

    Parameters
    ----------
    blocks : Blocks
    rules : Rules
    load : callable
        Candidates of the tile at a position.
    predict : callable
        See `Predict`.
    """

    blocks: Blocks
    rules: Rules
    load: Load
    predict: Predict
    _known: dict[Pieced, list[Found]] = field(default_factory=dict, init=False)

    def near(self, boxes: Sequence[Box]) -> Candidates:
        """Return the cells of which a piece comes near one of some boxes, in the order of all."""
        grid = self.blocks.grid
        reaches = [box.grow(reach_px(grid), grid.plane) for box in boxes]
        pool = Pool(grid.reading, self.load, lambda tile: self.load(tile).contested)
        for reach in reaches:
            pool = pool.gather(reach)
        pieces = settled(
            pool,
            lambda pool: Pieces(pool, self.rules, grid),
            lambda pieces: pieces.rests_on_near(meeting_any(pieces.pool.boxes, reaches)),
        )
        near = meeting_any(pieces.pool.boxes, reaches)
        groups = [g for g in pieces.groups if near[g].any() and pieces.pool.in_core[g].any()]
        # As blocks have them, one after the other.
        groups.sort(key=lambda g: int(self.blocks.of(pieces.pool.window[g]).min()))
        return as_candidates([cell for group in groups for cell in self._cells(pieces, group)])

    def _cells(self, pieces: Pieces, group: list[int]) -> list[Found]:
        """Return the cells of a group of pieces."""
        windows, indices = pieces.pool.window[group], pieces.pool.index[group]
        key = tuple(zip(windows.tolist(), indices.tolist(), strict=True))
        if key not in self._known:
            self._known[key] = self._completion.complete(pieces.found(group))
        return self._known[key]

    @cached_property
    def _completion(self) -> Completion:
        return Completion(self.blocks.grid, self.rules, self.predict)


def decide_within(
    blocks: Blocks,
    block: int,
    rules: Rules,
    load: Load,
    predict: Predict,
    interest: Interest,
) -> Decided:
    """Return the cells whose centre lies in the part of a region that a block covers.

    Parameters
    ----------
    blocks : Blocks
    block : int
        Number of the block.
    rules : Rules
    load : callable
        Candidates of the tile at a position; only what is needed is asked for.
    predict : callable
        See `Predict`.
    interest : Interest
        The region.
    """
    survey = interest.survey(blocks.grid)
    parts = {tile: survey.parts[tile] for tile in blocks.tiles(block) if tile in survey.parts}
    completed = Completed(blocks, rules, load, predict)
    boxes = [_with_candidates(part, blocks.grid, load) for part in parts.values()]
    while True:
        found = completed.near(boxes)
        verdict = _Verdict(blocks, block, rules, load, found, parts)
        decided, rests_on = verdict.decided(boxes)
        further = [box for box in rests_on if not any(box.intersect(b) == box for b in boxes)]
        if not further:
            break
        boxes += further
    here = blocks.region(block)
    pixels = centre_pixels(decided.cells.centres)
    own = ((pixels >= (here.y0, here.x0)) & (pixels < (here.y1, here.x1))).all(axis=1)
    cells = decided.cells.take(np.flatnonzero(own))
    kept = belong(cells, verdict.masks(decided), interest, reach_px(blocks.grid))
    return Decided(cells.take(kept), decided.extra)


def belong(
    cells: Cells, mask: Callable[[int, int], Mask], interest: Interest, reach: int
) -> NDArray[np.bool_]:
    """Return which cells of a plane belong to a region, bool (N,).

    Parameters
    ----------
    cells : Cells
    mask : callable
        From `Cells.tile` and `Cells.index` to a mask.
    interest : Interest
    reach : int
        Px within which a cell has pixels of its own around its centre.
    """
    pixels = centre_pixels(cells.centres)
    inside = interest.numbers_at(pixels) > 0
    long = (cells.boxes[:, 2:] - cells.boxes[:, :2]).max(axis=1, initial=0) > reach
    for cell in np.flatnonzero(inside & long).tolist():
        box, (y, x) = Box(*cells.boxes[cell].tolist()), pixels[cell].tolist()
        near = box.intersect(Box(y - reach, x - reach, y + reach + 1, x + reach + 1))
        shown = mask(int(cells.tile[cell]), int(cells.index[cell]))
        inside[cell] = near is not None and bool(shown[near.within(box).slices].any())
    return inside


def meeting_any(boxes: NDArray[np.int32], others: Sequence[Box]) -> NDArray[np.bool_]:
    """Return which boxes (N, 4) share a pixel with any of some others, bool (N,)."""
    found = np.zeros(len(boxes), bool)
    for other in others:
        found |= overlapping(boxes, other)
    return found


def _with_candidates(part: Box, grid: Grid, load: Load) -> Box:
    """Return the box around a part of a region and all that tiles show in it."""
    boxes = [part]
    for tile in grid.reading(part):
        shown = load(tile).boxes
        boxes += [Box(*sides) for sides in shown[overlapping(shown, part)].tolist()]
    return around(boxes)


@dataclass(frozen=True, eq=False)
class _Verdict:
    """What a block decides of the candidates that meet its parts of a region."""

    blocks: Blocks
    block: int
    rules: Rules
    load: Load
    completed: Candidates
    parts: dict[int, Box]

    def decided(self, boxes: Sequence[Box]) -> tuple[Decided, list[Box]]:
        """Return the cells that meet the region, and the boxes that this rests on.

        Parameters
        ----------
        boxes : sequence of Box
            What is looked at from the start.
        """
        neighbours, asked = self._neighbours, list[Box]()

        def windows(box: Box) -> list[int]:
            asked.append(box)
            return neighbours.windows(box)

        wanted = {tile: neighbours.contested(tile) for tile in self.parts}
        pool = Pool(windows, neighbours.load, neighbours.contested)
        for box in boxes:
            pool = pool.gather(box)
        parts = list(self.parts.values())
        contest = settled(
            pool,
            lambda pool: Contest(
                pool, self.rules, meeting_any(pool.boxes, parts), self.blocks.grid
            ),
            lambda contest: contest.rests_on,
        )
        decided = [contest.decided(len(self.blocks.grid), self.block)]
        for tile, part in self.parts.items():
            found = self.load(tile)
            alone = ~wanted[tile] & overlapping(found.boxes, part)
            decided.append(Decided.uncontested(found, tile, alone))
            asked += [Box(*sides) for sides in found.boxes[alone].tolist()]
        return Decided.concatenate(decided), asked

    @property
    def _neighbours(self) -> Neighbours:
        found = self.completed
        extents = {self.block: extent_of(found)} if len(found) else {}
        return Neighbours(self.blocks, self.load, lambda _: found, extents)

    def masks(self, decided: Decided) -> Callable[[int, int], Mask]:
        """Return the reader of the masks of decided cells."""
        return lambda tile, index: (self.load(tile) if tile >= 0 else decided.extra).mask(index)
