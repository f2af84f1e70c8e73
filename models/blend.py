"""Cells drawn onto a background: their light adds up, or they absorb it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models.arrange import Placed, visible
from cellseg.models.light import empty_field
from cellseg.models.pose import Posed

FloatImage = NDArray[np.float32]
Random = np.random.Generator
Drawn = Sequence[tuple[Placed, Posed]]

SATURATED = 0.2
"""Share of images in fluorescence whose brightest parts come out less bright than they are."""
BLUR = 0.9
"""Px, Gaussian sigma: how a lens shows the sharp outline of a cell that absorbs evenly."""
OPAQUE = 1.8
"""Largest density of a cell, in those of an ordinary one: chromatin may be black, not its image."""


def sum_of_light(cells: Drawn, channels: int, side: int) -> FloatImage:
    """Return the light of all cells together, float32 (C, side, side)."""
    total = np.zeros((channels, side, side), np.float32)
    for place, posed in cells:
        window, part = visible(place, side)
        total[:, *window] += posed.light[:, *part]
    return total


def sum_of_density(
    cells: Drawn, side: int, brightness: float, texture: float, strength: FloatImage
) -> FloatImage:
    """Return the density of all cells together, float32 (C, side, side).

    Parameters
    ----------
    cells : sequence of (Placed, Posed)
    side : int
    brightness : float
        The light of an ordinary cell, whose density is 1.
    texture : float
        How far a cell's density follows its light, 0 to 1; the rest is even.
    strength : float32 (C,)
        Density of an ordinary cell in each channel.
    """
    total = np.zeros((len(strength), side, side), np.float32)
    for place, posed in cells:
        window, part = visible(place, side)
        light = np.minimum(posed.light[:, *part] / brightness, OPAQUE)
        even = posed.soft[part]
        total[:, *window] += even + texture * (light - even)
    blurred = ndimage.gaussian_filter(total, (0, BLUR, BLUR))
    return np.asarray(blurred * strength[:, None, None], np.float32)


def absorbed(light: FloatImage, density: FloatImage) -> FloatImage:
    """Return what is left of `light` behind cells of a `density` (Beer and Lambert)."""
    return np.asarray(light * np.exp(-density), np.float32)


def saturated(image: FloatImage, full: float) -> FloatImage:
    """Return an image whose light above 0 comes ever closer to `full` and never exceeds it."""
    above = np.maximum(image, 0)
    return np.asarray(np.minimum(image, 0) + full * (1 - np.exp(-above / full)), np.float32)


def fluorescence(
    cells: Drawn, channels: int, side: int, brightness: float, random: Random
) -> FloatImage:
    """Return bright cells on a dark background with noise, haze and dust, not normalised."""
    level = np.float32(brightness * np.exp(random.uniform(np.log(0.03), np.log(0.4))))
    image = level * empty_field(channels, side, random) + sum_of_light(cells, channels, side)
    if random.random() < SATURATED:
        return saturated(image, float(image.max()) * float(random.uniform(0.6, 1.5)))
    return np.asarray(image, np.float32)


def transmission(
    cells: Drawn, channels: int, side: int, brightness: float, random: Random
) -> FloatImage:
    """Return dark cells on a bright background with noise and shading, not normalised."""
    level = np.float32(np.exp(random.uniform(np.log(0.02), np.log(0.2))))
    strength = random.uniform(0.2, 0.8) * random.uniform(0.5, 1, channels)
    density = sum_of_density(
        cells, side, brightness, float(random.uniform(0.1, 0.8)), strength.astype(np.float32)
    )
    return absorbed(1 - level * empty_field(channels, side, random), density)
