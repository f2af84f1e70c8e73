"""Megapixels a second and how busy the GPU is, on a slide repeated to any size.

    python benchmarks/gpu.py slide.ome.tif --repeat 6 --ways 1x8 4x4 8x4 --json gpu.json

A way is workers x tiles at once, after a colon the precision: ``8x4:bfloat16``. Each runs from
image to table, on the first GPU or where ``--device`` says. How busy it is, nvidia-smi says five
times a second, of the time between the first tile and the last. The cells of each way are
compared with those of the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cellseg.pipeline import Config, read_workflow
from cellseg.pipeline.plan import plan
from cellseg.pipeline.score import match
from cellseg.pipeline.stages import Run

SMI = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")
EVERY_MS = "200"


def repeated(source: Path, times: int, path: Path) -> float:
    """Write an image (C, H, W) side by side and below each other, mirrored; return its Mpx."""
    image = tifffile.imread(source)
    both = np.concatenate([image, image[:, :, ::-1]], 2)
    four = np.concatenate([both, both[:, ::-1]], 1)
    count = -(-times // 2)
    height, width = times * image.shape[1], times * image.shape[2]
    whole = np.tile(four, (1, count, count))[:, :height, :width]
    tifffile.imwrite(
        path,
        whole,
        bigtiff=True,
        tile=(512, 512),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )
    return float(height * width / 1e6)


class Watch:
    """What nvidia-smi says while something runs."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []
        self.smi: subprocess.Popen[str] | None = None

    def __enter__(self) -> Watch:
        try:
            self.smi = subprocess.Popen(  # noqa: S603
                [*SMI, "-i", "0", "-lms", EVERY_MS], stdout=subprocess.PIPE, text=True
            )
        except FileNotFoundError:
            return self
        threading.Thread(target=self._note, daemon=True).start()
        return self

    def _note(self) -> None:
        assert self.smi is not None
        assert self.smi.stdout is not None
        for line in self.smi.stdout:
            self.lines.append((time.time(), line))

    def __exit__(self, *_: object) -> None:
        if self.smi is not None:
            self.smi.terminate()

    def between(self, first: float, last: float) -> dict[str, float | None]:
        """Return the mean share of the time, and the most GB, between two times."""
        seen = [line.split(",") for at, line in self.lines if first <= at <= last]
        if not seen:
            return {"busy": None, "gpu_gb": None}
        return {
            "busy": round(mean(float(each[0]) for each in seen), 1),
            "gpu_gb": round(max(float(each[1]) for each in seen) / 1024, 1),
        }


def measure(image: Path, mpx: float, way: str, device: str, folder: Path) -> dict[str, Any]:
    """Run one way; return its row."""
    size, _, precision = way.partition(":")
    workers, _, tiles = size.partition("x")
    workflow = folder / "gpu.toml"
    workflow.write_text(
        f'images = "{image}"\n[output]\noverview = false\nreport = false\n', encoding="utf-8"
    )
    config = Config(
        device=device,
        workers=int(workers),
        tiles_at_once=int(tiles or 1),
        precision="bfloat16" if precision == "bfloat16" else "float32",
    )
    output = folder / way.replace(":", "_")
    start = time.time()
    at: list[float] = []
    with Watch() as watch:
        going = Run(plan(read_workflow(workflow, output=output), config), config)
        at.extend(time.time() for step in going.steps() if step.stage == "segment")
        end = time.time()
        result = going.result()
    assert not result.failed, result.failed
    tiles_after_first = (len(at) - 1) / max(len(at), 1)
    return {
        "way": way,
        "cells": result.cells,
        "first_tile_s": round(at[0] - start, 1),
        "segment_s": round(at[-1] - at[0], 2),
        "whole_s": round(end - start, 2),
        "segment_mpx_s": round(mpx * tiles_after_first / max(at[-1] - at[0], 1e-6), 1),
        "whole_mpx_s": round(mpx / (end - start), 1),
        **watch.between(at[0], at[-1]),
        "table": hashlib.sha256(result.cells_path.read_bytes()).hexdigest()[:10],
        "stages": result.images[0].seconds,
    }


def labels(output: Path) -> NDArray[np.uint32]:
    """Return the first 4096 x 4096 px of the labels of a run."""
    (store,) = output.glob("images/*/labels.zarr")
    array = zarr.open_group(store, mode="r")["cells/0"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[..., :4096, :4096]).squeeze()


def main() -> None:
    """Run and print; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path, help="(C, H, W)")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=["1x1", "1x8", "4x4:bfloat16"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mpx = repeated(arguments.image, arguments.repeat, folder / "slide.tif")
        for way in arguments.ways:
            row = measure(folder / "slide.tif", mpx, way, arguments.device, folder)
            first, own = (
                labels(folder / each.replace(":", "_")) for each in (arguments.ways[0], way)
            )
            row["f1"] = round(match(own, first, [0.5])[0].f1, 5)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
