"""Labels and pixels to one row a cell: a dict of vectorised functions, one a group of columns.

A new measurement is one function from `Patch` to columns and one line in
`MEASUREMENTS`. Every value follows from the pixels of its own cell alone, to
the last bit: neither the window nor the other cells in it change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError, nearest

Columns = dict[str, NDArray[Any]]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

NOWHERE = np.iinfo(np.int64).max // 8  # beyond any column, and safe to double


@dataclass(frozen=True, eq=False)
class Patch:
    """The cells to measure in one window of a plane, as a list of their P pixels.

    Parameters
    ----------
    count : int
        Number of cells, N; cell ``i`` is the one at ``ids[i]`` of `measure`.
    index : int64 (P,)
        The cell of each pixel, 0..N-1, in raster order; every cell has a pixel.
    y, x : int64 (P,)
        Row and column of each pixel in the window.
    pixels : (C, H, W)
        The window of the image, any real dtype.
    channels : tuple of C str
        Their names.
    pixel_um : (float, float) or None
        Height and width of a pixel in um.
    origin : (int, int)
        Row and column in the plane of the window's first pixel.
    """

    count: int
    index: Integers
    y: Integers
    x: Integers
    pixels: NDArray[Any]
    channels: tuple[str, ...]
    pixel_um: tuple[float, float] | None = None
    origin: tuple[int, int] = (0, 0)

    def total(self, values: NDArray[Any]) -> Floats:
        """Sum `values` (P,) over each cell's pixels; float64 (N,), exact for sums below 2**53."""
        summed = np.bincount(self.index, values, minlength=self.count)
        return summed.astype(np.float64, copy=False)  # numpy counts nothing as int64

    def least(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the smallest of `values` (P,) in each cell, (N,), of the same dtype."""
        found = np.empty(self.count, values.dtype)
        found[self.index] = values
        np.minimum.at(found, self.index, values)
        return found

    def greatest(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the largest of `values` (P,) in each cell, (N,), of the same dtype."""
        found = np.empty(self.count, values.dtype)
        found[self.index] = values
        np.maximum.at(found, self.index, values)
        return found

    def intensity(self, channel: int) -> Floats:
        """Return the value of channel number `channel` at each pixel, float64 (P,)."""
        values: NDArray[Any] = self.pixels[channel][self.y, self.x]
        return values.astype(np.float64)

    @cached_property
    def area(self) -> Integers:
        """Pixels in each cell, int64 (N,)."""
        return np.bincount(self.index, minlength=self.count).astype(np.int64)

    @cached_property
    def corner(self) -> tuple[Integers, Integers]:
        """First row and first column of each cell's box in the window, int64 (N,) each."""
        return self.least(self.y), self.least(self.x)

    @cached_property
    def centre(self) -> tuple[Floats, Floats]:
        """Row and column of each cell's centroid in its own box, float64 (N,) each."""
        top, left = self.corner
        y, x = self.y - top[self.index], self.x - left[self.index]
        return self.total(y) / self.area, self.total(x) / self.area


def position(patch: Patch) -> Columns:
    """Return centroid and area: in px, and in um, NaN where the pixel size is unknown."""
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
        "perimeter_px": _perimeter(patch),
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


MEASUREMENTS: dict[str, Callable[[Patch], Columns]] = {
    "shape": shape,
    "intensity": intensity,
}


def measure(
    labels: NDArray[Any],
    pixels: NDArray[Any],
    ids: Sequence[int] | NDArray[Any],
    channels: Sequence[str],
    *,
    groups: Sequence[str] = ("shape", "intensity"),
    pixel_um: tuple[float, float] | None = None,
    origin: tuple[int, int] = (0, 0),
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
    groups : sequence of str
        Keys of `MEASUREMENTS`, in the order of the columns wanted.
    pixel_um : (float, float), optional
        Height and width of a pixel in um; unknown by default.
    origin : (int, int)
        Row and column in the plane of the window's first pixel.

    Returns
    -------
    dict of str to array (N,)
        ``y_px, x_px, y_um, x_um, area_px, area_um2`` and the columns of each
        group. ``area_px`` is int64, the rest of these float64.

    Raises
    ------
    CellsegError
        If a group is unknown or two channels have one name.
    ValueError
        If shapes do not fit, or an id is repeated or not in the window.
    """
    _check(labels, pixels, channels, groups)
    patch = Patch(
        len(ids),
        *_find(labels, np.asarray(ids)),
        pixels,
        tuple(channels),
        pixel_um,
        origin,
    )
    columns = position(patch)
    for group in groups:
        columns |= MEASUREMENTS[group](patch)
    return columns


def empty(groups: Sequence[str], channels: Sequence[str]) -> Columns:
    """Return the columns of `measure` for an image without cells: names, dtypes, length 0."""
    pixels = np.zeros((len(channels), 1, 1), np.uint8)
    return measure(np.zeros((1, 1), np.uint32), pixels, [], channels, groups=groups)


def column_types(groups: Sequence[str], channels: Sequence[str]) -> dict[str, np.dtype[Any]]:
    """Return the name and dtype of each column that `measure` gives, in order."""
    return {name: values.dtype for name, values in empty(groups, channels).items()}


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


def _perimeter(patch: Patch) -> Floats:
    """Return the perimeter of each cell, float64 (N,), in px.

    Benkrid and Crookes, "Design and FPGA implementation of a perimeter
    estimator", as `skimage.measure.perimeter` with neighborhood 4, with
    "the same cell" in place of "foreground".
    """
    height, width = patch.pixels.shape[1:]
    cells = np.full((height + 2, width + 2), -1, np.int64)
    cells[patch.y + 1, patch.x + 1] = patch.index
    flat, row = cells.ravel(), width + 2
    straight, diagonal = (1, -1, row, -row), (row + 1, row - 1, 1 - row, -1 - row)
    at = (patch.y + 1) * row + patch.x + 1
    edge = np.any([flat[at + step] != patch.index for step in straight], axis=0)
    border = np.full_like(flat, -1)
    border[at[edge]] = patch.index[edge]
    at, cell = at[edge], patch.index[edge]
    code = np.ones(len(at), np.int64)
    for weight, steps in ((2, straight), (10, diagonal)):
        for step in steps:
            code += weight * (border[at + step] == cell)
    seen = np.bincount(cell * 50 + code, minlength=patch.count * 50).reshape(-1, 50)
    ones, roots, halves = (
        seen[:, codes].sum(axis=1) for codes in ([5, 7, 15, 17, 25, 27], [21, 33], [13, 23])
    )
    length: Floats = ones + roots * sqrt(2) + halves * ((1 + sqrt(2)) / 2)
    return length


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
