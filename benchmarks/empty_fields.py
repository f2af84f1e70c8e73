"""Fields without a cell: noise, shading, dirt; whatever a model finds there is false.

Percentiles stretch the noise of such a field to the full range, so these are
the images that a plate's empty wells become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.breakdown import Row
from cellseg.models import Instances

Plane = NDArray[np.float64]

SIDE = 1000
"""Px; a megapixel each."""
LEVEL, NOISE = 1000.0, 20.0
"""Background and the camera's noise, in grey levels of 16 bits."""


def _noise(random: np.random.Generator, side: int) -> Plane:
    return LEVEL + random.normal(0, NOISE, (side, side))


def _smooth(sigma: float) -> Callable[[np.random.Generator, int], Plane]:
    def draw(random: np.random.Generator, side: int) -> Plane:
        soft = ndimage.gaussian_filter(random.normal(0, 1, (side, side)), sigma)
        return np.asarray(LEVEL + soft * (NOISE / soft.std()), np.float64)

    return draw


def _poisson(random: np.random.Generator, side: int) -> Plane:
    return random.poisson(LEVEL / 2, (side, side)).astype(np.float64)


def _gradient(random: np.random.Generator, side: int) -> Plane:
    return _noise(random, side) + np.linspace(-LEVEL / 2, LEVEL / 2, side)[None, :]


def _vignette(random: np.random.Generator, side: int) -> Plane:
    across = np.linspace(-1, 1, side)
    return _noise(random, side) - LEVEL / 4 * (across[:, None] ** 2 + across[None, :] ** 2)


def _dust(random: np.random.Generator, side: int) -> Plane:
    field = _noise(random, side)
    for _ in range(max(side * side * 30 // SIDE**2, 1)):
        y, x = random.integers(0, side, 2)
        long = random.integers(1, 3, 2)
        field[y : y + long[0], x : x + long[1]] += random.uniform(500, 3000)
    return field


def _blobs(random: np.random.Generator, side: int) -> Plane:
    """Draw what lies far out of focus: soft, 80 to 200 px across."""
    field = _noise(random, side)
    y, x = np.ogrid[:side, :side]
    for _ in range(8):
        centre, sigma = random.uniform(0, side, 2), random.uniform(40, 100)
        distance = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
        field += random.uniform(100, 300) * np.exp(-distance / (2 * sigma**2))
    return field


def _hot_pixels(random: np.random.Generator, side: int) -> Plane:
    field = _noise(random, side)
    hot = random.random((side, side)) < 5e-4
    field[hot] = random.uniform(2 * LEVEL, 65535, np.count_nonzero(hot))
    return field


def _constant(random: np.random.Generator, side: int) -> Plane:  # noqa: ARG001 - as the others
    return np.full((side, side), LEVEL)


KINDS: dict[str, Callable[[np.random.Generator, int], Plane]] = {
    "white noise": _noise,
    "noise, sigma 0.7 px": _smooth(0.7),
    "noise, sigma 2 px": _smooth(2.0),
    "flat, Poisson": _poisson,
    "gradient": _gradient,
    "vignette": _vignette,
    "dust": _dust,
    "out of focus": _blobs,
    "hot pixels": _hot_pixels,
    "constant": _constant,
}


def empty_fields(seed: int = 0, side: int = SIDE) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """Yield a field of each kind.

    Parameters
    ----------
    seed : int
        The same seed gives the same fields, whatever other kinds there are.
    side : int
        Height and width in px.

    Yields
    ------
    kind : str
    field : uint16 (1, side, side)
    """
    for kind, draw in KINDS.items():
        field = draw(np.random.default_rng([seed, crc32(kind.encode())]), side)
        yield kind, np.clip(np.rint(field), 0, 65535).astype(np.uint16)[None]


def false_cells(
    find: Callable[[NDArray[np.uint16]], Instances], seed: int = 0, side: int = SIDE
) -> list[Row]:
    """Count what a model finds in empty fields.

    Parameters
    ----------
    find : function of uint16 (1, H, W)
        Normalises and segments a field.
    seed, side : int
        See `empty_fields`.

    Returns
    -------
    list of dict
        For each kind, then for all: false cells a megapixel, the highest score
        and the median diameter among them (None without a false cell).
    """
    rows = []
    everything = []
    for kind, field in empty_fields(seed, side):
        found = find(field)
        everything.append(found)
        rows.append(_row(kind, found, side * side))
    return [*rows, _row("all", Instances.concatenate(everything), side * side * len(rows))]


def _row(kind: str, found: Instances, pixels: int) -> Row:
    diameters = 2 * np.sqrt(found.areas() / np.pi)
    return {
        "field": kind,
        "false_per_mpx": len(found) / pixels * 1e6,
        "highest_score": float(found.scores.max()) if len(found) else None,
        "median_px": float(np.median(diameters)) if len(found) else None,
    }
