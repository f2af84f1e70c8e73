"""Matches: which candidate of one look is which of another, where cells may overlap.

How much two candidates share says little where one cell may lie on another. That a
look shows the two side by side does: each candidate is matched with the one of
another look that is most like it, and two that a look matches with different ones
are two cells, however much they share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cellseg.models.meeting import meeting
from cellseg.pipeline.complete import Found
from cellseg.pipeline.pool import LOOKS, Pool
from cellseg.pipeline.tiles import Box, Grid

BESIDE = 0.25
"""Part of what two candidates share that the match of one must leave free for the other to
be more than its match: one candidate fused of two matches one of them, and holds the other."""

Nodes = frozenset[int]
"""Candidates of a pool that an answer rests on, as their numbers."""
Answer = tuple[bool, Nodes]
"""With the candidates that it rests on: what shares a pixel with their boxes must be known."""
Key = tuple[float, int, int]
View = tuple[int | None, int]
"""What one look shows of a candidate, None for nothing, and that candidate."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The candidates of any two looks of a pool, matched one to one, the most alike first.

    Matches are found one at a time, each with the candidates it rests on: what shares a
    pixel with the boxes of these must be in the pool.

    Parameters
    ----------
    pool : Pool
    grid : Grid
    """

    pool: Pool
    grid: Grid
    _found: dict[int, Found] = field(default_factory=dict, init=False)
    _keys: dict[tuple[int, int], Key] = field(default_factory=dict, init=False)
    _pairs: dict[tuple[int, int], tuple[int, tuple[int, int]]] = field(
        default_factory=dict, init=False
    )
    _answers: dict[tuple[int, int], Answer] = field(default_factory=dict, init=False)

    def apart(self, ones: Sequence[int], others: Sequence[int]) -> Answer:
        """Return whether a look shows two whole objects that meet as two cells.

        Parameters
        ----------
        ones, others : sequence of int
            The candidates that are the one object and the other, as numbers in the pool.

        Returns
        -------
        bool, frozenset of int
            The answer, and the candidates that it rests on.
        """
        rests_on = Nodes()
        for i, j in product(ones, others):
            for look in self._telling(i, j):
                apart, why = self._shows(look, i, j)
                rests_on |= why
                if apart:
                    return True, rests_on
        return False, rests_on

    def _shows(self, look: int, i: int, j: int) -> Answer:
        """Return whether a look shows two candidates as two cells."""
        (one, ones), (other, others) = self._view(i, look), self._view(j, look)
        views = ((one, i), (other, j)), ((other, j), (one, i))
        told = [(view, beside) for view, beside in views if view[0] not in (None, view[1])]
        apart = one != other and bool(told) and all(self._stands(look, *pair) for pair in told)
        return apart, Nodes((i, j)) | ones | others

    def agree(self, i: int, j: int, least: float) -> bool:
        """Return whether two candidates share this part of either, where both are known."""
        shared, areas = self._measured(i, j)
        return shared > 0 and shared >= least * max(areas)

    def matched(self, i: int, j: int) -> Answer:
        """Return whether two candidates of two looks are matched: no better pair has either.

        Parameters
        ----------
        i, j : int
            Numbers in the pool, of candidates that share a pixel.

        Returns
        -------
        bool, frozenset of int
            The answer, and the candidates that it rests on.
        """
        pair = (min(i, j), max(i, j))
        if pair not in self._answers:
            self._answers[pair] = self._is_matched(*pair)
        return self._answers[pair]

    def _is_matched(self, i: int, j: int) -> Answer:
        rests_on = Nodes((i, j))
        looks = self.pool.seen_by[[i, j]].tolist()
        pairs = [(i, other) for other in self._partners(i, looks[1])]
        pairs += [(other, j) for other in self._partners(j, looks[0])]
        key = self._key(i, j)
        for one, other in sorted(pairs, key=lambda pair: self._key(*pair)):
            if self._key(one, other) >= key:
                break
            taken, why = self.matched(one, other)
            if taken:
                return False, Nodes((i, j)) | why
            rests_on |= why
        return True, rests_on

    def _view(self, node: int, look: int) -> tuple[int | None, Nodes]:
        """Return the candidate of a look that a candidate is matched with, or itself."""
        rests_on = Nodes((node,))
        if self.pool.seen_by[node] == look:
            return node, rests_on
        for other in sorted(self._partners(node, look), key=lambda o: self._key(node, o)):
            taken, why = self.matched(node, other)
            rests_on |= why
            if taken:
                return other, rests_on
        return None, rests_on

    def _stands(self, look: int, view: View, beside: View) -> bool:
        """Whether the match of a candidate covers what that shares with another one.

        With it the other pieces, where the window cut the candidate into several.
        """
        (match, node), (theirs, other) = view, beside
        if match is None:
            return False
        both, window = self._shared(node, other), self._window(look)
        shared = both.area_in(window)
        needed = (1 - BESIDE) * shared
        if shared == 0 or both.shared(self._of(match)) >= needed:
            return shared > 0
        pieces = [piece for piece in self._beside(match, node, look) if piece != theirs]
        return self._covered(both, [match, *pieces]) >= needed

    def _beside(self, match: int, node: int, look: int) -> list[int]:
        """Return the cut candidates of a look in a candidate that share nothing with its match."""
        whole, areas, least = self.pool.whole, self.pool.areas, 1 - BESIDE
        if whole[match]:
            return []
        return [
            piece
            for piece in self._partners(node, look)
            if not whole[piece]
            and self._measured(piece, match)[0] == 0
            and self._measured(piece, node)[0] >= least * int(areas[piece])
        ]

    def _covered(self, both: Found, by: Sequence[int]) -> int:
        """Return how many pixels of an object some candidates cover together."""
        left = both.mask.copy()
        for found in map(self._of, by):
            box = both.box.intersect(found.box)
            if box is not None:
                left[box.within(both.box).slices] &= ~found.part(box)
        return both.area - int(np.count_nonzero(left))

    def _shared(self, i: int, j: int) -> Found:
        """Return what two candidates share as an object."""
        one, other = self._of(i), self._of(j)
        box = one.box.intersect(other.box)
        if box is None:
            return Found(Box(0, 0, 0, 0), np.zeros((0, 0), bool), 0, 0)
        return Found(box, one.part(box) & other.part(box), 0, 0)

    def _telling(self, i: int, j: int) -> Iterator[int]:
        """Yield the looks that may show two candidates side by side.

        Those of tiles that found them. Where none did, the tile that shows most of what
        they share and of what they do not.
        """
        looks = self.pool.seen_by[[i, j]].tolist()
        tiles = [look for look in looks if look // LOOKS < len(self.grid)]
        yield from tiles
        if not tiles:
            both = self._shared(i, j)
            windows = self.grid.reading(both.box) if both.area else []
            if windows:
                yield LOOKS * max(windows, key=lambda w: (self._told(i, j, both, w), -w))

    def _told(self, i: int, j: int, both: Found, position: int) -> int:
        window = self.grid.read(position)
        shared = both.area_in(window)
        areas = self._of(i).area_in(window) + self._of(j).area_in(window)
        return min(shared, areas - 2 * shared)

    def _window(self, look: int) -> Box:
        """Return what a look shows; the whole plane where that is not known."""
        position = look // LOOKS
        return self.grid.read(position) if position < len(self.grid) else self.grid.plane

    def _key(self, i: int, j: int) -> Key:
        """Return what pairs are sorted by: IoU where both are known, the highest first."""
        pair = (i, j) if i < j else (j, i)
        if pair not in self._keys:
            shared, areas = self._measured(*pair)
            self._keys[pair] = (-shared / max(sum(areas) - shared, 1), *pair)
        return self._keys[pair]

    def _measured(self, i: int, j: int) -> tuple[int, tuple[int, int]]:
        """Return what two candidates share, and the pixels of each where both are known."""
        pair = (i, j) if i < j else (j, i)
        if pair not in self._pairs:
            one, other = (self._of(node) for node in pair)
            shared = one.shared(other)
            known = self._known(pair[0]).intersect(self._known(pair[1])) if shared else None
            areas = (one.area_in(known), other.area_in(known)) if known else (0, 0)
            self._pairs[pair] = shared, areas
        return self._pairs[pair]

    def _known(self, node: int) -> Box:
        """Return where it is known of every pixel whether a candidate holds it."""
        return self._of(node).window or self.grid.plane

    def _partners(self, node: int, look: int) -> list[int]:
        """Return the candidates of a look that share a pixel with one of another."""
        others, starts = self._meeting
        near = others[starts[node] : starts[node + 1]]
        found: list[int] = near[self.pool.seen_by[near] == look].tolist()
        return [other for other in found if self._key(node, other)[0] < 0]

    @cached_property
    def _meeting(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """For each candidate, those whose boxes meet its own, and where the next one's begin."""
        pairs = meeting(self.pool.boxes)
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        return pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(len(self.pool) + 1))

    def _of(self, node: int) -> Found:
        found = self._found.get(node)
        if found is None:
            box = Box(*self.pool.boxes[node].tolist())
            cut = not self.pool.whole[node]
            window = self._window(int(self.pool.seen_by[node])) if cut else None
            found = self._found[node] = Found(box, self.pool.mask(node), 0, 0, window=window)
        return found
