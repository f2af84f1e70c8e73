"""A training from its files to its weights: read, learn, validate, keep the best, go on later."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.models import Segmenter
from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from cellseg.models.normalise import decide
from cellseg.models.settings import TrainSettings
from cellseg.models.train import Trainer
from cellseg.models.weights import Card, save_weights
from cellseg.pipeline.config import Config
from cellseg.pipeline.image import open_image
from cellseg.pipeline.plate import discover
from cellseg.pipeline.score import Score, match, pool
from cellseg.pipeline.tiles import Box

THRESHOLDS = (0.5, 0.75, 0.9)
SCORE = 0.5
"""Score from which an object counts in validation, and by default in use."""


@dataclass(frozen=True)
class Step:
    """One training step, and the validation after it if there was one."""

    count: int
    losses: dict[str, float]
    validation: Validation | None = None

    @property
    def losses_text(self) -> str:
        """The total loss in words."""
        return f"loss {sum(self.losses.values()):.3f}"

    @property
    def validation_text(self) -> str | None:
        """The validation in words."""
        if self.validation is None:
            return None
        return f"step {self.count}: {self.losses_text}, {self.validation.text}"


@dataclass(frozen=True)
class Validation:
    """How the averaged network does on the validation images."""

    scores: tuple[Score, ...]

    @property
    def average_precision(self) -> float:
        """AP at IoU 0.5."""
        return self.scores[0].average_precision

    @property
    def text(self) -> str:
        """The accuracy in words."""
        found = " / ".join(f"{score.average_precision:.3f}" for score in self.scores)
        at = " / ".join(f"{score.threshold:g}" for score in self.scores)
        return f"AP {found} at IoU {at}"

    @property
    def accuracy(self) -> dict[str, float]:
        """The accuracy for the weights' card."""
        named = {f"ap_{score.threshold:g}": score.average_precision for score in self.scores}
        first = self.scores[0]
        named |= {"f1_0.5": first.f1, "pq_0.5": first.panoptic_quality}
        return {name: round(value, 4) for name, value in named.items()}


