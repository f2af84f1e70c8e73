"""Splitting a cell: by a line across it, or from seeds in it; the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import CellsegError
from cellseg.pipeline.review.section import Section

__all__ = ["by_line", "by_seeds"]

Point = tuple[float, float]
"""Row and column in px; the centre of the first pixel is 0, 0."""


def by_line(sections: Sequence[Section], start: Point, stop: Point) -> list[list[Section]]:
    """Return the parts of a cell on both sides of a line that goes on beyond its ends.

    Of a 3D cell, all planes are cut alike. The larger part comes first.

    Parameters
    ----------
    sections : sequence of Section
    start, stop : (y, x)

    Raises
    ------
    CellsegError
        If the line does not cross the cell.
    """
    (y0, x0), (y1, x1) = start, stop
    parts: list[list[Section]] = [[], []]
    for section in sections:
        y, x = np.ogrid[section.box.slices]
        side = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
        for number, mask in enumerate((section.mask & side, section.mask & ~side)):
            parts[number].append(replace(section, mask=mask))
    return _largest_first(parts, "the line does not cross the cell. Draw it from side to side.")


def by_seeds(sections: Sequence[Section], points: Sequence[Point], z: int) -> list[list[Section]]:
    """Return the parts of a cell that grow from seeds, by watershed on the distance to its edge.

    What no seed is connected with goes to the nearest one. The largest part comes first.

    Parameters
    ----------
    sections : sequence of Section
    points : sequence of (y, x)
        Two or more, in the cell's pixels in plane `z`.
    z : int

    Raises
    ------
    CellsegError
        If a seed lies outside the cell's pixels, or two lie in one.
    """
    from skimage.segmentation import watershed

    corner, mask = _stacked(sections)
    seeds = np.zeros(mask.shape, np.int32)
    for number, point in enumerate(points, 1):
        place = tuple(np.subtract((z, *np.rint(point).astype(int)), corner).tolist())
        inside = all(0 <= at < side for at, side in zip(place, mask.shape, strict=True))
        if not inside or not mask[place] or seeds[place]:
            raise CellsegError(
                f"seed {number} at y = {point[0]:g}, x = {point[1]:g} of plane {z} is in no pixel"
                " of its own in the cell. Put each seed on another pixel of the cell."
            )
        seeds[place] = number
    # Plane by plane: how far apart planes are need not be known.
    height = np.stack([ndimage.distance_transform_edt(np.pad(each, 1)) for each in mask])
    found: NDArray[np.int32] = watershed(  # type: ignore[no-untyped-call]
        -height[:, 1:-1, 1:-1], seeds, mask=mask
    )
    found = _nearest(found, mask)
    numbers = range(1, len(points) + 1)
    parts = [[_cut(section, corner, found == number) for section in sections] for number in numbers]
    return _largest_first(parts, "two seeds or more are needed, each in a part of its own.")


def _stacked(sections: Sequence[Section]) -> tuple[tuple[int, int, int], NDArray[np.bool_]]:
    """Return corner z, y, x and mask (planes, h, w) of a cell."""
    low = [min(s.z for s in sections), *(min(getattr(s.box, a) for s in sections) for a in _LOW)]
    high = [max(s.z for s in sections) + 1]
    high += [max(getattr(s.box, a) for s in sections) for a in _HIGH]
    mask = np.zeros(np.subtract(high, low), bool)
    corner = (low[0], low[1], low[2])
    for section in sections:
        mask[_index(section, corner)] = section.mask
    return corner, mask


_LOW, _HIGH = ("y0", "x0"), ("y1", "x1")


def _index(section: Section, corner: tuple[int, int, int]) -> tuple[int, slice, slice]:
    z, y, x = corner
    box = section.box
    return section.z - z, slice(box.y0 - y, box.y1 - y), slice(box.x0 - x, box.x1 - x)


def _cut(section: Section, corner: tuple[int, int, int], part: NDArray[np.bool_]) -> Section:
    return replace(section, mask=section.mask & part[_index(section, corner)])


def _nearest(found: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give pixels of the cell that nothing has reached to what is nearest."""
    left = mask & (found == 0)
    if left.any():
        place = ndimage.distance_transform_edt(
            found == 0, return_distances=False, return_indices=True
        )
        found[left] = found[tuple(axis[left] for axis in place)]
    return found


def _largest_first(parts: list[list[Section]], why: str) -> list[list[Section]]:
    """Return the parts without empty sections; of equal ones the first stays first."""
    tight = [[cut for s in part if (cut := s.tight) is not None] for part in parts]
    if len(tight) < 2 or not all(tight):
        raise CellsegError(why)
    return sorted(tight, key=lambda part: -sum(int(s.mask.sum()) for s in part))
