"""Time, memory of every process, files and bytes against the size of a slide, and if all is right.

    python benchmarks/scale.py --gigapixels 0.1 0.3 1 --workers 2 --json scale.json

The slides are drawn as they are read (`benchmarks/lazy_slide.py`), so that only
the results need a disk. Each size runs in a process of its own, and its peak
memory is what the kernel noted for every process of the run; the results folder
is looked through every few seconds. Afterwards every pixel of the labels and
every row of the table is compared with what the slide is known to hold, and
straight lines through the logarithms say how time, memory, files and bytes grow.
Seconds of stages are those of all workers together. The exit code is 1 if a
cell is missing, doubled or of another shape.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zarr

# The benchmarks are not installed, and may be started as a file.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.footprint import Footprint
from benchmarks.lazy_slide import PITCH, LazyExact, Slide, draw, expected, slide_of
from cellseg.pipeline.tiles import Box, Grid

ROOT = Path(__file__).resolve().parent.parent
RUN = """
import json, sys
from benchmarks.lazy_slide import LazyExact
from cellseg.pipeline import Config, Workflow, run
workflow, config = json.loads(sys.argv[1])
result = run(Workflow.model_validate_json(json.dumps(workflow)), Config(**config), LazyExact())
sys.exit("; ".join(str(image.reason) for image in result.failed) or None)
"""
WINDOW = 2048
OVERLAP = 2 * PITCH
"""Px that windows of the labels share, so that a cell with two labels shows."""
STITCHING = ("complete", "decide", "order")
"""The stages from candidates of tiles to cells with labels."""
GROWING = (
    "cells",
    "seconds",
    "peak_mb",
    "peak_worker_mb",
    "unique_mb",
    "unique_worker_mb",
    "files",
    "mb",
    "files_left",
    "mb_left",
)


def start(image: Path, output: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start the run of one slide."""
    workflow = {
        "images": [str(image)],
        "output": {"path": str(output), "overview": options.overview},
        "normalise": {"method": "none"},
        "tiling": {"size": options.tile, "halo": options.halo},
        "measure": {"groups": ["intensity", *options.groups]},
    }
    config = {"device": "cpu", "workers": options.workers}
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", RUN, json.dumps([workflow, config])]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": search})  # noqa: S603


