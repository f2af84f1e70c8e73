"""Cells to label images, region by region: memory follows the region, never the plane."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.pool import overlapping
from cellseg.pipeline.tiles import Box

LabelImage = NDArray[np.uint32]


def paint(
    cells: Cells,
    labels: NDArray[np.integer],
    load: Callable[[int], Candidates],
    region: Box,
) -> LabelImage:
    """Return the labels of one region of a plane.

    Parameters
    ----------
    cells : Cells
        Cells of the plane; their masks share no pixel.
    labels : integers (N,)
        The label of each.
    load : callable
        Candidates of the tile at a position, or what `Cells.tile` below 0 stands for;
        boxes in px of the plane.
    region : Box

    Returns
    -------
    uint32 of the region's shape
    """
    painted = np.zeros(region.shape, np.uint32)
    touched = np.flatnonzero(overlapping(cells.boxes, region))
    # Tile by tile, so that each tile's file is read once a region.
    touched = touched[np.argsort(cells.tile[touched], kind="stable")]
    inside = overlapping_part(cells.boxes[touched], region)
    there = inside - np.tile((region.y0, region.x0), 2)
    own = inside - np.tile(cells.boxes[touched, :2], 2)
    columns = cells.tile[touched], cells.index[touched], labels[touched], *there.T, *own.T
    # Column by column: a list for each row would cost as much as painting it.
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for tile, index, label, y0, x0, y1, x1, v0, u0, v1, u1 in rows:
        mask = load(tile).mask(index)[v0:v1, u0:u1]
        np.copyto(painted[y0:y1, x0:x1], label, where=mask)
    return painted


def overlapping_part(boxes: NDArray[np.int32], region: Box) -> NDArray[np.int32]:
    """Return the part of each box (N, 4) that lies in a region that it overlaps."""
    low = np.maximum(boxes[:, :2], (region.y0, region.x0))
    high = np.minimum(boxes[:, 2:], (region.y1, region.x1))
    return np.concatenate([low, high], axis=1).astype(np.int32)


def halve(labels: LabelImage) -> LabelImage:
    """Return the next level of a label pyramid: every second pixel, so no label is invented.

    Pixel i of the result lies on pixel 2 i, as OME-Zarr's `scale` of 2 says.
    """
    return labels[::2, ::2]
