"""Background: where an image shows nothing but its own noise, no cell is looked for.

Whether a pixel shows more follows from the few pixels around it alone, and from what was
decided once for the whole image. So the cells are the same for any tiling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.tiles import Box

__all__ = ["Background", "Floor", "find_background", "side_at", "square_sums"]

SIDE_PX = 9
"""Side of the square that is averaged around a pixel; a power of 2 and 1, for `square_sums`."""
DEVIATIONS = 6.0
"""Standard deviations of such an average that noise does not reach: once in 5e8 averages."""
PATCH_PX = 32
"""Side of the pieces of the samples that are looked at for background."""
BLOCK_PX = 8
"""Side of the blocks in a patch whose means agree where it is flat."""
LEAST_PATCHES = 4
"""Flat patches of one level that it takes to call it the background's."""
ROUGHEST = 2.0
"""Variance of the blocks' means, of that which white noise would give, up to which a patch is
flat; 15 degrees of freedom: white noise itself is rougher once in a hundred times."""
BATCH = 512
"""Patches looked at together: they fit the processor's cache."""


@dataclass(frozen=True)
class Floor:
    """What one channel shows where nothing is; at least one of `blank` and `level` is known.

    Parameters
    ----------
    blank : float or None
        Grey level where nothing was recorded, without any noise: padding.
    level : float or None
        Grey level of the background.
    noise : float
        Standard deviation of one of its pixels, in grey levels.
    """

    blank: float | None
    level: float | None = None
    noise: float = 0.0

    def stands_out(self, plane: NDArray[Any], side: int) -> NDArray[np.bool_]:
        """Return where the square around a pixel is not background.

        Parameters
        ----------
        plane : (h, w), type of the file
        side : int
            Side of the square in px, a power of 2 and 1.

        Returns
        -------
        bool (h - side + 1, w - side + 1)
            One for each square inside the plane.
        """
        if self.blank is None:
            return self._is_beyond(plane, side)
        filled = square_sums((plane != plane.dtype.type(self.blank)).view(np.uint8), side) > 0
        return filled if self.level is None else filled & self._is_beyond(plane, side)

    def _is_beyond(self, plane: NDArray[Any], side: int) -> NDArray[np.bool_]:
        """Return where the mean of a square is further from the level than noise takes it."""
        assert self.level is not None  # noqa: S101 - one of the two is known
        reach = DEVIATIONS * self.noise * side
        # No single pixel, hot or struck by a cosmic ray, is more than half of what it takes.
        low, clipped = _clipped(plane, self.level, reach / 2)
        sums, centre = square_sums(clipped, side), side**2 * (self.level - low)
        if sums.dtype.kind == "f":
            return np.asarray((sums < centre - reach) | (sums > centre + reach))
        return np.asarray((sums < math.ceil(centre - reach)) | (sums > math.floor(centre + reach)))


