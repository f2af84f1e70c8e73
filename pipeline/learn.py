"""A training from its files to its weights: learn, validate, keep the best, go on later."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg.models.dataset import composed_samples
from cellseg.models.settings import TrainSettings
from cellseg.models.train import Trainer
from cellseg.models.weights import Card, read_card, save_weights
from cellseg.pipeline.config import Config
from cellseg.pipeline.curve import Curve
from cellseg.pipeline.files import write_json
from cellseg.pipeline.samples import median_diameter, read_samples
from cellseg.pipeline.stopping import asked, check
from cellseg.pipeline.training_set import CLASSES
from cellseg.pipeline.validation import (
    LEAST_SCORE,
    THRESHOLDS,
    Validation,
    calibrate,
    quality,
    validate,
)

ACCURACY = ("ap_0.5", "ap_0.75", "ap_0.9", "f1_0.5", "pq_0.5")
MOST_LOADERS = 8


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
        losses = f"{self.losses_text}, " if self.losses else ""
        return f"step {self.count}: {losses}{self.validation.text}"


class Learning:
    """A training and its folder.

    That holds ``checkpoint.pt``, ``log.csv``, ``curve.png`` and the best weights
    so far, ``<name>.safetensors``.

    Parameters
    ----------
    settings : TrainSettings
        With absolute paths, as `cellseg.pipeline.training` gives.
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
        if settings.composed:
            # What is learned of overlap must show, and set the threshold, too.
            self.validation += composed_samples(self.validation, settings, len(self.validation))
        self.folder = Path(settings.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        device = config.torch_device()
        # The CPU has nothing to spare while it trains; a GPU would wait for its crops.
        loaders = 0 if device == "cpu" else min(os.cpu_count() or 1, MOST_LOADERS)
        # Faster steps are worth asking for, not worth other weights than before.
        precision = "bfloat16" if config.precision == "bfloat16" else "float32"
        self.trainer = Trainer(settings, self.training, device, precision, loaders)
        self.curve = Curve(self.folder, ACCURACY)
        if fresh:
            made = self.checkpoint_path, self.curve.csv_path, self.weights_path, self.start_path
            for path in (*made, self.curve.picture_path):
                path.unlink(missing_ok=True)
        self.best = -1.0
        if self.checkpoint_path.is_file():
            self.trainer.resume(self.checkpoint_path)
            if self.weights_path.is_file():
                self.best = quality(read_card(self.weights_path).accuracy)
        self.curve.rewind(self.trainer.count)

    @property
    def checkpoint_path(self) -> Path:
        """All that a resume needs."""
        return self.folder / "checkpoint.pt"

    @property
    def weights_path(self) -> Path:
        """The best weights so far."""
        return self.folder / f"{self.settings.name}.safetensors"

    @property
    def start_path(self) -> Path:
        """How good the weights are that a training starts from."""
        return self.folder / "start.json"

    @property
    def outcome(self) -> str | None:
        """What became of the weights that it started from, in words; None where there are none."""
        try:
            start = json.loads(self.start_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        rows = [{name: float(row[name]) for name in ACCURACY} for row in self.curve.measured()]
        if not rows:
            return None
        best = max(rows, key=quality)
        before, after = (_aps(accuracy) for accuracy in (start, best))
        if quality(best) > quality(start):
            return f"better than {self.settings.start}: AP {after}, which had {before}"
        return (
            f"no better than {self.settings.start}, whose weights are kept: AP {before}, the best"
            f" of the training had {after}"
        )

    def describe(self) -> str:
        """Say what is learned from."""
        cells = sum(len(np.unique(s.labels)) - bool((s.labels == 0).any()) for s in self.training)
        return (
            f"{len(self.training)} images with {cells} cells to train on,"
            f" {len(self.validation)} to validate; steps {self.trainer.count}"
            f" to {self.settings.steps}, in {self.folder}{self._classes_left_out}"
        )

    @property
    def _classes_left_out(self) -> str:
        """Say so where the images come with classes that are not learned."""
        settings = self.settings
        there = any((Path(images).parent / CLASSES).is_dir() for images in settings.images)
        if settings.class_images or not there:
            return ""
        return "; their classes are not learned: the network knows one"

    def steps(self) -> Iterator[Step]:
        """Train to the end; yield after each step.

        Weights that a training starts from are measured first, and kept unless
        it finds better ones.

        Raises
        ------
        Stopped
            If that was asked, see `cellseg.pipeline.stopping`, with a checkpoint of the last step.
        """
        trainer, settings = self.trainer, self.settings
        if settings.start is not None and trainer.count == 0:
            before = self._validate()
            write_json(self.start_path, before.accuracy)
            self._keep(before)
            yield Step(0, {}, before)
        while not trainer.done:
            losses = trainer.step()
            validation = None
            if trainer.count % settings.validate_every == 0 or trainer.done:
                validation = self._validate()
            measured = {} if validation is None else validation.accuracy
            loss = {"loss": sum(losses.values())}
            self.curve.add(trainer.count, loss | losses, measured)
            if validation is not None:
                self.curve.draw("loss", ACCURACY[: len(THRESHOLDS)])
                self._keep(validation)
            if trainer.count % settings.checkpoint_every == 0 or trainer.done:
                trainer.save(self.checkpoint_path)
            yield Step(trainer.count, losses, validation)
            if asked() and not trainer.done:
                trainer.save(self.checkpoint_path)
                check()

    def _validate(self) -> Validation:
        """Calibrate the averaged network, and measure it as it will be used."""
        trainer = self.trainer
        calibration, score = calibrate(
            trainer.segmenter(LEAST_SCORE), self.validation, (trainer.calibration, trainer.score)
        )
        used = trainer.segmenter(score, calibration)
        return Validation(validate(used, self.validation), calibration, score)

    def _keep(self, validation: Validation) -> None:
        """Keep the weights if they are the best."""
        if (found := quality(validation.accuracy)) > self.best:
            self.best = found
            save_weights(self.weights_path, self.trainer.average, self.card(validation))

    def card(self, validation: Validation) -> Card:
        """Return the description of the weights."""
        settings = self.settings
        files = {"images", "labels", "class_images", "validation", "output"}
        return Card(
            architecture=settings.network.architecture,
            name=settings.name,
            network=settings.network,
            normalise=settings.normalise,
            diameter_px=round(median_diameter(self.training), 1),
            score=validation.score,
            calibration=validation.calibration,
            classes=settings.class_names,
            data=settings.data_source,
            data_licence=settings.data_licence,
            training=settings.model_dump(mode="json", exclude=files)
            | {"images": len(self.training), "validation_images": len(self.validation)},
            accuracy=validation.accuracy,
        )


def _aps(accuracy: Mapping[str, float]) -> str:
    """Return the AP at each IoU, in words."""
    return " / ".join(f"{accuracy[f'ap_{iou:g}']:.3f}" for iou in THRESHOLDS)
