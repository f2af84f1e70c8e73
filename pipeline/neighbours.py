"""Neighbours: how near the next cells are, how many there are, and what a cell touches."""

from __future__ import annotations

import numpy as np

from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.patch import Columns, Floats, Patch
from cellseg.pipeline.ring import over

ROUNDING = 1e-9
"""Part of a distance: a centre that is this much beyond it still counts, whatever its last bits."""
FIRST_LOOK = 64.0
"""Px around the cells in which centres are looked for at first; more, where that is not enough."""


def neighbours(patch: Patch) -> Columns:
    """Return the distances of the two nearest centres, how many are near, and what is touched.

    Distances are from centre to centre, of 3D cells in space, exact however far; NaN where
    there is no other cell. The density counts the cell itself, and of the disc around it
    what lies in the image; it is unknown, NaN, for 3D cells. ``touching_fraction`` is the
    share of the pixels with one of their 4 neighbours outside the cell for which that is
    one in another cell.
    """
    height, width = patch.pixel_um or (np.nan, np.nan)
    tall = 1.0 if patch.pixel_um is None else height / width
    centres = _centres(patch)
    distance = neighbour_distance_px(patch.settings, patch.pixel_um)
    nearest, second, count = _distances(patch, centres, distance, tall)
    if patch.solid_centres is None:
        y0, x0 = (-0.5 - along for along in centres.T)
        y1, x1 = y0 + patch.shape[0], x0 + patch.shape[1]
        seen = disc_in_rectangle(distance, y0 * tall, x0, y1 * tall, x1)
        density = over(count + 1, seen)
    else:
        density = np.full(patch.count, np.nan)
    return {
        "nearest_px": nearest,
        "nearest_um": nearest * width,
        "second_nearest_px": second,
        "second_nearest_um": second * width,
        "neighbours": count,
        "density_per_px2": density * tall,
        "density_per_mm2": density * (1e6 / (width * width)),
        "touching_fraction": _touching(patch),
    }


def neighbours_reach(_settings: Measure) -> int:
    """Return how far around a cell what touches it lies; centres are known without pixels."""
    return 1


def neighbour_distance_px(settings: Measure, pixel_um: tuple[float, float] | None) -> float:
    """Return how far a neighbour may be, in widths of a pixel of a height and width in um."""
    asked = settings.neighbour_distance_um
    if asked is None or pixel_um is None:
        return settings.neighbour_distance_px
    return asked / pixel_um[1]


def disc_in_rectangle(radius: float, y0: Floats, x0: Floats, y1: Floats, x1: Floats) -> Floats:
    """Return how much of a disc around 0 lies in rectangles, float64 of their shape."""
    return (
        _below(radius, y1, x1)
        - _below(radius, y0, x1)
        - _below(radius, y1, x0)
        + _below(radius, y0, x0)
    )


def _below(radius: float, y: Floats, x: Floats) -> Floats:
    """Return how much of a disc around 0 lies above row `y` and left of column `x`."""
    y, x = (np.clip(along, -radius, radius) for along in (y, x))

    def half(to: Floats) -> Floats:
        """Integrate the height of the upper half from the left end to `to`."""
        chord = np.sqrt(np.maximum(radius * radius - to * to, 0))
        area: Floats = (to * chord + radius * radius * (np.arcsin(to / radius) + np.pi / 2)) / 2
        return area

    side = np.sqrt(np.maximum(radius * radius - y * y, 0))
    middle = np.clip(x, -side, side)
    area = y * (middle + side) + half(middle) - half(-side)
    left, right = half(np.minimum(x, -side)), half(np.maximum(x, side)) - half(side)
    whole: Floats = area + np.where(y > 0, 2 * (left + right), 0)
    return whole


def _centres(patch: Patch) -> Floats:
    """Return the cells' centres in px of the plane, float64 (N, 2), or (N, 3) of 3D cells."""
    if patch.solid_centres is not None:
        return patch.solid_centres
    along = zip(patch.origin, patch.corner, patch.centre, strict=True)
    return np.stack([start + corner + centre for start, corner, centre in along], axis=1)


def _distances(
    patch: Patch, centres: Floats, distance: float, tall: float
) -> tuple[Floats, Floats, Floats]:
    """Return the distances of the nearest two other centres and the number within `distance`.

    Centres are asked for in an ever wider frame, until none beyond it can be nearer.
    """
    # Late, so that to read a workflow loads nothing heavy.
    from scipy.spatial import cKDTree

    shape = np.array([tall, 1.0])
    own = np.concatenate([centres[:, :-2], centres[:, -2:] * shape], axis=1)
    found = np.full((len(own), 3), np.inf)
    count = np.zeros(len(own))
    frame, left = max(distance, FIRST_LOOK), np.arange(len(own))
    while len(left):
        at = centres[left, -2:]
        low, high = at.min(axis=0) - frame / shape, at.max(axis=0) + frame / shape
        others = _others(patch, centres, low, high)
        others[:, -2:] *= shape
        tree = cKDTree(others)
        found[left] = tree.query(own[left], k=3)[0]
        if len(left) == len(own):
            within = distance * (1 + ROUNDING)
            count = tree.query_ball_point(own, within, return_length=True) - 1.0
        whole = (low <= 0).all() and (high >= patch.shape).all()
        left = left[found[left, 2] > frame] if not whole else left[:0]
        frame *= 4
    found[np.isinf(found)] = np.nan
    return found[:, 1], found[:, 2], count  # the first is the cell itself


def _others(patch: Patch, centres: Floats, low: Floats, high: Floats) -> Floats:
    """Return the centres of all cells in a frame, those of the patch too."""
    if patch.near is None:
        return centres.copy()
    band = patch.near(float(low[0]), float(high[0]))
    x = band[:, -1]
    return np.asarray(band[(x >= low[1]) & (x <= high[1])])


def _touching(patch: Patch) -> Floats:
    """Return the share of each cell's edge pixels beside a pixel of another cell, float64 (N,)."""
    flat, row = patch.framed.ravel(), patch.framed.shape[1]
    occupied = np.pad(patch.occupied, 1).ravel()
    at = (patch.y + 1) * row + patch.x + 1
    edge, touching = np.zeros((2, len(at)), bool)
    for step in (1, -1, row, -row):
        outside = flat[at + step] != patch.index
        edge |= outside
        touching |= outside & occupied[at + step]
    return over(patch.total(touching), patch.total(edge))
