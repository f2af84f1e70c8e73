"""The images of a training: read, paired with their cells and classes, held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from cellseg.models.normalise import decide
from cellseg.models.settings import TrainSettings
from cellseg.pipeline.image import READERS, open_image, reader_of
from cellseg.pipeline.masks import MASK_READERS, MaskSource, find_masks, stem_of
from cellseg.pipeline.plate import each_file
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.training_set import TrainingSet


def read_samples(settings: TrainSettings) -> tuple[list[Sample], list[Sample]]:
    """Return the images to train on, and those to validate on, in the order of their names.

    Raises
    ------
    CellsegError
        If an image has no labels, labels do not fit, or no image is left on a side.
    """
    samples = []
    for number, (images, labels) in enumerate(zip(settings.images, settings.labels, strict=True)):
        truths = _truths(labels)
        classes = _by_name(settings.class_images[number]) if settings.class_images else {}
        for field in each_file([Path(images)]):
            truth = truths.get(field.name, truths.get(stem_of(field.path.name)))
            if truth is None:
                raise CellsegError(f"{field.path}: no label image of that name in {labels}.")
            sample = _read_sample(settings, field.path, truth)
            if settings.class_images:
                where = settings.class_images[number]
                if field.name not in classes:
                    raise CellsegError(f"{field.path}: no class image of that name in {where}.")
                sample = _with_classes(settings, sample, classes[field.name])
            samples.append(sample)
    held_out = _held_out(settings, _sources(settings, [sample.name for sample in samples]))
    training = [sample for sample in samples if sample.name not in held_out]
    validation = [sample for sample in samples if sample.name in held_out]
    for what, chosen in (("train on", training), ("validate on", validation)):
        if not chosen:
            raise CellsegError(f"No image is left to {what}: {len(samples)} images in all.")
    if not any(sample.labels.any() for sample in training):
        raise CellsegError(f"{', '.join(settings.labels)}: no label image holds a cell.")
    return training, validation


def median_diameter(samples: Sequence[Sample]) -> float:
    """Return the median diameter of all cells, that of a disc of the same area, in px."""
    areas = [np.bincount(sample.labels.ravel())[1:] for sample in samples]
    pixels = np.concatenate(areas)
    return float(np.median(2 * np.sqrt(pixels[pixels > 0] / np.pi)))


def _truths(given: str) -> dict[str, MaskSource]:
    """Return the masks of a folder or file, by the image's name."""
    folder = Path(given)
    images = not folder.is_dir() or any(reader_of(path) is not None for path in folder.iterdir())
    annotated = folder.suffix.lower() in MASK_READERS.keys() - READERS.keys()
    if not annotated and images:
        return {name: MaskSource(path) for name, path in _by_name(given).items()}
    return find_masks(folder)


def _by_name(folder: str) -> dict[str, Path]:
    return {field.name: field.path for field in each_file([Path(folder)])}


def _sources(settings: TrainSettings, names: Sequence[str]) -> dict[str, str]:
    """Return what each image was cut from, itself where that is not known.

    Where all were cut from one, they are taken for images of their own.
    """
    known: dict[str, str] = {}
    for images in settings.images:
        known |= TrainingSet(Path(images).parent).sources
    sources = {name: known.get(name, name) for name in names}
    return sources if len(set(sources.values())) > 1 else {name: name for name in names}


def _held_out(settings: TrainSettings, sources: Mapping[str, str]) -> set[str]:
    """Return the names of the validation images; with one, all that were cut from the same."""
    names = list(sources)
    if isinstance(settings.validation, float):
        count = max(1, round(settings.validation * len(names)))
        random = np.random.default_rng(settings.seed)
        held_out: set[str] = set()
        crops = [
            {name for name in names if sources[name] == source}
            for source in random.permutation(list(dict.fromkeys(sources.values()))).tolist()
        ]
        for some in crops:
            if len(held_out | some) <= count:
                held_out |= some
        return held_out or min(crops, key=len)
    path = Path(settings.validation)
    if not path.is_file():
        raise CellsegError(
            f"validation = {path}: no such file. Give a list of names or a fraction."
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    listed = {Path(line.strip()).stem for line in lines if line.strip()}
    unknown = sorted(listed - set(names))
    if unknown:
        raise CellsegError(
            f"{path}: {len(unknown)} of {len(listed)} names are no image here, as {unknown[0]}."
        )
    return listed


def _read_sample(settings: TrainSettings, image_path: Path, truth: MaskSource) -> Sample:
    """Read one image, normalised as the network will see it, and its labels."""
    image = open_image(image_path)
    channels = settings.network.in_channels
    if len(image.channels) < channels:
        raise CellsegError(
            f"{image_path}: has {len(image.channels)} channel(s), the network sees {channels}."
            " Set network.in_channels."
        )
    times, _, depth, *shape = image.shape
    pixels = image.read(0, 0, Box(0, 0, *shape), range(channels))
    labels, classes = truth.read(times * depth, (shape[0], shape[1])).label_layers()
    if labels.shape[1:] != (*shape,):
        raise _misfit(truth.path, labels.shape[1:], (*shape,))
    normalised = decide(settings.normalise, [pixels]).apply(pixels)
    if classes is None or settings.network.classes == 1 or settings.class_images:
        return Sample(image_path.stem, normalised, labels)
    if classes.max() > settings.network.classes:
        raise CellsegError(
            f"{truth.path}: category {classes.max()} of {image_path.stem}, the network knows 1 to"
            f" {settings.network.classes}. Set network.classes."
        )
    return Sample(image_path.stem, normalised, labels, classes)


def _misfit(path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> CellsegError:
    return CellsegError(f"{path}: {shape} px do not fit the image's {expected}.")


def _read_classes(path: Path, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Read the class image of an image of `shape`."""
    shown = open_image(path)
    if shown.shape[3:] != shape:
        raise _misfit(path, shown.shape[3:], shape)
    return np.asarray(shown.read(0, 0, Box(0, 0, *shape), [0])[0], np.int32)


def _with_classes(settings: TrainSettings, sample: Sample, path: Path) -> Sample:
    """Return a sample whose cells have the class that most of their pixels show.

    Where cells overlap, each has those of the class image under all of its mask.
    """
    shown = _read_classes(path, sample.labels.shape[1:])
    values = np.broadcast_to(shown, sample.labels.shape)
    known = settings.network.classes
    votes = np.zeros((int(sample.labels.max()) + 1, known + 1), np.int64)
    inside = sample.labels > 0
    if (values[inside] > known).any() or (values[inside] < 0).any():
        raise CellsegError(
            f"{path}: classes from {values[inside].min()} to {values[inside].max()}, the network"
            f" knows 1 to {known}. Set network.classes."
        )
    np.add.at(votes, (sample.labels[inside], values[inside]), 1)
    classes = 1 + votes[:, 1:].argmax(axis=1)
    unclassed = inside & (votes[:, 1:].sum(axis=1) == 0)[sample.labels]
    if unclassed.any():
        raise CellsegError(
            f"{path}: cell {sample.labels[unclassed][0]} has no class. Draw one, from 1, over"
            " every cell of the label image."
        )
    return Sample(sample.name, sample.image, sample.labels, classes.astype(np.uint8))
