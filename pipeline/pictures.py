"""Pictures as files, small ones as a part of a page: PNG, JPEG as text, thumbnails."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = NDArray[np.uint8]
QUALITY = 82
CAPTION_PX, CAPTION_MARGIN_PX = 11, 4
"""Height of the letters under an overview, and the space around them."""
MOST_COLOURS = 16
"""Beside greys; a picture of more colours is written as it is."""


def data_uri(picture: Picture, quality: int = QUALITY) -> str:
    """Return a picture (h, w, 3) as a ``data:`` address; thin coloured lines stay sharp."""
    from PIL import Image

    # Without subsampling: outlines are a pixel wide, and colour is all that they are.
    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def captioned(picture: Picture, text: str) -> Picture:
    """Return a picture (h, w, 3) with some text under it, in as many lines as it needs."""
    from PIL import Image, ImageDraw, ImageFont

    width = picture.shape[1]
    font = ImageFont.load_default(CAPTION_PX)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        fits = font.getlength(longer) <= width - 2 * CAPTION_MARGIN_PX
        lines[-1:] = [longer] if fits or not lines[-1] else [lines[-1], word]
    height = len(lines) * (CAPTION_PX + CAPTION_MARGIN_PX) + CAPTION_MARGIN_PX
    strip = Image.new("RGB", (width, height))
    ImageDraw.Draw(strip).multiline_text(
        (CAPTION_MARGIN_PX, 1), "\n".join(lines), font=font, spacing=CAPTION_MARGIN_PX
    )
    return np.concatenate([picture, np.asarray(strip, np.uint8)])


def few_colours(picture: Picture) -> Image:
    """Return a picture (h, w, 3) of greys and a few colours as an image with a palette.

    A byte for each pixel in place of three: a third of the time to write and half to read. Where
    there are more than 256 in all, the rarest greys look as the next ones.
    """
    from PIL import Image

    red, green, blue = (picture[..., channel] for channel in range(3))
    coloured = (red != green) | (green != blue)
    packed = np.zeros((np.count_nonzero(coloured), 4), np.uint8)
    packed[:, :3] = picture[coloured]
    colours, which = np.unique(packed.view(np.uint32)[:, 0], return_inverse=True)
    if len(colours) > MOST_COLOURS:
        return Image.fromarray(picture)
    greys = _commonest(np.bincount(green[~coloured], minlength=256), 256 - len(colours))
    places = np.searchsorted(greys, np.arange(256)).clip(max=len(greys) - 1).astype(np.uint8)[green]
    places[coloured] = len(greys) + which
    image = Image.fromarray(places)
    ramp = np.repeat(greys, 3).astype(np.uint8)
    image.putpalette(ramp.tobytes() + colours.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    return image


def _commonest(counts: NDArray[np.int64], most: int) -> NDArray[np.intp]:
    """Return the values that occur, of more than `most` the commonest; ascending, at least one."""
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(order[: max(np.count_nonzero(counts[order]), 1)])


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
