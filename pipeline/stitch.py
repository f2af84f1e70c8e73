"""Which candidates of overlapping tiles are one cell, and which one is kept, whole.

The contract (design, section 4), step by step as `stitch` takes it: candidates
are gathered from every tile; pieces cut by a tile's window are dropped where
another tile saw the cell whole; what no tile saw whole is predicted again in a
larger window, or joined from its pieces; where tiles disagree, the heaviest set
of candidates that do not contradict each other wins. No step depends on the
order of tiles, and only candidates that another tile could have seen are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline.candidate import (
    CUT_BY_IMAGE,
    INTERIOR,
    RESOLVED,
    SEAMS,
    Candidate,
    around,
    corners,
    join,
    meeting,
    meeting_across,
)
from cellseg.pipeline.choose import components, heaviest
from cellseg.pipeline.tiles import Box, Grid

__all__ = ["EXTRA", "SEAMS", "Rules", "Stitched", "stitch"]

EXTRA = -1
"""In place of a tile's position: the mask is in `Stitched.extra`."""
LEFT = 0.5
"""A cell of which better ones from other tiles leave less than this part is a false one."""


@dataclass(frozen=True)
class Rules:
    """How candidates are judged; see `[tiling]` and `[stitch]` of the workflow.

    Parameters
    ----------
    margin : int
        Px that a whole candidate keeps from the edges of its window.
    overlap : float
        Shared area over the smaller one from which two candidates are one cell.
    window_px : int
        Longest side of a window in which a large cell is predicted again.
    """

    margin: int
    overlap: float
    window_px: int


@dataclass(frozen=True, eq=False)
class Stitched:
    """The cells of one plane, ordered by position; no pixels but those of a few changed masks.

    Parameters
    ----------
    tile, index : int32 (N,)
        Where the mask lies: position of the tile and index among its
        candidates, or `EXTRA` and the index in `extra`.
    boxes : int32 (N, 4), centres : float64 (N, 2)
        Of the final masks, in px of the plane.
    scores : float32 (N,), classes : uint8 (N,)
    seam : uint8 (N,)
        Codes into `SEAMS`.
    extra : Instances
        Masks that no tile holds: predicted again, joined, or trimmed.
    """

    tile: NDArray[np.int32]
    index: NDArray[np.int32]
    boxes: NDArray[np.int32]
    centres: NDArray[np.float64]
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    seam: NDArray[np.uint8]
    extra: Instances

    def __len__(self) -> int:
        return len(self.tile)


@dataclass(frozen=True, eq=False)
class Cell:
    """A chosen candidate, without its pixels unless no tile file holds them.

    The order has ties only between equal masks in one place.
    """

    key: tuple[int, int]
    box: tuple[int, int, int, int]
    order: tuple[float, float, int, int, int, int, bytes]
    score: float
    class_: int
    seam: int
    found: tuple[tuple[int, int], NDArray[np.bool_], float, int] | None

    @classmethod
    def of(cls, candidate: Candidate, plane: Box) -> Cell:
        """Describe a chosen candidate of `plane`."""
        mask = candidate.mask
        rows, columns = mask.nonzero()
        y, x = candidate.box.y0, candidate.box.x0
        box = Box(
            y + int(rows.min()),
            x + int(columns.min()),
            y + int(rows.max()) + 1,
            x + int(columns.max()) + 1,
        )
        # Sums of whole numbers from the plane's corner: the same bits from every tile.
        count = len(rows)
        centre = (int(rows.sum()) + y * count) / count, (int(columns.sum()) + x * count) / count
        sides = (box.y0, box.x0, box.y1, box.x1)
        tight = candidate.part(box)
        digest = blake2b(tight.tobytes(), digest_size=8).digest()
        at_edge = candidate.seam == INTERIOR and box.touches_edge(plane)
        return cls(
            key=candidate.key,
            box=sides,
            order=(*centre, *sides, digest),
            score=candidate.score,
            class_=candidate.class_,
            seam=CUT_BY_IMAGE if at_edge else candidate.seam,
            found=((box.y0, box.x0), tight, candidate.score, candidate.class_)
            if candidate.changed
            else None,
        )


