"""Shape: what a cell's outline tells, measured on the mask alone."""

from __future__ import annotations

from math import isclose, pi, sqrt

import numpy as np

from cellseg.pipeline.edges import perimeter
from cellseg.pipeline.hull import Hulls
from cellseg.pipeline.patch import Columns, Floats, Integers, Patch

LENGTHS = (
    "perimeter",
    "major_axis",
    "minor_axis",
    "feret_max",
    "feret_min",
    "equivalent_diameter",
)
"""Columns in px that there are in um, too."""


def shape(patch: Patch) -> Columns:
    """Return the columns of the group `shape`, as defined by scikit-image where it has them.

    Lengths in px, and in um: NaN where the pixel size is unknown, or a pixel is not a
    square (within 1 %), as a length along no axis is none of so many pixels then.
    """
    columns = {"perimeter_px": perimeter(patch)} | _ellipse(patch) | _hull(patch)
    perimeter_px = columns["perimeter_px"]
    round_ = 4 * pi * patch.area / np.where(perimeter_px > 0, perimeter_px, 1) ** 2
    columns |= {
        "extent": patch.area / (patch.size[0] * patch.size[1]),
        # One pixel, or two, have a perimeter of 0.
        "form_factor": np.where(perimeter_px > 0, round_, 1.0),
        "euler_number": _euler_number(patch),
        "equivalent_diameter_px": np.sqrt(patch.area * (4 / pi)),
    }
    side = _side_um(patch)
    return columns | {f"{name}_um": columns[f"{name}_px"] * side for name in LENGTHS}


def _ellipse(patch: Patch) -> Columns:
    """Return axes, eccentricity and orientation of the ellipse with the same second moments."""
    yy, xx, xy = _second_moments(patch)
    spread = np.hypot((yy - xx) / 2, xy)
    long = (yy + xx) / 2 + spread
    # Not `half trace - spread`: that loses a thin cell's short axis to cancellation.
    known = np.where(long > 0, long, 1)
    short = np.maximum(yy * xx - xy * xy, 0) / known
    diagonal = np.where(xy > 0, pi / 4, -pi / 4)
    return {
        "major_axis_px": 4 * np.sqrt(long),
        "minor_axis_px": 4 * np.sqrt(short),
        "eccentricity": np.sqrt(np.minimum(2 * spread / known, 1)),
        "orientation_rad": np.where(yy == xx, diagonal, np.arctan2(2 * xy, yy - xx) / 2),
    }


def _second_moments(patch: Patch) -> tuple[Floats, Floats, Floats]:
    """Return the central second moments yy, xx and xy of each cell over its area, float64 (N,).

    Sums of whole numbers over runs, from the pixel nearest to the centroid: exact, and small.
    """
    runs, area = patch.runs, patch.area
    centre = [np.rint(c).astype(np.int64) for c in patch.centre]
    off_y, off_x = (c - m for c, m in zip(patch.centre, centre, strict=True))
    y, start = (
        along - (corner + middle)[runs.cell]
        for along, corner, middle in zip((runs.y, runs.start), patch.corner, centre, strict=True)
    )
    stop, length = start + runs.length, runs.length
    sum_x = (start + stop - 1) * length // 2
    yy, xx, xy = (
        np.add.reduceat(values, runs.first) / area
        for values in (y * y * length, _squares(stop) - _squares(start), y * sum_x)
    )
    return yy - off_y * off_y, xx - off_x * off_x, xy - off_y * off_x


def _squares(stop: Integers) -> Integers:
    """Return the sum of all squares from 0 to each of `stop`, which is left out."""
    return (stop - 1) * stop * (2 * stop - 1) // 6


def _hull(patch: Patch) -> Columns:
    """Return area and solidity of the convex hull, and its widths."""
    hulls = Hulls.of(patch)
    area = hulls.area
    longest, least = hulls.feret()
    return {
        "solidity": patch.area / area,
        "convex_area_px": area,
        "feret_max_px": longest,
        "feret_min_px": least,
    }


def _euler_number(patch: Patch) -> Integers:
    """Return pieces less holes of each cell, int64 (N,); pixels that share a corner are one piece.

    Runs less pairs of runs that meet, in rows that follow on each other: a run is a piece
    without a hole, two of them meet in one place, three in none.
    """
    runs, wide = patch.runs, patch.pixels.shape[2] + 2
    # Each row of each cell by itself; rows that follow on each other differ by 1.
    height = patch.size[0] + 1
    row = (np.cumsum(height) - height - patch.corner[0])[runs.cell] + runs.y
    starts, stops, below = row * wide + runs.start, row * wide + runs.stop, wide
    meeting = np.searchsorted(starts, stops + below, side="right")
    meeting -= np.searchsorted(stops, starts + below, side="left")
    return np.add.reduceat(1 - meeting, runs.first)


def _side_um(patch: Patch) -> float:
    """Return the side of a pixel in um; NaN where it is unknown or pixels are not square."""
    height, width = patch.pixel_um or (np.nan, np.nan)
    return sqrt(height * width) if isclose(height, width, rel_tol=0.01) else np.nan
