"""A slide of any size whose pixels follow from their position, and a segmenter that is exact on it.

Ellipses stand on a jittered lattice, about a thousand in a megapixel, many of
them touching; whole areas are empty; here and there lies one giant. A pixel's
grey level says which cell it belongs to, so nothing is stored but a file of a
few numbers, ``slide.lazy``, and to find the cells is to look. Importing this
module adds the reader of that file to `cellseg.pipeline.image.READERS`; a
worker that unpickles `LazyExact` imports it too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import Instances
from cellseg.pipeline.image import READERS, Image
from cellseg.pipeline.source import CHUNK_PX, Shape, Window
from cellseg.pipeline.tiles import Box

PITCH = 26
"""Px between the cells of the lattice: 10 million cells in 100,000 x 100,000 px, the rest empty."""
JITTER = 4
"""Px that a centre lies off its place, at most; two centres are 18 px apart or more."""
REACH = 16
"""Longest semi-axis in px: beyond half the pitch, so that neighbours touch."""
SHAPES = 512
PERIOD = 128
"""Grey levels repeat after this many cells of the lattice: 3,328 px, more than any window."""
GIANTS = 8
"""The same for giants, in their blocks."""
MISSING, EMPTY = 0.03, 0.30
"""Part of the places without a cell, and part of the areas without cells."""
GIANT_BLOCK = 20
"""Side of the area that holds one giant, in its radii."""
CLEAR = 3
"""Px that the centre of a cell keeps from a giant, so that the cell is seen in one piece."""
OUTSIDE = np.uint32(1 << 16)
STRIP = 512
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Slide:
    """What `slide.lazy` holds: all pixels follow from it.

    Parameters
    ----------
    height, width : int
        In px.
    seed : int
        Another seed, other cells.
    giant_px : int
        Radius of the giant cells, one in a square of 20 radii unless it would leave the slide.
    empty_px : int
        Side of the areas of which about 30 % are empty.
    """

    height: int
    width: int
    seed: int = 0
    giant_px: int = 400
    empty_px: int = 4096

    def write(self, path: Path) -> None:
        """Write the file that the reader opens."""
        path.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Lattice:
    """Some cells of the lattice, one row each: centre in px, number of the shape, grey level."""

    y: Integers
    x: Integers
    shape: Integers
    grey: Integers


def scatter(seed: int, salt: int, i: Integers, j: Integers) -> NDArray[np.uint64]:
    """Return 64 well mixed bits for each pair of numbers.

    Source: splitmix64 (Steele, Lea and Flood, OOPSLA 2014, figure 17).
    """

    def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))

    start = mix(np.array([seed * 16 + salt], np.uint64))
    mixed = mix(start ^ np.asarray(i, np.int64).astype(np.uint64))
    return mix(mixed ^ np.asarray(j, np.int64).astype(np.uint64))


def _below(bits: NDArray[np.uint64], shift: int, count: int) -> Integers:
    """Return 16 of the bits as numbers from 0 to `count` - 1."""
    part = (bits >> np.uint64(shift)) & np.uint64(0xFFFF)
    return (part.astype(np.int64) * count) >> 16


@lru_cache(maxsize=1)
def library() -> NDArray[np.uint32]:
    """Return the shapes that cells come in, (512, 33, 33) around their centres.

    Each pixel holds its squared distance from the centre times 2 ** 17, and
    `OUTSIDE` where it is no part of the ellipse: with a grey level in the
    lowest 16 bits, the least of several such values names the nearest centre.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    long = random.uniform(9, REACH, SHAPES)[:, None, None]
    short = long * random.uniform(0.7, 1, SHAPES)[:, None, None]
    angle = random.uniform(0, np.pi, SHAPES)[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    outside = (along / long) ** 2 + (across / short) ** 2 > 1
    nearness = (y**2 + x**2).astype(np.uint32) << np.uint32(17)
    shapes: NDArray[np.uint32] = np.where(outside, nearness | OUTSIDE, nearness)
    return shapes


def giants(slide: Slide, box: Box) -> Iterator[tuple[int, int, int]]:
    """Yield centre y, x and grey level of the giants that may reach into a box."""
    radius, side = slide.giant_px, slide.giant_px * GIANT_BLOCK
    last = (slide.height // side, slide.width // side)
    for row in range(box.y0 // side, min((box.y1 - 1) // side, last[0]) + 1):
        for column in range(box.x0 // side, min((box.x1 - 1) // side, last[1]) + 1):
            bits = scatter(slide.seed, 1, np.array([row]), np.array([column]))
            free = side - 2 * radius - 2
            y = row * side + radius + 1 + int(_below(bits, 0, free)[0])
            x = column * side + radius + 1 + int(_below(bits, 16, free)[0])
            # Those of one block stay in it: whoever asks for a box need not look further.
            if y + radius < slide.height and x + radius < slide.width:
                number = row % GIANTS * GIANTS + column % GIANTS
                yield y, x, PERIOD * PERIOD + 1 + number


def lattice(slide: Slide, box: Box) -> Lattice:
    """Return the cells that may reach into a box, those with their centre in the slide."""
    ahead = REACH + JITTER
    rows = np.arange(max((box.y0 - ahead) // PITCH, 0), (box.y1 + ahead) // PITCH + 1)
    columns = np.arange(max((box.x0 - ahead) // PITCH, 0), (box.x1 + ahead) // PITCH + 1)
    i, j = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    bits = scatter(slide.seed, 0, i, j)
    y = i * PITCH + PITCH // 2 + _below(bits, 0, 2 * JITTER + 1) - JITTER
    x = j * PITCH + PITCH // 2 + _below(bits, 16, 2 * JITTER + 1) - JITTER
    here = (y < slide.height) & (x < slide.width) & (_below(bits, 32, 1000) >= 1000 * MISSING)
    block = scatter(slide.seed, 2, y // slide.empty_px, x // slide.empty_px)
    here &= _below(block, 0, 1000) >= 1000 * EMPTY
    clear = (slide.giant_px + CLEAR) ** 2
    around = box.grow(2 * ahead, Box(0, 0, slide.height, slide.width))
    for centre_y, centre_x, _ in giants(slide, around):
        here &= (y - centre_y) ** 2 + (x - centre_x) ** 2 > clear
    grey = 1 + i % PERIOD * PERIOD + j % PERIOD
    shape = _below(bits, 48, SHAPES)
    return Lattice(y[here], x[here], shape[here], grey[here])


def draw(slide: Slide, box: Box) -> NDArray[np.uint16]:
    """Return the grey levels of a box: 0, or the one of the cell there.

    A pixel belongs to the nearest centre, if it lies in that cell's ellipse:
    every cell is convex, and its own centre is always part of it.
    """
    cells = lattice(slide, box)
    height, width = box.shape
    border = 4 * REACH
    canvas = np.full((height + 2 * border, width + 2 * border), 0xFFFFFFFF, np.uint32)
    stamps = library()[cells.shape] | cells.grey.astype(np.uint32)[:, None, None]
    tops = (cells.y - box.y0 + border - REACH).tolist()
    lefts = (cells.x - box.x0 + border - REACH).tolist()
    size = 2 * REACH + 1
    for top, left, stamp in zip(tops, lefts, stamps, strict=True):
        place = canvas[top : top + size, left : left + size]
        np.minimum(place, stamp, out=place)
    nearest = canvas[border : border + height, border : border + width]
    grey = nearest.astype(np.uint16)
    grey[(nearest & OUTSIDE) > 0] = 0
    for y, x, level in giants(slide, box):
        _draw_disc(grey, y - box.y0, x - box.x0, slide.giant_px, level)
    return grey


def _draw_disc(grey: NDArray[np.uint16], y: int, x: int, radius: int, level: int) -> None:
    top, left = max(y - radius, 0), max(x - radius, 0)
    part = grey[top : max(y + radius + 1, 0), left : max(x + radius + 1, 0)]
    if part.size:
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        part[(rows + top - y) ** 2 + (columns + left - x) ** 2 <= radius**2] = level


@dataclass(frozen=True, eq=False)
class LazySource:
    """A `PixelSource` that draws what it is asked for."""

    path: Path
    slide: Slide
    dtype = np.dtype(np.uint16)

    @property
    def shape(self) -> Shape:
        """(T, C, Z, Y, X), one channel."""
        return 1, 1, 1, self.slide.height, self.slide.width

    def read(self, window: Window) -> NDArray[Any]:
        """Return the pixels in five ranges; see `PixelSource`."""
        *_, y, x = window
        return draw(self.slide, Box(y.start, x.start, y.stop, x.stop))[None, None, None]


def read_lazy(path: Path) -> Image:
    """Open a slide that `Slide.write` has written."""
    slide = Slide(**json.loads(path.read_text(encoding="utf-8")))
    return Image.from_source(LazySource(path, slide), (1, 1, 1, CHUNK_PX, CHUNK_PX), ["grey"], None)


READERS[".lazy"] = read_lazy


class LazyExact:
    """Returns each grey level of a plane as one instance; run it with `normalise.method = "none"`.

    Exact in any window of up to 3,300 px on a side.
    """

    key = "lazy_exact"

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        """Return the objects of each plane; see `cellseg.models.Segmenter`."""
        return [_cut(plane[0].astype(np.int32)) for plane in planes]


def _cut(grey: NDArray[np.int32]) -> Instances:
    boxes, masks = [], []
    for level, window in enumerate(ndimage.find_objects(grey), 1):
        if window is not None:
            rows, columns = window
            boxes.append((rows.start, columns.start, rows.stop, columns.stop))
            masks.append(grey[window] == level)
    count = len(masks)
    return Instances(
        np.asarray(boxes, np.int32).reshape(-1, 4),
        tuple(masks),
        np.ones(count, np.float32),
        np.ones(count, np.uint8),
    )


def expected(slide: Slide) -> int:
    """Return the number of cells of a slide, giants included, in memory that does not grow."""
    whole = Box(0, 0, slide.height, slide.width)
    count = sum(1 for _ in giants(slide, whole))
    for top in range(0, slide.height, STRIP):
        bottom = min(top + STRIP, slide.height)
        cells = lattice(slide, Box(top, 0, bottom, slide.width))
        count += int(np.count_nonzero((cells.y >= top) & (cells.y < bottom)))
    return count


def truth(slide: Slide) -> NDArray[np.uint32]:
    """Return the label image (H, W) that a run must give: 1..N by the cells' centres, y then x.

    For slides whose grey levels do not repeat: up to 3,300 px on a side.
    """
    grey = draw(slide, Box(0, 0, slide.height, slide.width))
    assert max(grey.shape) <= (PERIOD - 1) * PITCH, "grey levels repeat"
    y, x = (axis.astype(np.int64) for axis in np.nonzero(grey))
    level = grey[y, x].astype(np.int64)
    counts = np.bincount(level)
    with np.errstate(invalid="ignore"):
        centres = [np.bincount(level, axis) / counts for axis in (y, x)]
    present = np.flatnonzero(counts)
    order = present[np.lexsort((centres[1][present], centres[0][present]))]
    labels = np.zeros(len(counts), np.uint32)
    labels[order] = np.arange(1, len(order) + 1)
    found: NDArray[np.uint32] = labels[grey]
    return found


def slide_of(gigapixels: float, seed: int = 0) -> Slide:
    """Return a square slide of about that many gigapixels."""
    side = round(math.sqrt(gigapixels * 1e9))
    return Slide(side, side, seed)
