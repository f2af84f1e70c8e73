"""Pictures in PNG, JPEG or BMP, as people annotate them: small, and read at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import open_image, reader_of
from cellseg.pipeline.tiles import Box

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
COLOURS = ("red", "green", "blue")


def is_readable(path: Path) -> bool:
    """Whether a path is an image or a picture."""
    return reader_of(path) is not None or (path.is_file() and path.suffix.lower() in PICTURES)


def read_plane(path: Path) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the first plane of an image or a picture, and the names of its channels.

    Returns
    -------
    pixels : (C, H, W), type of the file
        Of a picture without colours, or whose colours are all alike, one channel.
    channels : tuple of C str

    Raises
    ------
    CellsegError
        If it cannot be read.
    """
    if path.suffix.lower() in PICTURES:
        return _picture(path)
    image = open_image(path)
    _, channels, _, height, width = image.shape
    return image.read(0, 0, Box(0, 0, height, width), range(channels)), image.channels


def _picture(path: Path) -> tuple[NDArray[Any], tuple[str, ...]]:
    import imagecodecs

    try:
        pixels = imagecodecs.imread(path)
    # Each of its decoders has an error of its own.
    except Exception as error:
        raise CellsegError(f"{path}: cannot be read: {error}. Save it again.") from None
    if pixels.ndim == 2:
        return pixels[None], ("0",)
    # The fourth channel says how opaque a pixel is; of two the second does.
    shown = np.moveaxis(pixels[..., : 3 if pixels.shape[2] > 2 else 1], 2, 0)
    if (shown == shown[0]).all():
        return np.ascontiguousarray(shown[:1]), ("0",)
    return np.ascontiguousarray(shown), COLOURS
