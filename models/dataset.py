"""Training data: pairs of an image and its label image, and the targets a detector learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.models.augment import augment
from cellseg.models.instances import Instances
from cellseg.models.settings import TrainSettings

LEAST_PIXELS = 4
"""A sliver of a cell at a crop's border with fewer pixels teaches nothing."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated image.

    Parameters
    ----------
    name : str
        What messages call it.
    image : float32 (C, H, W)
        Normalised pixels.
    labels : int32 (H, W)
        0 is background, every other value one cell.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]


def target(labels: NDArray[np.int32]) -> dict[str, Tensor]:
    """Return what torchvision's detectors learn from, for a label image (H, W).

    Returns
    -------
    dict
        ``boxes`` float32 (N, 4) as x0, y0, x1, y1 in pixel-centre coordinates
        (see `cellseg.models.mask_rcnn`), ``labels`` int64 (N,) all 1, ``masks``
        uint8 (N, H, W). N may be 0.
    """
    cells = Instances.from_labels(labels)
    cells = cells.take(np.flatnonzero(cells.areas() >= LEAST_PIXELS))
    masks = np.zeros((len(cells), *labels.shape), np.uint8)
    for mask, (y0, x0, y1, x1), crop in zip(masks, cells.boxes.tolist(), cells.masks, strict=True):
        mask[y0:y1, x0:x1] = crop
    boxes = cells.boxes[:, [1, 0, 3, 2]].astype(np.float32) - 0.5
    return {
        "boxes": torch.from_numpy(boxes.reshape(-1, 4)),
        "labels": torch.ones(len(cells), dtype=torch.int64),
        "masks": torch.from_numpy(masks),
    }


def batch(
    samples: Sequence[Sample], settings: TrainSettings, step: int
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return the images (B, C, side, side) and targets of training step `step`.

    The batch follows from the seed and the step alone, so a training that was
    interrupted goes on with the very crops it would have seen.
    """
    random = np.random.default_rng([settings.seed, step])
    # A large image shows more cells than a small one, but not more kinds of them.
    weights = np.sqrt([sample.labels.size for sample in samples])
    chosen = random.choice(len(samples), settings.batch, p=weights / weights.sum())
    images, targets = [], []
    for index in chosen:
        sample = samples[index]
        image, labels = augment(
            sample.image, sample.labels, settings.crop_px, settings.zoom, random
        )
        images.append(torch.from_numpy(image))
        targets.append(target(labels))
    return torch.stack(images), targets
