"""Volumes for tests of linking: 3D ellipsoids, and their sections as linking sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.link_rules import Shares

Volume = NDArray[np.integer]


def ellipsoids(
    seed: int, shape: tuple[int, int, int], count: int, *, apart: int = 1, touching: bool = False
) -> NDArray[np.uint16]:
    """Draw upright ellipsoids, labels 1..N.

    Parameters
    ----------
    apart : int
        Planes without the two between cells that lie above each other, at least one.
    touching : bool
        Whether cells may touch in a plane; else there is a pixel between.
    """
    random = np.random.default_rng(seed)
    volume = np.zeros(shape, np.uint16)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for _ in range(count):
        cz, cy, cx = (random.uniform(0, side) for side in shape)
        rz, ry, rx = random.uniform(1.2, 5), random.uniform(3, 9), random.uniform(3, 9)
        mask = ((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        around = grown(mask, apart, 0 if touching else 1)
        if mask.any() and not volume[around].any():
            volume[mask] = volume.max() + 1
    return volume


def grown(mask: NDArray[np.bool_], planes: int, px: int) -> NDArray[np.bool_]:
    """A mask and what is up to some planes above or below, or px beside it."""
    around = mask.copy()
    for axis, reach in ((0, planes), (1, px), (2, px)):
        for _ in range(reach):
            wide = around.copy()
            for side in (slice(1, None), slice(None, -1)):
                other = slice(None, -1) if side == slice(1, None) else slice(1, None)
                here, there = [slice(None)] * 3, [slice(None)] * 3
                here[axis], there[axis] = side, other
                wide[tuple(here)] |= around[tuple(there)]
            around = wide
    return around


def sections(volume: Volume) -> tuple[Volume, NDArray[np.int64], NDArray[np.int64]]:
    """Number the labels of each plane by their position; also their planes and areas."""
    numbers, planes, areas = np.zeros(volume.shape, np.int64), [], []
    for number, plane in enumerate(volume):
        found = []
        for label in np.unique(plane[plane > 0]).tolist():
            y, x = np.nonzero(plane == label)
            found.append((y.mean(), x.mean(), label, len(y)))
        for _, _, label, area in sorted(found):
            planes.append(number)
            areas.append(area)
            numbers[number][plane == label] = len(planes)
    return numbers, np.array(planes, np.int64), np.array(areas, np.int64)


def shares_of(numbers: Volume, reach: int) -> Shares:
    """What sections numbered from 1 share, up to so many planes apart."""
    pairs, counts = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for apart in range(1, min(reach, len(numbers) - 1) + 1):
        both = np.stack([numbers[:-apart].ravel(), numbers[apart:].ravel()], axis=1)
        found, count = np.unique(both[both.all(axis=1)], axis=0, return_counts=True)
        pairs.append(found - 1)
        counts.append(count)
    ones, others = np.concatenate(pairs).T
    return Shares(ones, others, np.concatenate(counts))