@dataclass(frozen=True)
class Background:
    """What an image shows where nothing is.

    Parameters
    ----------
    floors : tuple of Floor
        One for each channel that the model sees.
    side : int
        Side in px of the square that is averaged around a pixel.
    """

    floors: tuple[Floor, ...]
    side: int = SIDE_PX

    @property
    def reach(self) -> int:
        """Px around a window that `signal` needs, as far as the image goes."""
        return self.side - 1

    def signal(self, pixels: NDArray[Any], inside: Box) -> NDArray[np.bool_]:
        """Return the pixels of a window around which the image shows more than noise.

        In any of the channels, brighter or darker. At the edge of the image
        the square around a pixel moves inside.

        Parameters
        ----------
        pixels : (C, h, w), type of the file
            The window and `reach` px around it, less where the image ends; at
            least `side` px on a side.
        inside : Box
            Where the window lies in `pixels`.

        Returns
        -------
        bool, of the window's shape
            What is True at a pixel does not depend on the window.
        """
        planes = zip(self.floors, pixels, strict=True)
        found = np.logical_or.reduce([floor.stands_out(p, self.side) for floor, p in planes])
        return np.asarray(np.pad(found, self.side // 2, mode="edge")[inside.slices])


def side_at(zoom: float) -> int:
    """Return the side in px of the square to average where the model sees an image at `zoom`.

    9; less where cells are so small that they are magnified, which would fill little of it.
    """
    return SIDE_PX if zoom <= 1.5 else 5 if zoom <= 3 else 3


def find_background(sample: Sequence[NDArray[Any]], side: int = SIDE_PX) -> Background | None:
    """Find out from samples of an image what it shows where nothing is.

    The noise is that between neighbouring pixels (as in Immerkaer, *Fast noise
    variance estimation*, CVIU 64, 1996), in patches that are flat but for it. It
    is never the spread of the whole image, which may be full of cells.

    Parameters
    ----------
    sample : sequence of (C, h, w), type of the file
        Finite; the whole image where it is small.
    side : int
        See `Background`.

    Returns
    -------
    Background or None
        None if some channel has nothing that is flat, so that all of it may be cells.
    """
    floors = [_floor([part[c] for part in sample]) for c in range(len(sample[0]))]
    known = tuple(floor for floor in floors if floor is not None)
    return Background(known, side) if len(known) == len(floors) else None


def _floor(planes: Sequence[NDArray[Any]]) -> Floor | None:
    looks = [_look(batch) for plane in planes for batch in _patches(plane)]
    if not looks:
        return None
    mean, noise, roughness = np.concatenate(looks, axis=1)
    blank = _blank(mean, noise == 0, planes[0].dtype)
    flat = (noise > 0) & (roughness <= ROUGHEST)
    level = _commonest(mean[flat], noise[flat], roughness[flat])
    if level is not None:
        return Floor(blank, *level)
    return None if blank is None else Floor(blank)


def _patches(plane: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Yield batches (n, 32, 32) of the patches of a plane; what is left of it is left out."""
    rows, columns = (length // PATCH_PX for length in plane.shape)
    cut = plane[: rows * PATCH_PX, : columns * PATCH_PX]
    pieces = cut.reshape(rows, PATCH_PX, columns, PATCH_PX).swapaxes(1, 2)
    step = max(BATCH // max(columns, 1), 1)
    for row in range(0, rows if columns else 0, step):
        yield pieces[row : row + step].reshape(-1, PATCH_PX, PATCH_PX).astype(np.float64)


def _look(patches: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean, noise and roughness, (3, n), of patches (n, 32, 32).

    White noise has a roughness of 1 on average, and anything to be seen has more.
    """
    across, down = np.diff(patches, axis=2), np.diff(patches, axis=1)
    variance = (np.square(across).mean((1, 2)) + np.square(down).mean((1, 2))) / 4
    count = PATCH_PX // BLOCK_PX
    blocks = patches.reshape(-1, count, BLOCK_PX, count, BLOCK_PX).mean((2, 4))
    spread = blocks.reshape(-1, count**2).var(axis=1, ddof=1) * BLOCK_PX**2
    roughness = np.divide(spread, variance, out=np.zeros_like(spread), where=variance > 0)
    return np.stack([patches.mean((1, 2)), np.sqrt(variance), roughness])


def _blank(
    mean: NDArray[np.float64], constant: NDArray[np.bool_], dtype: np.dtype[Any]
) -> float | None:
    """Return the grey level of padding: 0, or white in an image that is bright.

    Other levels without noise may as well be the inside of something large in an
    image that was drawn or masked.
    """
    if np.any(constant & (mean == 0)):
        return 0.0
    if dtype.kind == "f":
        return None
    white = float(np.iinfo(dtype).max)
    bright = np.any(constant & (mean == white)) and np.median(mean) > white / 2
    return white if bright else None


def _commonest(
    mean: NDArray[np.float64], noise: NDArray[np.float64], roughness: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Return level and noise of the largest group of flat patches that are alike, if there is one.

    Of equally large groups the darkest.
    """
    order = np.argsort(mean, kind="stable")
    mean, noise, roughness = mean[order], noise[order], roughness[order]
    reach = DEVIATIONS * noise / SIDE_PX
    first = np.searchsorted(mean, mean - reach, side="left")
    last = np.searchsorted(mean, mean + reach, side="right")
    counts = last - first
    if not counts.size or counts.max() < LEAST_PATCHES:
        return None
    alike = slice(first[counts.argmax()], last[counts.argmax()])
    # Neighbouring pixels of some cameras are a little alike: then less averages out.
    coarse = math.sqrt(max(float(np.median(roughness[alike])), 1.0))
    return float(np.median(mean[alike])), float(np.median(noise[alike])) * coarse


def _clipped(plane: NDArray[Any], level: float, reach: float) -> tuple[float, NDArray[Any]]:
    """Return the lowest grey level kept, and the plane above it, none further than `reach` away.

    Integers stay integers, of a type that holds the sum of a square: their sums are exact.
    """
    low, high = level - reach, level + reach
    if plane.dtype.kind == "f":
        return _clipped_floats(plane, low, high)
    limits = np.iinfo(plane.dtype)
    low = min(max(math.floor(low), int(limits.min)), int(limits.max))
    high = min(max(math.ceil(high), low), int(limits.max))
    largest = SIDE_PX**2 * (high - low)
    wide = next(t for t in (np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(t).max)
    kept = np.clip(plane, plane.dtype.type(low), plane.dtype.type(high))
    # Modulo the size of the type, and so right for signed pixels too.
    return low, kept.astype(wide) - np.asarray(low).astype(wide)


def _clipped_floats(plane: NDArray[Any], low: float, high: float) -> tuple[float, NDArray[Any]]:
    least, most = plane.dtype.type(low), plane.dtype.type(high)
    return float(least), np.clip(plane, least, most) - least


def square_sums(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """Return the sum of each square inside a plane, in the plane's own type.

    Each is added up in the same order wherever it lies, so that even of floats
    no digit depends on the window; with a running sum some would.

    Parameters
    ----------
    plane : (h, w)
        Of a type that holds the sums.
    side : int
        Side of the square in px, a power of 2 and 1.

    Returns
    -------
    (h - side + 1, w - side + 1)
    """
    down = _runs(plane, side)
    return _runs(down.T, side).T


def _runs(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """Return the sums of `side` rows from each row on: 2, 4, 8 of them and one more."""
    total, length = plane, 1
    while 2 * length < side:
        total = total[:-length] + total[length:]
        length *= 2
    return np.asarray(total[: len(plane) - length] + plane[length:])
