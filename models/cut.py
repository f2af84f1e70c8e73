"""Cells cut from annotated images, to compose new images of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers

if TYPE_CHECKING:
    from cellseg.models.dataset import Sample

FloatImage = NDArray[np.float32]
Mask = NDArray[np.bool_]

LEAST_PIXELS = 30
"""Smaller cells have no shape that turning and bending would keep."""
SOLID = 0.25
"""Least part of a cell's px off its border: what has less is a line, left over by an annotator."""
RIM = 4
"""Px around a cell's mask that are cut with it: the light that the lens spreads beyond the edge."""
CLEAR = 3
"""Px around a cell in which hardly any neighbour may lie."""
NEIGHBOURS = 0.1
"""Part of that surroundings that neighbours may take."""
SMOOTH = 33
"""Px, side of the window over which the background is averaged, twice: a cell or two."""
CONTRAST = 3.0
"""Least mean light of a cell, in standard deviations of the background around."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One whole cell with nothing around it.

    Parameters
    ----------
    light : float16 (C, h, w)
        How much brighter than the background the cell is, or darker if cells of
        its image are dark; falls softly to 0 within `RIM` px around the mask.
    mask : bool (h, w)
    class_ : int
        From 1.
    source : int
        Number of the image it was cut from.
    """

    light: NDArray[np.float16]
    mask: Mask
    class_: int
    source: int


@dataclass(frozen=True, eq=False)
class CellLibrary:
    """Cells to compose images of, those of an image together: they go with each other.

    Parameters
    ----------
    cells : tuple of Cell
        Ordered by their source.
    """

    cells: tuple[Cell, ...]

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def sources(self) -> tuple[NDArray[np.intp], ...]:
        """The indices of the cells of each image that gave any, in the order of images."""
        numbers = np.array([cell.source for cell in self.cells], np.intp)
        return tuple(np.flatnonzero(numbers == number) for number in np.unique(numbers))

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Px in the mask of each cell, (N,)."""
        return np.array([np.count_nonzero(cell.mask) for cell in self.cells], np.int64)

    @cached_property
    def diameters(self) -> NDArray[np.float64]:
        """Median diameter of the cells of each source, that of a disc of the same area, in px."""
        areas = [float(np.median(self.areas[own])) for own in self.sources]
        return np.asarray(2 * np.sqrt(np.array(areas) / np.pi))

    @cached_property
    def brightness(self) -> NDArray[np.float64]:
        """Mean light of each cell over its mask, and over channels, (N,)."""
        means = [cell.light[:, cell.mask].mean(dtype=np.float64) for cell in self.cells]
        return np.array(means, np.float64)


def cut_cells(samples: Sequence[Sample]) -> CellLibrary:
    """Cut all cells that can be cut cleanly from annotated images.

    A cell is taken if it lies whole in its image, has at least `LEAST_PIXELS`
    px, stands out from its background and has few neighbours close by.

    Parameters
    ----------
    samples : sequence of Sample
        All with the same number of channels.

    Raises
    ------
    CellsegError
        If no cell can be cut from any of them.
    """
    cells = tuple(
        cell for number, sample in enumerate(samples) for cell in _cells_of(sample, number)
    )
    if not cells:
        raise CellsegError(
            f"compose: none of the {len(samples)} training images has a cell that lies whole and"
            f" free in it with {LEAST_PIXELS} px or more. Add such images, or do not compose."
        )
    return CellLibrary(cells)


def _cells_of(sample: Sample, number: int) -> list[Cell]:
    """Return the cells of one image."""
    found = from_layers(sample.labels)
    if not len(found):
        return []
    depth = np.zeros(sample.labels.shape[1:], np.uint8)
    for (y0, x0, y1, x1), mask in zip(found.boxes.tolist(), found.masks, strict=True):
        depth[y0:y1, x0:x1] += mask
    light, noise = _light(sample.image, depth > 0)
    bright = float(np.sign(np.median(light[:, depth > 0])))
    classes = np.ones(len(found), np.uint8)
    if sample.classes is not None:
        classes = sample.classes[np.unique(sample.labels[sample.labels > 0])]
    return [
        Cell((light_ * bright).astype(np.float16), mask, int(classes[index]), number)
        for index, light_, mask in _cut(light, depth, found)
        if light_[:, mask].mean() * bright > CONTRAST * noise
    ]


def _light(image: FloatImage, taken: Mask) -> tuple[FloatImage, float]:
    """Return an image less its background, which is smoothed over the pixels off all cells.

    Also the standard deviation of the background, without outliers.
    """
    far = ~ndimage.binary_dilation(taken, iterations=RIM)
    if not far.any():
        far = ~taken if not taken.all() else np.ones_like(taken)
    weight = _smooth(far.astype(np.float32)[None])
    general = np.median(image[:, far], axis=1)[:, None, None]
    # Where no background is near, its median over the image steps in.
    above = _smooth((image - general) * far)
    light = image - general - above / (weight + 1e-3)
    low, high = np.percentile(light[:, far], (16, 84))
    return np.asarray(light, np.float32), float(high - low) / 2


def _smooth(image: FloatImage) -> FloatImage:
    """Return an image (C, H, W) averaged twice over a window, which takes no longer if large."""
    once = ndimage.uniform_filter(image, (1, SMOOTH, SMOOTH))
    return np.asarray(ndimage.uniform_filter(once, (1, SMOOTH, SMOOTH)), np.float32)


def _cut(
    light: FloatImage, depth: NDArray[np.uint8], found: Instances
) -> Iterator[tuple[int, FloatImage, Mask]]:
    """Yield the cells that can be cut cleanly: index, soft-edged light and mask."""
    height, width = depth.shape
    light = np.pad(light, ((0, 0), (RIM, RIM), (RIM, RIM)), mode="edge")
    depth = np.pad(depth, RIM)
    areas = found.areas()
    for index, (y0, x0, y1, x1) in enumerate(found.boxes.tolist()):
        if areas[index] < LEAST_PIXELS or not (y0 and x0 and y1 < height and x1 < width):
            continue
        window = slice(y0, y1 + 2 * RIM), slice(x0, x1 + 2 * RIM)
        mask = np.pad(found.masks[index], RIM)
        weight = _soft_weight(mask, depth[window] > mask)
        if weight is not None:
            yield index, light[:, *window] * weight, mask


def _soft_weight(mask: Mask, others: Mask) -> FloatImage | None:
    """Return how much of each pixel is the cell's, or None for a line or one among neighbours."""
    if np.count_nonzero(ndimage.binary_erosion(mask)) < SOLID * np.count_nonzero(mask):
        return None
    distance = ndimage.distance_transform_edt(~mask)
    weight = np.clip((RIM + 1 - distance) / RIM, 0, 1)
    near = (distance > 0) & (distance <= CLEAR)
    if others.any():
        if others[mask].any() or np.mean(others[near]) > NEIGHBOURS:
            return None
        beside = ndimage.distance_transform_edt(~others)
        weight *= np.clip((beside - distance) / 2 + 0.5, 0, 1) * ~others
    return np.asarray(weight, np.float32)
