"""Box, Grid and Blocks: cores cover a plane once, tiles read a halo more, blocks gather tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FAR = 2**30
"""More px than any plane has on a side."""


@dataclass(frozen=True, order=True)
class Box:
    """A half-open rectangle in px: rows y0 to y1, columns x0 to x1."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array of the whole plane."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grow(self, px: int, within: Box) -> Box:
        """Return the box with `px` more on each side, cut at `within`."""
        grown = Box(self.y0 - px, self.x0 - px, self.y1 + px, self.x1 + px)
        return grown.intersect(within) or self

    def intersect(self, other: Box) -> Box | None:
        """Return what both cover, or None."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1, x1 = min(self.y1, other.y1), min(self.x1, other.x1)
        return Box(y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None

    def within(self, origin: Box) -> Box:
        """Return the same rectangle in the coordinates of a window that starts at `origin`."""
        return Box(
            self.y0 - origin.y0, self.x0 - origin.x0, self.y1 - origin.y0, self.x1 - origin.x0
        )

    def distance_inside(self, window: Box, plane: Box) -> int:
        """Return the px to the nearest edge of `window` that is not an edge of `plane`.

        `FAR` in a window that is the whole plane.
        """
        sides = zip(_sides(self), _sides(window), _sides(plane), strict=True)
        gaps = [abs(own - edge) for own, edge, end in sides if edge != end]
        return min(gaps, default=FAR)

    def touches_edge(self, plane: Box) -> bool:
        """Whether one of the sides lies on the edge of `plane`."""
        return any(a == b for a, b in zip(_sides(self), _sides(plane), strict=True))


def _sides(box: Box) -> tuple[int, int, int, int]:
    return box.y0, box.x0, box.y1, box.x1


@dataclass(frozen=True)
class Grid:
    """The tiles of one plane, found by arithmetic and never listed.

    A tile is its position in the grid. Its core is what it answers for; what
    its segmenter reads is the core grown by the halo, cut at the plane.

    Parameters
    ----------
    plane : Box
        The whole plane, from 0, 0.
    size : int
        Side of a core in px; the last row and column may be smaller.
    halo : int
        Px that a tile reads around its core.
    """

    plane: Box
    size: int
    halo: int

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        height, width = self.plane.shape
        return -(-height // self.size), -(-width // self.size)

    def __len__(self) -> int:
        return self.counts[0] * self.counts[1]

    def core(self, position: int) -> Box:
        """Return the core of the tile at `position`, row by row."""
        row, column = divmod(position, self.counts[1])
        y, x = row * self.size, column * self.size
        height, width = self.plane.shape
        return Box(y, x, min(y + self.size, height), min(x + self.size, width))

    def read(self, position: int) -> Box:
        """Return what the tile at `position` reads."""
        return self.core(position).grow(self.halo, self.plane)

    def reading(self, box: Box) -> list[int]:
        """Return the positions of all tiles that read a part of `box`, in order."""
        rows, columns = self.counts
        first = max((box.y0 - self.halo) // self.size, 0), max((box.x0 - self.halo) // self.size, 0)
        last = (
            min((box.y1 - 1 + self.halo) // self.size, rows - 1),
            min((box.x1 - 1 + self.halo) // self.size, columns - 1),
        )
        return [
            row * columns + column
            for row in range(first[0], last[0] + 1)
            for column in range(first[1], last[1] + 1)
        ]

    def readers(self, boxes: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the number of tiles that read a part of each box (N, 4), int64 (N,)."""
        rows, columns = self.counts
        first = np.maximum((boxes[:, :2].astype(np.int64) - self.halo) // self.size, 0)
        last = (boxes[:, 2:].astype(np.int64) - 1 + self.halo) // self.size
        last = np.minimum(last, (rows - 1, columns - 1))
        counts: NDArray[np.int64] = (last - first + 1).prod(axis=1)
        return counts


@dataclass(frozen=True)
class Blocks:
    """The tiles of a grid in squares: what is stitched at a time, whatever the plane's size.

    Parameters
    ----------
    grid : Grid
    side_px : int
        About the side of a block in px; a block holds whole tiles, one at least.
    """

    grid: Grid
    side_px: int = 8192

    @property
    def side(self) -> int:
        """Tiles on a block's side."""
        return max(self.side_px // self.grid.size, 1)

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        rows, columns = self.grid.counts
        return -(-rows // self.side), -(-columns // self.side)

    def __len__(self) -> int:
        return self.counts[0] * self.counts[1]

    def of(self, tiles: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the block of each tile, int64 (N,)."""
        rows, columns = np.divmod(tiles.astype(np.int64), self.grid.counts[1])
        blocks: NDArray[np.int64] = rows // self.side * self.counts[1] + columns // self.side
        return blocks

    def tiles(self, block: int) -> list[int]:
        """Return the positions of a block's tiles, in order."""
        (top, left), (rows, columns) = self._corner(block), self.grid.counts
        return [
            row * columns + column
            for row in range(top, min(top + self.side, rows))
            for column in range(left, min(left + self.side, columns))
        ]

    def region(self, block: int) -> Box:
        """Return what the cores of a block's tiles cover together."""
        tiles = self.tiles(block)
        first, last = self.grid.core(tiles[0]), self.grid.core(tiles[-1])
        return Box(first.y0, first.x0, last.y1, last.x1)

    def _corner(self, block: int) -> tuple[int, int]:
        row, column = divmod(block, self.counts[1])
        return row * self.side, column * self.side
