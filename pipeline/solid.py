"""3D cells and their voxels to one row a cell: volume, surface, and what `measure` measures.

What is a property of an outline (area, shape), or of how grey levels lie in a plane (texture,
rings), is measured on a cell's largest section, the plane in which it has most pixels, of several
such the first. What is a property of grey levels alone is measured over all voxels, and
distances to other cells in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.body import Body, surface
from cellseg.pipeline.measure import MEASUREMENTS, measure
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.patch import Columns, Floats, Near
from cellseg.pipeline.runs import Runs
from cellseg.pipeline.voxel import Voxel, depth_px

OVER_VOXELS = ("intensity", "solid", "correlation")
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
    occupied: NDArray[np.bool_] | None = None,
    near: Near | None = None,
    extent: tuple[int, int] | None = None,
    tops: tuple[float, ...] | None = None,
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
    occupied : bool (Z, H, W), optional
        Where any cell lies; by default where `labels` has one.
    near : Near, optional
        The centres of all cells of the time point; by default of those measured alone.
    extent : (int, int), optional
        Height and width of a plane; by default those of the window.
    tops : tuple of C float, optional
        The highest grey level that each channel can have; by default of the type of `pixels`.

    Returns
    -------
    dict of str to array (N,)
        The columns of `cellseg.pipeline.measure.measure`, and ``z_px, z_um, planes,
        volume_px, volume_um3, surface_um2``; NaN where the size of a voxel is unknown.
    """
    settings = settings or Measure()
    depth, height, width = labels.shape
    runs = Runs.of(labels.reshape(-1, width), np.asarray(ids))
    body = Body(
        len(ids),
        runs,
        pixels.reshape(len(pixels), depth * height, width),
        tuple(channels),
        settings=settings,
        occupied=labels.reshape(-1, width) > 0,
        depth=depth,
        voxel_um=voxel_um,
    )
    sections = np.bincount(body.index * depth + body.along[0], minlength=body.count * depth)
    sections = sections.reshape(-1, depth)
    centre = [
        body.total(along + start) / body.area
        for along, start in zip(body.along, origin, strict=True)
    ]
    centres = np.stack([centre[0] * depth_px(voxel_um), *centre[1:]], axis=1)
    columns = _on_largest(
        labels,
        pixels,
        ids,
        channels,
        sections,
        settings=settings.model_copy(
            update={"groups": tuple(g for g in settings.groups if g not in OVER_VOXELS)}
        ),
        pixel_um=voxel_um[1:] if voxel_um else None,
        origin=origin[1:],
        occupied=labels > 0 if occupied is None else occupied,
        near=near or _among(centres),
        extent=extent,
        tops=tops,
        centres=centres,
    )
    for group in settings.groups:
        if group in OVER_VOXELS:
            columns |= MEASUREMENTS[group].measure(body)
    size = voxel_um or (np.nan,) * 3
    for name, along, side in zip("zyx", centre, size, strict=True):
        columns[f"{name}_px"] = along
        columns[f"{name}_um"] = along * side
    return columns | {
        "planes": np.count_nonzero(sections, axis=1).astype(np.int32),
        "volume_px": body.area,
        "volume_um3": body.area * (size[0] * size[1] * size[2]),
        "surface_um2": surface(body),
    }


def _among(centres: Floats) -> Near:
    """Return what gives those of some centres (N, 3) that lie in a band of y."""
    y = centres[:, 1]
    return lambda y0, y1: centres[(y >= y0) & (y < y1)]


def _on_largest(
    labels: NDArray[np.integer],
    pixels: NDArray[np.generic],
    ids: NDArray[np.integer],
    channels: Sequence[str],
    sections: NDArray[np.int64],
    occupied: NDArray[np.bool_],
    centres: Floats,
    **about: Any,
) -> Columns:
    """Return what `measure` says of each cell's largest section."""
    columns: Columns = {}
    largest = sections.argmax(axis=1) if len(ids) else np.zeros(0, np.intp)
    for z in np.unique(largest).tolist():
        there = np.flatnonzero(largest == z)
        place = {"occupied": occupied[z], "solid_centres": centres[there]}
        found = measure(labels[z], pixels[:, z], ids[there], channels, **place, **about)
        for name, values in found.items():
            columns.setdefault(name, np.zeros(len(ids), values.dtype))[there] = values
    return columns
