"""Moments: a cell's outline in numbers that no turn, and no size, changes."""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.circle import enclosing_circle
from cellseg.pipeline.patch import Columns, Floats, Patch

DEGREE = 9
"""The highest degree of Zernike's polynomials, as in CellProfiler."""


def moments(patch: Patch) -> Columns:
    """Return Hu's seven moments of each mask, and the magnitudes of Zernike's up to degree 9.

    Hu's as in `skimage.measure.moments_hu`; Zernike's as CellProfiler's MeasureObjectSizeShape
    has them, in the smallest circle around the cell: Boland, Markey and Murphy, Cytometry
    1998. A pixel on the circle counts as in it. NaN for a cell of a single pixel, around
    which there is none.
    """
    columns = {f"hu_{n + 1}": values for n, values in enumerate(_hu(_normalised(patch)))}
    return columns | _zernike(patch)


def _normalised(patch: Patch) -> dict[tuple[int, int], Floats]:
    """Return the central moments of order 2 and 3 that do not change with size, by (y, x)."""
    (cy, cx), (top, left) = patch.centre, patch.corner
    y = patch.y - (top + cy)[patch.index]
    x = patch.x - (left + cx)[patch.index]
    orders = [(p, q) for p in range(4) for q in range(4) if 2 <= p + q <= 3]
    return {
        (p, q): patch.total(y**p * x**q) / patch.area.astype(float) ** ((p + q) / 2 + 1)
        for p, q in orders
    }


def _hu(eta: dict[tuple[int, int], Floats]) -> tuple[Floats, ...]:
    """Return Hu's moments: "Visual pattern recognition by moment invariants", 1962."""
    a, b = eta[3, 0] + eta[1, 2], eta[2, 1] + eta[0, 3]
    c, d = eta[3, 0] - 3 * eta[1, 2], 3 * eta[2, 1] - eta[0, 3]
    e, f = eta[2, 0] - eta[0, 2], eta[1, 1]
    aa, bb = a * a, b * b
    return (
        eta[2, 0] + eta[0, 2],
        e * e + 4 * f * f,
        c * c + d * d,
        aa + bb,
        c * a * (aa - 3 * bb) + d * b * (3 * aa - bb),
        e * (aa - bb) + 4 * f * a * b,
        d * a * (aa - 3 * bb) - c * b * (3 * aa - bb),
    )


def _zernike(patch: Patch) -> Columns:
    """Return the magnitude of each moment of Zernike over the area of the circle."""
    cy, cx, radius = enclosing_circle(patch)
    some = np.where(radius > 0, radius, 1)[patch.index]
    z = (patch.y - cy[patch.index]) / some + 1j * (patch.x - cx[patch.index]) / some
    squared = z.real**2 + z.imag**2
    area = np.pi * np.where(radius > 0, radius, np.nan) ** 2
    columns: dict[tuple[int, int], Floats] = {}
    power: NDArray[np.complex128] = np.ones(len(z), np.complex128)
    for m in range(DEGREE + 1):
        sums, weighted = [], power
        for _ in range((DEGREE - m) // 2 + 1):
            sums.append(patch.total(weighted.real) + 1j * patch.total(weighted.imag))
            weighted = weighted * squared
        for n in range(m, DEGREE + 1, 2):
            half = (n - m) // 2
            moment = sum(_coefficient(n, m, k) * sums[half - k] for k in range(half + 1))
            columns[n, m] = np.abs(moment) / area
        power = power * z
    return {f"zernike_{n}_{m}": columns[n, m] for n, m in sorted(columns)}


def _coefficient(n: int, m: int, k: int) -> float:
    """Return the factor of r ** (n - 2 k) in Zernike's radial polynomial."""
    below = factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k)
    return (-1.0) ** (k % 2) * factorial(n - k) / below
