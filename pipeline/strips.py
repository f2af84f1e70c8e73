"""Strips on both sides of the borders between tiles, of equal area: on a seam, and beside it.

Seams are the borders between the cores of tiles. A place is *on* a seam if it
is within `d` px of it, and *interior* if it is from `d` to `2 d` px beside it:
strips of the same area in the same tissue, so tissue that is dense here and
empty there raises no alarm. ::

        |         |    :     |     :    |         |
        |         | interior on    on interior    |
     ---+---------+----:-----|-----:----+---------+---
                 -2d  -d    seam   d   2d

Where two seams cross, the strips of one would lie in those of the other: what
is within `2 d` of a crossing seam is left out. So is a last seam that has less
than `3 d` px beyond it, as cells that the edge of the image cuts crowd there.

`d` is the smallest of a few distances that is at least the mean diameter of
the cells: those that a seam runs through have their centre within half a
diameter of it. Which of them it is shows in the end only, so all are counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.tiles import Grid

GROUPS = 64
"""Stretches of seams that are compared; more would not find more, and resist clusters less."""
LEAST_PX, MOST_PX = 4, 512

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def distances(grid: Grid) -> Integers:
    """Return the values of d in px, int64 (D,): an eighth of a tile, and halves of it.

    512 to 4 px. The halo does not matter: it may be what is too small.
    """
    px, found = min(grid.size // 8, MOST_PX), []
    while px >= LEAST_PX and len(grid) > 1:
        found.append(px)
        px //= 2
    return np.array(found, np.int64)


def strips(
    grid: Grid, distance: int, places: Floats
) -> Iterator[tuple[NDArray[np.bool_], Integers, Integers]]:
    """Find places in the strips along the seams across y, then in those across x.

    Parameters
    ----------
    grid : Grid
        The tiles.
    distance : int
        Half the width of a strip in px: `d`, one of `distances`.
    places : float64 (N, 2)
        Row and column in px from the corner of the plane.

    Yields
    ------
    near : bool (N,)
        Whether a place is in a strip. No place is in those of both axes.
    strip : int64 (n,)
        Of the n places that are: 0 on a seam, 1 interior.
    group : int64 (n,)
        The stretch of seams, 0 to `GROUPS` - 1.
    """
    for axis in (0, 1):
        across, along = places[:, axis], places[:, 1 - axis]
        seams = (grid.plane.shape[axis] - 3 * distance) // grid.size
        seam = np.clip(np.rint(across / grid.size), 1, max(seams, 1))
        # Half open on the same side in each strip: centres on a lattice fall evenly.
        side = np.floor((across - seam * grid.size) / distance)
        near = (side >= -2) & (side <= 1) & (seams >= 1) & _apart(grid, distance, 1 - axis, along)
        interior = (side[near] < -1) | (side[near] > 0)
        yield (
            near,
            interior.astype(np.int64),
            _stretch(grid, distance, axis, seam[near], along[near]),
        )


def _apart(grid: Grid, distance: int, axis: int, along: Floats) -> NDArray[np.bool_]:
    """Whether each place on an axis is away from the seams across it, bool (N,)."""
    crossings = grid.counts[axis] - 1
    crossing = np.clip(np.rint(along / grid.size), 1, max(crossings, 1)) * grid.size
    return np.asarray((np.abs(along - crossing) >= 2 * distance) | (crossings < 1))


def _stretch(grid: Grid, distance: int, axis: int, seam: Floats, along: Floats) -> Integers:
    """Return the group of each place: a stretch of seam of `distance` px, or of more in a row."""
    pieces = [-(-length // distance) for length in reversed(grid.plane.shape)]
    before = [(seams - 1) * n for seams, n in zip(grid.counts, pieces, strict=True)]
    last = max(sum(before), 1)
    piece = (seam - 1) * pieces[axis] + along // distance + (before[0] if axis else 0)
    place = np.clip(piece.astype(np.int64), 0, last - 1)
    return place if last <= GROUPS else place * GROUPS // last
