"""Labels and pixels to one row a cell: a dict of vectorised functions, one a group of columns.

A new measurement is one function from `Patch` to columns and one line in
`MEASUREMENTS`. Every value follows from the pixels of its own cell alone, to
the last bit: neither the window nor the other cells in it change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.edges import perimeter, straight_edge
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.patch import Columns, Integers, Near, Patch

__all__ = ["MEASUREMENTS", "Columns", "Group", "Patch", "column_types", "empty", "measure", "reach"]

NOWHERE = np.iinfo(np.int64).max // 8  # beyond any column, and safe to double


def position(patch: Patch) -> Columns:
    """Return what every cell is measured for: centroid, area and straightness of its edge.

    Centroid and area in px, and in um: NaN where the pixel size is unknown.
    """
    height, width = patch.pixel_um or (np.nan, np.nan)
    y, x = (
        start + corner + centre
        for start, corner, centre in zip(patch.origin, patch.corner, patch.centre, strict=True)
    )
    return {
        "y_px": y,
        "x_px": x,
        "y_um": y * height,
        "x_um": x * width,
        "area_px": patch.area,
        "area_um2": patch.area * (height * width),
        "straight_edge": straight_edge(patch),
    }


def shape(patch: Patch) -> Columns:
    """Return perimeter, axes, eccentricity and solidity, in px, as defined by scikit-image.

    The axes are those of the ellipse with the same second moments.
    """
    (cy, cx), (top, left) = patch.centre, patch.corner
    y = patch.y - top[patch.index] - cy[patch.index]
    x = patch.x - left[patch.index] - cx[patch.index]
    yy, xx, xy = (patch.total(product) / patch.area for product in (y * y, x * x, x * y))
    spread = np.hypot((yy - xx) / 2, xy)
    long = (yy + xx) / 2 + spread
    # Not `half trace - spread`: that loses a thin cell's short axis to cancellation.
    known = np.where(long > 0, long, 1)
    short = np.maximum(yy * xx - xy * xy, 0) / known
    return {
        "perimeter_px": perimeter(patch),
        "major_axis_px": 4 * np.sqrt(long),
        "minor_axis_px": 4 * np.sqrt(short),
        "eccentricity": np.sqrt(np.minimum(2 * spread / known, 1)),
        "solidity": patch.area / _convex_area(patch),
    }


def intensity(patch: Patch) -> Columns:
    """Return mean, population standard deviation, least, greatest and sum of each channel.

    In grey levels of the original image. Sums of integer images are exact
    below 2**53; a cell of constant value has a deviation of exactly 0.
    """
    columns: Columns = {}
    for number, channel in enumerate(patch.channels):
        values = patch.intensity(number)
        total, least = patch.total(values), patch.least(values)
        above = values - least[patch.index]
        off = above - (patch.total(above) / patch.area)[patch.index]
        columns[f"mean_{channel}"] = total / patch.area
        columns[f"std_{channel}"] = np.sqrt(patch.total(off * off) / patch.area)
        columns[f"min_{channel}"] = least
        columns[f"max_{channel}"] = patch.greatest(values)
        columns[f"sum_{channel}"] = total
    return columns


@dataclass(frozen=True)
class Group:
    """An entry of `MEASUREMENTS`: a group of columns.

    Parameters
    ----------
    measure : callable
        From the cells of a window to columns, each an array (N,).
    reach : callable
        From the settings to the px around a cell that its values follow from; by default
        none but the cell's own.
    """

    measure: Callable[[Patch], Columns]
    reach: Callable[[Measure], int] = lambda _: 0


MEASUREMENTS: dict[str, Group] = {
    "shape": Group(shape),
    "intensity": Group(intensity),
}


def reach(settings: Measure) -> int:
    """Return how many px around a cell the chosen groups need to see."""
    return max((MEASUREMENTS[group].reach(settings) for group in settings.groups), default=0)


def measure(
    labels: NDArray[Any],
    pixels: NDArray[Any],
    ids: Sequence[int] | NDArray[Any],
    channels: Sequence[str],
    *,
    settings: Measure | None = None,
    pixel_um: tuple[float, float] | None = None,
    origin: tuple[int, int] = (0, 0),
    occupied: NDArray[np.bool_] | None = None,
    near: Near | None = None,
) -> Columns:
    """Measure the cells `ids` of one window.

    Parameters
    ----------
    labels : integer (H, W)
        0 is background; labels not in `ids` are background too. A cell that
        the window cuts is measured as it is there.
    pixels : real (C, H, W)
        The same window of the image; finite under the cells.
    ids : (N,)
        Labels to measure, in the order of the rows wanted.
    channels : sequence of C str
        Names for the columns.
    settings : Measure, optional
        The groups wanted, keys of `MEASUREMENTS`, in the order of their columns, and how
        they are measured.
    pixel_um : (float, float), optional
        Height and width of a pixel in um; unknown by default.
    origin : (int, int)
        Row and column in the plane of the window's first pixel.
    occupied : bool (H, W), optional
        Where any cell lies; by default where `labels` has one.
    near : Near, optional
        The centres of all cells of the plane; by default of those in `labels` alone.

    Returns
    -------
    dict of str to array (N,)
        ``y_px, x_px, y_um, x_um, area_px, area_um2, straight_edge`` and the
        columns of each group. ``area_px`` is int64, the rest of these float64.

    Raises
    ------
    CellsegError
        If a group is unknown or two channels have one name.
    ValueError
        If shapes do not fit, or an id is repeated or not in the window.
    """
    settings = settings or Measure()
    _check(labels, pixels, channels, settings.groups)
    patch = patch_of(
        labels, pixels, ids, channels, settings, pixel_um, origin, occupied=occupied, near=near
    )
    columns = position(patch)
    for group in settings.groups:
        columns |= MEASUREMENTS[group].measure(patch)
    return columns


def patch_of(
    labels: NDArray[Any],
    pixels: NDArray[Any],
    ids: Sequence[int] | NDArray[Any],
    channels: Sequence[str],
    settings: Measure,
    pixel_um: tuple[float, float] | None = None,
    origin: tuple[int, int] = (0, 0),
    **context: Any,
) -> Patch:
    """Return the cells `ids` of one window as their pixels; see `measure`."""
    found = _find(labels, np.asarray(ids))
    if context.get("occupied") is None:
        context["occupied"] = labels > 0
    about = tuple(channels), pixel_um, origin, settings
    return Patch(len(ids), *found, pixels, *about, **context)


def empty(settings: Measure, channels: Sequence[str]) -> Columns:
    """Return the columns of `measure` for an image without cells: names, dtypes, length 0."""
    pixels = np.zeros((len(channels), 1, 1), np.uint8)
    return measure(np.zeros((1, 1), np.uint32), pixels, [], channels, settings=settings)


def column_types(settings: Measure, channels: Sequence[str]) -> dict[str, np.dtype[Any]]:
    """Return the name and dtype of each column that `measure` gives, in order."""
    return {name: values.dtype for name, values in empty(settings, channels).items()}


def _check(
    labels: NDArray[Any], pixels: NDArray[Any], channels: Sequence[str], groups: Sequence[str]
) -> None:
    """Refuse what cannot be measured."""
    for group in groups:
        if group not in MEASUREMENTS:
            raise CellsegError(
                f'[measure] groups: unknown group "{group}".{nearest(group, MEASUREMENTS)}'
                f" Known: {', '.join(MEASUREMENTS)}."
            )
    repeated = [name for name in channels if list(channels).count(name) > 1]
    if repeated:
        raise CellsegError(
            f'channels: "{repeated[0]}" names {repeated.count(repeated[0])} channels;'
            " each channel's columns need a name of their own. Rename the channels in the image."
        )
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels: integers (H, W) are needed, got {labels.dtype} {labels.shape}")
    if pixels.shape != (len(channels), *labels.shape):
        raise ValueError(
            f"pixels {pixels.shape} do not fit {len(channels)} channels and labels {labels.shape}"
        )


def _find(labels: NDArray[Any], ids: NDArray[Any]) -> tuple[Integers, Integers, Integers]:
    """Return position in `ids`, row and column of each pixel of the cells, in raster order."""
    y, x = labels.nonzero()
    values = labels[y, x]
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids[order], values)
    wanted = place < len(ids)
    wanted[wanted] = ids[order[place[wanted]]] == values[wanted]
    index = order[place[wanted]]
    missing = np.flatnonzero(np.bincount(index, minlength=len(ids)) == 0)
    if len(missing):
        raise ValueError(f"id {ids[missing[0]]} is repeated or not among the labels of the window")
    return index, y[wanted], x[wanted]


def _convex_area(patch: Patch) -> Integers:
    """Return the pixels whose centre is in or on the cell's convex hull, int64 (N,).

    The hull of the middles of all pixel edges, as scikit-image takes it, in
    integers of half a pixel, so the count is exact.
    """
    if patch.count == 0:
        return patch.area
    top = patch.corner[0]
    height = patch.greatest(patch.y) - top + 1
    row = (np.cumsum(height) - height - top)[patch.index] + patch.y
    first = np.full(height.sum(), NOWHERE)
    last = np.full(height.sum(), -NOWHERE)
    np.minimum.at(first, row, patch.x)
    np.maximum.at(last, row, patch.x)
    filled = first < NOWHERE
    width = 1 - _hull_start(height, -last, filled) - _hull_start(height, first, filled)
    return np.add.reduceat(width, np.cumsum(height) - height)


def _hull_start(height: Integers, first: Integers, filled: NDArray[np.bool_]) -> Integers:
    """Return the first column in the hull for each row of each cell, int64 (rows of all cells,).

    Parameters
    ----------
    height : int64 (N,)
        Rows of each cell; the first and the last one are filled.
    first : int64 (rows of all cells,)
        First column with a pixel in that row.
    filled : bool (rows of all cells,)
        Whether the row has a pixel.
    """
    cell = np.repeat(np.arange(len(height)), height)
    middle = 2 * np.arange(len(cell)) + cell + 1  # h rows have 2 h + 1 half rows
    inner = middle[filled]
    half = np.full(2 * len(cell) + len(height), NOWHERE)
    half[inner] = 2 * first[filled] - 1
    half[inner - 1] = 2 * first[filled]
    half[inner + 1] = np.minimum(half[inner + 1], 2 * first[filled])
    at, owner = np.flatnonzero(half < NOWHERE), np.repeat(np.arange(len(height)), 2 * height + 1)
    # A point on or right of the line through its neighbours is no corner of the hull. All such
    # points go at once: no corner is ever one, so what is left in the end are the corners.
    while True:
        x, same = half[at], owner[at[:-2]] == owner[at[2:]]
        before, after = np.diff(at)[:-1], np.diff(at)[1:]
        keep = ~same | (np.diff(x)[:-1] * after < np.diff(x)[1:] * before)
        if keep.all():
            break
        at = at[np.concatenate([[True], keep, [True]])]
    left = np.searchsorted(at, middle, side="right") - 1
    y0, y1 = at[left], at[left + 1]
    crossing = half[y0] * (y1 - middle) + half[y1] * (middle - y0)
    column: Integers = -(-crossing // (2 * (y1 - y0)))
    return column
