"""Levels: the coarser copies of an image that its file keeps, and which one a model is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cellseg.models.scale import nearest_zoom
from cellseg.pipeline.source import Shape, Stored

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["Level", "coarser", "factors", "level_for"]

HALF = 0.5
"""Magnification from which on a coarser level is read: where it is larger, none would fit."""
UNEQUAL = 1.02
"""A level that is reduced more than this unequally in y and x is taken for another picture."""


@dataclass(frozen=True, eq=False)
class Level:
    """A coarser copy of an image.

    Parameters
    ----------
    stored : Stored (T, C, Z, Y, X)
        Its pixels, of the image's T, C and Z.
    factor : (y, x)
        Px of the full resolution in a px of this level.
    """

    stored: Stored
    factor: tuple[float, float]

    @cached_property
    def pixels(self) -> da.Array:
        """The same pixels as a dask array."""
        return self.stored.lazy()

    @property
    def reduction(self) -> float:
        """The geometric mean of `factor`."""
        return math.sqrt(self.factor[0] * self.factor[1])


def factors(full: Shape, shape: Shape) -> tuple[float, float] | None:
    """Return how many px of an image lie in one of a level, along y and x.

    A level has a whole number of px, rounded somehow: where a whole factor explains
    it to within one px, that is the factor, else the ratio of the lengths.

    Parameters
    ----------
    full, shape : (T, C, Z, Y, X)
        Of the image at full resolution, and of the level.

    Returns
    -------
    (y, x) or None
        None if it is no coarser copy of the image.
    """
    if shape[:3] != full[:3] or min(shape[3:]) < 1:
        return None
    y, x = (_factor(long, short) for long, short in zip(full[3:], shape[3:], strict=True))
    if min(y, x) <= 1 or max(y, x) > UNEQUAL * min(y, x):
        return None
    return y, x


def _factor(long: int, short: int) -> float:
    whole = round(long / short)
    return float(whole) if abs(long / max(whole, 1) - short) < 1 else long / short


def coarser(full: Shape, found: Iterable[Stored]) -> tuple[Level, ...]:
    """Return the coarser copies of an image, as far as each is coarser than the one before.

    Parameters
    ----------
    full : (T, C, Z, Y, X)
        Shape of the image at full resolution.
    found : iterable of Stored
        What its file holds beside it, finest first.
    """
    levels: list[Level] = []
    for stored in found:
        factor = factors(full, stored.shape)
        if factor is None or (levels and min(factor) <= min(levels[-1].factor)):
            break
        levels.append(Level(stored, factor))
    return tuple(levels)


def level_for(levels: Sequence[Level], magnification: float) -> int:
    """Return the number of the level that is at or just above what a model sees.

    Parameters
    ----------
    levels : sequence of Level
        The coarser ones, finest first.
    magnification : float
        At which the model would see the full resolution.

    Returns
    -------
    int
        0, the full resolution, where the model sees it at more than half its size, or
        where every level would have to be enlarged. Magnifications are taken in the
        steps in which there are any: see `cellseg.models.scale.nearest_zoom`.
    """
    if nearest_zoom(magnification) > HALF:
        return 0
    fits = [
        number
        for number, level in enumerate(levels, 1)
        if nearest_zoom(magnification * level.reduction) <= 1
    ]
    return max(fits, default=0)
