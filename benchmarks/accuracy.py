"""How many cells a model finds, where it fails, and how far its scores can be trusted.

    python benchmarks/accuracy.py --images DIR --labels DIR --list val.txt \
        --weights nuclei other.safetensors --json accuracy.json --worst worst.png

Each image is normalised as `cellseg run` does by default and segmented whole,
never in tiles (benchmarks/tilings.py says what tiles change). The tables:

- accuracy: cells of all images pooled; `mean_ap` is over IoU 0.5, 0.55 ... 0.9,
  `image_ap_0.5` the mean over the images of the AP of each;
- AP at every IoU from 0.5 to 0.95;
- by size: the diameter of the disc of the same area, false cells by their own;
- by group: images of one height and width, bit depth and class of median true
  diameter, which needs no metadata; or as a CSV of lines `name,group` says;
- by score: the share of the objects that match a true cell at IoU 0.5 against
  their mean score; `--score 0.05` shows the lower bins too;
- empty fields: false cells in synthetic fields without any.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.breakdown import (
    IOUS,
    Outcome,
    Row,
    by_group,
    by_image,
    by_iou,
    by_score,
    by_size,
    calibration_error,
    partners,
    summary,
)
from benchmarks.empty_fields import false_cells
from benchmarks.pairs import BY_SIZE, Pair, find_pairs, group_of, read_groups
from benchmarks.worst import Case, write_worst
from cellseg.models import MODELS, FitsImage, Instances, Segmenter, load_model
from cellseg.models.channel_settings import Combination
from cellseg.models.errors import CellsegError
from cellseg.models.normalise import decide
from cellseg.models.settings import ModelSettings, Percentile
from cellseg.models.weights import find_weights, fingerprint
from cellseg.pipeline.image import Image, open_image
from cellseg.pipeline.inputs import Inputs
from cellseg.pipeline.sampling import sample_windows
from cellseg.pipeline.score import match
from cellseg.pipeline.stages import VERSIONS
from cellseg.pipeline.tiles import Box

WORST = 10
"""Images in the picture."""


def settings_of(model: str, given: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a model.

    Parameters
    ----------
    model : str
        A name in `MODELS`.
    given : mapping
        Its keys; None is as good as not given.

    Raises
    ------
    CellsegError
        If the model has no such key or does not take the value.
    """
    kind = MODELS[model].settings
    chosen = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(set(chosen) - set(kind.model_fields))
    if unknown:
        raise CellsegError(f"{model} has no {unknown[0]}; it has {', '.join(kind.model_fields)}.")
    try:
        return kind.model_validate(chosen)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CellsegError(f"{model}: {where} = {first['input']!r}: {first['msg']}.") from error


def segment(
    model: Segmenter, pixels: NDArray[Any], sample: Sequence[NDArray[Any]] | None = None
) -> Instances:
    """Return what a model finds in an image (C, H, W), by the defaults of `cellseg run`.

    `sample` are the windows that decide the scale; by default the whole image.
    """
    sample = [pixels] if sample is None else sample
    scale = decide(Percentile(), sample)
    if isinstance(model, FitsImage):
        model = model.fit_image([scale.apply(window) for window in sample])
    (found,) = model.segment([scale.apply(pixels)])
    return found.disjoint()


def measure(
    model: Segmenter,
    channels: Sequence[int | str | Combination],
    pair: Pair,
    group: Callable[[str, NDArray[Any], NDArray[np.float64]], str],
) -> Case:
    """Segment one image and score what is found.

    Parameters
    ----------
    model : Segmenter
    channels : sequence
        What it sees of the channels; see `Inputs`.
    pair : Pair
    group : function
        Of name, pixels (C, H, W) and true diameters in px; returns the group's name.
    """
    image, truth_image = open_image(pair.image), open_image(pair.truth)
    inputs = Inputs.of(channels, image.channels, image.source)
    pixels, truth = inputs.see(_read(image, inputs.channels)), _read(truth_image, [0])[0]
    if not np.isfinite(pixels).all():
        raise CellsegError(f"{pair.image}: holds NaN or infinite pixels. Replace them.")
    sample = [inputs.see(window) for window in sample_windows(image, inputs.channels, 0, 0)]
    start = time.perf_counter()
    instances = segment(model, pixels, sample)
    seconds = time.perf_counter() - start
    height, width = truth.shape
    labels = instances.to_labels((height, width))
    found, true = partners(labels, truth)
    outcome = Outcome(
        pair.name,
        group(pair.name, pixels, true.diameter_px),
        tuple(match(labels, truth, IOUS)),
        true,
        found,
        instances.scores[found.labels - 1].astype(np.float64),
        truth.size,
        seconds,
    )
    return Case(outcome, pixels[0], truth, labels)


def _read(image: Image, channels: Sequence[int]) -> NDArray[Any]:
    height, width = image.pixels.shape[3:]
    return image.read(0, 0, Box(0, 0, int(height), int(width)), channels)


def measure_all(
    model: Segmenter,
    channels: Sequence[int | str | Combination],
    pairs: Sequence[Pair],
    groups: Mapping[str, str] | None,
) -> tuple[list[Outcome], list[Case]]:
    """Return the outcome of every image, and the worst with their pixels; no other is kept."""

    def group(name: str, pixels: NDArray[Any], diameters_px: NDArray[np.float64]) -> str:
        if groups is None:
            return group_of(pixels, diameters_px)
        return groups.get(name, "(no group)")

    outcomes: list[Outcome] = []
    worst: list[Case] = []
    for pair in pairs:
        case = measure(model, channels, pair, group)
        outcomes.append(case.outcome)
        worst = sorted([*worst, case], key=lambda case: case.rank)[:WORST]
    return outcomes, worst


