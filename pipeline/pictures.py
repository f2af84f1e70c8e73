"""Pictures small enough to be a part of a page: JPEG as text, and thumbnails of files."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
QUALITY = 82


def data_uri(picture: Picture, quality: int = QUALITY) -> str:
    """Return a picture (h, w, 3) as a ``data:`` address; thin coloured lines stay sharp."""
    from PIL import Image

    # Without subsampling: outlines are a pixel wide, and colour is all that they are.
    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def read_picture(path: Path) -> Picture:
    """Return a picture file as uint8 (h, w, 3).

    Raises
    ------
    OSError
        If it is missing or damaged.
    """
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def resized(picture: Picture, height: int, width: int) -> Picture:
    """Return a picture (h, w) or (h, w, 3) at another size; averaged where that is smaller."""
    from PIL import Image

    way = Image.Resampling.LANCZOS if height < picture.shape[0] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize((width, height), way), np.uint8)


def thumbnail(picture: Picture, side: int) -> Picture:
    """Return a picture of which neither side is longer than `side` px."""
    height, width = picture.shape[:2]
    factor = min(1.0, side / max(height, width))
    return resized(picture, max(round(height * factor), 1), max(round(width * factor), 1))
