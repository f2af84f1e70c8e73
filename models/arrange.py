"""Where cells lie that overlap: each beside a neighbour that shares a chosen part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellseg.models.compose_settings import ComposeSettings

Mask = NDArray[np.bool_]
Random = np.random.Generator

HALVINGS = 8
"""Steps in which a distance between two cells is narrowed down: to a pixel within 256."""
DEEPEST = 3
"""Cells one over another: of a fourth one, an annotator would hardly see the outline."""
TOO_DEEP = 0.1
"""Largest part of a cell that may lie deeper."""
TRIES = 4
"""Places tried for a cell before it is left out."""
ONTO = 0.75
"""Share of clusters that grow on a cell of the base, if there is one."""
BEYOND = 0.25
"""How far the middle of a cell may lie beyond the crop, in sides of its patch."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A cell in its place.

    Parameters
    ----------
    y0, x0 : int
        Upper left corner of its patch, in px; may lie outside the crop.
    mask : bool (h, w)
        The cell in its patch.
    area : int
        Px in the mask.
    """

    y0: int
    x0: int
    mask: Mask
    area: int

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of its patch, y and x in px."""
        height, width = self.mask.shape
        return self.y0 + height / 2, self.x0 + width / 2


@dataclass
class Arrangement:
    """The cells placed so far on a square crop.

    Parameters
    ----------
    side : int
        Px.
    covered : float
        Largest part of a cell that others may cover, of what the crop shows of it.
    placed : list of Placed
    """

    side: int
    covered: float
    placed: list[Placed] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with an empty crop."""
        self.depth = np.zeros((self.side, self.side), np.uint8)

    def keep(self, cell: Placed) -> None:
        """Place a cell whatever it covers."""
        window, part = visible(cell, self.side)
        self.depth[window] += cell.mask[part]
        self.placed.append(cell)

    def add(self, cell: Placed) -> bool:
        """Place a cell; return False, with nothing changed, where too much would be covered."""
        if self._part(cell, 1) > self.covered or self._part(cell, DEEPEST) > TOO_DEEP:
            return False
        below = [other for other in self.placed if overlap(cell, other)] if self.taken(cell) else []
        self.keep(cell)
        if all(self._part(other, 2) <= self.covered for other in below):
            return True
        window, part = visible(cell, self.side)
        self.depth[window] -= cell.mask[part]
        self.placed.pop()
        return False

    def taken(self, cell: Placed) -> bool:
        """Whether another cell is where `cell` would be."""
        window, part = visible(cell, self.side)
        return bool(self.depth[window][cell.mask[part]].any())

    def inside(self, cell: Placed) -> bool:
        """Whether a cell lies in the crop, or its border cuts it not far from the middle."""
        return all(
            -BEYOND * length <= middle < self.side + BEYOND * length
            for middle, length in zip(cell.centre, cell.mask.shape, strict=True)
        )

    def _part(self, cell: Placed, depth: int) -> float:
        """Return the part of what the crop shows of a cell where `depth` cells or more lie."""
        window, part = visible(cell, self.side)
        seen = self.depth[window][cell.mask[part]]
        return float(np.count_nonzero(seen >= depth) / max(len(seen), 1))


def visible(cell: Placed, side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where on the crop a cell's patch lies, and which part of the patch that is."""
    window, part = [], []
    for start, length in zip((cell.y0, cell.x0), cell.mask.shape, strict=True):
        low = min(max(start, 0), side)
        high = max(min(start + length, side), low)
        window.append(slice(low, high))
        part.append(slice(low - start, high - start))
    return (window[0], window[1]), (part[0], part[1])


def overlap(one: Placed, other: Placed) -> int:
    """Return the px that two cells share."""
    (height, width), (rows, columns) = one.mask.shape, other.mask.shape
    dy, dx = other.y0 - one.y0, other.x0 - one.x0
    if dy >= height or dx >= width or -dy >= rows or -dx >= columns:
        return 0
    # The slices end by themselves where the smaller patch does.
    first = one.mask[max(dy, 0) : dy + rows, max(dx, 0) : dx + columns]
    second = other.mask[max(-dy, 0) : height - dy, max(-dx, 0) : width - dx]
    return int(np.count_nonzero(first & second))


