"""Polygons on the grid of pixels: which pixels lie inside, whatever the window asked for.

A pixel belongs to a polygon if its centre does. Of a centre on the outline, that on a left or
upper side is inside and that on a right or lower one outside: of polygons that share a side, each
pixel along it belongs to exactly one. Where an outline crosses the middle of a row is always
reckoned from the outline's own corners, so no digit depends on the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.models.meeting import meeting, spread
from cellseg.pipeline.tiles import FAR, Box

Floats = NDArray[np.float64]
Edges = Floats
"""Float64 (E, 4): y0, x0, y1, x1 of each side, y0 at most y1, from the image's upper left corner:
the centre of the first pixel is at 0.5, 0.5."""


@dataclass(frozen=True, eq=False)
class Feature:
    """A named area of one or several polygons, each with its holes.

    Parameters
    ----------
    name : str
    polygons : tuple of Edges
        The sides of each polygon and of its holes together; what lies in any of them is inside.
    """

    name: str
    polygons: tuple[Edges, ...]

    def reduced(self, y: float, x: float) -> Feature:
        """Return the same on pixels that are larger by some factors."""
        if (y, x) == (1, 1):
            return self
        return Feature(self.name, tuple(edges / (y, x, y, x) for edges in self.polygons))

    @property
    def bounds(self) -> Box:
        """The smallest box of pixels around all centres inside; of no pixel where there is none."""
        edges = np.concatenate(self.polygons)
        low, high = np.minimum(edges[:, :2], edges[:, 2:]), np.maximum(edges[:, :2], edges[:, 2:])
        return Box(*_first_centre(low.min(axis=0)).tolist(), *_first_centre(high.max(0)).tolist())

    def inside(self, window: Box, step: int = 1) -> NDArray[np.bool_]:
        """Return which pixels of a window are inside, every `step`-th of them, bool (h, w)."""
        found = [_inside(edges, window, step) for edges in self.polygons]
        return np.asarray(np.logical_or.reduce(found))


def edges_of(rings: Sequence[Floats]) -> Edges:
    """Return the sides of rings, each float64 (N, 2) of y and x; the last corner meets the first.

    Every side runs downwards, so that two polygons on either side of it reckon alike.
    """
    sides = [np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1) for ring in rings]
    edges = np.concatenate(sides)
    edges = edges[(edges[:, :2] != edges[:, 2:]).any(axis=1)]
    ends = edges[:, [2, 3, 0, 1]]
    upwards = (edges[:, 2] < edges[:, 0]) | (
        (edges[:, 2] == edges[:, 0]) & (edges[:, 3] < edges[:, 1])
    )
    return np.asarray(np.where(upwards[:, None], ends, edges))


def rectangle(y0: float, x0: float, y1: float, x1: float) -> Edges:
    """Return the sides of a rectangle."""
    return edges_of([np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)], np.float64)])


def _first_centre(values: Floats) -> NDArray[np.int64]:
    """Return the number of the first row or column whose middle is at or beyond a place."""
    found: NDArray[np.int64] = np.clip(np.ceil(values - 0.5), -FAR, FAR).astype(np.int64)
    return found


def _inside(edges: Edges, window: Box, step: int) -> NDArray[np.bool_]:
    """Return every `step`-th pixel of a window with an odd number of sides to its left."""
    height, width = (-(-side // step) for side in window.shape)
    rows = -((window.y0 - _first_centre(edges[:, [0, 2]])) // step)
    rows = np.clip(rows, 0, height)
    owner, number = spread(rows[:, 1] - rows[:, 0])
    row = rows[owner, 0] + number
    y0, x0, y1, x1 = edges[owner].T
    across = x0 + (window.y0 + step * row + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    column = -((window.x0 - _first_centre(across)) // step)
    place = row * (width + 1) + np.clip(column, 0, width)
    crossed = np.bincount(place, minlength=height * (width + 1)).reshape(height, width + 1)
    odd = np.bitwise_xor.accumulate((crossed & 1).astype(np.uint8), axis=1)
    return odd[:, :width].astype(bool)


def crossing(edges: Edges) -> tuple[float, float] | None:
    """Return y and x near which two sides of a polygon cross, or None; sides may touch.

    Parameters
    ----------
    edges : Edges
        Of a polygon and its holes.
    """
    one, other = edges[_near(edges)].swapaxes(0, 1)
    apart = (_turn(one, other[:, :2]) * _turn(one, other[:, 2:]) < 0) & (
        _turn(other, one[:, :2]) * _turn(other, one[:, 2:]) < 0
    )
    if not apart.any():
        return None
    first = int(apart.argmax())
    low = np.maximum(one[first, 0], other[first, 0])
    high = np.minimum(one[first, 2], other[first, 2])
    sides = np.stack([one[first], other[first]])[:, [1, 3]]
    left, right = sides.min(axis=1).max(), sides.max(axis=1).min()
    return float(low + high) / 2, float(left + right) / 2


def _near(edges: Edges) -> NDArray[np.intp]:
    """Return the pairs of sides (P, 2) that may cross: pieces of them, all short, lie close."""
    lengths = np.abs(edges[:, 2:] - edges[:, :2]).max(axis=1, initial=0)
    piece = max(float(lengths.mean()) if len(lengths) else 1.0, 1.0)
    counts = np.ceil(lengths / piece).astype(np.int64).clip(1)
    owner, number = spread(counts)
    step = (edges[owner, 2:] - edges[owner, :2]) / counts[owner, None]
    start = edges[owner, :2] + number[:, None] * step
    both = np.stack([start, start + step])
    boxes = np.concatenate([np.floor(both.min(axis=0)) - 1, np.ceil(both.max(axis=0)) + 1], axis=1)
    boxes -= np.tile(boxes[:, :2].min(axis=0), 2)
    pairs = owner[meeting(boxes.astype(np.int32))]
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def _turn(edges: Edges, points: Floats) -> Floats:
    """Return on which side of each edge a point lies, by the sign; 0 on the line."""
    (y0, x0, y1, x1), (y, x) = edges.T, points.T
    turn = (y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)
    # What rounding alone may give is no side.
    reach = np.abs(y1 - y0) * np.abs(x - x0) + np.abs(x1 - x0) * np.abs(y - y0)
    return np.asarray(np.where(np.abs(turn) <= 1e-12 * reach, 0.0, turn))