def document_of(
    label: str, settings: ModelSettings, outcomes: Sequence[Outcome], empty: list[Row] | None
) -> dict[str, Any]:
    """Return all that was measured of one model, for JSON."""
    scores = by_score(outcomes)
    document: dict[str, Any] = {"model": label, "settings": settings.model_dump(mode="json")}
    if weights := getattr(settings, "weights", None):
        path = find_weights(weights)
        document |= {"weights": str(path), "sha256": fingerprint(path)}
    return document | {
        "accuracy": summary(outcomes),
        "ap": by_iou(outcomes),
        "by_size": by_size(outcomes),
        "by_group": by_group(outcomes),
        "by_score": scores,
        "calibration_error": calibration_error(scores),
        "empty_fields": empty,
        "by_image": by_image(outcomes),
    }


def tables(documents: Sequence[dict[str, Any]]) -> dict[str, list[Row]]:
    """Return the tables to print, by title; a row says which model it is of."""
    titles = {
        "accuracy": "Accuracy, cells of all images pooled",
        "ap": "AP by IoU",
        "by_size": "By diameter of the cell, px",
        "by_group": "By group of images",
        "by_score": "By score: the share that matches at IoU 0.5",
        "calibration": "Expected calibration error",
        "empty_fields": "False cells in empty fields, a megapixel",
    }
    found: dict[str, list[Row]] = {title: [] for title in titles.values()}
    for document in documents:
        parts = document | {"calibration": {"error": document["calibration_error"]}}
        for key, title in titles.items():
            rows = parts[key] if isinstance(parts[key], list) else [parts[key] or {}]
            found[title] += [{"model": document["model"]} | row for row in rows if row]
    return {title: rows for title, rows in found.items() if rows}


def as_text(value: object) -> str:
    """Return a cell of a table."""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return "-" if value is None else str(value)


def plain(rows: Sequence[Row]) -> str:
    """Return rows as columns of text, the first ones from the left."""
    cells = [list(rows[0]), *([as_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in cells)


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table under its title."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[as_text(value) for value in row.values()] for row in rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def machine(device: str, neural: bool) -> dict[str, Any]:
    """Return what the speed depends on."""
    described: dict[str, Any] = {"processor": platform.processor() or platform.machine()}
    if neural:
        import torch

        described |= {"device": device, "threads": torch.get_num_threads()}
    return described


def diameter(text: str) -> float | str:
    """Return a number, or ``auto`` as it is; argparse names the option if it is neither."""
    return text if text == "auto" else float(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="of the same names")
    parser.add_argument("--list", type=Path, help="a text file with a name a line: only these")
    parser.add_argument("--model", choices=list(MODELS), default="mask_rcnn")
    parser.add_argument("--weights", nargs="+", default=[None], help="shipped names or files")
    parser.add_argument("--score", type=float, help="report objects from this score on")
    parser.add_argument("--diameter-px", type=diameter, help="of the cells, in px, or auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--groups", default=BY_SIZE, help=f"{BY_SIZE} or a CSV of name,group")
    parser.add_argument("--no-empty", action="store_true", help="leave out the empty fields")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--worst", type=Path, help=f"a PNG of the {WORST} worst images")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure every model, print the tables, write the files."""
    pairs = find_pairs(arguments.images, arguments.labels, arguments.list)
    groups = None if arguments.groups == BY_SIZE else read_groups(Path(arguments.groups))
    given = {"score": arguments.score, "diameter_px": arguments.diameter_px}
    chosen = [settings_of(arguments.model, given | {"weights": w}) for w in arguments.weights]
    models = [load_model(settings, arguments.device) for settings in chosen]
    documents = []
    for number, (settings, model) in enumerate(zip(chosen, models, strict=True), 1):
        outcomes, worst = measure_all(model, settings.channels, pairs, groups)
        empty = None if arguments.no_empty else false_cells(partial(segment, model))
        label = labels_of(chosen)[number - 1]
        documents.append(document_of(label, settings, outcomes, empty))
        if arguments.worst:
            suffix = f"-{number}" if number > 1 else ""
            write_worst(worst, arguments.worst.with_stem(arguments.worst.stem + suffix))
    shown = tables(documents)
    print("\n\n".join(f"{title}\n{plain(rows)}" for title, rows in shown.items()))
    if arguments.markdown:
        text = "\n".join(markdown(title, rows) for title, rows in shown.items())
        arguments.markdown.write_text(text, encoding="utf-8")
    if arguments.json:
        document = {
            "machine": machine(arguments.device, MODELS[arguments.model].neural),
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
            "images": str(arguments.images),
            "list": arguments.list and str(arguments.list),
            "models": documents,
        }
        arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


def labels_of(chosen: Sequence[ModelSettings]) -> list[str]:
    """Return a short name for each model: that of its weights, in full where two are alike."""
    weights = [str(getattr(settings, "weights", settings.name)) for settings in chosen]
    short = [Path(name).stem for name in weights]
    return [
        name if short.count(stem) > 1 else stem for name, stem in zip(weights, short, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; what the user can mend is one line and exit code 2."""
    try:
        run(parse(arguments))
    except CellsegError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
