"""Random changes of a training crop: what another microscope, day or hand might have done."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import interpolate

FloatImage = NDArray[np.float32]
Labels = NDArray[np.int32]


def random_crop(
    image: FloatImage,
    labels: Labels,
    side: int,
    zoom: tuple[float, float],
    random: np.random.Generator,
) -> tuple[FloatImage, Labels]:
    """Cut a square at a random place and magnification.

    Parameters
    ----------
    image : float32 (C, H, W)
    labels : int32 (H, W)
    side : int
        Side of the result in px.
    zoom : (low, high)
        Range of the magnification, drawn evenly on a logarithmic scale.
    random : numpy Generator

    Returns
    -------
    image : float32 (C, side, side)
    labels : int32 (side, side)
    """
    factor = float(np.exp(random.uniform(*np.log(zoom))))
    window = max(round(side / factor), 16)
    image, labels = _at_least(image, labels, window)
    y = int(random.integers(image.shape[1] - window + 1))
    x = int(random.integers(image.shape[2] - window + 1))
    image = image[:, y : y + window, x : x + window]
    labels = labels[y : y + window, x : x + window]
    if window == side:
        return image, labels
    resized = interpolate(
        torch.from_numpy(np.ascontiguousarray(image))[None],
        size=(side, side),
        mode="bilinear",
        antialias=True,
    )
    centres = ((np.arange(side) + 0.5) * (window / side)).astype(np.intp)
    return resized[0].numpy(), labels[np.ix_(centres, centres)]


def _at_least(image: FloatImage, labels: Labels, side: int) -> tuple[FloatImage, Labels]:
    """Pad with background where the image is smaller than the crop."""
    short = [max(side - length, 0) for length in labels.shape]
    if not any(short):
        return image, labels
    margins = [(0, missing) for missing in short]
    # Mirrored pixels would show mirrored cells that have no label.
    floor = float(np.quantile(image, 0.05))
    padded = np.pad(image, [(0, 0), *margins], constant_values=floor)
    return padded, np.pad(labels, margins)


def random_turn(
    image: FloatImage, labels: Labels, random: np.random.Generator
) -> tuple[FloatImage, Labels]:
    """Turn by a multiple of 90 degrees and perhaps mirror."""
    turns = int(random.integers(4))
    image, labels = np.rot90(image, turns, (1, 2)), np.rot90(labels, turns)
    if random.random() < 0.5:
        image, labels = image[:, :, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def random_light(image: FloatImage, random: np.random.Generator) -> FloatImage:
    """Change brightness, contrast, gamma, background, sharpness and noise, each at random.

    Takes and returns float32 (C, H, W) on the normalised scale, where cells lie
    roughly between 0 and 1.
    """
    image = image * np.float32(np.exp(random.uniform(-0.4, 0.4)))
    if random.random() < 0.5:
        gamma = float(np.exp(random.uniform(-0.4, 0.4)))
        image = np.sign(image) * np.abs(image) ** np.float32(gamma)
    if random.random() < 0.3:
        image = image + _gradient(image.shape, float(random.uniform(0, 0.3)), random)
    if random.random() < 0.25:
        sigma = float(random.uniform(0.3, 1.5))
        image = ndimage.gaussian_filter(image, (0, sigma, sigma))
    image = image + np.float32(random.uniform(-0.08, 0.08))
    noise = float(random.uniform(0, 0.06)) * random.standard_normal(image.shape, np.float32)
    return np.asarray(image + noise, np.float32)


def _gradient(shape: tuple[int, ...], height: float, random: np.random.Generator) -> FloatImage:
    """Return a plane (H, W) that rises by `height` in a random direction."""
    angle = float(random.uniform(0, 2 * np.pi))
    y, x = np.linspace(-0.5, 0.5, shape[1]), np.linspace(-0.5, 0.5, shape[2])
    slope = np.sin(angle) * y[:, None] + np.cos(angle) * x[None, :]
    return np.asarray(height * slope, np.float32)


def augment(
    image: FloatImage,
    labels: Labels,
    side: int,
    zoom: tuple[float, float],
    random: np.random.Generator,
) -> tuple[FloatImage, Labels]:
    """Return a random crop (C, side, side) of an image with its labels, changed at random."""
    image, labels = random_crop(image, labels, side, zoom, random)
    image, labels = random_turn(image, labels, random)
    return random_light(image, random), labels