class Learning:
    """A training and its folder: ``checkpoint.pt``, ``log.csv``, ``<name>.safetensors``.

    Parameters
    ----------
    settings : TrainSettings
        With absolute paths, as `cellseg.pipeline.workflow.read_training` gives.
    config : Config
    fresh : bool
        Start anew even if there is a checkpoint.

    Raises
    ------
    CellsegError
        If images are missing, without labels, or without the network's channels.
    """

    def __init__(self, settings: TrainSettings, config: Config, *, fresh: bool = False) -> None:
        self.settings = settings
        self.training, self.validation = read_samples(settings)
        self.folder = Path(settings.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        device = config.torch_device()
        self.trainer = Trainer(settings, self.training, device, config.precision)
        if fresh:
            for path in (self.checkpoint_path, self.log_path, self.weights_path):
                path.unlink(missing_ok=True)
        if self.checkpoint_path.is_file():
            self.trainer.resume(self.checkpoint_path)
        self.log = self._log_so_far()
        self.best = max((float(row["ap_0.5"]) for row in self.log), default=-1.0)

    @property
    def checkpoint_path(self) -> Path:
        """All that a resume needs."""
        return self.folder / "checkpoint.pt"

    @property
    def log_path(self) -> Path:
        """A line for each validation."""
        return self.folder / "log.csv"

    @property
    def weights_path(self) -> Path:
        """The best weights so far."""
        return self.folder / f"{self.settings.name}.safetensors"

    def describe(self) -> str:
        """Say what is learned from."""
        cells = sum(len(np.unique(s.labels)) - bool((s.labels == 0).any()) for s in self.training)
        return (
            f"{len(self.training)} images with {cells} cells to train on,"
            f" {len(self.validation)} to validate; steps {self.trainer.count}"
            f" to {self.settings.steps}, in {self.folder}"
        )

    def steps(self) -> Iterator[Step]:
        """Train to the end; yield after each step."""
        trainer, settings = self.trainer, self.settings
        while not trainer.done:
            losses = trainer.step()
            validation = None
            if trainer.count % settings.validate_every == 0 or trainer.done:
                validation = validate(trainer.segmenter(SCORE), self.validation)
                self._keep(validation, losses)
            if trainer.count % settings.checkpoint_every == 0 or trainer.done:
                trainer.save(self.checkpoint_path)
            yield Step(trainer.count, losses, validation)

    def _log_so_far(self) -> list[dict[str, Any]]:
        """Return the lines of the log up to the step that training goes on from."""
        if not self.log_path.is_file():
            return []
        with self.log_path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= self.trainer.count]

    def _keep(self, validation: Validation, losses: dict[str, float]) -> None:
        """Log a validation, and keep the weights if they are the best."""
        row: dict[str, Any] = {"step": self.trainer.count}
        row |= validation.accuracy | {name: round(value, 4) for name, value in losses.items()}
        self.log.append(row)
        partial = self.log_path.with_name(f"{self.log_path.name}.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(self.log)
        partial.replace(self.log_path)
        if validation.average_precision > self.best:
            self.best = validation.average_precision
            save_weights(self.weights_path, self.trainer.average, self.card(validation))

    def card(self, validation: Validation) -> Card:
        """Return the description of the weights."""
        settings = self.settings
        files = {"images", "labels", "validation", "output"}
        return Card(
            architecture="mask_rcnn",
            name=settings.name,
            network=settings.network,
            normalise=settings.normalise,
            diameter_px=round(median_diameter(self.training), 1),
            score=SCORE,
            data=settings.data_source,
            data_licence=settings.data_licence,
            training=settings.model_dump(mode="json", exclude=files)
            | {"images": len(self.training), "validation_images": len(self.validation)},
            accuracy=validation.accuracy,
        )


def validate(segmenter: Segmenter, samples: Sequence[Sample]) -> Validation:
    """Return the accuracy on `samples`."""
    found = []
    for sample in samples:
        (instances,) = segmenter.segment([sample.image])
        height, width = sample.labels.shape
        found.append(match(instances.to_labels((height, width)), sample.labels, THRESHOLDS))
    return Validation(tuple(pool(found)))


def median_diameter(samples: Sequence[Sample]) -> float:
    """Return the median diameter of all cells, that of a disc of the same area, in px."""
    areas = [np.bincount(sample.labels.ravel())[1:] for sample in samples]
    pixels = np.concatenate(areas)
    return float(np.median(2 * np.sqrt(pixels[pixels > 0] / np.pi)))


def read_samples(settings: TrainSettings) -> tuple[list[Sample], list[Sample]]:
    """Return the images to train on, and those to validate on, in the order of their names."""
    samples = []
    for images, labels in zip(settings.images, settings.labels, strict=True):
        truths = {field.name: field.path for field in discover([Path(labels)], None)}
        for field in discover([Path(images)], None):
            if field.name not in truths:
                raise CellsegError(f"{field.path}: no label image of that name in {labels}.")
            samples.append(_read_sample(settings, field.path, truths[field.name]))
    held_out = _held_out(settings, [sample.name for sample in samples])
    training = [sample for sample in samples if sample.name not in held_out]
    validation = [sample for sample in samples if sample.name in held_out]
    for what, chosen in (("train on", training), ("validate on", validation)):
        if not chosen:
            raise CellsegError(f"No image is left to {what}: {len(samples)} images in all.")
    if not any(sample.labels.any() for sample in training):
        raise CellsegError(f"{', '.join(settings.labels)}: no label image holds a cell.")
    return training, validation


def _held_out(settings: TrainSettings, names: Sequence[str]) -> set[str]:
    """Return the names of the validation images."""
    if isinstance(settings.validation, float):
        count = max(1, round(settings.validation * len(names)))
        random = np.random.default_rng(settings.seed)
        return {names[i] for i in random.permutation(len(names))[:count]}
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


def _read_sample(settings: TrainSettings, image_path: Path, label_path: Path) -> Sample:
    """Read one image, normalised as the network will see it, and its labels."""
    image, truth = open_image(image_path), open_image(label_path)
    channels = settings.network.in_channels
    if len(image.channels) < channels:
        raise CellsegError(
            f"{image_path}: has {len(image.channels)} channel(s), the network sees {channels}."
            " Set network.in_channels."
        )
    shape = image.pixels.shape[3:]
    if truth.pixels.shape[3:] != shape:
        raise CellsegError(
            f"{label_path}: {truth.pixels.shape[3:]} px do not fit the image's {shape}."
        )
    box = Box(0, 0, *shape)
    pixels = image.read(0, 0, box, range(channels))
    labels = truth.read(0, 0, box, [0])[0]
    normalised = decide(settings.normalise, [pixels]).apply(pixels)
    return Sample(image_path.stem, normalised, labels.astype(np.int32))
