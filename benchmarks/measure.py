"""Seconds of one core to measure a million cells, by group, and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/measure.py --json measure.json

Two kinds of cells, ellipses on a jittered grid that touch here and there: nuclei in tissue, about
8 px across, and cells in culture, about 21 px; three channels, uint16. They are measured by
`measure()` alone, window by window, and as a run does it: labels read from OME-Zarr, pixels from
a file, rows written to Parquet. Seconds are those that the core has worked for it, whatever else
the machine did, the least of a few repeats. Memory is that of a process of its own, above what it
has in use before the first cell.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cellseg.pipeline import Config, read_workflow
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.order import RUN
from cellseg.pipeline.overlaps import Overlaps
from cellseg.pipeline.plan import plan
from cellseg.pipeline.table import WINDOW, cell_table
from cellseg.pipeline.table_files import write_table
from cellseg.pipeline.tiles import Box

SIDE = 2048
KINDS = {"tissue": (8.0, 10), "culture": (21.0, 25)}
"""Diameter and distance of the cells, in px."""
CHANNELS = ("w1", "w2", "w3")
GROUPS: dict[str, tuple[str, ...]] = {
    "position": (),
    "shape": ("shape",),
    "intensity": ("intensity",),
    "shape, intensity": ("shape", "intensity"),
}
Labels = NDArray[np.uint32]


def draw(diameter: float, pitch: int, side: int = SIDE, seed: int = 0) -> Labels:
    """Return ellipses on a jittered grid, uint32 (side, side), 1..N by position."""
    random = np.random.default_rng(seed)
    count = -(-side // pitch)
    shape = (count + 2, count + 2)
    jitter = random.uniform(-0.2, 0.2, (2, *shape)) * pitch
    long, short = random.uniform(0.9, 1.25, shape), random.uniform(0.75, 1.05, shape)
    angle = random.uniform(0, np.pi, shape)
    y, x = np.mgrid[:side, :side]
    best, labels = np.ones((side, side)), np.zeros((side, side), np.uint32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row, column = y // pitch + 1 + down, x // pitch + 1 + right
            dy = y - (row - 0.5) * pitch - jitter[0, row, column]
            dx = x - (column - 0.5) * pitch - jitter[1, row, column]
            sine, cosine = np.sin(angle)[row, column], np.cos(angle)[row, column]
            u, v = dy * sine + dx * cosine, dy * cosine - dx * sine
            far = np.hypot(u / long[row, column], v / short[row, column]) / (diameter / 2)
            labels = np.where(far < best, row * shape[1] + column, labels)
            best = np.minimum(best, far)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint32)


def stain(labels: Labels, seed: int = 0) -> NDArray[np.uint16]:
    """Return three channels, uint16 (3, H, W): soft cells of different brightness, and noise."""
    random = np.random.default_rng(seed)
    levels = random.uniform(500, 6000, (len(CHANNELS), labels.max() + 1))
    levels[:, 0] = 200
    soft = [ndimage.gaussian_filter(level[labels], 1.5) for level in levels]
    return (np.stack(soft) + random.normal(0, 40, (3, *labels.shape))).clip(0).astype(np.uint16)


def boxes_of(labels: Labels) -> NDArray[np.int32]:
    """Return the box of each cell, int32 (N, 4)."""
    found = ndimage.find_objects(labels.astype(np.int32))
    return np.array([(y.start, x.start, y.stop, x.stop) for y, x in found], np.int32)


def windows(labels: Labels, pixels: NDArray[Any]) -> list[tuple[Any, ...]]:
    """Return what `measure` is given, as `cellseg.pipeline.table` cuts it."""
    boxes = boxes_of(labels)
    place = (boxes[:, :2] + boxes[:, 2:]) // 2 // WINDOW
    cut = []
    for corner in np.unique(place, axis=0):
        inside = np.flatnonzero((place == corner).all(axis=1))
        low, high = boxes[inside, :2].min(axis=0), boxes[inside, 2:].max(axis=0)
        part = slice(low[0], high[0]), slice(low[1], high[1])
        cut.append((labels[part].copy(), pixels[:, *part].copy(), (inside + 1).astype(np.uint32)))
    return cut


def least(work: Callable[[], object], repeats: int) -> float:
    """Return the seconds that a core works, the least of some repeats."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def by_group(kind: str, repeats: int) -> list[dict[str, Any]]:
    """Return the seconds that `measure()` takes for each group."""
    labels = draw(*KINDS[kind])
    cut = windows(labels, stain(labels))
    count = int(labels.max())
    rows = []
    for name, groups in GROUPS.items():
        settings = Measure(groups=groups)

        def work(settings: Measure = settings) -> None:
            for part, pixels, ids in cut:
                measure(part, pixels, ids, CHANNELS, settings=settings, pixel_um=(0.5, 0.5))

        seconds = least(work, repeats)
        rows.append(_row(kind, f"measure(): {name}", count, seconds, labels))
    return rows


