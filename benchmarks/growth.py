"""How the time of a run grows: with pixels and cells together, and with the cells alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed_runs import Configuration, Ran, middle
from benchmarks.speed_scenes import Input, tissue
from benchmarks.speed_table import run_often

TIMES = (1, 4, 16)
MODELS = ("threshold", "mask_rcnn")
SIDE = 2048
DENSITY = 500
"""Cells a megapixel, where the pixels grow."""
LEAST_DENSITY = 120
"""The same of the least image where the cells grow: 1,920 a megapixel at 16 times as many, of which
none meets another."""
Row = dict[str, Any]


def inputs(by: str, side: int, folder: Path) -> Iterator[tuple[int, Input]]:
    """Draw the images of a series, each with how many times the first one it is.

    Parameters
    ----------
    by : "pixels" or "cells"
    side : int
        Height and width of the first image, px.
    folder : Path
    """
    for times in TIMES:
        across = side * round(times**0.5) if by == "pixels" else side
        density = DENSITY if by == "pixels" else LEAST_DENSITY * times
        cells = max(round(density * across**2 / 1e6), 1)
        yield times, tissue(folder, across, cells, f"{times} x {by}")


def growth(
    configuration: Configuration, repeats: int, side: int = SIDE, models: Sequence[str] = MODELS
) -> list[Row]:
    """Time runs of growing images with a cheap model and with the network; start-up is left out."""
    rows: list[Row] = []
    for model in models:
        for by in ("pixels", "cells"):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                series = [
                    (times, given, run_often(given, configuration, repeats, folder, model))
                    for times, given in inputs(by, side, folder)
                ]
            rows += [_row(model, by, *one, series[0][2]) for one in series]
    return rows


def _row(
    model: str, by: str, times: int, given: Input, runs: Sequence[Ran], first: Sequence[Ran]
) -> Row:
    """Return a row: times, and how many times as long as if the first had only been repeated."""
    found = {"seconds": "later_seconds", "core_seconds": "later_core_seconds"}
    values = {key: middle(runs, name) for key, name in found.items()}
    least = {key: middle(first, name) for key, name in found.items()}
    ratios = {f"{key}_to_linear": values[key] / least[key] / times for key in found}
    about = {"model": model, "by": by, "times": times, "megapixels": given.megapixels}
    return about | {"cells": runs[0].profile["cells"]} | values | ratios
