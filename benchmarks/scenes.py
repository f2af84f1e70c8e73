"""True cells, and segmenters that are perfect in their window or fail in one controlled way.

Failures are drawn for each window by itself, so a cell that two tiles see may
fail in one of them only, and nothing depends on the order of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from cellseg.models import Instances
from cellseg.pipeline.tiles import Box

Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]
Object = tuple[tuple[int, int], Mask, float]
"""Corner y0 x0, mask and score."""
Failure = Callable[[list[Object], np.random.Generator], list[Object]]

CELLS, PITCH = 43, 25.5
"""Cells on a side of the monolayer, and px from one to the next: 1,849 on 1,096 x 1,096 px."""
SIDE = round(CELLS * PITCH)
MISSED, FUSED = 0.05, 0.03
GIANT_PX, NINE_TILES_PX = 300, 600


def intact(seen: list[Object], random: np.random.Generator) -> list[Object]:
    """Fail in nothing."""
    del random
    return seen


@dataclass(frozen=True, eq=False)
class Scene:
    """True cells and a segmenter of them.

    Parameters
    ----------
    shape : (H, W)
        Of the plane, px.
    cells : Instances
        The truth; the masks may share pixels.
    failure : callable
        From what a perfect segmenter sees in a window to what this one says.
    large : tuple of int
        Numbers of the cells that the experiment is about, if it is about single ones.
    tolerance : float
        Part of a true cell that a label may miss, or take, without being misshapen.
    """

    shape: tuple[int, int]
    cells: Instances
    failure: Failure = intact
    large: tuple[int, ...] = ()
    tolerance: float = 0.0

    def shifted(self, dy: int, dx: int) -> Scene:
        """Return the scene with an empty band above it and to its left."""
        shape = self.shape[0] + dy, self.shape[1] + dx
        return replace(self, shape=shape, cells=self.cells.shifted(dy, dx))

    def segment(self, window: Box, seed: int = 0) -> Instances:
        """Return what the segmenter says of a window, boxes in px of the plane.

        A cell that the window cuts in pieces is an object a piece: nothing in
        the window says that they belong together. Masks share no pixel.
        """
        sides = (window.y0, window.x0, window.y1, window.x1)
        random = np.random.default_rng((seed, *sides))
        said = self.failure(list(self._seen(window)), random)
        inside = [(*_cut(corner, mask, window), score, 1) for corner, mask, score in said]
        return Instances.stack(inside).disjoint()

    def _seen(self, window: Box) -> list[Object]:
        low, high = self.cells.boxes[:, :2], self.cells.boxes[:, 2:]
        hits = (low < (window.y1, window.x1)) & (high > (window.y0, window.x0))
        seen: list[Object] = []
        for cell in np.flatnonzero(hits.all(1)).tolist():
            corner = int(low[cell, 0]), int(low[cell, 1])
            mask = self.cells.masks[cell]
            at, part = _cut(corner, mask, window)
            score = float(self.cells.scores[cell])
            pieces = [part] if part.shape == mask.shape else _pieces(part)
            seen += [(at, piece, score) for piece in pieces]
        return seen


def _cut(corner: tuple[int, int], mask: Mask, window: Box) -> tuple[tuple[int, int], Mask]:
    """Return the part of a mask in a window, and its corner."""
    y, x = corner
    top, left = max(window.y0 - y, 0), max(window.x0 - x, 0)
    return (y + top, x + left), mask[top : max(window.y1 - y, 0), left : max(window.x1 - x, 0)]


def _pieces(mask: Mask) -> list[Mask]:
    numbered, count = ndimage.label(mask, np.ones((3, 3)))
    return [numbered == number for number in range(1, count + 1)]


def miss(seen: list[Object], random: np.random.Generator) -> list[Object]:
    """Leave out 5 % of the objects."""
    return [one for one, kept in zip(seen, random.random(len(seen)) >= MISSED, strict=True) if kept]


def fuse(seen: list[Object], random: np.random.Generator) -> list[Object]:
    """Make 3 % of the objects one with a neighbour that touches them."""
    objects = dict(enumerate(seen))
    for number in np.flatnonzero(random.random(len(seen)) < FUSED).tolist():
        near = [o for o in objects if o != number] if number in objects else []
        touching = [o for o in near if _touch(objects[number], objects[o])]
        if touching:
            other = int(random.choice(touching))
            objects[number] = _union(objects[number], objects.pop(other))
    return list(objects.values())


def _touch(one: Object, other: Object) -> bool:
    """Whether a pixel of one lies beside one of the other."""
    for axis in (0, 1):
        (low, first), (high, _) = sorted((o[0][axis], o[1].shape[axis]) for o in (one, other))
        if low + first < high:
            return False
    return bool(ndimage.label(_union(one, other)[1])[1] == 1)


def _union(one: Object, other: Object) -> Object:
    corners = np.array([one[0], other[0]])
    start = corners.min(0)
    shape = np.add(corners, [one[1].shape, other[1].shape]).max(0) - start
    mask = np.zeros(shape, bool)
    for corner, part, _ in (one, other):
        y, x = corner - start
        mask[y : y + part.shape[0], x : x + part.shape[1]] |= part
    return (int(start[0]), int(start[1])), mask, one[2]


def jitter(seen: list[Object], random: np.random.Generator) -> list[Object]:
    """Move each object by up to a pixel along each axis."""
    moves = random.integers(-1, 2, (len(seen), 2)).tolist()
    return [
        ((corner[0] + dy, corner[1] + dx), mask, score)
        for (corner, mask, score), (dy, dx) in zip(seen, moves, strict=True)
    ]


@cache
def monolayer() -> Labels:
    """Return cells of some 24 px that touch their neighbours: discs that meet at straight lines."""
    random = np.random.default_rng(0)
    lattice = (np.indices((CELLS, CELLS)).reshape(2, -1).T + 0.5) * PITCH
    seeds = KDTree(lattice + random.uniform(-0.18, 0.18, lattice.shape) * PITCH)
    pixels = np.indices((SIDE, SIDE)).reshape(2, -1).T + 0.5
    distance, nearest = seeds.query(pixels, distance_upper_bound=0.56 * PITCH)
    labels = np.where(np.isfinite(distance), nearest + 1, 0)
    return np.asarray(labels.reshape(SIDE, SIDE), np.int32)


def truth_of(labels: Labels) -> Instances:
    """Return the labels as cells in one piece each, the largest."""
    cells = Instances.from_labels(labels)
    found = []
    for box, mask in zip(cells.boxes.tolist(), cells.masks, strict=True):
        best = max(_pieces(mask), key=np.count_nonzero)
        found.append(((box[0], box[1]), best, 1.0, 1))
    return Instances.stack(found)


def exact() -> Scene:
    """Make no mistake."""
    return Scene((SIDE, SIDE), truth_of(monolayer()))


def missed() -> Scene:
    """Miss 5 % of the cells in each window."""
    return replace(exact(), failure=miss)


def fused() -> Scene:
    """Fuse 3 % of the cells of each window with one that touches them."""
    return replace(exact(), failure=fuse)


def jittered() -> Scene:
    """Shift each cell of each window by up to a pixel."""
    return replace(exact(), failure=jitter, tolerance=0.25)


def _with_one(mask: Mask) -> Scene:
    """Put one large cell into the monolayer; of cells under it only those mostly outside stay."""
    labels = monolayer().copy()
    before = np.bincount(labels.ravel())
    labels[mask] = len(before)
    after = np.bincount(labels.ravel())[:-1]
    labels[np.append(after < 0.5 * before, False)[labels]] = 0
    cells = truth_of(labels)
    return Scene(labels.shape, cells, large=(len(cells) - 1,))


def giant() -> Scene:
    """One round cell of 300 px among those of 24 px."""
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    return _with_one(np.hypot(y, x) <= GIANT_PX / 2)


def nine_tiles() -> Scene:
    """One five-armed cell of 600 px, across nine tiles of 256 px or more."""
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    reach = NINE_TILES_PX / 2 * (0.7 + 0.3 * np.cos(5 * np.arctan2(y, x)))
    return _with_one(np.hypot(y, x) <= reach)


def fibres() -> Scene:
    """Wavy fibres, 6 px thick and 350 px long, side by side, a tenth of them missing."""
    random = np.random.default_rng(0)
    y, x = np.indices((SIDE, SIDE))
    level = (y + 25 * np.sin(x / 90) + 30).astype(np.int64)
    row = level // 6
    start = random.integers(0, 350, row.max() + 1)
    part = (x + start[row]) // 350
    labels = 1 + row * (part.max() + 1) + part
    labels[random.random(labels.max() + 1)[labels] < 0.1] = 0
    return Scene(labels.shape, truth_of(labels.astype(np.int32)))


def rings() -> Scene:
    """Rings of 80 px with four cells in each, and one of 320 px around many of them."""
    y, x = np.indices((SIDE, SIDE))
    row, column = y // 90, x // 90
    number = 5 * (row * (column.max() + 1) + column)
    y0, x0 = y % 90 - 45, x % 90 - 45
    distance = np.hypot(y0, x0)
    labels = np.where((distance <= 40) & (distance > 27), 1 + number, 0)
    quarter = 2 * (y0 > 0) + (x0 > 0)
    labels = np.where(np.hypot(abs(y0) - 10, abs(x0) - 10) <= 9, 2 + number + quarter, labels)
    distance = np.hypot(y - SIDE // 2, x - SIDE // 2)
    labels[(distance <= 160) & (distance > 135)] = labels.max() + 1
    cells = truth_of(labels.astype(np.int32))
    return Scene(labels.shape, cells, large=(len(cells) - 1,))


def overlapping() -> Scene:
    """Round cells of 28 px every 22 px, each of its own score: neighbours share a tenth."""
    random = np.random.default_rng(0)
    y, x = np.indices((29, 29)) - 14
    disc = np.hypot(y, x) <= 14
    corners = np.indices((48, 48)).reshape(2, -1).T * 22 + random.integers(0, 8, (48 * 48, 2))
    scores = 0.5 + random.permutation(len(corners)) / (2 * len(corners))
    cells = [
        ((int(y), int(x)), disc, float(s), 1) for (y, x), s in zip(corners, scores, strict=True)
    ]
    return Scene((SIDE, SIDE), Instances.stack(cells))


EXPERIMENTS: Mapping[str, Callable[[], Scene]] = {
    "exact": exact,
    "5 % missed": missed,
    "3 % fused": fused,
    "jittered by 1 px": jittered,
    "one giant": giant,
    "across nine tiles": nine_tiles,
    "fibres": fibres,
    "rings": rings,
    "overlapping": overlapping,
}


@cache
def scene(name: str) -> Scene:
    """Return the scene of an experiment, made once."""
    return EXPERIMENTS[name]()
