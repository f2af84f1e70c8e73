"""Masks: a TIFF stack for each plane of a results folder, with a plane for each cell.

Of an image it needs the masks of all cells of a plane, and one plane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.models.instances import Instances
from cellseg.pipeline.exported import LARGEST_TIFF, ExportedImage
from cellseg.pipeline.files import whole


def write_stacks(images: Sequence[ExportedImage], folder: Path) -> Iterator[str]:
    """Write a TIFF stack for each plane of each image; yield the name of each image.

    Axes (cell, y, x), uint8, 255 on the cell and 0 elsewhere, in the order of the
    labels, zlib. A plane without cells is one empty plane. Slides are better
    served by COCO: here every cell takes the time of a whole plane.
    """
    for image in images:
        for t, z in image.planes:
            cells = Instances.concatenate([part.cells for part in image.cells((t, z))])
            write_stack(folder / image.stack_name(t, z), cells, image.shape[2:])
        yield image.name


def write_stack(path: Path, cells: Instances, shape: tuple[int, int]) -> None:
    """Write objects of a plane as a TIFF stack of masks; see `write_stacks`."""
    import tifffile

    def planes() -> Iterator[NDArray[np.uint8]]:
        for (y0, x0, y1, x1), mask in zip(cells.boxes.tolist(), cells.masks, strict=True):
            plane = np.zeros(shape, np.uint8)
            plane[y0:y1, x0:x1][mask] = 255
            yield plane
        if not len(cells):
            yield np.zeros(shape, np.uint8)

    count = max(len(cells), 1)
    large = count * shape[0] * shape[1] > LARGEST_TIFF
    with whole(path) as partial, tifffile.TiffWriter(partial, bigtiff=large) as file:
        file.write(
            planes(),
            shape=(count, *shape),
            dtype=np.uint8,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": "QYX"},
        )
