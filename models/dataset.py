"""Training data: pairs of an image and its label image, and the targets a detector learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cellseg.models.augment import augment
from cellseg.models.instances import Instances
from cellseg.models.light import empty_field
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
    classes : uint8 (largest label + 1,), optional
        The class of each label, from 1; by default all are of class 1.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    classes: NDArray[np.uint8] | None = None

    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of cells of each class, (256,)."""
        present = np.unique(self.labels)
        present = present[present > 0]
        classes = np.ones(len(present), np.int64) if self.classes is None else self.classes[present]
        return np.bincount(classes, minlength=256)


def target(
    labels: NDArray[np.int32], classes: NDArray[np.uint8] | None = None
) -> dict[str, Tensor]:
    """Return what torchvision's detectors learn from.

    Parameters
    ----------
    labels : int32 (H, W)
    classes : uint8 (largest label + 1,), optional
        The class of each label; by default all are of class 1.

    Returns
    -------
    dict
        ``boxes`` float32 (N, 4) as x0, y0, x1, y1 in pixel-centre coordinates
        (see `cellseg.models.mask_rcnn`), ``labels`` int64 (N,), ``masks``
        uint8 (N, H, W). N may be 0.
    """
    cells = Instances.from_labels(labels)
    large = np.flatnonzero(cells.areas() >= LEAST_PIXELS)
    cells = cells.take(large)
    masks = np.zeros((len(cells), *labels.shape), np.uint8)
    for mask, (y0, x0, y1, x1), crop in zip(masks, cells.boxes.tolist(), cells.masks, strict=True):
        mask[y0:y1, x0:x1] = crop
    boxes = cells.boxes[:, [1, 0, 3, 2]].astype(np.float32) - 0.5
    kinds = np.ones(len(cells), np.int64)
    if classes is not None:
        # from_labels goes through the labels in their order.
        kinds = classes[np.unique(labels[labels > 0])[large]].astype(np.int64)
    return {
        "boxes": torch.from_numpy(boxes.reshape(-1, 4)),
        "labels": torch.from_numpy(kinds),
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
    weights = _weights(samples)
    images, targets = [], []
    for index in random.choice(len(samples), settings.batch, p=weights):
        image, labels, classes = _crop(samples[index], settings, random)
        images.append(torch.from_numpy(image))
        targets.append(target(labels, classes))
    return torch.stack(images), targets


class Crops(Dataset[tuple[Tensor, list[dict[str, Tensor]]]]):
    """The batches of a training by their step, for torch's loaders."""

    def __init__(self, samples: Sequence[Sample], settings: TrainSettings) -> None:
        self.samples = samples
        self.settings = settings

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
        return batch(self.samples, self.settings, step)


def _crop(
    sample: Sample, settings: TrainSettings, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8] | None]:
    """Return an augmented crop of a sample, or now and then a field without cells."""
    side = settings.crop_px
    if random.random() < settings.empty:
        field = empty_field(len(sample.image), side, random)
        return field, np.zeros((side, side), np.int32), None
    image, labels, origin = augment(sample.image, sample.labels, side, settings.zoom, random)
    return image, labels, None if sample.classes is None else sample.classes[origin]


def _weights(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return how often each sample is drawn, as a probability.

    A large image shows more cells than a small one, but not more kinds of
    them: its weight is the root of its pixels. Where there are several
    classes, an image also weighs by the rarest class it shows, the root of
    how much rarer than the commonest that is.
    """
    weights = np.sqrt([sample.labels.size for sample in samples])
    shown = [sample.class_counts() for sample in samples]
    counts = np.sum(shown, axis=0)
    most = counts.max(initial=1)
    for i, own in enumerate(shown):
        weights[i] *= np.sqrt(most / max(counts[own > 0].min(initial=most), 1))
    return np.asarray(weights / weights.sum())
