"""CenterMask's ablations on equal short trainings, and Mask R-CNN on the same crops.

    python -m benchmarks.centermask train --data dsb2018 --output training/centermask
    python -m benchmarks.centermask table --data dsb2018 --output training/centermask

`train` trains every variant on composed crops of the training images (several
processes may share the work; what is there is not trained again), `table`
measures them on composed and on real validation images and writes table.json there. The
paper's numbers are mask AP on COCO, averaged over IoU 0.5 to 0.95: compare directions, not values.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from cellseg.models import MODELS, Overlap
from cellseg.models.dataset import Sample, composed_samples
from cellseg.models.detector import Detector
from cellseg.models.layers import from_layers
from cellseg.models.network_settings import Network
from cellseg.models.settings import (
    CenterMaskFCOSNetwork,
    CenterMaskNetwork,
    NetworkSettings,
    TrainSettings,
)
from cellseg.models.train import Trainer, segmenter_of
from cellseg.pipeline.recall import ShareRecall, recall_by_share
from cellseg.pipeline.samples import read_samples
from cellseg.pipeline.score import Score, match, pool
from cellseg.pipeline.validation import LEAST_SCORE, calibrate

COMPOSED = 60
"""Images of 256 px to measure on; as many others to choose each model's least score on."""
LONG = 0.7
"""Eccentricity from which a nucleus is of the second class, where there are two."""


@dataclass(frozen=True)
class Variant:
    """One training.

    Parameters
    ----------
    network : Network
    question : str
        What it is compared for.
    paper : float or None
        Mask AP that the paper reports on COCO.
    cost : float
        CPU seconds of a step, in those of ``both``: it gets as many fewer steps.
    """

    network: Network
    question: str
    paper: float | None = None
    cost: float = 1.0


BOTH = CenterMaskNetwork(stride=4, direct_saliency_loss=False)


def changed(**changes: object) -> CenterMaskNetwork:
    """Return the network of all ablations, with centres at stride 4, with some keys changed."""
    return BOTH.model_copy(update=changes)


TWO = {"classes": 2}
VARIANTS: dict[str, Variant] = {
    "both": Variant(BOTH, "branches", 31.5),
    "center_mask": Variant(changed(stride=2), "detectors", cost=1.1),
    "mask_rcnn": Variant(NetworkSettings(), "detectors", cost=2.3),
    "shape only": Variant(changed(saliency=False), "branches", 26.5),
    "saliency only": Variant(changed(local_shape=False), "branches", 21.7),
    "S = 16": Variant(changed(shape_px=16), "shape size"),
    "S = 24": Variant(changed(shape_px=24), "shape size"),
    "S = 48": Variant(changed(shape_px=48), "shape size"),
    "two classes, agnostic": Variant(changed(**TWO), "saliency", 31.5),
    "two classes, per class": Variant(
        changed(**TWO, saliency_classes="per_class"), "saliency", 33.9
    ),
    "two classes, per class, direct": Variant(
        changed(**TWO, saliency_classes="per_class", direct_saliency_loss=True), "saliency", 34.4
    ),
    "as published": Variant(changed(saliency_stride=4, room=0.0), "departures"),
    "center_mask_fcos": Variant(CenterMaskFCOSNetwork(), "detectors"),
    "dla_34": Variant(changed(backbone="dla_34"), "backbones"),
}


def settings_of(variant: Variant, data: Path, steps: int, crop_px: int = 192) -> TrainSettings:
    """Return the training of a variant, as long as `steps` of ``both``."""
    return TrainSettings(
        images=(str(data / "images"),),
        labels=(str(data / "labels"),),
        validation=str(data / "val.txt"),
        network=variant.network,
        steps=max(round(steps / variant.cost), 1),
        average=0.99,
        crop_px=crop_px,
        composed=0.6,
    )


def by_length(sample: Sample) -> Sample:
    """Return a sample whose cells are of two classes: round ones and long ones."""
    classes = np.zeros(int(sample.labels.max()) + 1, np.uint8)
    for layer in sample.labels:
        table: dict[str, NDArray[np.float64]] = regionprops_table(  # type: ignore[no-untyped-call]
            layer, properties=("label", "eccentricity")
        )
        classes[table["label"]] = 1 + (table["eccentricity"] > LONG)
    return replace(sample, classes=classes)


def folder_of(output: Path, name: str) -> Path:
    """Return where a variant is kept."""
    return output / name.replace(" ", "_").replace(",", "").replace("=", "")


def train(data: Path, output: Path, steps: int, crop_px: int, names: list[str]) -> None:
    """Train what nobody has trained, or is training, yet."""
    samples, _ = read_samples(settings_of(VARIANTS["both"], data, steps))
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        folder = folder_of(output, name)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        variant = VARIANTS[name]
        own = [by_length(s) for s in samples] if variant.network.classes == 2 else samples
        trainer = Trainer(settings_of(variant, data, steps, crop_px), own)
        start = time.process_time()
        while not trainer.done:
            losses = trainer.step()
            if trainer.count % 50 == 0:
                seconds = (time.process_time() - start) / trainer.count
                total = sum(losses.values())
                print(f"{name}: step {trainer.count}, loss {total:.3f}, {seconds:.2f} s a step")
        partial = folder / "average.partial"
        torch.save(trainer.average, partial)
        partial.replace(folder / "average.pt")


