"""What each choice in Mask R-CNN is worth on cells: short equal trainings, one choice changed.

    python benchmarks/ablation.py --images DIR --labels DIR --list val.txt \
        --steps 300 --crop 128 --seeds 2 --markdown ablation.md

The listed images are held out, the others trained on. Every variant of
benchmarks/variants.py sees the same crops in the same order, under the same
schedule, from random weights; so does the next seed with others. The tables:

- variants: parameters, seconds a step and a megapixel, and AP = TP / (TP + FP
  + FN) over the cells of all evaluated images, of masks and of boxes, each at
  the score threshold of 0.3, 0.4 ... 0.8 that gives the highest at IoU 0.5;
  that favours all variants alike. With several seeds, mean and deviation;
- contrasts: the difference of each variant to the one it is set against, in
  points, seed by seed, beside what the paper (He et al., "Mask R-CNN", ICCV
  2017) found for the same. Its figures are COCO's AP, of another task, measure
  and length of training: only the direction compares. Its table 2e, masks by
  fully connected layers, has no counterpart here.

Short trainings rank what learns fast. The C4 form differs from the reference
in more than its levels: stage 5 in the heads, masks of 14 instead of 28
positions, 64 instead of 128 regions an image. Without masks there is no mask
AP; the boxes compare.

With one class, one mask for all classes is the very network of one mask a
class, so that variant is left out; and the two channels of a softmax, cell and
background, are a sigmoid of their difference, so no difference is expected.
`--classes 3` sorts the cells into three classes of equal number by their area
(and leaves out the random magnification, which would confuse them): made-up
classes, but ones whose masks can compete. AP is then over all of them together.

Each training leaves a file in --output; with the same settings it is not done
again, so an interrupted benchmark goes on with the first that is missing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
from pydantic import ValidationError

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.accuracy import machine, markdown, plain
from benchmarks.breakdown import Row
from benchmarks.detections import Measured, measure
from benchmarks.variants import Variant, chosen, contrasts
from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.settings import NetworkSettings, TrainSettings
from cellseg.models.train import Trainer
from cellseg.pipeline.samples import read_samples
from cellseg.pipeline.score import Score

LINES = 10
"""Lines of progress a training."""
FIGURES = ("ap_0.5", "ap_0.75", "ap_0.9", "box_ap_0.5", "box_ap_0.75")
TITLES = {
    "variants": "Variants: AP of masks and of boxes",
    "contrasts": "Contrasts: differences in points, and the paper's on COCO",
}
NOTE = """Equal short trainings from random weights; see benchmarks/ablation.py.
The paper's figures (He et al., "Mask R-CNN", ICCV 2017) are COCO's AP, of another task, measure
and length of training: only the direction compares."""
ONE_CLASS = """With one class a softmax over cell and background is a sigmoid of the difference
of its two channels: no difference is expected."""


def settings_of(variant: Variant, seed: int, arguments: argparse.Namespace) -> TrainSettings:
    """Return the settings of a training; apart from the network the same for every variant."""
    zoom = TrainSettings.model_fields["zoom"].default
    return TrainSettings(
        images=(str(arguments.images),),
        labels=(str(arguments.labels),),
        validation=str(arguments.list),
        network=variant.network(arguments.classes),
        steps=arguments.steps,
        batch=arguments.batch,
        crop_px=arguments.crop,
        seed=seed,
        zoom=(1.0, 1.0) if arguments.classes > 1 else zoom,
    )


def with_size_classes(samples: Sequence[Sample], classes: int) -> list[Sample]:
    """Return the samples with their cells in `classes` classes of equal number, by area."""
    areas = [np.bincount(sample.labels.ravel()) for sample in samples]
    present = np.concatenate([each[1:][each[1:] > 0] for each in areas])
    edges = np.quantile(present, np.arange(1, classes) / classes)
    return [
        Sample(
            sample.name,
            sample.image,
            sample.labels,
            (1 + np.searchsorted(edges, each, side="right")).astype(np.uint8),
        )
        for sample, each in zip(samples, areas, strict=True)
    ]


def spread_out(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return `count` of the samples, evenly spread over their order; all, if there are fewer."""
    at = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in at]


