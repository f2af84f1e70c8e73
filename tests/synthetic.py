"""Seeded synthetic cells for the tests: ellipses that touch, with noise, and discs that overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import Instances

_BACKGROUND, _BRIGHTNESS = 200.0, (1500.0, 4000.0)
_ATTEMPTS = 200


def cells(
    seed: int,
    shape: tuple[int, int] = (256, 256),
    count: int = 30,
    radius: tuple[float, float] = (6.0, 12.0),
    touching: float = 0.3,
    noise: float = 20.0,
) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Draw cells that do not overlap.

    Parameters
    ----------
    seed : int
        The same seed gives the same cells.
    shape : (int, int)
        Height and width in px.
    count : int
        Cells to place; fewer where there is no room left.
    radius : (float, float)
        Range of the semi-axes, in px.
    touching : float
        Fraction of the cells that are placed against an earlier one.
    noise : float
        Standard deviation of the camera's noise, in grey levels.

    Returns
    -------
    image : uint16 (H, W)
        Soft edges, background 200, cells 1500 to 4000.
    labels : uint32 (H, W)
        1..N without gaps; each label is one connected piece.
    """
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    clean = np.full(shape, _BACKGROUND)
    for label in range(1, count + 1):
        against = label > 1 and random.random() < touching
        place = _place(random, labels, radius, against)
        if place is None:
            break
        window, mask = place
        labels[window][mask] = label
        clean[window][mask] = random.uniform(*_BRIGHTNESS)
    soft = ndimage.gaussian_filter(clean, 1.0) + random.normal(0, noise, shape)
    return np.clip(np.rint(soft), 0, 65535).astype(np.uint16), labels


def discs(
    seed: int, shape: tuple[int, int], count: int, radius: tuple[float, float] = (4, 14)
) -> Instances:
    """Draw discs anywhere, at any overlap, cut by the image only; each has a score of its own."""
    random = np.random.default_rng(seed)
    found = []
    scores = random.permutation(count) / max(count, 1) * 0.5 + 0.5
    for score in scores.tolist():
        cy, cx = random.uniform(0, shape[0] - 1), random.uniform(0, shape[1] - 1)
        r = random.uniform(*radius)
        y0, x0 = max(int(cy - r), 0), max(int(cx - r), 0)
        y, x = np.ogrid[y0 : min(int(cy + r) + 2, shape[0]), x0 : min(int(cx + r) + 2, shape[1])]
        found.append(((y0, x0), (y - cy) ** 2 + (x - cx) ** 2 <= r * r, score, 1))
    return Instances.stack(found)


def _place(
    random: np.random.Generator,
    labels: NDArray[np.uint32],
    radius: tuple[float, float],
    against: bool,
) -> tuple[tuple[slice, slice], NDArray[np.bool_]] | None:
    """Find room for one more ellipse: against another cell, or with a gap of 3 px to all."""
    height, width = labels.shape
    reach = int(radius[1]) + 4
    taken = np.argwhere(labels)
    for _ in range(_ATTEMPTS):
        cy, cx = random.uniform(0, height - 1), random.uniform(0, width - 1)
        if against:
            cy, cx = random.choice(taken) + random.uniform(-2 * reach, 2 * reach, 2)
        y0, x0 = max(int(cy) - reach, 0), max(int(cx) - reach, 0)
        window = slice(y0, max(int(cy) + reach, 0)), slice(x0, max(int(cx) + reach, 0))
        mask = _ellipse(random, labels[window].shape, (cy - y0, cx - x0), radius)
        near = ndimage.binary_dilation(mask, iterations=1 if against else 3)
        free = mask.any() and not labels[window][mask].any()
        if free and bool(labels[window][near].any()) == against:
            return window, mask
    return None


def _ellipse(
    random: np.random.Generator,
    shape: tuple[int, ...],
    centre: tuple[float, float],
    radius: tuple[float, float],
) -> NDArray[np.bool_]:
    y, x = np.ogrid[: shape[0], : shape[1]]
    y, x = y - centre[0], x - centre[1]
    long, short = random.uniform(*radius, 2)
    angle = random.uniform(0, np.pi)
    along = y * np.sin(angle) + x * np.cos(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    return np.asarray((along / long) ** 2 + (across / short) ** 2 <= 1)