def table(data: Path, output: Path, names: list[str]) -> None:
    """Measure the variants that are trained, and write them to ``table.json`` beside them."""
    settings = settings_of(VARIANTS["both"], data, 1)
    _, real = read_samples(settings)
    larger = settings.model_copy(update={"crop_px": 256})
    tuning, composed = (
        composed_samples(real, larger.model_copy(update={"seed": seed}), COMPOSED)
        for seed in (1, 2)
    )
    rows = []
    for name in names:
        variant = VARIANTS[name]
        path = folder_of(output, name) / "average.pt"
        if not path.is_file():
            continue
        classes = variant.network.classes == 2
        sets = [
            [by_length(s) for s in each] if classes else each for each in (tuning, composed, real)
        ]
        weights = torch.load(path, weights_only=True)
        ways: dict[str, Overlap] = {name: MODELS[variant.network.architecture].overlap}
        if name == "mask_rcnn":
            ways["mask_rcnn, masks kept whole"] = "keep"
        for way, overlap in ways.items():
            rows.append({"variant": way, "question": variant.question, "paper": variant.paper})
            rows[-1] |= measure(Trained(variant.network, weights, overlap), *sets)
            print(line(rows[-1]), flush=True)
    document = {"machine": platform.machine(), "threads": torch.get_num_threads(), "rows": rows}
    (output / "table.json").write_text(json.dumps(document, indent=2) + "\n")


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network."""

    network: Network
    weights: dict[str, torch.Tensor]
    overlap: Overlap

    def segmenter(
        self, score: float = LEAST_SCORE, calibration: tuple[float, float] = (1.0, 0.0)
    ) -> Detector:
        """Return it as a segmenter; see `cellseg.models.train.Trainer.segmenter`."""
        return segmenter_of(
            self.network, self.weights, overlap=self.overlap, score=score, calibration=calibration
        )


def measure(
    trained: Trained, tuning: Sequence[Sample], composed: Sequence[Sample], real: Sequence[Sample]
) -> dict[str, Any]:
    """Return accuracy, recall by share, speed and size; the score's threshold is tuned first."""
    calibration, score = calibrate(trained.segmenter(), tuning, ((1.0, 0.0), 0.5))
    segmenter = trained.segmenter(score, calibration)
    scores, recalls = zip(*(scored(segmenter, sample) for sample in composed), strict=True)
    shares = pool(recalls)
    half = [share for share in shares if share.low >= 0.25]
    on_real = pool(scored(segmenter, sample)[0] for sample in real)
    alike = pool(scored_alike(trained, real))
    pooled = pool(scores)
    plane = np.zeros((1, 1024, 1024), np.float32)
    for k, sample in enumerate(composed[:16]):
        y, x = (256 * place for place in divmod(k, 4))
        plane[:, y : y + 256, x : x + 256] = sample.image
    times = []
    for _ in range(3):
        start = time.process_time()
        segmenter.segment([plane])
        times.append(time.process_time() - start)
    return {
        "parameters_m": sum(value.numel() for value in segmenter.network.parameters()) / 1e6,
        "score": score,
        "ap": mean_ap(pooled),
        "ap_50": pooled[0].average_precision,
        "ap_75": pooled[5].average_precision,
        "recall": {share.name: share.recall for share in shares},
        "cells": {share.name: share.cells for share in shares},
        "recall_over_25": sum(s.matched for s in half) / sum(s.cells for s in half),
        "real_ap": mean_ap(alike),
        "real_ap_50": alike[0].average_precision,
        "real_ap_at_composed_score": mean_ap(on_real),
        "real_ap_50_at_composed_score": on_real[0].average_precision,
        "cpu_seconds_a_mpx": float(np.median(times)) / plane[0].size * 1e6,
    }


def scored_alike(trained: Trained, real: Sequence[Sample]) -> Iterator[list[Score]]:
    """Yield the scores of images, every other one at the score that is best on those between."""
    for start in (0, 1):
        calibration, score = calibrate(trained.segmenter(), real[1 - start :: 2], ((1.0, 0.0), 0.5))
        segmenter = trained.segmenter(score, calibration)
        for sample in real[start::2]:
            yield scored(segmenter, sample)[0]


def scored(segmenter: Detector, sample: Sample) -> tuple[list[Score], tuple[ShareRecall, ...]]:
    """Return the scores of one image, a cell of another class being another cell, and recalls."""
    (found,) = segmenter.segment([sample.image])
    truth = from_layers(sample.labels)
    present = np.unique(sample.labels[sample.labels > 0])
    own = np.ones(len(truth), np.uint8) if sample.classes is None else sample.classes[present]
    scores = [
        match(found.take(np.flatnonzero(found.classes == c)), truth.take(np.flatnonzero(own == c)))
        for c in np.unique(own).tolist() or [1]
    ]
    return pool(scores), recall_by_share(found, truth)


def mean_ap(scores: Sequence[Score]) -> float:
    """Return the mean of TP / (TP + FP + FN) over IoU 0.5, 0.55, ... 0.9."""
    return float(np.mean([score.average_precision for score in scores]))


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    recall = " / ".join("-" if r is None else f"{100 * r:.1f}" for r in row["recall"].values())
    return (
        f"{row['variant']:32s} AP {100 * row['ap']:.1f}, at 0.5 {100 * row['ap_50']:.1f};"
        f" recall {recall}, over 25 % {100 * row['recall_over_25']:.1f};"
        f" real AP {100 * row['real_ap']:.1f}, at 0.5 {100 * row['real_ap_50']:.1f},"
        f" at the score for overlap {100 * row['real_ap_50_at_composed_score']:.1f};"
        f" {row['parameters_m']:.1f} M, {row['cpu_seconds_a_mpx']:.2f} s CPU a Mpx;"
        f" paper {row['paper'] or '-'}"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "table"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("training/centermask"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--crop", type=int, default=192, help="side of a training crop, in px")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.what == "train":
        train(chosen.data.absolute(), chosen.output, chosen.steps, chosen.crop, chosen.variants)
    else:
        table(chosen.data.absolute(), chosen.output, chosen.variants)


if __name__ == "__main__":
    main()