def measure(gigapixels: float, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one slide, and return its row of the table."""
    slide = slide_of(gigapixels, options.seed)
    image, output = folder / f"slide_{gigapixels:g}.lazy", folder / f"slide_{gigapixels:g}"
    slide.write(image)
    started, cpu = time.perf_counter(), _cpu_of_children()
    watch = Footprint(start(image, output, options), output)
    watch.to_the_end()
    seconds = time.perf_counter() - started
    if watch.process.returncode:
        sys.exit(f"the run of {gigapixels:g} gigapixels ended with {watch.process.returncode}")
    files, size = watch.look_at_folder()
    document = json.loads((output / "run.json").read_text(encoding="utf-8"))
    (report,) = document["images"]
    parent, stages = watch.process.pid, report["seconds"]
    return {
        "gigapixels": gigapixels,
        "side_px": slide.width,
        "workers": options.workers,
        "cells": report["cells"],
        "expected": expected(slide),
        "seconds": round(seconds, 1),
        "cpu_s": round(_cpu_of_children() - cpu, 1),
        **{f"{stage}_s": round(value, 1) for stage, value in stages.items()},
        "stitch_s_per_million_cells": _rate(stages, STITCHING, report["cells"] / 1e6),
        "paint_s_per_100_mpx": _rate(stages, ("paint",), 10 * gigapixels),
        "peak_mb": round(watch.peaks.get(parent, 0) / 1e6, 1),
        "peak_worker_mb": max(watch.workers(watch.peaks), default=0.0),
        "unique_mb": round(watch.unique.get(parent, 0) / 1e6, 1),
        "unique_worker_mb": max(watch.workers(watch.unique), default=0.0),
        "processes_mb": watch.workers(watch.peaks),
        "files": watch.files,
        "mb": round(watch.size / 1e6, 2),
        "files_left": files,
        "mb_left": round(size / 1e6, 2),
        **check(slide, output / "images" / image.stem, options.check),
    }


def _cpu_of_children() -> float:
    """Return the seconds that cores have worked for runs that are over, workers included."""
    spent = os.times()
    return spent.children_user + spent.children_system


def _rate(stages: dict[str, float], parts: Sequence[str], amount: float) -> float | None:
    return round(sum(stages[part] for part in parts) / amount, 2) if amount else None


def check(slide: Slide, folder: Path, part: float) -> dict[str, Any]:
    """Compare labels and table with the slide.

    Parameters
    ----------
    slide : Slide
    folder : Path
        The results of the image.
    part : float
        Which part of the labels is looked at.

    Returns
    -------
    dict
        ``wrong_windows``: windows of the labels in which labels and cells are not one to one
        pixel by pixel, of ``windows``; ``wrong_rows``: rows of the table out of order or with
        another cell's pixels.
    """
    started = time.perf_counter()
    plane = Box(0, 0, slide.height, slide.width)
    windows = Grid(plane, WINDOW, OVERLAP)
    chosen = np.random.default_rng(slide.seed).random(len(windows)) < part
    # Not by cellseg's own reader: what any program would read is what must be right.
    labels = zarr.open_array(str(folder / "labels.zarr" / "cells" / "0"), mode="r")
    boxes = [windows.read(position) for position in np.flatnonzero(chosen).tolist()]
    wrong = sum(not same_cells(np.asarray(labels[box.slices]), slide, box) for box in boxes)
    return {
        "windows": len(boxes),
        "wrong_windows": wrong,
        "wrong_rows": wrong_rows(folder / "cells.parquet"),
        "check_s": round(time.perf_counter() - started, 1),
    }


def same_cells(labels: np.ndarray[Any, Any], slide: Slide, box: Box) -> bool:
    """Whether each cell of a window has one label, on all of its pixels and on no other."""
    grey = draw(slide, box)
    label_of = np.zeros(int(grey.max()) + 1, labels.dtype)
    label_of[grey] = labels
    used = label_of[label_of > 0]
    cells = np.zeros(len(label_of), bool)
    cells[grey] = True
    return bool(
        label_of[0] == 0
        and len(used) == len(np.unique(used)) == np.count_nonzero(cells[1:])
        and np.array_equal(label_of[grey], labels)
    )


def wrong_rows(path: Path) -> int:
    """Return the rows that do not count up by position, or hold more than one grey level."""
    names = ["label", "y_px", "x_px", "min_grey", "max_grey"]
    wrong, rows, last = 0, 0, (-1.0, -1.0)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=names):
            label, y, x, least, most = (column.to_numpy() for column in batch.columns)
            before_y, before_x = np.append(last[0], y[:-1]), np.append(last[1], x[:-1])
            ordered = (before_y < y) | ((before_y == y) & (before_x < x))
            counted = label == np.arange(rows + 1, rows + len(label) + 1)
            wrong += int(np.count_nonzero(~(ordered & counted & (least == most) & (least > 0))))
            rows += len(label)
            last = (y[-1], x[-1]) if len(y) else last
    return wrong


def right(row: dict[str, Any]) -> bool:
    """Whether a run found every cell, whole, and nothing else."""
    wrong = row["wrong_windows"] or row["wrong_rows"]
    return row["cells"] == row["expected"] and not wrong


def exponents(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return p of the power of the pixels that each column grows with: 1 in proportion, 0 flat.

    The slope of a straight line, by least squares, through the logarithms.
    """
    names = [*(name for name in rows[0] if name.endswith("_s") and name != "check_s"), *GROWING]
    found = {}
    for name in dict.fromkeys(names):
        points = [(row["gigapixels"], row[name]) for row in rows if row.get(name)]
        if len({size for size, _ in points}) > 1:
            size, value = np.log(np.array(points, float)).T
            found[name] = round(float(np.polyfit(size, value, 1)[0]), 3)
    return found


def slide_cost(seed: int) -> dict[str, float]:
    """Return what the slide itself costs: nanoseconds a pixel to draw and to cut into cells."""
    slide, model, side = Slide(100_000, 100_000, seed), LazyExact(), 1152
    draw(slide, Box(0, 0, side, side))
    seconds = np.zeros(2)
    for k in range(8):
        start_px = 1000 + 9000 * k
        begun = time.perf_counter()
        grey = draw(slide, Box(start_px, start_px, start_px + side, start_px + side))
        drawn = time.perf_counter()
        model.segment([grey[None].astype(np.float32)])
        seconds += drawn - begun, time.perf_counter() - drawn
    draw_ns, cut_ns = (seconds / 8 / side**2 * 1e9).round(1).tolist()
    return {"draw_ns_px": draw_ns, "cut_ns_px": cut_ns}


def print_table(rows: Sequence[dict[str, Any]], fitted: dict[str, float]) -> None:
    """Print one line a quantity, one column a size, and the exponent at the end."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "processes_mb"))
    for name in names:
        values = "".join(f"{row.get(name, '')!s:>13}" for row in rows)
        print(f"{name:>27}{values}{fitted.get(name, ''):>10}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigapixels", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tile", type=int, default=1024, help="px")
    parser.add_argument("--halo", type=int, default=64, help="px")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overview", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--groups", nargs="*", default=["shape"], help="measured beside intensity")
    parser.add_argument("--check", type=float, default=1.0, help="part of the labels, 0 to 1")
    parser.add_argument("--folder", type=Path, help="for the results; kept. Default: temporary")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    """Run the benchmark, print its table, write its JSON; return 1 if a result is wrong."""
    options = parse()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for gigapixels in options.gigapixels:
            rows.append(measure(gigapixels, folder, options))
            document = {
                "machine": platform.processor() or platform.machine(),
                "slide": slide_cost(options.seed),
                "rows": rows,
                "exponents": exponents(rows),
            }
            if options.json:  # After each size: the last one may take hours.
                options.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
            print(f"{gigapixels:g} gigapixels: {rows[-1]['seconds']} s", file=sys.stderr)
    print(f"The slide itself: {document['slide']}; the last column is the exponent of growth")
    print_table(rows, exponents(rows))
    return 0 if all(map(right, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
