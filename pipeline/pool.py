"""A pool of candidates from many windows: those around a region, and further ones as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.candidate import Candidates, Mask
from cellseg.pipeline.tiles import Box

LOOKS = 2**32
"""More than one set of candidates has windows."""


class Pool:
    """Candidates gathered so far, numbered in the order of window and index.

    Parameters
    ----------
    windows : callable
        Numbers of the windows that may show something in a box.
    load : callable
        Candidates of the window of a number.
    wanted : callable
        Which candidates of a window matter, bool (N,).
    """

    def __init__(
        self,
        windows: Callable[[Box], Iterable[int]],
        load: Callable[[int], Candidates],
        wanted: Callable[[int], NDArray[np.bool_]],
    ) -> None:
        self._windows, self._load, self._wanted = windows, load, wanted
        self._sets: dict[int, Candidates] = {}
        self._taken: dict[int, NDArray[np.bool_]] = {}
        self._gathered: list[Box] = []
        self._columns: dict[str, NDArray[Any]] = {}

    def gather(self, box: Box) -> Pool:
        """Return the pool with all candidates whose boxes share a pixel with `box`."""
        grown = Pool(self._windows, self._load, self._wanted)
        grown._sets, grown._taken = dict(self._sets), dict(self._taken)
        grown._gathered = [*self._gathered, box]
        for window in self._windows(box):
            if window not in grown._sets:
                grown._sets[window] = self._load(window)
            meets = overlapping(grown._sets[window].boxes, box) & self._wanted(window)
            known = grown._taken.get(window)
            grown._taken[window] = meets if known is None else known | meets
        return grown

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        chosen = [(w, np.flatnonzero(self._taken[w])) for w in sorted(self._taken)]
        windows = [np.full(len(indices), window, np.int64) for window, indices in chosen]
        nothing = np.zeros(0, np.int64)
        return (
            np.concatenate([nothing, *windows]),
            np.concatenate([nothing, *(indices for _, indices in chosen)]),
        )

    def __len__(self) -> int:
        return len(self.window)

    @property
    def window(self) -> NDArray[np.int64]:
        """Number of each candidate's window, int64 (N,)."""
        return self._places[0]

    @property
    def index(self) -> NDArray[np.int64]:
        """Number of each candidate in its window, int64 (N,)."""
        return self._places[1]

    def column(self, name: str) -> NDArray[Any]:
        """Return a field of `Candidates` for every candidate here."""
        if name not in self._columns:
            sets = [(self._sets[window], self._taken[window]) for window in sorted(self._taken)]
            parts = [getattr(found, name)[taken] for found, taken in sets]
            self._columns[name] = np.concatenate([getattr(Candidates.none(), name), *parts])
        return self._columns[name]

    @property
    def boxes(self) -> NDArray[np.int32]:
        """Int32 (N, 4)."""
        return self.column("boxes")

    @property
    def areas(self) -> NDArray[np.int32]:
        """Int32 (N,)."""
        return self.column("areas")

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Bool (N,)."""
        return self.column("whole")

    @property
    def in_core(self) -> NDArray[np.bool_]:
        """Bool (N,)."""
        return self.column("in_core")

    @property
    def digests(self) -> NDArray[np.uint64]:
        """Uint64 (N,)."""
        return self.column("digests")

    @property
    def seams(self) -> NDArray[np.uint8]:
        """Uint8 (N,)."""
        return self.column("seams")

    @property
    def distances(self) -> NDArray[np.int32]:
        """Int32 (N,)."""
        return self.column("distances")

    @cached_property
    def scores(self) -> NDArray[np.int64]:
        """In whole millionths or so: sums in any order agree; int64 (N,)."""
        scores = self.column("scores").astype(np.float64)
        return np.rint(scores * 2**20).astype(np.int64)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """Place of each candidate by score, then distance, the best 0, int64 (N,)."""
        return _places(self.index, self.window, -self.distances, -self.scores)

    @cached_property
    def depth_rank(self) -> NDArray[np.int64]:
        """Place of each candidate by distance, then score, the deepest 0, int64 (N,)."""
        return _places(self.index, self.window, -self.scores, -self.distances)

    @cached_property
    def seen_by(self) -> NDArray[np.int64]:
        """Which look of a segmenter found it: windows of the grid have one each, int64 (N,)."""
        seen_by: NDArray[np.int64] = self.window * LOOKS + self.column("looks")
        return seen_by

    def mask(self, node: int) -> Mask:
        """Return the mask of a candidate, bool of its box's shape."""
        found = self._masks.get(node)
        if found is None:
            window, index = int(self.window[node]), int(self.index[node])
            found = self._masks[node] = self._sets[window].mask(index)
        return found

    @cached_property
    def _masks(self) -> dict[int, Mask]:
        return {}

    def surrounded(self) -> NDArray[np.bool_]:
        """Return whether all that shares a pixel with a candidate's box is here, bool (N,)."""
        inside = np.zeros(len(self), bool)
        for box in self._gathered:
            low = (self.boxes[:, :2] >= (box.y0, box.x0)).all(axis=1)
            inside |= low & (self.boxes[:, 2:] <= (box.y1, box.x1)).all(axis=1)
        return inside


def _places(*keys: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the place of each item in the order of some keys, the last one first."""
    order = np.lexsort(keys)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def overlapping(boxes: NDArray[np.int32], box: Box) -> NDArray[np.bool_]:
    """Return which boxes (N, 4) share a pixel with `box`."""
    low = (boxes[:, :2] < (box.y1, box.x1)).all(axis=1)
    high = (boxes[:, 2:] > (box.y0, box.x0)).all(axis=1)
    return np.asarray(low & high)


Judged = TypeVar("Judged")


def settled(
    pool: Pool,
    judge: Callable[[Pool], Judged],
    needed: Callable[[Judged], NDArray[np.intp]],
) -> Judged:
    """Return what `judge` makes of a pool that is large enough.

    Parameters
    ----------
    pool : Pool
    judge : callable
        From a pool to a verdict.
    needed : callable
        From a verdict to the numbers of the candidates that it rests on: all that
        shares a pixel with their boxes must be in the pool, or the pool is
        grown and judged again.
    """
    while True:
        judged = judge(pool)
        nodes = needed(judged)
        missing = nodes[~pool.surrounded()[nodes]]
        if not len(missing):
            return judged
        for sides in np.unique(pool.boxes[missing], axis=0).tolist():
            pool = pool.gather(Box(*sides))
