"""A mask image over an image: of its size or smaller, read window by window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import Image, open_image
from cellseg.pipeline.tiles import Box


@dataclass(frozen=True, eq=False)
class MaskImage:
    """A mask; its values name the parts of the region, 0 is outside.

    Parameters
    ----------
    image : Image
        Of one plane and channel.
    plane : Box
        What it lies over.
    """

    image: Image
    plane: Box

    def numbers(self, window: Box, step: int = 1) -> NDArray[np.int64]:
        """Return the mask's value at every `step`-th pixel of a window, (h, w)."""
        rows, columns = (
            self._places(np.arange(start, stop, step), axis)
            for axis, (start, stop) in enumerate(((window.y0, window.y1), (window.x0, window.x1)))
        )
        box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        values = self.image.read(0, 0, box, (0,))[0]
        values = values[(rows - box.y0)[:, None], columns - box.x0]
        if values.dtype.kind == "f":
            # A value that is no whole number is inside all the same; none at all is not.
            values = np.ceil(np.abs(np.where(np.isfinite(values), values, 0)))
        return np.asarray(np.abs(values.astype(np.int64)))

    def name(self, number: int) -> str:
        """Return a part's value in the mask, as text."""
        return str(number)

    def _places(self, pixels: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        """Return the row or column of the mask that each one of the image lies in."""
        full, here = self.plane.shape[axis], self.image.shape[3 + axis]
        whole = _whole_factor(self.plane.shape, self.image.shape[3:])
        if whole is not None:
            return np.asarray(np.minimum(pixels // whole, here - 1))
        # The middle of a pixel, in whole numbers: (p + 1/2) here / full.
        places: NDArray[np.int64] = (2 * pixels + 1) * here // (2 * full)
        return places


def open_mask(path: Path, plane: Box, reduced: tuple[float, float] = (1.0, 1.0)) -> MaskImage:
    """Open a mask without reading its pixels.

    Parameters
    ----------
    path : Path
    plane : Box
        What it lies over.
    reduced : (y, x)
        How many px of the image's full resolution one of the plane is across.

    Raises
    ------
    CellsegError
        If it cannot be read, has several planes or channels, or does not lie over the
        image at any scale.
    """
    image = open_image(path)
    times, channels, depth, height, width = image.shape
    if times * channels * depth != 1:
        raise CellsegError(
            f"{path}: a mask has one plane and one channel; this one has {times} time points,"
            f" {channels} channels and {depth} planes. Save one of them alone."
        )
    full = plane.shape
    if any(
        side > (there if factor == 1 else (there + 1) * factor)
        for side, there, factor in zip((height, width), full, reduced, strict=True)
    ):
        raise CellsegError(
            f"{path}: the mask, {height} x {width} px, is larger than the image, {full[0]} x"
            f" {full[1]} px. Give it at the image's size or smaller."
        )
    # Sides that a scale gives are rounded, up or down.
    sides = full[0] * reduced[0], full[1] * reduced[1]
    least = max(sides[0] / (height + 1), sides[1] / (width + 1))
    most = min(sides[0] / max(height - 1, 0.5), sides[1] / max(width - 1, 0.5))
    if least >= most:
        raise CellsegError(
            f"{path}: the mask, {height} x {width} px, has other proportions than the image,"
            f" {full[0]} x {full[1]} px. Give a mask of the whole image, at its size or smaller."
        )
    return MaskImage(image, plane)


def _whole_factor(full: tuple[int, ...], here: tuple[int, ...]) -> int | None:
    """Return the whole number of times that an image is larger than its mask, rounded, or None."""
    for factor in {max(round(a / b), 1) for a, b in zip(full, here, strict=True)}:
        sides = [(a // factor, -(-a // factor)) for a in full]
        if all(side in either for side, either in zip(here, sides, strict=True)):
            return factor
    return None
