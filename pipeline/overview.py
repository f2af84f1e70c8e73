"""A picture of an image with its cells outlined, to see at a glance whether a run went well.

Its time and memory have bounds: up to a gigapixel all pixels are read to show
every few-th. A larger plane is shown blurred, from one row in each row of
chunks: plain files give those in seconds, and no chunk of up to 2048 px is
decoded twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models.normalise import Normalisation, decide
from cellseg.models.settings import Percentile
from cellseg.pipeline.interest import Interest
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.sampling import sample_windows
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.tiles import Box, Grid

LARGEST = 2048
"""Px; larger images are shown at the level of the label pyramid that fits."""
WINDOW = 2048
WINDOWS = 256
"""More windows than these are not read; 2**30 px."""
TICK_PX, TICK = 8, (0, 158, 255)
"""Length and colour of the marks where tiles meet."""
TICKS_APART_PX = 4
"""Closer ones would be a line along the edge of the picture."""
OUTLINE = (255, 196, 0)
REGION, REGION_PX = (64, 224, 128), 2
"""Colour of the outline of a region of interest, and its width."""
SHARED = (255, 72, 176)
"""Colour of an outline where it lies on another cell."""
GAMMA = 0.6
"""Dim cells are seen too."""


def overview(scene: Scene, labels: LabelStore) -> NDArray[np.uint8]:
    """Return a picture of the first time point's middle plane.

    The first plane that the model sees in grey, from its 1st to its 99.8th percentile, each cell
    outlined along its own pixels, so that touching cells stay apart; in another colour
    where it lies over or under a second cell. The outline of the region of interest,
    if there is one, lies under them. Short
    ticks at its edges mark where tiles meet, if there are several.

    Returns
    -------
    uint8 (h, w, 3)
    """
    plane = scene.grid.plane
    level = 0
    while max(plane.shape) >> level > LARGEST:
        level += 1
    step = 2**level
    grey = _picture(scene, step)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    if scene.region is not None:
        picture[_border(scene, scene.region, step)] = REGION
    lines, depth = np.zeros(grey.shape, bool), np.zeros(grey.shape, np.uint16)
    for layer in range(labels.layers):
        painted = labels.read(0, _middle(scene), Box(0, 0, *grey.shape), level, layer)
        lines |= outlines(painted)
        depth += painted > 0
    picture[lines] = OUTLINE
    picture[lines & (depth > 1)] = SHARED
    ticks(picture, scene.grid, step)
    return picture


def ticks(picture: NDArray[np.uint8], grid: Grid, step: int) -> None:
    """Mark at the edges of a picture where the cores of tiles meet.

    Parameters
    ----------
    picture : uint8 (h, w, 3)
        Drawn into; shows every `step`-th pixel of the plane.
    grid : Grid
        The tiles. Where they are closer than 4 px in the picture nothing is drawn.
    step : int
        Px of the plane for each px of the picture.
    """
    if grid.size < TICKS_APART_PX * step:
        return
    for axis, count in enumerate(grid.counts):
        borders = np.arange(1, count) * grid.size // step
        lines = picture if axis == 0 else picture.swapaxes(0, 1)
        lines[borders, :TICK_PX] = TICK
        lines[borders, -TICK_PX:] = TICK


def _border(scene: Scene, region: Interest, step: int) -> NDArray[np.bool_]:
    """Return the outer pixels of each part of a region, of every `step`-th one, bool (h, w)."""
    plane, area = scene.grid.plane, region.area()
    drawn = np.zeros([-(-length // step) for length in plane.shape], np.int64)
    windows = Grid(plane, WINDOW, 0)
    for position in range(len(windows)):
        box = windows.core(position)
        y, x = box.y0 // step, box.x0 // step
        part = area.numbers(box, step)
        drawn[y : y + part.shape[0], x : x + part.shape[1]] = part
    border = outlines(np.pad(drawn, 1))[1:-1, 1:-1]
    thick = ndimage.binary_dilation(border, iterations=REGION_PX - 1)
    return np.asarray(thick & (drawn > 0))


def _middle(scene: Scene) -> int:
    return scene.shape[2] // 2


def _picture(scene: Scene, step: int) -> NDArray[np.uint8]:
    """Return every `step`-th pixel as uint8 (h, w); a very large plane blurred."""
    first = scene.inputs.first
    sample = sample_windows(scene.image, first.channels, 0, _middle(scene))
    contrast = decide(Percentile(), [first.see(window) for window in sample])
    windows = Grid(scene.grid.plane, WINDOW, 0)
    show = _every_few_th if len(windows) <= WINDOWS else _blurred
    return show(scene, step, contrast)


def _grey(scene: Scene, box: Box, step: int, contrast: Normalisation) -> NDArray[np.float32]:
    """Return every `step`-th pixel of a box, from its first one, as 0 to 255."""
    first = scene.inputs.first
    read = scene.image.read(0, _middle(scene), box, first.channels)[:, ::step, ::step]
    pixels = first.see(read)
    return np.asarray(np.clip(contrast.apply(pixels)[0], 0, 1) ** GAMMA * 255, np.float32)


def _every_few_th(scene: Scene, step: int, contrast: Normalisation) -> NDArray[np.uint8]:
    """Read window by window."""
    plane = scene.grid.plane
    picture = np.zeros([-(-length // step) for length in plane.shape], np.uint8)
    windows = Grid(plane, WINDOW, 0)
    for position in range(len(windows)):
        box = windows.core(position)
        shown = _grey(scene, box, step, contrast)
        y, x = box.y0 // step, box.x0 // step
        picture[y : y + shown.shape[0], x : x + shown.shape[1]] = shown.astype(np.uint8)
    return picture


def _blurred(scene: Scene, step: int, contrast: Normalisation) -> NDArray[np.uint8]:
    """Read one row in each row of chunks, and blur along it as much as from one to the next."""
    height, width = scene.grid.plane.shape
    apart = -(-min(int(scene.image.stored.chunks[3]), WINDOW) // step) * step
    blocks = Grid(scene.grid.plane, apart, 0).counts
    middles = [
        np.minimum(np.arange(n) * apart + apart // 2, end - 1)
        for n, end in zip(blocks, (height, width), strict=True)
    ]
    starts = np.arange(blocks[1]) * apart
    sizes = np.diff(starts, append=width)
    means = np.zeros(blocks, np.float32)
    for mean, y in zip(means, middles[0].tolist(), strict=True):
        row = _grey(scene, Box(y, 0, y + 1, width), 1, contrast)[0]
        mean[:] = np.add.reduceat(row, starts) / sizes
    for axis, length in enumerate((height, width)):
        means = _stretched(means, middles[axis], np.arange(0, length, step)).T
    return np.asarray(np.rint(means), np.uint8)


def _stretched(
    values: NDArray[np.float32], known: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Blend rows (K, w) known at some places into rows (L, w) at the wanted ones."""
    place = np.interp(wanted, known, np.arange(len(known)))
    first = place.astype(np.intp)
    second = np.minimum(first + 1, len(known) - 1)
    blended = values[first]
    blended += (place - first).astype(np.float32)[:, None] * (values[second] - blended)
    return blended


def outlines(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the pixels of cells that have a neighbour of another label, bool (H, W)."""
    inner = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        rows, columns = (slice(None, -1), slice(None)), (slice(1, None), slice(None))
        one, other = (rows, columns) if axis == 0 else (rows[::-1], columns[::-1])
        differ = labels[one] != labels[other]
        inner[one] |= differ
        inner[other] |= differ
    return inner & (labels > 0)
