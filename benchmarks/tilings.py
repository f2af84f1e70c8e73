"""How many cells a change of tiling or workers changes, with the shipped network.

An exact segmenter gives the same bytes (tests/test_stages.py). A network sees
a little less of the surroundings at a tile's border, so some of its cells differ.

    python benchmarks/tilings.py --json tilings.json
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.score import Score, match
from cellseg.pipeline.tiles import Box

SETTINGS = ((1024, 64, 1), (1024, 64, 2), (256, 64, 1), (256, 64, 2), (128, 64, 1))
"""Tile size, halo, workers; the first is what the others are compared with."""
MOSAIC = (3, 4)


def mosaic(folder: Path) -> Path:
    """Write the demo plate's twelve fields side by side, 1560 x 2784 px, as one image."""
    with resources.as_file(resources.files("cellseg.workflows") / "demo_plate") as plate:
        fields = [tifffile.imread(path) for path in sorted(plate.glob("*.tif"))]
    rows = [np.hstack(fields[i : i + MOSAIC[1]]) for i in range(0, len(fields), MOSAIC[1])]
    path = folder / "mosaic.tif"
    tifffile.imwrite(path, np.vstack(rows), tile=(256, 256))
    return path


def labels_of(
    path: Path, folder: Path, model: str, size: int, halo: int, workers: int
) -> tuple[NDArray[np.uint32], float]:
    """Return the labels of one run, and its seconds."""
    workflow = folder / "w.toml"
    workflow.write_text(f'images = "{path}"\n[model]\nname = "{model}"\n', encoding="utf-8")
    overrides = [f"tiling.size={size}", f"tiling.halo={halo}"]
    output = folder / f"{model}_{size}_{halo}_{workers}"
    start = time.perf_counter()
    result = run(
        read_workflow(workflow, overrides, output=output), Config(device="cpu", workers=workers)
    )
    seconds = time.perf_counter() - start
    assert not result.failed, result.failed
    height, width = tifffile.imread(path).shape
    return result.image(path.stem).labels.read(0, 0, Box(0, 0, height, width)), seconds


def compare(path: Path, folder: Path, model: str) -> list[dict[str, Any]]:
    """Return a row for each setting."""
    reference: NDArray[np.uint32] | None = None
    rows = []
    for size, halo, workers in SETTINGS:
        labels, seconds = labels_of(path, folder, model, size, halo, workers)
        reference = labels if reference is None else reference
        score: Score = match(labels, reference, [0.8])[0]
        rows.append(
            {
                "model": model,
                "tile_px": size,
                "halo_px": halo,
                "workers": workers,
                "cells": int(labels.max()),
                "only_here": score.false_positive,
                "only_in_first": score.false_negative,
                "same_pixels": bool(np.array_equal(labels, reference)),
                "seconds": round(seconds, 1),
            }
        )
    return rows


def main() -> None:
    """Run the benchmark, print its table, write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="a TIFF in place of the demo plate's mosaic")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = arguments.image or mosaic(folder)
        rows = [row for model in ("mask_rcnn", "threshold") for row in compare(path, folder, model)]
    print(f"{path.name}; cells that match none of the first run's at IoU 0.8")
    print("  ".join(f"{key:>13}" for key in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>13}" for value in row.values()))
    if arguments.json:
        document = {"machine": platform.processor() or platform.machine(), "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
