"""3D cells and their voxels to one row a cell: volume, surface, and what `measure` measures.

What is a property of an outline (area, shape) is measured on a cell's largest section, the
plane in which it has most pixels, of several such the first. What is a property of grey
levels is measured over all voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.measure import MEASUREMENTS, measure, patch_of
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.patch import Columns, Floats, Patch
from cellseg.pipeline.voxel import Voxel

OVER_VOXELS = ("intensity",)
"""Groups that are measured over all voxels; the others on the largest section."""
Origin = tuple[int, int, int]


def measure_solid(
    labels: NDArray[np.integer],
    pixels: NDArray[np.generic],
    ids: NDArray[np.integer],
    channels: Sequence[str],
    *,
    settings: Measure | None = None,
    voxel_um: Voxel | None = None,
    origin: Origin = (0, 0, 0),
) -> Columns:
    """Measure the 3D cells `ids` of one window.

    Parameters
    ----------
    labels : integer (Z, H, W)
        0 is background, as is what is not among `ids`.
    pixels : real (C, Z, H, W)
        The same window of the image.
    ids : (N,)
        Labels to measure, in the order of the rows wanted; each has a voxel.
    channels : sequence of C str
    settings : Measure, optional
        The groups wanted, keys of `cellseg.pipeline.measure.MEASUREMENTS`, and how they are
        measured.
    voxel_um : (z, y, x), optional
        Size of a voxel in um; unknown by default.
    origin : (z, y, x)
        Of the window's first voxel.

    Returns
    -------
    dict of str to array (N,)
        The columns of `cellseg.pipeline.measure.measure`, and ``z_px, z_um, planes,
        volume_px, volume_um3, surface_um2``; NaN where the size of a voxel is unknown.
    """
    settings = settings or Measure()
    depth, height, width = labels.shape
    # One plane below the other, as in one tall image: sums over voxels need no more.
    tall = patch_of(
        labels.reshape(-1, width), pixels.reshape(len(pixels), -1, width), ids, channels, settings
    )
    z, y = np.divmod(tall.y, height)
    sections = np.bincount(tall.index * depth + z, minlength=tall.count * depth)
    sections = sections.reshape(-1, depth)
    own = tuple(group for group in settings.groups if group not in OVER_VOXELS)
    flat = settings.model_copy(update={"groups": own})
    columns = _on_largest(labels, pixels, ids, channels, sections, flat, voxel_um, origin)
    for group in settings.groups:
        if group in OVER_VOXELS:
            columns |= MEASUREMENTS[group].measure(tall)
    size = voxel_um or (np.nan,) * 3
    for name, along, start, side in zip("zyx", (z, y, tall.x), origin, size, strict=True):
        columns[f"{name}_px"] = tall.total(along + start) / tall.area
        columns[f"{name}_um"] = columns[f"{name}_px"] * side
    return columns | {
        "planes": np.count_nonzero(sections, axis=1).astype(np.int32),
        "volume_px": tall.area,
        "volume_um3": tall.area * (size[0] * size[1] * size[2]),
        "surface_um2": _surface(tall, z, y, height, voxel_um),
    }


def _on_largest(
    labels: NDArray[np.integer],
    pixels: NDArray[np.generic],
    ids: NDArray[np.integer],
    channels: Sequence[str],
    sections: NDArray[np.int64],
    settings: Measure,
    voxel_um: Voxel | None,
    origin: Origin,
) -> Columns:
    """Return what `measure` says of each cell's largest section."""
    columns: Columns = {}
    largest = sections.argmax(axis=1) if len(ids) else np.zeros(0, np.intp)
    for z in np.unique(largest).tolist():
        there = np.flatnonzero(largest == z)
        found = measure(
            labels[z],
            pixels[:, z],
            ids[there],
            channels,
            settings=settings,
            pixel_um=voxel_um[1:] if voxel_um else None,
            origin=origin[1:],
        )
        for name, values in found.items():
            columns.setdefault(name, np.zeros(len(ids), values.dtype))[there] = values
    return columns


def _surface(
    tall: Patch,
    z: NDArray[np.int64],
    y: NDArray[np.int64],
    height: int,
    voxel_um: Voxel | None,
) -> Floats:
    """Return the surface of each cell in um2, float64 (N,), by Crofton's formula.

    Straight lines in the 26 directions to a voxel's neighbours, weighted by the part of the
    sphere that lies nearest to each in um, cross a surface as often as it is large: Lehmann
    and Legland, "Efficient N-dimensional surface estimation using Crofton formula and
    run-length encoding", Insight Journal 2012. Counting the faces of voxels would give
    one and a half times a sphere's. What lies beyond the image is no part of a cell.
    """
    if voxel_um is None:
        return np.full(tall.count, np.nan)
    depth = tall.pixels.shape[1] // height
    width = tall.pixels.shape[2]
    cells = np.full((depth + 2, height + 2, width + 2), -1, np.int64)
    cells[z + 1, y + 1, tall.x + 1] = tall.index
    flat = cells.ravel()
    steps = (height + 2) * (width + 2), width + 2, 1
    at = (z + 1) * steps[0] + (y + 1) * steps[1] + tall.x + 1
    surface = np.zeros(tall.count)
    for direction, share in _directions(voxel_um):
        step = sum(d * s for d, s in zip(direction, steps, strict=True))
        left = np.bincount(tall.index[flat[at + step] != tall.index], minlength=tall.count)
        surface += left * share
    return surface


@lru_cache(maxsize=8)
def _directions(voxel_um: Voxel) -> list[tuple[Origin, float]]:
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
