"""Times of correcting a field of many cells: recording an edit, opening the log, applying.

``python -m benchmarks.review_edits [--cells 20000] [--edits 100] [-o review_edits.json]``

Cells are discs on a jittered grid in one plane; each kind of edit is made of cells all over it. A
time of an edit is that of the call: what it reads, works out and has on disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.review.edits import Editor, apply

PITCH, RADIUS = 24, 9
WORKFLOW = 'images = "in"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 1024\nhalo = 40\n'


class Exact:
    """Returns each grey level above 0 as one instance."""

    key = "exact"

    def segment(self, planes: object) -> list[Instances]:
        """Return the cells of each plane."""
        return [Instances.from_labels(p[0].astype(np.int32)) for p in planes]  # type: ignore[attr-defined]


def field(count: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return a square field with about so many discs, uint16 (H, W); the grey level is the cell."""
    random, side = np.random.default_rng(seed), int(np.ceil(count**0.5))
    labels = np.zeros((side * PITCH,) * 2, np.uint16)
    y, x = np.ogrid[:PITCH, :PITCH]
    for number in range(count):
        row, column = divmod(number, side)
        cy, cx = PITCH / 2 + random.uniform(-2, 2, 2)
        cell = (y - cy) ** 2 + (x - cx) ** 2 <= RADIUS**2
        corner = slice(row * PITCH, (row + 1) * PITCH), slice(column * PITCH, (column + 1) * PITCH)
        labels[corner][cell] = number + 1
    return labels


def kinds(editor: Editor) -> dict[str, Callable[[int, int], object]]:
    """Return what to do to the cell around a pixel, by name."""
    mask = np.ones((2 * RADIUS, 2 * RADIUS), bool)
    labels = editor.labels(0, 0, editor.plane)

    def at(y: int, x: int) -> int:
        return int(labels[y, x])

    def redraw(y: int, x: int) -> object:
        return editor.redraw(at(y, x), (y - RADIUS, x - RADIUS + 3), mask, 0, 0)

    return {
        "delete": lambda y, x: editor.delete(at(y, x)),
        "merge": lambda y, x: editor.merge([at(y, x), at(y, x + PITCH)]),
        "split by a line": lambda y, x: editor.split_line(at(y, x), (y, 0), (y, 1), 0, 0),
        "split by seeds": lambda y, x: editor.split_seeds(at(y, x), [(y, x - 4), (y, x + 4)], 0, 0),
        "redraw": redraw,
        "add": lambda y, x: editor.add((y - RADIUS, x - RADIUS + 3), mask),
        "class": lambda y, x: editor.change_class(at(y, x), 2),
        "accept": lambda y, x: editor.mark(at(y, x), "accept"),
        "undo": lambda *_: editor.undo(),
    }


def measured(count: int, edits: int, folder: Path) -> dict[str, object]:
    """Return all times, in seconds."""
    (folder / "in").mkdir()
    tifffile.imwrite(folder / "in" / "field.tif", field(count))
    (folder / "w.toml").write_text(WORKFLOW, encoding="utf-8")
    results = folder / "out"
    workflow = read_workflow(folder / "w.toml", output=results)
    took = {"run": seconds(lambda: run(workflow, Config(device="cpu"), Exact()))}
    took["open"] = seconds(lambda: Editor(results, "field"))
    editor = Editor(results, "field")
    does, side = kinds(editor), int(np.ceil(count**0.5)) // 3
    # Every third cell in each row at most, so that no two edits are of the same one.
    places = np.random.default_rng(1).permutation(side * side)[:edits]
    each: dict[str, list[float]] = {name: [] for name in does}
    for number, place in enumerate(places.tolist()):
        name = list(does)[number % len(does)]
        y, x = (PITCH * 3 * n + PITCH // 2 for n in divmod(place, side))
        each[name].append(seconds(partial(does[name], y, x)))
    every = [one for times in each.values() for one in times]
    took["open again"] = seconds(lambda: Editor(results, "field"))
    took["apply"] = seconds(lambda: apply(results))
    return {
        "cells": count,
        "edits": edits,
        "seconds": took,
        "median_ms": {name: 1e3 * statistics.median(times) for name, times in each.items()},
        "median_of_all_ms": 1e3 * statistics.median(every),
        "slowest_ms": 1e3 * max(every),
        "log_bytes": editor.here.edits_path.stat().st_size,
    }


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the times and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(options.cells, options.edits, Path(folder))
    print(json.dumps(found, indent=2))
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