def centred(mask: Mask, y: float, x: float, area: int) -> Placed:
    """Return a cell whose patch has its middle at `y`, `x`, to the pixel."""
    height, width = mask.shape
    return Placed(round(y - height / 2), round(x - width / 2), mask, area)


def beside(mask: Mask, neighbour: Placed, share: float, random: Random) -> Placed:
    """Return a cell in a random direction from a neighbour, at the distance where both overlap.

    Parameters
    ----------
    mask : bool (h, w)
        The cell in its patch.
    neighbour : Placed
    share : float
        Part of the smaller one's area that both share, 0 to 1. Met to a pixel's
        step where cells have no bays.
    random : numpy Generator
    """
    angle = float(random.uniform(0, 2 * np.pi))
    direction = np.sin(angle), np.cos(angle)
    area = int(np.count_nonzero(mask))
    middle = neighbour.centre
    wanted = max(share * min(area, neighbour.area), 1)
    near, far = 0.0, (np.hypot(*mask.shape) + np.hypot(*neighbour.mask.shape)) / 2
    place, least = centred(mask, *middle, area), np.inf
    for _ in range(HALVINGS):
        distance = (near + far) / 2
        y, x = middle[0] + distance * direction[0], middle[1] + distance * direction[1]
        trial = centred(mask, y, x, area)
        excess = overlap(trial, neighbour) - wanted
        if abs(excess) < least:
            place, least = trial, abs(excess)
        near, far = (distance, far) if excess >= 0 else (near, distance)
    return place


def arrange(
    scene: Arrangement, masks: Sequence[Mask], settings: ComposeSettings, random: Random
) -> list[tuple[int, Placed]]:
    """Place cells in clusters, those already placed among them.

    Parameters
    ----------
    scene : Arrangement
        Changed: has the cells afterwards.
    masks : sequence of bool (h, w)
        The cells in their patches.
    settings : ComposeSettings
    random : numpy Generator

    Returns
    -------
    list of (int, Placed)
        The number of each cell that found a place, and that place.
    """
    before = list(scene.placed)
    found: list[tuple[int, Placed]] = []
    cluster: list[Placed] = []
    left = 0
    for number, mask in enumerate(masks):
        if left == 0:
            left = int(random.geometric(1 / settings.cluster))
            # A cluster begins with a cell of its own, or grows on one that was there before.
            onto = bool(before) and random.random() < ONTO
            cluster = [before[int(random.integers(len(before)))]] if onto else []
        left -= 1
        place = _place(scene, mask, cluster, settings, random)
        if place is not None:
            found.append((number, place))
            cluster.append(place)
    return found


def _place(
    scene: Arrangement,
    mask: Mask,
    cluster: Sequence[Placed],
    settings: ComposeSettings,
    random: Random,
) -> Placed | None:
    """Place a cell beside one of its cluster, or the first one of it where there is room."""
    area = int(np.count_nonzero(mask))
    for _ in range(TRIES):
        if cluster:
            neighbour = cluster[int(random.integers(len(cluster)))]
            place = beside(mask, neighbour, _share(settings, random), random)
        else:
            place = centred(
                mask, random.uniform(0, scene.side), random.uniform(0, scene.side), area
            )
            if scene.taken(place):
                continue
        if scene.inside(place) and scene.add(place):
            return place
    return None


def _share(settings: ComposeSettings, random: Random) -> float:
    """Return the part of the smaller one that two neighbours shall share."""
    low, high = settings.share
    if random.random() < settings.usual:
        return float(random.uniform(low, high))
    if random.random() < 0.5:
        return float(random.uniform(0, low))
    return float(random.uniform(high, max(settings.covered, high)))
