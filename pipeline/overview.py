"""A picture of an image with its cells outlined, to see at a glance whether a run went well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellseg.models.normalise import decide
from cellseg.models.settings import Percentile
from cellseg.pipeline.image import sample_windows
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.tiles import Box, Grid

LARGEST = 2048
"""Px; larger images are shown at the level of the label pyramid that fits."""
WINDOW = 2048
OUTLINE = (255, 196, 0)
GAMMA = 0.6
"""Dim cells are seen too."""


def overview(scene: Scene, labels: LabelStore) -> NDArray[np.uint8]:
    """Return a picture of the first time point's middle plane.

    The model's first channel in grey, from its 1st to its 99.8th percentile, each cell
    outlined along its own pixels, so that touching cells stay apart.

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
    coarse = Box(0, 0, *grey.shape)
    lines = outlines(labels.read(0, _middle(scene), coarse, level))
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    picture[lines] = OUTLINE
    return picture


def _middle(scene: Scene) -> int:
    return int(scene.image.pixels.shape[2]) // 2


def _picture(scene: Scene, step: int) -> NDArray[np.uint8]:
    """Return every `step`-th pixel, read window by window, as uint8."""
    plane, shown_channel = scene.grid.plane, scene.model_channels[:1]
    sample = sample_windows(scene.image, shown_channel, 0, _middle(scene))
    contrast = decide(Percentile(), sample)
    height, width = (-(-length // step) for length in plane.shape)
    picture = np.zeros((height, width), np.uint8)
    windows = Grid(plane, WINDOW, 0)
    for position in range(len(windows)):
        box = windows.core(position)
        pixels = scene.image.read(0, _middle(scene), box, shown_channel)[:, ::step, ::step]
        shown = np.clip(contrast.apply(pixels)[0], 0, 1) ** GAMMA
        y, x = box.y0 // step, box.x0 // step
        picture[y : y + shown.shape[0], x : x + shown.shape[1]] = (shown * 255).astype(np.uint8)
    return picture


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
