"""The part of a plane that decides how an image is normalised: windows that no tiling moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from cellseg.pipeline.image import Image
from cellseg.pipeline.tiles import Box

WHOLE_PX = 2048 * 2048
SAMPLE_PX = 256
SAMPLES = 64


def sample_windows(image: Image, channels: Sequence[int], t: int, z: int) -> list[NDArray[Any]]:
    """Return the part of a plane that decides how the image is normalised.

    It depends on the shape of the plane alone, never on a tiling: all of it up
    to 4 Mpx, else about 64 windows of 256 px on an even lattice. Their corners
    are multiples of 256, so each lies in one tile of the file.

    Returns
    -------
    list of (C, h, w), type of the file
    """
    boxes = sample_boxes(*image.shape[3:])
    return [image.read(t, z, box, channels) for box in boxes]


def sample_boxes(height: int, width: int) -> list[Box]:
    """Return the windows of a plane that `sample_windows` reads."""
    if height * width <= WHOLE_PX:
        return [Box(0, 0, height, width)]
    rows = min(max(round(math.sqrt(SAMPLES * height / width)), 1), max(height // SAMPLE_PX, 1))
    columns = min(max(round(SAMPLES / rows), 1), max(width // SAMPLE_PX, 1))
    rows = min(round(SAMPLES / columns), max(height // SAMPLE_PX, 1))
    return [
        Box(y, x, min(y + SAMPLE_PX, height), min(x + SAMPLE_PX, width))
        for y in _lattice(height, rows)
        for x in _lattice(width, columns)
    ]


def _lattice(length: int, count: int) -> list[int]:
    centres = [(2 * i + 1) * length // (2 * count) for i in range(count)]
    return [max(centre - SAMPLE_PX // 2, 0) // SAMPLE_PX * SAMPLE_PX for centre in centres]
