"""Body: 3D cells as a list of their voxels, and what their shape tells: the group `solid`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import pi

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.patch import Columns, Floats, Integers, Patch
from cellseg.pipeline.voxel import Voxel

COLUMNS = (
    "sphericity",
    "extent_3d",
    "sphere_diameter_um",
    "long_axis_um",
    "middle_axis_um",
    "short_axis_um",
)
"""Columns of the group `solid`."""


@dataclass(frozen=True, eq=False)
class Body(Patch):
    """3D cells of one window, whose planes lie one below the other as in one tall image.

    So `y` counts on from plane to plane, and all that goes over pixels goes over voxels.

    Parameters
    ----------
    depth : int
        Planes of the window.
    voxel_um : (z, y, x) or None
        Size of a voxel in um.
    """

    depth: int = 1
    voxel_um: Voxel | None = None

    @property
    def height(self) -> int:
        """Rows of a plane."""
        return self.pixels.shape[1] // self.depth

    @cached_property
    def along(self) -> tuple[Integers, Integers, Integers]:
        """z, y and x of each voxel in the window, int64 (P,) each."""
        z, y = np.divmod(self.y, self.height)
        return z, y, self.x

    @cached_property
    def box(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First z, y and x of each cell, and the ones after the last, int64 (3, N) each."""
        low = np.array([self.least(each) for each in self.along])
        return low, np.array([self.greatest(each) for each in self.along]) + 1

    @cached_property
    def places(self) -> tuple[Floats, ...]:
        """Where each voxel is along z, y and x, from its cell's box, float64 (P,) each."""
        return tuple(
            (each - self.spread(low)).astype(np.float64)
            for each, low in zip(self.along, self.box[0], strict=True)
        )

    @property
    def centres(self) -> tuple[Floats, ...]:
        """The centroid of each cell along the axes of `places`, float64 (N,) each."""
        return tuple(self.total(place) / self.area for place in self.places)

    @property
    def sides_um(self) -> tuple[float, ...] | None:
        """Size of a voxel along the axes of `places`, in um; None if it is not known."""
        return self.voxel_um

    @cached_property
    def framed_3d(self) -> NDArray[np.int32]:
        """The cell of each voxel, -1 elsewhere and on a frame of 1 voxel around the window.

        int32 (Z + 2, H + 2, W + 2).
        """
        width = self.pixels.shape[2]
        cells = np.full((self.depth + 2, self.height + 2, width + 2), -1, np.int32)
        inner = self.framed[1:-1, 1:-1]
        cells[1:-1, 1:-1, 1:-1] = inner.reshape(self.depth, self.height, width)
        return cells

    @cached_property
    def at_edge(self) -> NDArray[np.bool_]:
        """Where in the tall image a voxel has a face to another cell or none, bool (Z * H, W)."""
        cells, inside = self.framed_3d, slice(1, -1)
        inner = cells[inside, inside, inside]
        edge = np.zeros(inner.shape, bool)
        for other in (slice(None, -2), slice(2, None)):
            edge |= inner != cells[other, inside, inside]
            edge |= inner != cells[inside, other, inside]
            edge |= inner != cells[inside, inside, other]
        edge &= inner >= 0
        return edge.reshape(-1, edge.shape[2])


def solid(patch: Patch) -> Columns:
    """Return the columns of the group `solid`: shape in 3D; all NaN in a plane.

    And where the size of a voxel is unknown, but for `extent_3d`. The axes are those of the
    ellipsoid with the same second moments, as `skimage.measure.regionprops` has them.
    """
    unknown = np.full(patch.count, np.nan)
    columns: Columns = dict.fromkeys(COLUMNS, unknown)
    if not isinstance(patch, Body):
        return columns
    low, high = patch.box
    columns["extent_3d"] = patch.area / np.prod(high - low, axis=0)
    if patch.voxel_um is None:
        return columns
    volume = patch.area * float(np.prod(patch.voxel_um))
    short, middle, long = _axes(patch, patch.voxel_um)
    return columns | {
        "sphericity": np.cbrt(pi * (6 * volume) ** 2) / surface(patch),
        "sphere_diameter_um": np.cbrt(6 * volume / pi),
        "long_axis_um": long,
        "middle_axis_um": middle,
        "short_axis_um": short,
    }


def _axes(patch: Body, voxel_um: Voxel) -> NDArray[np.float64]:
    """Return the axes of the ellipsoid with the same second moments, ascending, (3, N), in um."""
    off = [
        (place - patch.spread(centre)) * side
        for place, centre, side in zip(patch.places, patch.centres, voxel_um, strict=True)
    ]
    moments = np.zeros((patch.count, 3, 3))
    for a in range(3):
        for b in range(a, 3):
            moments[:, a, b] = moments[:, b, a] = patch.total(off[a] * off[b]) / patch.area
    spread = np.linalg.eigvalsh(moments).T
    return np.asarray(np.sqrt(20 * np.maximum(spread, 0)))


def surface(patch: Body) -> Floats:
    """Return the surface of each cell in um2, float64 (N,), by Crofton's formula.

    Straight lines in the 26 directions to a voxel's neighbours, weighted by the part of the
    sphere that lies nearest to each in um, cross a surface as often as it is large: Lehmann
    and Legland, "Efficient N-dimensional surface estimation using Crofton formula and
    run-length encoding", Insight Journal 2012. Counting the faces of voxels would give
    one and a half times a sphere's. What lies beyond the image is no part of a cell. NaN where
    the size of a voxel is unknown.
    """
    if patch.voxel_um is None:
        return np.full(patch.count, np.nan)
    _, high, wide = patch.framed_3d.shape
    flat, steps = patch.framed_3d.reshape(-1), (high * wide, wide, 1)
    at = sum((along + 1) * step for along, step in zip(patch.along, steps, strict=True))
    found = np.zeros(patch.count)
    for direction, share in _directions(patch.voxel_um):
        step = sum(d * s for d, s in zip(direction, steps, strict=True))
        left = np.bincount(patch.index[flat[at + step] != patch.index], minlength=patch.count)
        found += left * share
    return found


@lru_cache(maxsize=8)
def _directions(voxel_um: Voxel) -> list[tuple[tuple[int, int, int], float]]:
    """Return the directions to all neighbours, and the um2 that each crossing along one counts.

    That is four times the direction's part of the sphere times the area between lines.
    """
    from scipy.spatial import SphericalVoronoi

    steps = (-1, 0, 1)
    directions = [(z, y, x) for z, y, x in product(steps, steps, steps) if z or y or x]
    along = np.array(directions) * voxel_um
    lengths = np.linalg.norm(along, axis=1)
    parts = SphericalVoronoi(along / lengths[:, None]).calculate_areas() / (4 * np.pi)
    shares = 4 * parts * np.prod(voxel_um) / lengths
    return [(d, s) for d, s in zip(directions, shares.tolist(), strict=True)]
