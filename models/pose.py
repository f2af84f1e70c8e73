"""A cell turned, scaled, stretched, sheared and bent at random, in one resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models.compose_settings import ComposeSettings
from cellseg.models.cut import RIM, Cell

FloatImage = NDArray[np.float32]
Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True, eq=False)
class Posed:
    """A cell as it is drawn.

    Parameters
    ----------
    light : float32 (C, h, w)
        Its light alone.
    soft : float32 (h, w)
        How much of each pixel the cell covers, 0 to 1.
    mask : bool (h, w)
        Where that is a half or more.
    class_ : int
    """

    light: FloatImage
    soft: FloatImage
    mask: NDArray[np.bool_]
    class_: int


def pose(cell: Cell, zoom: float, settings: ComposeSettings, random: Random) -> Posed:
    """Return a cell in a random pose and brightness, magnified by about `zoom`."""
    factor = zoom * float(np.exp(settings.scale * random.uniform(-2, 2)))
    forward = _affine(factor, settings, random)
    size = np.array(cell.mask.shape)
    bend = settings.bend * float(np.sqrt(size.prod())) * random.uniform(0, 1, 2)
    # What is beyond the cell's outermost pixels and their soft rim needs no resampling.
    outline = forward @ (np.argwhere(cell.mask).T - (size[:, None] - 1) / 2)
    spare = np.abs(forward).sum(axis=1) * bend.max() + factor * RIM
    reach = np.ceil(np.abs(outline).max(axis=1) + spare).astype(int).tolist()
    positions = _straight(reach, np.asarray(np.linalg.inv(forward), np.float64))
    positions += _bend(positions, bend, float(size.max()), random)
    positions += (size[:, None, None] - 1).astype(np.float32) / 2
    soft = _resampled(cell.mask.astype(np.float32), positions, factor)
    gain = np.float32(np.exp(settings.gain * random.standard_normal()))
    light = [gain * _resampled(plane, positions, factor) for plane in cell.light.astype(np.float32)]
    return Posed(np.stack(light), soft, soft >= 0.5, cell.class_)


def _affine(factor: float, settings: ComposeSettings, random: Random) -> Matrix:
    """Return a random turn, mirroring, stretch and shear, from the cell to its pose."""
    angle, other = random.uniform(0, 2 * np.pi, 2)
    stretch = np.exp(settings.stretch * random.uniform(-2, 2) / 2)
    flip = 1.0 if random.random() < 0.5 else -1.0
    shear = np.array([[1, settings.shear * random.uniform(-2, 2)], [0, 1]])
    return np.asarray(
        _turn(angle) @ np.diag([factor * stretch, factor * flip / stretch]) @ shear @ _turn(other)
    )


def _turn(angle: float) -> Matrix:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _straight(reach: list[int], inverse: Matrix) -> FloatImage:
    """Return where each pixel (2, h, w) of the pose lies from the cell's middle."""
    y, x = (np.arange(-half, half + 1, dtype=np.float32) for half in reach)
    columns = inverse.astype(np.float32)[:, :, None, None]
    return np.asarray(columns[:, 0] * y[:, None] + columns[:, 1] * x)


def _bend(positions: FloatImage, height: Vector, length: float, random: Random) -> FloatImage:
    """Return how far each pixel (2, h, w) is bent away.

    Along each axis by a sine about as long as the cell, in a random direction:
    the smooth field of an elastic deformation in a fraction of its time.
    """
    bent = np.empty_like(positions)
    directions, phases = random.uniform(0, 2 * np.pi, (2, 2)).tolist()
    waves = (random.uniform(0.5, 1.2, 2) * 2 * np.pi / length).tolist()
    for axis, (direction, phase, wave) in enumerate(zip(directions, phases, waves, strict=True)):
        along = wave * np.sin(direction) * positions[0] + wave * np.cos(direction) * positions[1]
        bent[axis] = np.float32(height[axis]) * np.sin(along + np.float32(phase))
    return bent


def _resampled(plane: FloatImage, positions: FloatImage, factor: float) -> FloatImage:
    """Return a plane at `positions`, 0 beyond it; averaged first where it gets smaller."""
    if factor < 0.75:
        plane = ndimage.gaussian_filter(plane, 0.5 * (1 / factor - 1), mode="constant")
    return np.asarray(
        ndimage.map_coordinates(plane, positions, np.float32, order=1, mode="grid-constant")
    )
