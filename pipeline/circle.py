"""Circle: the smallest one around each cell."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from cellseg.pipeline.patch import Floats, Patch
from cellseg.pipeline.runs import Integers

ROUNDING = 1e-10
"""Part of the squared radius by which a point may be beyond a circle that counts as on it."""
CHOICES = (*((a, b, b) for a, b in combinations(range(4), 2)), *combinations(range(4), 3))
"""Two or three of four points, through which a circle is drawn."""


def enclosing_circle(patch: Patch) -> tuple[Floats, Floats, Floats]:
    """Return centre y, x in the window and radius of the smallest circle around each cell.

    Around the centres of its pixels, float64 (N,) each; of a single pixel the radius is 0.
    From a circle through two or three of its points the next one is drawn through the
    farthest point outside, until there is none: Elzinga and Hearn, "The minimum covering
    sphere problem", Management Science 1972.
    """
    points, first, length = _ends(patch)
    support = np.repeat(points[first][:, None], 3, axis=1)
    circle = np.concatenate([points[first], np.zeros((patch.count, 1))], axis=1)
    left = np.arange(patch.count)
    while len(left):
        chosen, starts = _of(first[left], length[left])
        cell = np.repeat(left, length[left])
        off = ((points[chosen] - circle[cell, :2]) ** 2).sum(axis=1)
        far = np.maximum.reduceat(off, starts)
        outside = far > circle[left, 2] * (1 + ROUNDING) + ROUNDING
        at_far = np.where(off == np.repeat(far, length[left]), chosen, len(points))
        farthest = np.minimum.reduceat(at_far, starts)[outside]
        left = left[outside]
        four = np.concatenate([support[left], points[farthest][:, None]], axis=1)
        circle[left], support[left] = _around_four(four)
    return circle[:, 0], circle[:, 1], np.sqrt(circle[:, 2])


def _ends(patch: Patch) -> tuple[Floats, Integers, Integers]:
    """Return the ends of all runs along rows, cell by cell, and each cell's first and number."""
    runs = patch.runs
    points = np.empty((2 * len(runs.cell), 2))
    points[:, 0] = np.repeat(runs.y, 2)
    points[::2, 1], points[1::2, 1] = runs.start, runs.stop - 1
    number = 2 * np.bincount(runs.cell, minlength=patch.count)
    return points, np.cumsum(number) - number, number


def _of(first: Integers, length: Integers) -> tuple[Integers, Integers]:
    """Return the numbers of all points of some cells, and where each cell's begin among them."""
    starts = np.cumsum(length) - length
    return np.arange(length.sum()) + np.repeat(first - starts, length), starts


def _around_four(points: Floats) -> tuple[Floats, Floats]:
    """Return the smallest circles around four points (A, 4, 2), and the points they go through.

    Returns
    -------
    (A, 3)
        Centre y, x and squared radius.
    (A, 3, 2)
    """
    best = np.full((len(points), 3), np.inf)
    support = np.zeros((len(points), 3, 2))
    for choice in CHOICES:
        through = points[:, choice]
        centre = _between(through) if choice[1] == choice[2] else _through(through)
        off = ((points - centre[:, None]) ** 2).sum(axis=2)
        squared = off[:, list(choice)].max(axis=1)
        around = off.max(axis=1) <= squared * (1 + ROUNDING) + ROUNDING
        better = around & (squared < best[:, 2])
        best[better, :2], best[better, 2] = centre[better], squared[better]
        support[better] = through[better]
    return best, support


def _between(through: Floats) -> Floats:
    """Return the middle of the first two points, float64 (A, 2)."""
    return (through[:, 0] + through[:, 1]) / 2


def _through(through: Floats) -> Floats:
    """Return the centre of the circle through three points, far off where they are in a line."""
    b, c = through[:, 1] - through[:, 0], through[:, 2] - through[:, 0]
    cross = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    bb, cc = (b * b).sum(axis=1), (c * c).sum(axis=1)
    up = np.stack([c[:, 1] * bb - b[:, 1] * cc, b[:, 0] * cc - c[:, 0] * bb], axis=1)
    nowhere = np.full(up.shape, 1e150)
    off: Floats = np.divide(up, cross[:, None], out=nowhere, where=cross[:, None] != 0)
    return through[:, 0] + off
