"""Training data: pairs of an image and its label layers, and the targets a detector learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from cellseg.models.augment import augment
from cellseg.models.compose import CellLibrary, Composed, compose, cut_cells
from cellseg.models.light import empty_field, random_light
from cellseg.models.settings import TrainSettings

Labels = NDArray[np.int32]
Crop = tuple[NDArray[np.float32], Labels, NDArray[np.uint8] | None]
"""Pixels (C, side, side), layers of labels (L, side, side), and the class of each label."""

ONTO_REAL = 0.5
"""Share of composed crops whose cells are added to a real crop, so that real ones stay in sight."""
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
    labels : int32 (L, H, W)
        Layers of labels: 0 is background, every other value one cell, whole in one layer.
        Cells that overlap lie in different layers; without overlap one is enough.
    classes : uint8 (largest label + 1,), optional
        The class of each label, from 1; by default all are of class 1.
    """

    name: str
    image: NDArray[np.float32]
    labels: Labels
    classes: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        """Check that the labels are layers over the image."""
        if self.labels.ndim != 3 or self.labels.shape[1:] != self.image.shape[1:]:
            raise ValueError(
                f"{self.name}: labels {self.labels.shape} are no layers (L, H, W) over an image"
                f" {self.image.shape}"
            )

    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of cells of each class, (256,)."""
        present = np.unique(self.labels)
        present = present[present > 0]
        classes = np.ones(len(present), np.int64) if self.classes is None else self.classes[present]
        return np.bincount(classes, minlength=256)


def target(labels: Labels, classes: NDArray[np.uint8] | None = None) -> dict[str, Tensor]:
    """Return what torchvision's detectors learn from.

    Parameters
    ----------
    labels : int32 (L, H, W)
        Layers as those of a `Sample`, their labels counted from 1 with few gaps.
    classes : uint8 (largest label + 1,), optional
        The class of each label; by default all are of class 1.

    Returns
    -------
    dict
        In the order of the labels: ``boxes`` float32 (N, 4) as x0, y0, x1, y1 in
        pixel-centre coordinates (see `cellseg.models.mask_rcnn`), ``labels``
        int64 (N,), ``masks`` uint8 (N, H, W), whole where they share pixels. N
        may be 0.
    """
    found = sorted(
        ((label, layer, box) for layer in labels for label, box in _boxes(layer)),
        key=lambda cell: cell[0],
    )
    masks = np.zeros((len(found), *labels.shape[1:]), np.uint8)
    for mask, (label, layer, box) in zip(masks, found, strict=True):
        mask[box] = layer[box] == label
    areas = [np.count_nonzero(mask[box]) for mask, (*_, box) in zip(masks, found, strict=True)]
    large = np.flatnonzero(np.array(areas, int) >= LEAST_PIXELS)
    corners = [(x.start, y.start, x.stop, y.stop) for *_, (y, x) in found]
    boxes = np.array(corners, np.float32).reshape(-1, 4)[large] - 0.5
    numbers = np.array([label for label, *_ in found], np.intp)[large]
    kinds = np.ones(len(large), np.int64) if classes is None else classes[numbers].astype(np.int64)
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(kinds),
        "masks": torch.from_numpy(masks if len(large) == len(masks) else masks[large]),
    }


def _boxes(layer: Labels) -> list[tuple[int, tuple[slice, slice]]]:
    """Return each label of a layer (H, W), and the window of its pixels."""
    boxes = enumerate(ndimage.find_objects(layer), 1)
    return [(label, box) for label, box in boxes if box is not None]


def batch(
    samples: Sequence[Sample], settings: TrainSettings, step: int
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return the images (B, C, side, side) and targets of training step `step`."""
    return Crops(samples, settings)[step]


class Crops(Dataset[tuple[Tensor, list[dict[str, Tensor]]]]):
    """The batches of a training by their step, for torch's loaders.

    A batch follows from the seed and the step alone, so a training that was
    interrupted goes on with the very crops it would have seen.

    Parameters
    ----------
    samples : sequence of Sample
    settings : TrainSettings

    Raises
    ------
    CellsegError
        If crops are to be composed and no cell can be cut from the samples.
    """

    def __init__(self, samples: Sequence[Sample], settings: TrainSettings) -> None:
        self.samples = samples
        self.settings = settings
        self.weights = draw_weights(samples)
        self.library = cut_cells(samples) if settings.composed else None

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
        random = np.random.default_rng([self.settings.seed, step])
        images, targets = [], []
        for index in random.choice(len(self.samples), self.settings.batch, p=self.weights):
            image, labels, classes = self._crop(self.samples[index], random)
            images.append(torch.from_numpy(image))
            targets.append(target(labels, classes))
        return torch.stack(images), targets

    def _crop(self, sample: Sample, random: np.random.Generator) -> Crop:
        """Return a crop of a sample, a composed one, or now and then a field without cells."""
        if random.random() < self.settings.empty:
            return _without_cells(sample, self.settings, random)
        if self.library is not None and random.random() < self.settings.composed:
            return _composed(self.library, sample, self.settings, random)
        return _augmented(sample, self.settings, random)


def _composed(
    library: CellLibrary, sample: Sample, settings: TrainSettings, random: np.random.Generator
) -> Crop:
    """Return a crop of cells that overlap, some of them added to a crop of the sample."""
    base = None
    if random.random() < ONTO_REAL:
        image, labels, classes = _augmented(sample, settings, random)
        if classes is None:
            classes = np.ones(int(labels.max()) + 1, np.uint8)
        base = Composed(image, labels, classes)
    made = compose(library, settings.crop_px, random, settings.compose, base)
    image = random_light(made.image, random) if base is None else made.image
    return image, made.labels, made.classes


def composed_samples(
    samples: Sequence[Sample], settings: TrainSettings, count: int
) -> list[Sample]:
    """Return images composed of the cells of some samples, as a training composes its crops.

    Parameters
    ----------
    samples : sequence of Sample
    settings : TrainSettings
        Of the size, the cells and the seed.
    count : int
        Of images; half of them show a crop of a sample underneath.
    """
    library, made = cut_cells(samples), []
    for number in range(count):
        random = np.random.default_rng([settings.seed, number])
        sample = samples[number % len(samples)]
        image, labels, classes = _composed(library, sample, settings, random)
        made.append(Sample(f"composed {number} {sample.name}", image, labels, classes))
    return made


def _without_cells(sample: Sample, settings: TrainSettings, random: np.random.Generator) -> Crop:
    side = settings.crop_px
    field = empty_field(len(sample.image), side, random)
    return field, np.zeros((1, side, side), np.int32), None


def _augmented(sample: Sample, settings: TrainSettings, random: np.random.Generator) -> Crop:
    side = settings.crop_px
    image, labels, origin = augment(sample.image, sample.labels, side, settings.zoom, random)
    return image, labels, None if sample.classes is None else sample.classes[origin]


def draw_weights(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return how often each sample is drawn, as a probability.

    A large image shows more cells than a small one, but not more kinds of
    them: its weight is the root of its pixels. Where there are several
    classes, an image also weighs by the rarest class it shows, the root of
    how much rarer than the commonest that is.
    """
    weights = np.sqrt([sample.labels[0].size for sample in samples])
    shown = [sample.class_counts() for sample in samples]
    counts = np.sum(shown, axis=0)
    most = counts.max(initial=1)
    for i, own in enumerate(shown):
        weights[i] *= np.sqrt(most / max(counts[own > 0].min(initial=most), 1))
    return np.asarray(weights / weights.sum())
