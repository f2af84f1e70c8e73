"""Light as other microscopes have it: brightness, shading, blur, noise, dust, and empty fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatImage = NDArray[np.float32]
Random = np.random.Generator


def random_light(image: FloatImage, random: Random) -> FloatImage:
    """Change brightness, contrast, gamma, background, sharpness and noise, each at random.

    Takes and returns float32 (C, H, W) on the normalised scale, where cells lie
    roughly between 0 and 1.
    """
    # The percentile that is 1 depends on the few brightest cells: others may be far below.
    image = image * np.float32(np.exp(random.uniform(-0.5, 0.4) * (1 + (random.random() < 0.2))))
    if random.random() < 0.5:
        gamma = np.float32(np.exp(random.uniform(-0.45, 0.45)))
        image = np.sign(image) * np.abs(image) ** gamma
    if random.random() < 0.2:
        image = image * (1 - _shading(image.shape, random))
    if random.random() < 0.3:
        image = image + _gradient(image.shape, float(random.uniform(0, 0.35)), random)
    if random.random() < 0.15:
        image = image + _haze(image.shape, random)
    if random.random() < 0.25:
        sigma = float(random.uniform(0.3, 1.6))
        image = ndimage.gaussian_filter(image, (0, sigma, sigma))
    if random.random() < 0.1:
        image = image + _dust(image.shape, random)
    if random.random() < 0.1:
        image = np.minimum(image, np.float32(random.uniform(0.5, 1.0)))
    image = image + np.float32(random.uniform(-0.08, 0.1))
    return np.asarray(image + _noise(image, random), np.float32)


def _noise(image: FloatImage, random: Random) -> FloatImage:
    """Return camera noise: even, growing with the light, now and then strong or smooth."""
    strong = random.random() < 0.12
    even = float(random.uniform(0.06, 0.22) if strong else random.uniform(0, 0.06))
    photons = float(random.uniform(0, 0.06)) if random.random() < 0.3 else 0.0
    noise = random.standard_normal(image.shape, np.float32)
    if random.random() < 0.2:
        noise = _smoothed(noise, float(random.uniform(0.4, 1.0)))
    spread = even + photons * np.sqrt(np.clip(image, 0, None))
    return np.asarray(noise * spread, np.float32)


def _smoothed(noise: FloatImage, sigma: float) -> FloatImage:
    """Return noise smoothed to grains of `sigma` px, of its former strength."""
    smooth = ndimage.gaussian_filter(noise, (0, sigma, sigma))
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)


def _gradient(shape: tuple[int, ...], height: float, random: Random) -> FloatImage:
    """Return a plane (H, W) that rises by `height` in a random direction."""
    angle = float(random.uniform(0, 2 * np.pi))
    y, x = np.linspace(-0.5, 0.5, shape[1]), np.linspace(-0.5, 0.5, shape[2])
    slope = np.sin(angle) * y[:, None] + np.cos(angle) * x[None, :]
    return np.asarray(height * slope, np.float32)


def _shading(shape: tuple[int, ...], random: Random) -> FloatImage:
    """Return what a vignette around a random centre takes away, 0 to about 0.6, (H, W)."""
    centre = random.uniform(0.2, 0.8, 2)
    y, x = np.linspace(0, 1, shape[1]) - centre[0], np.linspace(0, 1, shape[2]) - centre[1]
    distance = y[:, None] ** 2 + x[None, :] ** 2
    return np.asarray(random.uniform(0.1, 0.6) * distance / distance.max(), np.float32)


def _haze(shape: tuple[int, ...], random: Random) -> FloatImage:
    """Return out-of-focus light (H, W): a few blobs many times the size of a cell."""
    coarse = random.random((4, 4), np.float32) ** 2
    zoom = (shape[1] / 4, shape[2] / 4)
    height = float(random.uniform(0.05, 0.4))
    return np.asarray(height * ndimage.zoom(coarse, zoom, order=3, mode="nearest"), np.float32)


def _dust(shape: tuple[int, ...], random: Random) -> FloatImage:
    """Return bright specks of 1 to 3 px (H, W): dust and hot pixels, which are no cells."""
    specks = np.zeros(shape[1:], np.float32)
    for _ in range(int(random.integers(1, 12))):
        y, x = (int(random.integers(length)) for length in shape[1:])
        specks[y, x] = random.uniform(0.5, 2)
    sigma = float(random.uniform(0, 0.9))
    peak = 2 * np.pi * sigma**2
    return np.asarray(ndimage.gaussian_filter(specks, sigma) * max(peak, 1), np.float32)


def empty_field(channels: int, side: int, random: Random) -> FloatImage:
    """Return a field without cells, float32 (C, side, side), normalised by its own percentiles.

    That is how such a field reaches the network: its noise fills the scale from
    0 to 1, and nothing but its texture tells it from cells.
    """
    shape = (channels, side, side)
    field = random.standard_normal(shape, np.float32)
    if random.random() < 0.6:
        field = _smoothed(field, float(random.uniform(0.3, 2.5)))
    if random.random() < 0.3:
        field = field + _smoothed(random.standard_normal(shape, np.float32), 3) * np.float32(
            random.uniform(0, 0.6)
        )
    scale = np.float32(np.exp(random.uniform(-3, 2)))
    if random.random() < 0.5:
        field = field + scale * 4 * _gradient(shape, 1, random)
    if random.random() < 0.3:
        field = field + scale * 4 * _haze(shape, random)
    if random.random() < 0.4:
        field = field + np.float32(random.uniform(3, 30)) * _dust(shape, random)
    low, high = np.percentile(field, (1, 99.8))
    return np.asarray((field - low) / max(float(high - low), 1e-6), np.float32)
