"""Labels and pixels to one row a cell: a dict of vectorised functions, one a group of columns.

A new measurement is one function from `Patch` to columns and one line in
`MEASUREMENTS`. Every value follows from the cell and, where its group says so, from what
lies within a reach of it: neither the window nor the tiling changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.body import solid
from cellseg.pipeline.correlation import correlation
from cellseg.pipeline.edges import straight_edge
from cellseg.pipeline.granularity import granularity, granularity_reach
from cellseg.pipeline.intensity import intensity
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.moments import moments
from cellseg.pipeline.neighbours import neighbours, neighbours_reach
from cellseg.pipeline.patch import Columns, Floats, Near, Patch
from cellseg.pipeline.position import position
from cellseg.pipeline.radial import radial
from cellseg.pipeline.ring import background, background_reach, ring, ring_reach
from cellseg.pipeline.runs import Runs
from cellseg.pipeline.shape import shape
from cellseg.pipeline.texture import texture

__all__ = ["MEASUREMENTS", "Columns", "Group", "Patch", "column_types", "empty", "measure", "reach"]


def centroid(patch: Patch) -> Columns:
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
    "solid": Group(solid),
    "background": Group(background, background_reach),
    "ring": Group(ring, ring_reach),
    "radial": Group(radial),
    "correlation": Group(correlation),
    "neighbours": Group(neighbours, neighbours_reach),
    "position": Group(position),
    "moments": Group(moments),
    "texture": Group(texture),
    "granularity": Group(granularity, granularity_reach),
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
    extent: tuple[int, int] | None = None,
    solid_centres: Floats | None = None,
    tops: tuple[float, ...] | None = None,
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
        The centres of all cells of the plane; by default of those measured alone.
    extent : (int, int), optional
        Height and width of the plane; by default those of the window.
    solid_centres : float64 (N, 3), optional
        Of 3D cells, of which these are sections; see `Patch`.
    tops : tuple of C float, optional
        The highest grey level that each channel can have; by default of the type of `pixels`.

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
    context: dict[str, Any] = {"occupied": occupied, "near": near, "extent": extent}
    context |= {"solid_centres": solid_centres, "tops": tops}
    about = channels, settings, pixel_um, origin
    patch = patch_of(labels, pixels, ids, *about, **context)
    columns = centroid(patch)
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
    runs = Runs.of(labels, np.asarray(ids))
    if context.get("occupied") is None:
        context["occupied"] = labels > 0
    about = tuple(channels), pixel_um, origin, settings
    return Patch(len(ids), runs, pixels, *about, **context)


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
