"""Seconds a megapixel from image to table, at about 500 cells a megapixel.

    python benchmarks/speed.py --json speed.json

The image, 2048 x 2048 px, repeats the demo plate's twelve fields side by side,
reduced to 0.75 of their size. The first run loads the model and is left out; of the others the
median counts, and each stage of the pipeline is listed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tifffile

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tilings import mosaic
from cellseg.models.scale import magnify
from cellseg.pipeline import Config, read_workflow, run

REDUCED = 0.75
SIDE = 2048


def dense_image(folder: Path) -> Path:
    """Write the reduced mosaic again and again, 16-bit; return the file."""
    pixels = tifffile.imread(mosaic(folder)).astype(np.float32)
    reduced = magnify(pixels[None], REDUCED)[0]
    dense = np.tile(reduced, (2, 1))[:SIDE, :SIDE]
    path = folder / "dense.tif"
    tifffile.imwrite(path, dense.astype(np.uint16), tile=(256, 256))
    return path


def timed(path: Path, folder: Path, precision: str, repeats: int) -> dict[str, Any]:
    """Return the seconds of `repeats` runs, after one that does not count."""
    workflow = folder / "speed.toml"
    workflow.write_text(f'images = "{path}"\n[output]\noverview = false\n', encoding="utf-8")
    config = Config.model_validate({"device": "cpu", "precision": precision})
    megapixels = tifffile.imread(path).size / 1e6
    seconds, stages, cells = [], [], 0
    for number in range(repeats + 1):
        output = folder / f"{precision}_{number}"
        start = time.perf_counter()
        result = run(read_workflow(workflow, output=output), config)
        seconds.append(time.perf_counter() - start)
        assert not result.failed, result.failed
        stages.append(result.images[0].seconds)
        cells = result.cells
    counted = seconds[1:]
    return {
        "precision": precision,
        "cells": cells,
        "megapixels": round(megapixels, 2),
        "seconds_a_megapixel": round(median(counted) / megapixels, 2),
        "least": round(min(counted) / megapixels, 2),
        "most": round(max(counted) / megapixels, 2),
        "stages": {
            name: round(median(one[name] for one in stages[1:]) / megapixels, 3)
            for name in stages[0]
        },
    }


def main() -> None:
    """Run and print; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = dense_image(folder)
        rows = [timed(path, folder, p, arguments.repeats) for p in ("float32", "bfloat16")]
    for row in rows:
        print(row)
    if arguments.json:
        document = {"machine": platform.processor() or platform.machine(), "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