def train(name: str, trainer: Trainer) -> float:
    """Train to the end with a line of progress now and then; return the median s a step."""
    total = trainer.settings.steps
    seconds: list[float] = []
    while not trainer.done:
        start = time.perf_counter()
        loss = sum(trainer.step().values())
        seconds.append(time.perf_counter() - start)
        if trainer.count % max(total // LINES, 1) == 0 or trainer.done:
            pace = f"loss {loss:.3f}, {median(seconds):.2f} s a step"
            print(f"{name}: step {trainer.count} of {total}, {pace}", flush=True)
    return median(seconds)


def best(at_scores: dict[float, list[Score]]) -> tuple[float, dict[str, float]]:
    """Return the score threshold of the highest AP at IoU 0.5, and the AP there at every IoU."""
    score = max(at_scores, key=lambda each: at_scores[each][0].average_precision)
    found = {f"ap_{each.threshold:g}": each.average_precision for each in at_scores[score]}
    return score, found


def figures_of(measured: Measured, masks: bool) -> dict[str, Any]:
    """Return accuracy and score thresholds; of masks None where there are none."""
    mask_score, mask_ap = best(measured.masks)
    box_score, box_ap = best(measured.boxes)
    return {
        "score": mask_score if masks else None,
        **{name: value if masks else None for name, value in mask_ap.items()},
        "box_score": box_score,
        **{f"box_{name}": value for name, value in box_ap.items()},
    }


def one_run(
    name: str,
    settings: TrainSettings,
    samples: Sequence[Sample],
    evaluated: Sequence[Sample],
    device: str,
) -> dict[str, Any]:
    """Train one variant with one seed and measure it."""
    trainer, shape = Trainer(settings, samples, device), settings.network
    assert isinstance(shape, NetworkSettings)
    parameters = sum(each.numel() for each in trainer.network.parameters())
    pace = train(name, trainer)
    network = MaskRCNN(shape)
    network.load_state_dict(trainer.average)
    measured = measure(network, evaluated, device)
    figures = figures_of(measured, shape.masks)
    shown = " / ".join("-" if figures[key] is None else f"{figures[key]:.3f}" for key in FIGURES)
    print(f"{name}: AP of masks 0.5 / 0.75 / 0.9, of boxes 0.5 / 0.75: {shown}", flush=True)
    sides = {"masks": measured.masks, "boxes": measured.boxes}
    return {
        "parameters_m": parameters / 1e6,
        "s_per_step": pace,
        "s_per_mpx": measured.s_per_mpx,
        **figures,
        "at_score": {
            side: {f"{score:g}": [each.row() for each in found] for score, found in by.items()}
            for side, by in sides.items()
        },
        "machine": machine(device, neural=True),
    }


def conditions(
    settings: TrainSettings, samples: Sequence[Sample], evaluated: Sequence[Sample], device: str
) -> dict[str, Any]:
    """Return all that a result depends on, for JSON."""
    paths = {"images", "labels", "validation", "output"}
    return {
        "settings": settings.model_dump(mode="json", exclude=paths),
        "trained": [sample.name for sample in samples],
        "evaluated": [sample.name for sample in evaluated],
        "device": device,
    }


def finished(path: Path, expected: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result in a file, None if there is none yet.

    Raises
    ------
    CellsegError
        If it was measured under other conditions.
    """
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document["conditions"] != expected:
        raise CellsegError(f"{path}: of other settings or images. Give another --output.")
    return document


def all_runs(
    variants: Sequence[Variant], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the result of every variant and seed, and why others failed."""
    training, held_out = read_samples(settings_of(variants[0], 0, arguments))
    if arguments.classes > 1:
        training = with_size_classes(training, arguments.classes)
    evaluated = spread_out(held_out, arguments.evaluate_images)
    arguments.output.mkdir(parents=True, exist_ok=True)
    runs, failed = [], []
    for seed in range(arguments.seeds):
        for variant in variants:
            name, settings = f"{variant.name}, seed {seed}", settings_of(variant, seed, arguments)
            path = arguments.output / f"{variant.name}_{seed}.json"
            under = conditions(settings, training, evaluated, arguments.device)
            document = finished(path, under)
            if document is None:
                try:
                    result = one_run(name, settings, training, evaluated, arguments.device)
                except CellsegError as error:
                    failed.append(f"{name}: {error}")
                    print(failed[-1], flush=True)
                    continue
                document = {"variant": variant.name, "seed": seed, "conditions": under} | result
                partial = path.with_name(f"{path.name}.partial")
                partial.write_text(json.dumps(document, indent=2), encoding="utf-8")
                partial.replace(path)
            else:
                print(f"{name}: done before, in {path}", flush=True)
            runs.append(document)
    return runs, failed


def over_seeds(values: Sequence[float | None], form: str) -> str:
    """Return the mean of some values, and their standard deviation if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {format(stdev(known), form.lstrip('+'))}" if len(known) > 1 else ""
    return format(mean(known), form) + spread


def variant_rows(runs: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each variant."""
    costs = {"parameters_m": ".2f", "s_per_step": ".2f", "s_per_mpx": ".2f"}
    forms = costs | dict.fromkeys(FIGURES, ".3f") | {"score": ".2g", "box_score": ".2g"}
    names = list(dict.fromkeys(run["variant"] for run in runs))
    return [
        {"variant": name}
        | {
            key: over_seeds([run[key] for run in runs if run["variant"] == name], form)
            for key, form in forms.items()
        }
        for name in names
    ]


def contrast_rows(runs: Sequence[dict[str, Any]]) -> list[Row]:
    """Return a row for each variant that was trained beside the one it is set against."""
    by = {(run["variant"], run["seed"]): run for run in runs}
    rows = []
    for variant in contrasts(list(dict.fromkeys(run["variant"] for run in runs))):
        pairs = [
            (run, by[variant.against, seed])
            for (name, seed), run in by.items()
            if name == variant.name and (variant.against, seed) in by
        ]
        row: Row = {"variant": f"{variant.name}: {variant.what}", "against": variant.against}
        for key in FIGURES:
            known = [(own[key], other[key]) for own, other in pairs]
            differences = [100 * (a - b) for a, b in known if a is not None and b is not None]
            row[key] = over_seeds(differences, "+.1f")
        published = variant.published
        row["paper, COCO"] = "-" if published is None else published.figures
        row["where"] = "-" if published is None else published.where
        rows.append(row)
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="of the same names")
    parser.add_argument("--list", type=Path, required=True, help="names of the held-out images")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--crop", type=int, default=128, help="side of a crop, in px")
    parser.add_argument("--batch", type=int, default=4, help="crops a step")
    parser.add_argument("--variants", help="names with commas between; default: all that differ")
    parser.add_argument("--classes", type=int, default=1, help="made-up classes, by area")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each variant")
    parser.add_argument("--evaluate-images", type=int, default=24, help="of the held-out ones")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--output", type=Path, default=Path("training/ablation"))
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Train and measure what is missing, print the tables, write the files."""
    variants = chosen(arguments.variants, arguments.classes)
    runs, failed = all_runs(variants, arguments)
    rows = {"variants": variant_rows(runs), "contrasts": contrast_rows(runs)}
    shown = {TITLES[key]: value for key, value in rows.items() if value}
    note = NOTE if arguments.classes > 1 else f"{NOTE}\n{ONE_CLASS}"
    print("\n\n".join([note, *(f"{title}\n{plain(each)}" for title, each in shown.items())]))
    if arguments.markdown:
        parts = ["# Ablation\n", f"{note}\n", *(markdown(*each) for each in shown.items())]
        arguments.markdown.write_text("\n".join(parts), encoding="utf-8")
    if arguments.json:
        versions = {name: importlib.metadata.version(name) for name in ("cellseg", "torch")}
        document = {"versions": versions, **rows, "runs": runs}
        arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
    if failed:
        raise CellsegError("; ".join(failed))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; what the user can mend is one line and exit code 2."""
    try:
        run(parse(arguments))
    except (CellsegError, ValidationError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