def _row(kind: str, what: str, count: int, seconds: float, labels: Labels) -> dict[str, Any]:
    return {
        "kind": kind,
        "what": what,
        "cells": count,
        "px_a_cell": round(float(np.count_nonzero(labels) / labels.max()), 1),
        "seconds_a_million": round(seconds / count * 1e6, 1),
    }


def whole_table(kind: str, repeats: int) -> dict[str, Any]:
    """Return the seconds and the memory of a run's table, read and written."""
    tile = draw(*KINDS[kind])
    labels = np.block([[tile, tile + tile.max()], [tile + 2 * tile.max(), tile + 3 * tile.max()]])
    labels[labels % tile.max() == 0] = 0
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tifffile.imwrite(
            folder / "slide.tif",
            stain(labels),
            ome=True,
            tile=(512, 512),
            compression="zlib",
            metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
        (folder / "w.toml").write_text('images = "slide.tif"\n[model]\nname = "threshold"\n')
        scene = plan(read_workflow(folder / "w.toml"), Config(device="cpu")).scenes[0]
        store = LabelStore(folder / "labels.zarr")
        side = len(labels)
        store.start("key", (1, 1, side, side), None)
        store.paint(0, 0, Box(0, 0, side, side), lambda box: labels[box.slices])
        store.finish(1, 1)
        cells = _cells(labels)
        ids = np.arange(1, len(cells) + 1, dtype=np.uint32)
        before = _memory_mb(peak=False)

        def work() -> None:
            for number, first in enumerate(range(0, len(cells), RUN)):
                part = slice(first, first + RUN)
                own = cells.take(part)
                table = cell_table(scene, own, Overlaps.none(len(own)), ids[part], store)
                write_table(folder / f"{number}.parquet", [table], table.schema)

        seconds = least(work, repeats)
        peak = _memory_mb(peak=True)
    return _row(kind, "table of a run", len(cells), seconds, labels) | {
        "memory_mb": round(peak - before)
    }


def _cells(labels: Labels) -> Cells:
    """Return the cells of a label image as a run hands them on."""
    boxes, count = boxes_of(labels), int(labels.max())
    numbers = np.arange(1, count + 1)
    nothing = np.zeros(count, np.int32)
    return Cells(
        plane=nothing,
        tile=nothing,
        index=nothing,
        boxes=boxes,
        centres=np.array(ndimage.center_of_mass(labels > 0, labels, numbers)),
        areas=np.bincount(labels.ravel())[1:],
        scores=np.ones(count, np.float32),
        classes=np.ones(count, np.uint8),
        seam=np.zeros(count, np.uint8),
        digests=np.zeros(count, np.uint64),
    )


def _memory_mb(*, peak: bool) -> float:
    """Return the memory that this process has in use, or the most it had since it was asked."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    if not peak:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    (line,) = (line for line in text.splitlines() if line.startswith("VmHWM" if peak else "VmRSS"))
    return int(line.split()[1]) / 1e3


def apart(kind: str, repeats: int) -> dict[str, Any]:
    """Return `whole_table` of a process of its own, with its own memory."""
    command = [sys.executable, __file__, "--table-of", kind, "--repeats", str(repeats)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Run and print; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--table-of", choices=KINDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.table_of:
        print(json.dumps(whole_table(options.table_of, options.repeats)))
        return
    rows = []
    for kind in options.kinds:
        rows += [*by_group(kind, options.repeats), apart(kind, options.repeats)]
    print(f"{'kind':8} {'what':30} {'cells':>8} {'px each':>8} {'s a million':>12} {'MB':>6}")
    for row in rows:
        print(
            f"{row['kind']:8} {row['what']:30} {row['cells']:8,} {row['px_a_cell']:8}"
            f" {row['seconds_a_million']:12} {row.get('memory_mb', ''):>6}"
        )
    if options.json:
        document = {
            "machine": platform.processor() or platform.machine(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "numpy": np.__version__,
            "rows": rows,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
