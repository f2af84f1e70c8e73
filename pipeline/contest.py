"""A contest: candidates of several windows for the same pixels, and who wins them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import Instances
from cellseg.models.meeting import Pairs, meeting, shared_pixels, spread
from cellseg.pipeline.candidate import CUT_BY_IMAGE, INTERIOR, RESOLVED, Candidates, Mask
from cellseg.pipeline.choose import components, heaviest
from cellseg.pipeline.complete import Rules
from cellseg.pipeline.decided import Decided, described
from cellseg.pipeline.matches import Matches, Nodes
from cellseg.pipeline.pool import Pool
from cellseg.pipeline.tiles import Box, Grid

LEFT = 0.5
"""A cell of which better ones from other tiles leave less than this part is a false one."""
MORE_CELLS = 2**40
"""More than any sum of distances."""
ALIKE = 0.65
"""IoU from which two candidates are two views of one outline; of a cell and a half it is less."""


@dataclass(frozen=True, eq=False)
class Contest:
    """The whole candidates of a pool, and the choice among them.

    Candidates with the same pixels count as one, the deepest in its window; here
    such a one is called a kind. Two kinds that one look at the image shows side by
    side are two cells, however much they overlap. Of kinds that are one cell the
    deepest is kept if their outlines are alike: far from its edge a window shows
    what the whole image does. Where they are not, as where one tile saw one cell and
    another two, the set with the highest sum of score times area is, of such sets
    that with the most cells, then the deepest. Cells that may overlap keep their
    masks whole, and two kinds are two cells wherever a look shows them side by side
    in its own views of them: see `Matches`.

    Parameters
    ----------
    pool : Pool
    rules : Rules
    mine : bool (N,)
        Which candidates of the pool the block answers for.
    grid : Grid
        Of the tiles.
    """

    pool: Pool
    rules: Rules
    mine: NDArray[np.bool_]
    grid: Grid
    _visited: set[int] = field(default_factory=set, init=False)
    _gone: dict[int, bool] = field(default_factory=dict, init=False)
    _behind: dict[int, Nodes] = field(default_factory=dict, init=False)

    @cached_property
    def _whole(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.pool.whole)

    @cached_property
    def _kind(self) -> NDArray[np.intp]:
        """The kind of each whole candidate."""
        return np.unique(self.pool.digests[self._whole], return_inverse=True)[1].reshape(-1)

    @cached_property
    def best(self) -> NDArray[np.intp]:
        """The deepest candidate of each kind, as its number in the pool, intp (K,)."""
        rank = self.pool.depth_rank[self._whole]
        least = np.full(self._kind.max(initial=-1) + 1, len(self.pool), np.int64)
        np.minimum.at(least, self._kind, rank)
        best: NDArray[np.intp] = np.argsort(self.pool.depth_rank)[least]
        return best

    def _any(self, of_whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return of which kinds any candidate is so, bool (K,)."""
        found = np.zeros(len(self.best), bool)
        found[self._kind[of_whole]] = True
        return found

    @cached_property
    def _pairs(self) -> Pairs:
        """Pairs of kinds whose boxes share a pixel and that no look shows side by side."""
        pairs = meeting(self.pool.boxes[self.best])
        looks, look = np.unique(self.pool.seen_by[self._whole], return_inverse=True)
        seen = np.unique(self._kind * len(looks) + look.reshape(-1))
        counts = np.bincount(seen // max(len(looks), 1), minlength=len(self.best))
        first = np.cumsum(counts) - counts
        owner, number = spread(counts[pairs[:, 0]])
        shown = seen[first[pairs[owner, 0]] + number] % max(len(looks), 1)
        both = np.isin(pairs[owner, 1] * len(looks) + shown, seen)
        apart: Pairs = pairs[np.bincount(owner, both, minlength=len(pairs)) == 0]
        return apart

    @cached_property
    def _shared(self) -> NDArray[np.int64]:
        """Pixels that each pair shares."""
        best = self.best
        return shared_pixels(
            self.pool.boxes[best], lambda kind: self.pool.mask(int(best[kind])), self._pairs
        )

    @cached_property
    def _same(self) -> NDArray[np.bool_]:
        """Which pairs are one cell."""
        smaller = self.pool.areas[self.best[self._pairs]].min(axis=1)
        same: NDArray[np.bool_] = self._shared >= self.rules.overlap * smaller
        if self.rules.overlapping:
            for pair in np.flatnonzero(same).tolist():
                one, other = self._pairs[pair].tolist()
                apart = self._matches.apart(self._nodes[one], self._nodes[other])
                same[pair], self._behind[pair] = not apart[0], apart[1]
        return same

    @cached_property
    def _matches(self) -> Matches:
        return Matches(self.pool, self.grid)

    @cached_property
    def _nodes(self) -> list[list[int]]:
        """The candidates of each kind, as numbers in the pool."""
        nodes: list[list[int]] = [[] for _ in self.best]
        for node, kind in zip(self._whole.tolist(), self._kind.tolist(), strict=True):
            nodes[kind].append(node)
        return nodes

    @property
    def _conflicts(self) -> Pairs:
        return self._pairs[self._same]

    @cached_property
    def _candidates(self) -> NDArray[np.bool_]:
        """Which kinds count, bool (K,): see `Rules.depth`.

        Those that touch their tile's core; of others those that lie deep and met
        something, and the parts of one that touches its core and may be fused.
        """
        inside = self._any(self.pool.in_core[self._whole])
        met = np.bincount(self._kind, minlength=len(inside)) > 1
        met[self._conflicts] = True
        deep = ~inside & (self.pool.distances[self.best] >= self.rules.depth)
        for kind in np.flatnonzero(deep & ~met).tolist():
            met[kind] = self._met_by_a_piece(kind)
        one, other = self._pairs[self._same & ~self._alike].T
        areas = self.pool.areas[self.best]
        part = np.zeros(len(inside), bool)
        part[other[inside[one] & (areas[other] < areas[one])]] = True
        part[one[inside[other] & (areas[one] < areas[other])]] = True
        return inside | (deep & met) | part

    def _met_by_a_piece(self, kind: int) -> bool:
        """Whether a cut candidate of another window is mostly the same."""
        pool, node = self.pool, int(self.best[kind])
        low = np.maximum(pool.boxes[:, :2], pool.boxes[node, :2])
        high = np.minimum(pool.boxes[:, 2:], pool.boxes[node, 2:])
        near = ~pool.whole & (pool.window != pool.window[node]) & (low < high).all(axis=1)
        pieces = np.flatnonzero(near)
        pairs = np.stack([np.full(len(pieces), node), pieces], axis=1)
        shared = shared_pixels(pool.boxes, pool.mask, pairs)
        if self.rules.overlapping:
            least, near = self.rules.overlap, pieces[shared > 0].tolist()
            return any(self._matches.agree(node, piece, least) for piece in near)
        smaller = np.minimum(pool.areas[pieces], pool.areas[node])
        return bool((shared >= self.rules.overlap * smaller).any())

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Kinds that contradict each other, directly or through others, in a fixed order."""
        conflicts = self._conflicts[self._candidates[self._conflicts].all(axis=1)]
        kinds = np.unique(conflicts)
        # In the order of their candidates, which the heaviest set falls back on.
        kinds = kinds[np.argsort(self.best[kinds])]
        return components(kinds.tolist(), [(i, j) for i, j in conflicts.tolist()])

    @cached_property
    def _alike(self) -> NDArray[np.bool_]:
        """Which pairs have much the same outline."""
        either = self.pool.areas[self.best[self._pairs]].sum(axis=1, dtype=np.int64) - self._shared
        alike: NDArray[np.bool_] = self._shared >= ALIKE * either
        return alike

    @cached_property
    def _views(self) -> dict[int, list[int]]:
        """For each kind, the other views of the same outline."""
        views: dict[int, list[int]] = {}
        for i, j in self._pairs[self._same & self._alike].tolist():
            views.setdefault(i, []).append(j)
            views.setdefault(j, []).append(i)
        return views

    @cached_property
    def _chosen(self) -> NDArray[np.bool_]:
        """Which kinds are kept, bool (K,)."""
        chosen = self._candidates.copy()
        near: dict[int, set[int]] = {kind: set() for group in self._groups for kind in group}
        for i, j in self._conflicts.tolist():
            if i in near and j in near:
                near[i].add(j)
                near[j].add(i)
        for group in self._groups:
            chosen[group] = False
            views = self._deepest(group)
            place = {kind: k for k, kind in enumerate(views)}
            edges = [
                (k, place[o]) for k, kind in enumerate(views) for o in near[kind] if o in place
            ]
            weights = [self._weight(kind) for kind in views]
            chosen[[views[k] for k in heaviest(weights, edges)]] = True
        return chosen

    def _deepest(self, group: Sequence[int]) -> list[int]:
        """Return a group without those like a deeper one that stays, in the group's order."""
        stays: set[int] = set()
        for kind in sorted(group, key=lambda k: int(self.pool.depth_rank[self.best[k]])):
            if not stays.intersection(self._views.get(kind, ())):
                stays.add(kind)
        return [kind for kind in group if kind in stays]

    def _weight(self, kind: int) -> tuple[int, int]:
        """Return score times area, then one cell and its distance from the window's edge."""
        node = int(self.best[kind])
        first = int(self.pool.scores[node]) * int(self.pool.areas[node])
        return first, MORE_CELLS + int(self.pool.distances[node])

    @cached_property
    def _rivals(self) -> dict[int, list[int]]:
        """For each kind, the better ones that share pixels with it and are other cells.

        None where cells may overlap: nothing is taken from them.
        """
        if self.rules.overlapping:
            return {}
        touching = (self._shared > 0) & ~self._same
        rank = self.pool.rank[self.best]
        rivals: dict[int, list[int]] = {}
        for i, j in self._pairs[touching].tolist():
            first, second = (i, j) if rank[i] < rank[j] else (j, i)
            rivals.setdefault(second, []).append(first)
        return rivals

    def _without(self, kind: int, over: Sequence[int]) -> Mask:
        """Return the mask of a kind without the pixels of some others."""
        node = int(self.best[kind])
        box, mask = Box(*self.pool.boxes[node].tolist()), self.pool.mask(node).copy()
        for other in map(int, self.best[list(over)]):
            theirs = Box(*self.pool.boxes[other].tolist())
            shared = box.intersect(theirs)
            if shared is not None:
                taken = self.pool.mask(other)[shared.within(theirs).slices]
                mask[shared.within(box).slices] &= ~taken
        return mask

    def _over(self, kind: int) -> list[int]:
        """Return the rivals that take pixels from a kept kind."""
        rivals = self._rivals.get(kind, [])
        self._visited.update(rivals)
        return [other for other in rivals if self._chosen[other] and not self._is_gone(other)]

    def _is_gone(self, kind: int) -> bool:
        """Whether better cells, which are not gone themselves, leave too little of a kept kind."""
        if kind not in self._gone:
            # Most keep enough whatever becomes of their rivals, and these need not be followed.
            gone = self._left_too_little(kind, self._rivals.get(kind, []))
            self._gone[kind] = gone and self._left_too_little(kind, self._over(kind))
        return self._gone[kind]

    def _left_too_little(self, kind: int, over: Sequence[int]) -> bool:
        if not over:
            return False
        left = int(np.count_nonzero(self._without(kind, over)))
        return left < LEFT * int(self.pool.areas[self.best[kind]])

    @cached_property
    def _kept(self) -> NDArray[np.intp]:
        """Kinds that are cells of the block."""
        kept = self._chosen & self.mine[self.best]
        for kind in self._rivals:
            if kept[kind]:
                kept[kind] = not self._is_gone(kind)
        return np.flatnonzero(kept)

    @cached_property
    def _trimmed(self) -> dict[int, Mask]:
        """The masks of the block's cells that lose pixels: the largest piece that is left."""
        trimmed = {}
        ours = set(self._kept.tolist())
        for kind in sorted(ours.intersection(self._rivals)):
            if over := self._over(kind):
                pieces, count = ndimage.label(self._without(kind, over), np.ones((3, 3)))
                sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
                trimmed[kind] = pieces == 1 + sizes.argmax()
        return trimmed

    @property
    def rests_on(self) -> NDArray[np.intp]:
        """Numbers in the pool of the candidates whose surroundings decide the block's cells."""
        focus = self._any(self.mine[self._whole])
        _ = self._trimmed
        focus[list(self._visited)] = True
        for group in self._groups:
            focus[group] = focus[group].any()
        behind = [why for pair, why in self._behind.items() if focus[self._pairs[pair]].any()]
        return np.array(sorted(Nodes(self.best[focus].tolist()).union(*behind)), np.intp)

    def decided(self, tiles: int, block: int) -> Decided:
        """Return the cells of the block.

        Parameters
        ----------
        tiles : int
            Windows from this number on are blocks: their masks lie in no tile.
        block : int
            Number of the block.
        """
        kept, pool = self._kept, self.pool
        nodes = self.best[kept]
        cells = described(pool.column, nodes, pool.window[nodes], pool.index[nodes])
        disputed = np.isin(kept, [k for g in self._groups for k in g] + list(self._trimmed))
        cells.seam[disputed & np.isin(cells.seam, (INTERIOR, CUT_BY_IMAGE))] = RESOLVED
        own = (pool.window[nodes] >= tiles) | np.isin(kept, list(self._trimmed))
        extra = self._extra(kept[own], cells.seam[own])
        cells.tile[own], cells.index[own] = -1 - block, np.arange(len(extra))
        for name in ("boxes", "centres", "areas", "digests"):
            getattr(cells, name)[own] = getattr(extra, name)
        return Decided(cells, extra)

    def _extra(self, kinds: NDArray[np.intp], seams: NDArray[np.uint8]) -> Candidates:
        """Return, measured anew, the cells whose masks lie in no tile."""
        found = []
        for kind in kinds.tolist():
            node = int(self.best[kind])
            y0, x0, _, _ = self.pool.boxes[node].tolist()
            mask = self._trimmed.get(kind, self.pool.mask(node))
            score = float(self.pool.column("scores")[node])
            found.append(((y0, x0), mask, score, int(self.pool.column("classes")[node])))
        instances = Instances.stack(found)
        flags = np.ones(len(instances), bool)
        distances = np.zeros(len(instances), np.int32)
        return Candidates.of(instances, distances, whole=flags, in_core=flags, seams=seams)
