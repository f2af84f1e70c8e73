"""Position: where in its image a cell lies."""

from __future__ import annotations

import numpy as np

from cellseg.pipeline.patch import Columns, Floats, Patch


def position(patch: Patch) -> Columns:
    """Return how far each cell is from the edge of the image, and where between its edges.

    ``edge_distance``: from the centre to the nearest edge, which is half a pixel beyond the
    centres of the outermost pixels. ``edge_gap``: rows or columns between the cell and that
    edge, 0 where it touches. ``y_relative``, ``x_relative``: the centre's place in the
    field, 0 at its upper and left edge and 1 at the others.
    """
    size = patch.pixel_um or (np.nan, np.nan)
    last = patch.greatest(patch.y), patch.greatest(patch.x)
    distances, gaps, relative = [], [], []
    for axis, length in enumerate(patch.shape):
        first = patch.corner[axis] + patch.origin[axis]
        centre = first + patch.centre[axis] + 0.5
        distances.append(np.minimum(centre, length - centre))
        after = length - 1 - patch.origin[axis] - last[axis]
        gaps.append(np.minimum(first, after).astype(np.float64))
        relative.append(centre / length)

    def least(along: list[Floats], sides: tuple[float, float]) -> Floats:
        nearest: Floats = np.minimum(along[0] * sides[0], along[1] * sides[1])
        return nearest

    return {
        "edge_distance_px": least(distances, (1, 1)),
        "edge_distance_um": least(distances, size),
        "edge_gap_px": least(gaps, (1, 1)),
        "edge_gap_um": least(gaps, size),
        "y_relative": relative[0],
        "x_relative": relative[1],
    }
