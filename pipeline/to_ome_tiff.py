"""OME-TIFF: the labels of each image as a tiled pyramid, for Fiji and QuPath.

Source: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/ (6.0.2 and later: the levels of
the pyramid are SubIFDs). One tile is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.exported import LARGEST_TIFF, ExportedImage
from cellseg.pipeline.files import whole
from cellseg.pipeline.labels import layer_name
from cellseg.pipeline.ngff import level_count
from cellseg.pipeline.pyramid import level_sides
from cellseg.pipeline.tiles import Box, Grid

TILE = 512
"""Px on a side."""
SMALL = 2**16
"""From so many cells on, labels do not fit 16 bits."""
UM_PER_CM = 1e4


def write_ome_tiffs(images: Sequence[ExportedImage], folder: Path) -> Iterator[str]:
    """Write ``<image>.ome.tif`` for each image; yield its name.

    Axes t, c, z, y, x, zlib; uint16 where all labels fit, else uint32. Layers of labels are
    channels: where cells overlap, those over others are in the second and so on. Beyond 4 GB of
    pixels the file is a BigTIFF.
    """
    for image in images:
        with whole(folder / f"{image.name}.ome.tif") as partial:
            _write(image, partial)
        yield image.name


def _write(image: ExportedImage, path: Path) -> None:
    import tifffile

    labels = image.results.labels
    times, depth, height, width = image.shape
    levels = level_sides((height, width), level_count(labels.layer_paths[0]) or 1)
    dtype = np.dtype(np.uint16 if len(image.rows) < SMALL else np.uint32)
    shapes = [(times, labels.layers, depth, *sides) for sides in levels]
    large = sum(np.prod(shape, dtype=np.int64) for shape in shapes) * dtype.itemsize
    stored: dict[str, Any] = {
        "tile": (TILE, TILE),
        "compression": "zlib",
        "photometric": "minisblack",
        "dtype": dtype,
    }
    with tifffile.TiffWriter(path, bigtiff=bool(large > LARGEST_TIFF), ome=True) as file:
        for level, shape in enumerate(shapes):
            of_level: dict[str, Any] = {"subfiletype": 1, "metadata": None}
            if level == 0:
                of_level = {"subifds": len(shapes) - 1, "metadata": _metadata(image)}
            resolution = _resolution(image, 2**level)
            tiles = _tiles(image, level, shape, dtype)
            file.write(tiles, shape=shape, **stored, **of_level, **resolution)


def _tiles(
    image: ExportedImage, level: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Yield the tiles of a level, those at its lower and right edges filled up with 0."""
    times, layers, depth, height, width = shape
    labels, plane = image.results.labels, Box(0, 0, height, width)
    grid = Grid(plane, TILE, 0)
    for t, layer, z in product(range(times), range(layers), range(depth)):
        for position in range(len(grid)):
            found = labels.read(t, z, grid.core(position), level, layer).astype(dtype)
            tile = np.zeros((TILE, TILE), dtype)
            tile[: found.shape[0], : found.shape[1]] = found
            yield tile


def _metadata(image: ExportedImage) -> dict[str, Any]:
    """Return what the OME-XML says beside shape and type."""
    names = [layer_name(layer) for layer in range(image.results.labels.layers)]
    stated: dict[str, Any] = {"axes": "TCZYX", "Name": image.name, "Channel": {"Name": names}}
    if image.voxel is not None:
        for axis, size in zip("ZYX", image.voxel, strict=True):
            if axis != "Z" or image.shape[1] > 1:
                stated |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    return stated


def _resolution(image: ExportedImage, factor: int) -> dict[str, Any]:
    """Return the size of a pixel as TIFF itself states it."""
    if image.voxel is None:
        return {}
    _, y, x = image.voxel
    per_cm = UM_PER_CM / (x * factor), UM_PER_CM / (y * factor)
    return {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