class Plane:
    """One plane being stitched; `stitch` says in which order.

    Parameters
    ----------
    grid : Grid
    rules : Rules
    load : callable
        Candidates of the tile at a position, boxes in px of the plane; masks
        of one tile share no pixel.
    predict : callable
        The segmenter's candidates in a window of the plane, boxes in px of the plane.
    """

    def __init__(
        self,
        grid: Grid,
        rules: Rules,
        load: Callable[[int], Instances],
        predict: Callable[[Box], Instances],
    ) -> None:
        self.grid = grid
        self.rules = rules
        self.load = load
        self.predict = predict
        self.windows = len(grid)
        self.cells: dict[tuple[int, int], Cell] = {}

    def keep(self, candidate: Candidate) -> None:
        """Make a candidate a cell."""
        self.cells[candidate.key] = Cell.of(candidate, self.grid.plane)

    def _candidate(self, tile: int, index: int, found: Instances, window: Box) -> Candidate:
        box = Box(*found.boxes[index].tolist())
        distance = box.distance_inside(window, self.grid.plane)
        return Candidate(
            tile=tile,
            index=index,
            box=box,
            mask=found.masks[index],
            score=float(found.scores[index]),
            class_=int(found.classes[index]),
            window=window,
            distance=distance,
            whole=distance >= self.rules.margin,
        )

    def _of_tile(self, position: int) -> Iterator[Candidate]:
        """Yield the candidates of a tile of the grid."""
        found = self.load(position)
        window, core = self.grid.read(position), self.grid.core(position)
        for index in range(len(found)):
            candidate = self._candidate(position, index, found, window)
            candidate.in_core = candidate.area_in(core) > 0
            yield candidate

    def split(self) -> list[list[Candidate]]:
        """Keep what only one tile could see; return the others, a list for each tile."""
        contested: list[list[Candidate]] = []
        for position in range(len(self.grid)):
            contested.append([])
            for candidate in self._of_tile(position):
                if candidate.whole and len(self.grid.reading(candidate.box)) == 1:
                    self.keep(candidate)
                else:
                    contested[-1].append(candidate)
        return contested

    def _meetings(
        self, contested: Sequence[Sequence[Candidate]]
    ) -> Iterator[tuple[Candidate, Candidate]]:
        """Yield the pairs of candidates of different tiles whose boxes share a pixel."""
        boxes = [corners([c.box for c in mine]) for mine in contested]
        for position, mine in enumerate(contested):
            for neighbour in self.grid.reading(self.grid.read(position)):
                if neighbour > position:
                    for i, j in meeting(boxes[position], boxes[neighbour]):
                        yield mine[i], contested[neighbour][j]

    def compare(
        self, contested: Sequence[Sequence[Candidate]]
    ) -> tuple[list[Candidate], list[list[Candidate]]]:
        """Find out which candidates other tiles saw too.

        Returns
        -------
        whole : list of Candidate
            Whole candidates that touch their core or that another tile met.
        unexplained : list of lists of Candidate
            Cut pieces that no whole candidate of another tile explains, in
            groups that belong together, each with a piece in its tile's core.
        """
        everyone = {c.key: c for mine in contested for c in mine}
        covered: dict[tuple[int, int], NDArray[np.bool_]] = {}
        links = []
        for one, other in self._meetings(contested):
            if one.whole and other.whole:
                if one.same_cell(other, self.rules.overlap):
                    one.met = other.met = True
                continue
            same = one.same_where_both_saw(other, self.rules.overlap)
            if not one.whole and not other.whole:
                links += [(one.key, other.key)] * same
                continue
            whole, piece = (one, other) if one.whole else (other, one)
            whole.met |= same
            _cover(piece, whole, covered)
        left = {key for key, c in everyone.items() if not self._explained(c, covered)}
        groups = components(
            [key for key in everyone if key in left],
            [(a, b) for a, b in links if a in left and b in left],
        )
        pieces = [[everyone[key] for key in group] for group in groups]
        return (
            [c for c in everyone.values() if c.whole and (c.in_core or c.met)],
            [group for group in pieces if any(piece.in_core for piece in group)],
        )

    def _explained(
        self, candidate: Candidate, covered: dict[tuple[int, int], NDArray[np.bool_]]
    ) -> bool:
        """Whether a candidate is whole, or wholes of other tiles cover enough of it."""
        by = covered.get(candidate.key)
        if candidate.whole or by is None:
            return candidate.whole
        return bool(np.count_nonzero(by) >= self.rules.overlap * candidate.area)

    def complete(self, pieces: Sequence[Candidate]) -> list[Candidate]:
        """Return the cells of which no tile saw more than these pieces.

        They are predicted again in a window that holds them whole; beyond
        `Rules.window_px`, or where the segmenter then finds nothing, joined.
        """
        seen = join(pieces, self._next_window())
        box = seen.box
        while True:
            window = box.grow(self.grid.halo, self.grid.plane)
            if max(window.shape) > self.rules.window_px:
                return [seen]
            again = self._predicted(window, seen)
            cut = [c.box for c in again if not c.whole]
            if not cut:
                break
            box = around([seen.box, *cut]).grow(max(window.shape) // 2, self.grid.plane)
        found_again = sum(c.shared(seen) for c in again) >= self.rules.overlap * seen.area
        return again if found_again else [*again, seen]

    def _next_window(self) -> int:
        self.windows += 1
        return self.windows - 1

    def _predicted(self, window: Box, seen: Candidate) -> list[Candidate]:
        """Return what the segmenter finds in `window` in the place of `seen`."""
        found = self.predict(window)
        tile = self._next_window()
        made = [self._candidate(tile, index, found, window) for index in range(len(found))]
        same = [c for c in made if c.same_cell(seen, self.rules.overlap)]
        for candidate in same:
            candidate.seam, candidate.changed = RESOLVED, True
        return same

    def recall(self, completed: Sequence[Candidate]) -> list[Candidate]:
        """Take back the cells kept early that completed ones now meet."""
        back = {}
        for box in corners([c.box for c in completed]):
            for position in self.grid.reading(Box(*box.tolist())):
                met = {j for _, j in meeting(box[None], self.load(position).boxes)}
                if any((position, index) in self.cells for index in met):
                    mine = self._of_tile(position)
                    back.update({c.key: c for c in mine if c.index in met and c.key in self.cells})
        for key in back:
            del self.cells[key]
        return [back[key] for key in sorted(back)]

    def choose(self, pool: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates kept of `pool`: the heaviest of each group of conflicts."""
        pool = sorted(pool, key=lambda c: c.key)
        overlap = self.rules.overlap
        conflicts = [(i, j) for i, j in meeting_across(pool) if pool[i].same_cell(pool[j], overlap)]
        groups = components(range(len(pool)), conflicts)
        place = {node: (g, k) for g, group in enumerate(groups) for k, node in enumerate(group)}
        edges: list[list[tuple[int, int]]] = [[] for _ in groups]
        for i, j in conflicts:
            edges[place[i][0]].append((place[i][1], place[j][1]))
        chosen = []
        for group, mine in zip(groups, edges, strict=True):
            for k in heaviest([pool[node].weight for node in group], mine):
                winner = pool[group[k]]
                if len(group) > 1 or winner.met:
                    winner.seam = max(winner.seam, RESOLVED)
                chosen.append(winner)
        return chosen

    @staticmethod
    def trim(chosen: Sequence[Candidate]) -> list[Candidate]:
        """Give pixels that cells of different tiles share to the better one."""
        chosen = sorted(chosen, key=lambda c: c.rank)
        gone: set[int] = set()
        for i, j in meeting_across(chosen):
            if i not in gone and j not in gone:
                chosen[j].give(chosen[i])
                if np.count_nonzero(chosen[j].mask) < LEFT * chosen[j].area:
                    gone.add(j)
        return [c for i, c in enumerate(chosen) if i not in gone]

    def finish(self) -> Stitched:
        """Return the cells in the order of their position."""
        cells = sorted(self.cells.values(), key=lambda cell: cell.order)
        extra = Instances.stack([cell.found for cell in cells if cell.found is not None])
        tile = np.array([EXTRA if c.found else c.key[0] for c in cells], np.int32)
        index = np.array([c.key[1] for c in cells], np.int32)
        index[tile == EXTRA] = np.arange(len(extra))
        return Stitched(
            tile=tile,
            index=index,
            boxes=np.array([c.box for c in cells], np.int32).reshape(-1, 4),
            centres=np.array([c.order[:2] for c in cells], np.float64).reshape(-1, 2),
            scores=np.array([c.score for c in cells], np.float32),
            classes=np.array([c.class_ for c in cells], np.uint8),
            seam=np.array([c.seam for c in cells], np.uint8),
            extra=extra,
        )


def _cover(
    piece: Candidate, whole: Candidate, covered: dict[tuple[int, int], NDArray[np.bool_]]
) -> None:
    """Note which pixels of a cut piece a whole candidate of another tile covers."""
    box = piece.box.intersect(whole.box)
    if box is not None:
        by = covered.setdefault(piece.key, np.zeros_like(piece.mask))
        by[box.within(piece.box).slices] |= piece.part(box) & whole.part(box)


def stitch(
    grid: Grid,
    rules: Rules,
    load: Callable[[int], Instances],
    predict: Callable[[Box], Instances],
) -> Stitched:
    """Decide the cells of one plane.

    Parameters
    ----------
    grid, rules, load, predict
        See `Plane`.

    Returns
    -------
    Stitched
        The cells, by position; their masks share no pixel.
    """
    plane = Plane(grid, rules, load, predict)
    whole, unexplained = plane.compare(plane.split())
    completed = [cell for pieces in unexplained for cell in plane.complete(pieces)]
    pool = [*whole, *completed, *plane.recall(completed)]
    for candidate in plane.trim(plane.choose(pool)):
        plane.keep(candidate)
    return plane.finish()
