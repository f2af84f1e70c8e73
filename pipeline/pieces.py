"""Pieces: what windows cut off cells, and which pieces are of one that no tile saw whole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cellseg.models.meeting import Pairs, meeting, shared_pixels
from cellseg.pipeline.choose import components
from cellseg.pipeline.complete import Found, Rules
from cellseg.pipeline.matches import Answer, Matches, Nodes
from cellseg.pipeline.pool import Pool
from cellseg.pipeline.tiles import Blocks, Box, Grid


@dataclass(frozen=True, eq=False)
class Pieces:
    """The cut candidates of a pool, and which of them no whole candidate explains.

    Parameters
    ----------
    pool : Pool
    rules : Rules
    grid : Grid
        Of the tiles, whose candidates the pool holds.
    """

    pool: Pool
    rules: Rules
    grid: Grid

    @cached_property
    def _pairs(self) -> Pairs:
        """Pairs of different windows of which one at least is cut."""
        pairs, pool = meeting(self.pool.boxes), self.pool
        one, other = pairs.T
        apart = pool.window[one] != pool.window[other]
        chosen: Pairs = pairs[apart & ~(pool.whole[one] & pool.whole[other])]
        return chosen

    @cached_property
    def left(self) -> NDArray[np.bool_]:
        """Which candidates are cut, and mostly outside the whole ones of other tiles.

        Where cells may overlap: cut, and the match of no whole one of another tile.
        """
        pool, pairs = self.pool, self._beside_whole
        if self.rules.overlapping:
            left = ~pool.whole
            left[[node for node, (explained, _) in self._explained.items() if explained]] = False
            return left
        piece = np.where(pool.whole[pairs[:, 0]], pairs[:, 1], pairs[:, 0])
        shared = shared_pixels(pool.boxes, pool.mask, pairs)
        most, total = np.zeros(len(pool), np.int64), np.zeros(len(pool), np.int64)
        np.maximum.at(most, piece, shared)
        np.add.at(total, piece, shared)
        needed = self.rules.overlap * pool.areas
        left = ~pool.whole & (most < needed)
        for node in np.flatnonzero(left & (total >= needed)).tolist():
            by = pairs[(piece == node) & (shared > 0)].sum(axis=1) - node
            left[node] = self._covered(node, by) < needed[node]
        return left

    @cached_property
    def _beside_whole(self) -> Pairs:
        """Pairs of a cut candidate and a whole one that may become a cell: see `Contest`."""
        pool = self.pool
        counts = pool.whole & (pool.in_core | (pool.distances >= self.rules.depth))
        pairs: Pairs = self._pairs[counts[self._pairs].any(axis=1)]
        return pairs

    @cached_property
    def _matches(self) -> Matches:
        return Matches(self.pool, self.grid)

    @cached_property
    def _explained(self) -> dict[int, Answer]:
        """For each cut candidate, whether it is the match of a whole one of another tile."""
        found: dict[int, Answer] = {
            node: (False, Nodes((node,))) for node in np.flatnonzero(~self.pool.whole).tolist()
        }
        for i, j in self._beside_whole.tolist():
            piece = j if self.pool.whole[i] else i
            explained, rests_on = found[piece]
            if not explained and self._matches.agree(i, j, self.rules.overlap):
                explained, why = self._matches.matched(i, j)
                found[piece] = explained, why if explained else rests_on | why
        return found

    def _covered(self, piece: int, by: NDArray[np.intp]) -> int:
        """Return how many pixels of a piece some others cover together."""
        found = self._found(piece)
        cover = np.zeros_like(found.mask)
        for other in map(self._found, by.tolist()):
            box = found.box.intersect(other.box)
            if box is not None:
                cover[box.within(found.box).slices] |= other.part(box)
        return int(np.count_nonzero(cover & found.mask))

    def _found(self, node: int) -> Found:
        pool = self.pool
        score = float(pool.column("scores")[node])
        class_ = int(pool.column("classes")[node])
        window = self.grid.read(int(pool.window[node]))
        box = Box(*pool.boxes[node].tolist())
        return Found(box, pool.mask(node), score, class_, window=window)

    @cached_property
    def links(self) -> list[tuple[int, int]]:
        """Pairs of pieces that are left and agree on what both their windows show."""
        pairs = self._pairs[self.left[self._pairs].all(axis=1)]
        return [(i, j) for i, j in pairs.tolist() if self._agree(i, j)]

    @cached_property
    def groups(self) -> list[list[int]]:
        """Pieces that are left, in groups that hang together."""
        return components(np.flatnonzero(self.left).tolist(), self.links)

    def _agree(self, i: int, j: int) -> bool:
        if self.rules.overlapping:
            alike = self._matches.agree(i, j, self.rules.overlap)
            return alike and self._matches.matched(i, j)[0]
        one, other = self._found(i), self._found(j)
        windows = [self.grid.read(int(self.pool.window[node])) for node in (i, j)]
        both = windows[0].intersect(windows[1])
        smaller = min(one.area_in(both), other.area_in(both)) if both else 0
        return smaller > 0 and one.shared(other) >= self.rules.overlap * smaller

    def of(self, blocks: Blocks, block: int) -> list[list[int]]:
        """Return the groups that a block answers for: it holds the first of their tiles."""
        return [group for group in self.groups if self._first(blocks, group) == block]

    def _first(self, blocks: Blocks, group: list[int]) -> int:
        return int(blocks.of(self.pool.window[group]).min())

    def rests_on(self, blocks: Blocks, block: int) -> NDArray[np.intp]:
        """Return the candidates whose surroundings decide which groups a block answers for.

        A group that certainly reaches into an earlier block need not be followed to its end.
        """
        certain, nodes = self._certain, list[int]()
        for group in self.groups:
            known = [node for node in group if certain[node]]
            inside = set(known)
            links = [(i, j) for i, j in self._sure_links if i in inside and j in inside]
            parts = [part for part in components(known, links) if self._holds(blocks, block, part)]
            if any(self._first(blocks, part) == block for part in parts):
                nodes += group
        if self.rules.overlapping:
            cut = np.flatnonzero(~self.pool.whole)
            own = cut[blocks.of(self.pool.window[cut]) == block].tolist()
            nodes = self._behind(nodes, own)
        return np.array(nodes, np.intp)

    def rests_on_near(self, near: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the same for the groups of some candidates, followed to their ends.

        Parameters
        ----------
        near : bool (N,)
            Which candidates of the pool.
        """
        nodes = [node for group in self.groups if near[group].any() for node in group]
        if self.rules.overlapping:
            nodes = self._behind(nodes, np.flatnonzero(near & ~self.pool.whole).tolist())
        return np.array(nodes, np.intp)

    @cached_property
    def _certain(self) -> NDArray[np.bool_]:
        """Of which candidates a larger pool says the same."""
        surrounded = self.pool.surrounded()
        if not self.rules.overlapping:
            return surrounded
        certain = surrounded.copy()
        for node, (_, rests_on) in self._explained.items():
            certain[node] = surrounded[list(rests_on)].all()
        return certain

    @cached_property
    def _sure_links(self) -> list[tuple[int, int]]:
        """The links of which a larger pool says the same, if it does of their ends."""
        if not self.rules.overlapping:
            return self.links
        surrounded = self.pool.surrounded()
        behind = [(pair, list(self._matches.matched(*pair)[1])) for pair in self.links]
        return [pair for pair, rests_on in behind if surrounded[rests_on].all()]

    def _behind(self, nodes: list[int], own: list[int]) -> list[int]:
        """Return what it rests on that some pieces, and `own` ones, hang together or do not."""
        found = Nodes(nodes).union(*(self._explained[node][1] for node in own + nodes))
        inside = set(nodes)
        pairs = self._pairs[~self.pool.whole[self._pairs].any(axis=1)].tolist()
        for i, j in pairs:
            near = i in inside or j in inside
            if near and self._matches.agree(i, j, self.rules.overlap):
                matched, why = self._matches.matched(i, j)
                ends = self._explained[i][1] | self._explained[j][1] if matched else Nodes()
                found |= why | ends
        return sorted(found)

    def _holds(self, blocks: Blocks, block: int, group: list[int]) -> bool:
        return bool((blocks.of(self.pool.window[group]) == block).any())

    def found(self, group: list[int]) -> list[Found]:
        """Return the pieces of a group, the best first."""
        return [self._found(node) for node in sorted(group, key=lambda n: int(self.pool.rank[n]))]
