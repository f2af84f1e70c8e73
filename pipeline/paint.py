"""Instances to label images, region by region: memory follows the region, never the plane."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline.stitch import EXTRA, Stitched
from cellseg.pipeline.tiles import Box

LabelImage = NDArray[np.uint32]


def paint(
    cells: Stitched, load: Callable[[int], Instances], region: Box, first: int = 1
) -> LabelImage:
    """Return the labels of one region of a plane.

    Parameters
    ----------
    cells : Stitched
        The cells of the plane; their masks share no pixel.
    load : callable
        Candidates of the tile at a position, boxes in px of the plane.
    region : Box
    first : int
        Label of the plane's first cell.

    Returns
    -------
    uint32 of the region's shape
    """
    labels = np.zeros(region.shape, np.uint32)
    low, high = cells.boxes[:, :2], cells.boxes[:, 2:]
    inside = (low < (region.y1, region.x1)) & (high > (region.y0, region.x0))
    touched = np.flatnonzero(inside.all(axis=1))
    # Tile by tile, so that each tile's file is read once a region.
    for cell in touched[np.argsort(cells.tile[touched], kind="stable")].tolist():
        tile = int(cells.tile[cell])
        source = cells.extra if tile == EXTRA else load(tile)
        box = Box(*cells.boxes[cell].tolist())
        shared = box.intersect(region)
        assert shared is not None  # noqa: S101 - chosen above
        mask = source.masks[int(cells.index[cell])][shared.within(box).slices]
        labels[shared.within(region).slices][mask] = first + cell
    return labels


def halve(labels: LabelImage) -> LabelImage:
    """Return the next level of a label pyramid: every second pixel, so no label is invented.

    Pixel i of the result lies on pixel 2 i, as OME-Zarr's `scale` of 2 says.
    """
    return labels[::2, ::2]
