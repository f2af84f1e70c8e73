"""Random changes of a training crop: what another microscope, day or hand might have done."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as connected

from cellseg.models.light import random_light

FloatImage = NDArray[np.float32]
Labels = NDArray[np.int32]
Window = tuple[slice, slice]
Random = np.random.Generator

EXACT = 0.35
"""Share of crops whose pixels and borders are taken as they are, without resampling."""
BENT = 0.3
"""Share of crops that are turned by any angle, stretched and bent."""
CROWDED = 0.2
"""Share of crops into which copies of their own cells are pasted."""
LEAST_VISIBLE = 0.3
"""A cell of which pasted ones leave less than this part is covered for good, and loses its label:
no annotator would have seen it."""


def mild(random: Random) -> float:
    """Return a number from -1 to 1, more often a small one: half are within a quarter."""
    value = float(random.uniform(-1, 1))
    return value * abs(value)


def random_crop(
    image: FloatImage,
    labels: Labels,
    side: int,
    zoom: tuple[float, float],
    random: Random,
) -> tuple[FloatImage, Labels, Labels]:
    """Cut a square at a random place, magnification, angle and bend.

    Parameters
    ----------
    image : float32 (C, H, W)
    labels : int32 (L, H, W)
        Layers as those of `cellseg.models.dataset.Sample`; all are cut alike.
    side : int
        Side of the result in px.
    zoom : (low, high)
        Range of the magnification around 1; strong ones are rarer.
    random : numpy Generator

    Returns
    -------
    image : float32 (C, side, side)
    labels : int32 (L, side, side)
        Counted from 1 over all layers. What the crop shows beyond the image is its mirror
        image, cells included.
    origin : int32 (N + 1,)
        The image's label for each of the crop's.
    """
    if random.random() < EXACT:
        return _cut(image, labels, side, random)
    factor = _magnification(zoom, random)
    bent = random.random() < BENT
    grid = _bent_grid(side, factor, random) if bent else _straight_grid(side, factor)
    shape = labels.shape[1:]
    grid += np.array([_place(length, side / factor, random) for length in shape])[:, None, None]
    mirrored = _leaves(grid, shape)
    # Resampling to fewer pixels must average, or noise and specks come out too strong.
    sigma = 0.5 * (1 / factor - 1)
    if not mirrored:
        window = _around(grid, shape, margin=2 + math.ceil(4 * sigma))
        image, labels = image[:, *window], labels[:, *window]
        grid -= np.array([side.start for side in window])[:, None, None]
    source = ndimage.gaussian_filter(image, (0, sigma, sigma)) if sigma > 0.1 else image
    pixels = [
        ndimage.map_coordinates(channel, grid, np.float32, order=1, mode="reflect")
        for channel in source
    ]
    return np.stack(pixels), *_count(_nearest(labels, grid), mirrored=mirrored)


def _magnification(zoom: tuple[float, float], random: Random) -> float:
    """Return a magnification between those of `zoom`, more often near 1."""
    exponent = mild(random)
    end = zoom[1] if exponent > 0 else zoom[0]
    return float(end ** abs(exponent))


def _place(length: int, window: float, random: Random) -> float:
    """Return the centre of a window in an axis, inside the image if it fits."""
    if length <= window:
        return length / 2 - 0.5
    return float(random.uniform(window / 2, length - window / 2)) - 0.5


def _straight_grid(side: int, factor: float) -> NDArray[np.float64]:
    """Return the positions (2, side, side), around 0, of an enlarged crop's pixels."""
    line = (np.arange(side) - (side - 1) / 2) / factor
    return np.stack(np.meshgrid(line, line, indexing="ij"))


def _bent_grid(side: int, factor: float, random: Random) -> NDArray[np.float64]:
    """Return the positions (2, side, side), around 0, of a crop turned, stretched and bent."""
    angle, stretch = random.uniform(0, 2 * np.pi), np.exp(0.2 * mild(random))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    straight = _straight_grid(side, factor)
    grid = np.einsum("ij,jyx->iyx", turn @ np.diag([stretch, 1 / stretch]), straight)
    # A coarse random field enlarged to the crop: smooth over a few cells, folds nothing.
    coarse = random.normal(0, random.uniform(0, 2.5) / factor, (2, 7, 7))
    return np.asarray(grid + [ndimage.zoom(field, side / 7, order=3) for field in coarse])


