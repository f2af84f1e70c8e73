"""Annotate: label layers that a person drew on an image, as a pair of a training set; no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.layers import from_layers
from cellseg.pipeline.image_names import image_names
from cellseg.pipeline.training_set import TrainingSet


def empty_labels(shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return labels to draw on, int32 (H, W), for a plane of an image."""
    return np.zeros(shape[-2:], np.int32)


def save_pair(
    folder: Path, name: str, channels: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]]
) -> int:
    """Write a plane and the cells drawn on it into a training set; return the cells.

    Parameters
    ----------
    folder : Path
        Of the training set; what `cellseg train --from nuclei FOLDER` takes.
    name : str
        Of the image. A pair of that name is replaced.
    channels : sequence of arrays (H, W)
        What the model shall see.
    labels : sequence of integer arrays (H, W)
        0 is background. Where cells overlap, they lie in different ones; a number means one cell.

    Raises
    ------
    CellsegError
        If shapes differ, or nothing is drawn.
    """
    shapes = {each.shape for each in (*channels, *labels)}
    if len(shapes) != 1:
        raise CellsegError(
            f"{name}: image and labels are of {len(shapes)} sizes, {sorted(shapes)}."
            " Draw on a label layer that was made for this image."
        )
    cells = from_layers(np.stack(labels))
    if not len(cells):
        raise CellsegError(f"{name}: nothing is drawn on it yet.")
    (plain,) = image_names([Path(f"{name}.tif")])
    TrainingSet(folder).add(plain, np.stack(channels), cells)
    return len(cells)
