"""How long a person waits in a review: opening a slide, the next cell, an edit, row to cell.

Run:  python benchmarks/review.py [--json FILE]  (on a machine without a screen: xvfb-run -a ...)

The slide is synthetic: OME-Zarr of 32768 x 32768 px with its pyramid and labels, of which most
chunks are empty, so that it takes little disk. Each opening runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

SIDE, CHUNK = 32_768, 1024
FIELD, ACROSS = 4096, 142
"""Px of the field's side, and cells along it: 20,164."""
RADIUS = 11
BOUNDS = {
    "slide: window with all layers shown, s": 3.0,
    "slide: peak memory of the process, GB": 1.5,
    "next cell, ms": 100.0,
    "edit recorded, ms": 50.0,
    "row to cell, ms": 50.0,
}


def disc() -> NDArray[np.bool_]:
    """Return the mask of a cell."""
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    return np.asarray(y**2 + x**2 <= RADIUS**2)


def write_slide(path: Path) -> None:
    """Write a slide of a gigapixel that has cells in one chunk of sixteen."""
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    cells = np.zeros((CHUNK, CHUNK), np.uint16)
    for y in range(40, CHUNK - 40, 64):
        for x in range(40, CHUNK - 40, 64):
            cells[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1][disc()] += 900
    datasets: list[Any] = []
    level, side = 0, SIDE
    while side >= CHUNK // 2:
        array = group.create_array(
            str(level), shape=(side, side), dtype="uint16", chunks=(CHUNK, CHUNK), fill_value=100
        )
        step = 4 * CHUNK >> level
        own = cells[:: 2**level, :: 2**level] + np.uint16(100)
        first = CHUNK >> level
        for y in range(first, side, step):
            for x in range(first, side, step):
                array[y : y + own.shape[0], x : x + own.shape[1]] = own
        scale = {"type": "scale", "scale": [0.5 * 2**level] * 2}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
        level, side = level + 1, side // 2
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    multiscale = {"name": "slide", "axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}


def write_field(path: Path) -> None:
    """Write a field of 20,000 cells."""
    import tifffile

    pixels = np.full((FIELD, FIELD), 100, np.uint16)
    step = FIELD // ACROSS
    random = np.random.default_rng(0)
    for y in range(ACROSS):
        for x in range(ACROSS):
            top, left = y * step + 2, x * step + 2
            window = pixels[top : top + 2 * RADIUS + 1, left : left + 2 * RADIUS + 1]
            window[disc()] = random.integers(700, 1400)
    tifffile.imwrite(path, pixels, tile=(512, 512), compression="zlib")


def ran(image: Path, folder: Path) -> Path:
    """Return the results of the threshold model on an image."""
    from cellseg.pipeline import Config, read_workflow, run

    text = f'images = "{image}"\n[model]\nname = "threshold"\n'
    (folder / f"{image.stem}.toml").write_text(text, encoding="utf-8")
    workflow = read_workflow(folder / f"{image.stem}.toml", output=folder / f"of_{image.stem}")
    run(workflow, Config(device="cpu"))
    return folder / f"of_{image.stem}"


def opening(results: Path, since: float) -> dict[str, float]:
    """Open results in a window of this process, started at a time; return times and memory."""
    start = time.perf_counter()
    import napari
    from qtpy.QtWidgets import QApplication

    from cellseg.pipeline.review.widget import show

    imported = time.perf_counter()
    viewer = napari.Viewer()
    empty = time.perf_counter()
    widget = show(viewer, results)
    for _ in range(3):
        QApplication.processEvents()
    viewer.screenshot(flash=False)  # all layers are drawn
    shown = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {
        "imports, s": imported - start,
        "empty window, s": empty - imported,
        "window with all layers shown, s": shown - empty,
        "from the start of Python, s": time.time() - since,
        "peak memory of the process, GB": peak,
        "cells": float(len(widget.session.cells)),
    }
    viewer.close()
    return found


def waits(results: Path) -> dict[str, list[float]]:
    """Return how long each of some dozen steps took, in ms, with what they show."""
    import napari
    from qtpy.QtWidgets import QApplication

    from cellseg.pipeline.review.widget import show, spare_collections

    viewer = napari.Viewer()
    viewer.window.resize(1500, 1000)
    widget = show(viewer, results)
    spare_collections()
    QApplication.processEvents()
    session, view, table = widget.session, widget.view, widget.table
    editor = session.writable
    found: dict[str, list[float]] = {}

    def timed(what: str, act: Callable[..., Any], *about: Any) -> None:
        start = time.perf_counter()
        act(*about)
        done = time.perf_counter()
        QApplication.processEvents()
        drawn = time.perf_counter()
        found.setdefault(what, []).append(1000 * (done - start))
        found.setdefault(f"{what}, drawn", []).append(1000 * (drawn - start))

    def recorded(label: int) -> None:
        start = time.perf_counter()
        editor.delete([label])
        found.setdefault("edit recorded", []).append(1000 * (time.perf_counter() - start))
        editor.undo()

    labels = session.cells["label"].tolist()
    widget.queue.least.setValue(0)
    for number in range(20):
        timed("next cell", view.call, "next")
        recorded(int(labels[number * 7]))
        timed("row to cell", table.table.selectRow, number * 500)
        timed("cell to row", session.choose, [labels[number * 300]])
        timed("delete", view.call, "delete")
        timed("undo", view.call, "undo")
        timed("accept and next cell", view.call, "accept")
    for column in ("area_px", "score", "y_px"):
        place = table.model.rows.columns.index(column)
        timed("table sorted", table.table.sortByColumn, place, _ascending())
    median = float(session.cells["area_px"].median())
    table.expression.setText("area_px > 200 and score > 0.1")
    timed("table filtered", table.refilter)
    timed("half of the cells coloured", table.plot._span, 0, median)
    viewer.close()
    return found


def whole_plate(folder: Path) -> dict[str, float]:
    """Return how long the queue of a plate of a million cells takes, in s and ms."""
    from cellseg.pipeline.image_results import ImageResults
    from cellseg.pipeline.review.contents import Contents, Entry
    from cellseg.pipeline.review.ranking import queue_of

    fields, each = 500, 2000
    names = [f"P_{n:03}" for n in range(fields)]
    plate_table(names, each).to_parquet(folder / "cells.parquet", row_group_size=each)
    entries = [
        Entry(name, "P", None, None, each, 0, None, ImageResults(folder / name)) for name in names
    ]
    start = time.perf_counter()
    queue = queue_of(Contents(folder, tuple(entries)))
    queue.filter(least=0.1)
    ranked = time.perf_counter()
    for _ in range(100):
        queue.reason(queue.step() or queue[0])
    stepped = time.perf_counter()
    return {
        "queue of 1,000,000 cells in 500 images, s": ranked - start,
        "of these: next cell, in memory, ms": 10 * (stepped - ranked),
    }


def plate_table(names: list[str], each: int) -> pd.DataFrame:
    """Return a cell table of so many cells an image, with 40 columns that no queue needs."""
    random, count = np.random.default_rng(0), len(names) * each
    columns = {
        "image": np.repeat(names, each),
        "plate": "P",
        "label": np.tile(np.arange(1, each + 1, dtype=np.uint32), len(names)),
        "area_px": random.integers(250, 400, count),
        "score": random.beta(9, 1, count).astype(np.float32),
        "seam": random.choice(["interior", "joined", "resolved"], count, p=[0.97, 0.01, 0.02]),
        "overlap_px": 0,
        "touches_edge": random.random(count) < 0.05,
        "solidity": random.normal(0.95, 0.01, count),
        "eccentricity": random.normal(0.6, 0.1, count),
    }
    return pd.DataFrame(columns | {f"m{n}": random.random(count) for n in range(40)})


def _ascending() -> Any:
    from qtpy.QtCore import Qt

    return Qt.SortOrder.AscendingOrder


def wide_table() -> dict[str, float]:
    """Return how long a table of 20,000 x 60 takes, in ms."""
    from cellseg.pipeline.review.rows import Rows

    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.random((20_000, 58)), columns=[f"c{n}" for n in range(58)])
    frame.insert(0, "image", "one")
    frame.insert(1, "label", np.arange(20_000))
    start = time.perf_counter()
    rows = Rows(frame)
    rows.sort("c7")
    rows.filter("c3 > 0.5 and c9 < 0.2")
    return {"20,000 x 60: made, sorted and filtered": 1000 * (time.perf_counter() - start)}


def main() -> None:
    """Print a table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--since", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(opening(arguments.open, arguments.since)))
        return
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slide(folder / "slide.zarr")
        write_field(folder / "field.tif")
        for image in ("field.tif", "slide.zarr"):
            results = ran(folder / image, folder)
            command = [sys.executable, __file__, "--open", str(results)]
            command += ["--since", str(time.time())]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
            opened = json.loads(said.splitlines()[-1])
            measured |= {f"{Path(image).stem}: {what}": value for what, value in opened.items()}
        for what, times in waits(folder / "of_field").items():
            measured[f"{what}, ms"] = statistics.median(times)
            measured[f"{what}, slowest, ms"] = max(times)
        (folder / "plate").mkdir()
        measured |= whole_plate(folder / "plate")
    measured |= {f"{what}, ms": value for what, value in wide_table().items()}
    for what, value in measured.items():
        bound = BOUNDS.get(what)
        against = (
            "" if bound is None else f"   (bound {bound:g}{'' if value < bound else ', MISSED'})"
        )
        print(f"{what:52} {value:10.2f}{against}")
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