def _leaves(grid: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether a grid goes beyond an image of `shape`."""
    return any(
        axis.min() < -0.5 or axis.max() > length - 0.5
        for axis, length in zip(grid, shape, strict=True)
    )


def _around(grid: NDArray[np.float64], shape: tuple[int, ...], margin: int) -> Window:
    """Return the part of an image of `shape` that a grid inside it reads, and a margin in px."""
    low = [max(int(axis.min()) - margin, 0) for axis in grid]
    high = [int(axis.max()) + 1 + margin for axis in grid]
    rows, columns = (
        slice(start, min(stop, length))
        for start, stop, length in zip(low, high, shape, strict=True)
    )
    return rows, columns


def _nearest(labels: Labels, grid: NDArray[np.float64]) -> Labels:
    """Return each layer's value at the pixel nearest to every position of a grid."""
    shape = labels.shape[1:]
    index = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    at = ndimage.map_coordinates(index, grid, np.int32, order=0, mode="reflect")
    return labels.reshape(len(labels), -1)[:, at]


def _count(labels: Labels, *, mirrored: bool) -> tuple[Labels, Labels]:
    """Return labels counted from 1, mirror images of a cell apart, and what each was before."""
    if not mirrored:
        present = np.bincount(labels.ravel()) > 0
        present[0] = True
        return (np.cumsum(present, dtype=np.int32) - 1)[labels], _positions(present)
    counted, origin = np.zeros_like(labels), [np.zeros(1, np.int32)]
    for layer, apart in zip(labels, counted, strict=True):
        pieces = np.asarray(
            connected(layer, background=0, connectivity=2),  # type: ignore[no-untyped-call]
            np.int32,
        )
        inside = pieces > 0
        before = np.zeros(pieces.max() + 1, np.int32)
        before[pieces] = layer
        apart[inside] = pieces[inside] + (sum(map(len, origin)) - 1)
        origin.append(before[1:])
    return counted, np.concatenate(origin)


def _positions(present: NDArray[np.bool_]) -> Labels:
    """Return where `present` holds."""
    return np.flatnonzero(present).astype(np.int32)


def _cut(
    image: FloatImage, labels: Labels, side: int, random: Random
) -> tuple[FloatImage, Labels, Labels]:
    """Return a crop without resampling, a small image mirrored at its end."""
    short = [(0, 0), *((0, max(side - length, 0)) for length in labels.shape[1:])]
    mirrored = any(after for _, after in short)
    if mirrored:
        image = np.pad(image, short, mode="symmetric")
        labels = np.pad(labels, short, mode="symmetric")
    y, x = (int(random.integers(length - side + 1)) for length in labels.shape[1:])
    cut = labels[:, y : y + side, x : x + side]
    return image[:, y : y + side, x : x + side], *_count(cut, mirrored=mirrored)


def random_turn(image: FloatImage, labels: Labels, random: Random) -> tuple[FloatImage, Labels]:
    """Turn image and layers by a multiple of 90 degrees and perhaps mirror."""
    turns = int(random.integers(4))
    image, labels = np.rot90(image, turns, (1, 2)), np.rot90(labels, turns, (1, 2))
    if random.random() < 0.5:
        image, labels = image[:, :, ::-1], labels[:, :, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def crowd(
    image: FloatImage, labels: Labels, origin: Labels, random: Random
) -> tuple[FloatImage, Labels, Labels]:
    """Paste copies of some of the crop's cells next to others, so that they touch.

    Copy-paste of instances as in Ghiasi et al., CVPR 2021, but each copy beside
    a cell rather than anywhere: what is hard is where two cells meet.

    Takes and returns what `random_crop` returns, of one layer: a copy hides what
    it covers.
    """
    (plane,) = labels
    boxes = ndimage.find_objects(plane)
    present = [label for label, box in enumerate(boxes, 1) if box is not None]
    # A cell that the crop cuts off would teach that cells have straight edges.
    whole = [
        label
        for label in present
        if all(
            side.start > 0 and side.stop < length
            for side, length in zip(boxes[label - 1], plane.shape, strict=True)
        )
    ]
    if not whole:
        return image, labels, origin
    image, plane = image.copy(), plane.copy()
    before = np.bincount(plane.ravel(), minlength=len(origin))
    copied = random.choice(whole, int(random.integers(1, len(whole) // 3 + 2))).tolist()
    for name, source in enumerate(copied, len(origin)):
        cell = np.pad(image[:, *boxes[source - 1]], ((0, 0), (1, 1), (1, 1)), mode="edge")
        mask = np.pad((plane[boxes[source - 1]] == source).astype(np.int32), 1)
        beside = boxes[int(random.choice(present)) - 1]
        window = _beside(beside, mask.shape, plane.shape, random)
        if mask.any() and window is not None:
            cell, turned = random_turn(cell, mask[None], random)
            _paste(image, plane, window, cell, turned[0] > 0, name)
    after = np.bincount(plane.ravel(), minlength=len(origin))[: len(origin)]
    plane[np.isin(plane, np.flatnonzero(after < LEAST_VISIBLE * before))] = 0
    return image, plane[None], np.append(origin, origin[copied]).astype(np.int32)


def _beside(
    box: tuple[slice, slice], shape: tuple[int, ...], plane: tuple[int, ...], random: Random
) -> Window | None:
    """Return a square window where a cell of `shape` just touches that of `box`, if inside."""
    side = max(shape)
    angle = float(random.uniform(0, 2 * np.pi))
    window = []
    for own, length, direction in zip(box, plane, (np.sin(angle), np.cos(angle)), strict=True):
        # In the direction of the angle, a cell reaches about half its box.
        reach = 0.42 * (own.stop - own.start + side)
        low = round((own.start + own.stop - side) / 2 + reach * direction)
        if low < 0 or low + side > length:
            return None
        window.append(slice(low, low + side))
    return window[0], window[1]


def _paste(
    image: FloatImage,
    labels: Labels,
    window: Window,
    cell: FloatImage,
    mask: NDArray[np.bool_],
    name: int,
) -> None:
    """Write a cell over what is there, as `name`, its edge soft as a lens leaves it."""
    rows, columns = mask.shape
    window = (
        slice(window[0].start, window[0].start + rows),
        slice(window[1].start, window[1].start + columns),
    )
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.7)
    under = image[:, *window]
    under += soft * (cell - under)
    labels[window][mask] = name


def augment(
    image: FloatImage,
    labels: Labels,
    side: int,
    zoom: tuple[float, float],
    random: Random,
) -> tuple[FloatImage, Labels, Labels]:
    """Return what `random_crop` returns, changed at random in all the ways of this module.

    Cells are pasted only where there is one layer: where cells may overlap, what
    a pasted one covers is still to be found.
    """
    image, labels, origin = random_crop(image, labels, side, zoom, random)
    image, labels = random_turn(image, labels, random)
    if random.random() < CROWDED and len(labels) == 1:
        image, labels, origin = crowd(image, labels, origin, random)
    return random_light(image, random), labels, origin
