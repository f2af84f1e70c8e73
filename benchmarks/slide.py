"""Time of each stage and peak memory of every process, for one large image and each model.

    python benchmarks/slide.py slide.ome.tif --workers 2 --json slide.json

Each model runs through the command line in a process of its own, and once
more for the memory of its children.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

EVERY = 0.1
"""Seconds between two looks at the memory."""


def watch(process: subprocess.Popen[bytes], peaks: dict[int, int]) -> None:
    """Note the largest resident memory of a process and each of its children."""
    while process.poll() is None:
        try:
            parent = psutil.Process(process.pid)
            for one in (parent, *parent.children(recursive=True)):
                peaks[one.pid] = max(peaks.get(one.pid, 0), one.memory_info().rss)
        except psutil.NoSuchProcess:
            pass
        time.sleep(EVERY)


def measure(image: Path, model: str, workers: int, folder: Path) -> dict[str, Any]:
    """Run one model over the image."""
    workflow = folder / f"{model}.toml"
    workflow.write_text(f'images = "{image}"\n[model]\nname = "{model}"\n', encoding="utf-8")
    output = folder / model
    command = [sys.executable, "-c", "from cellseg.pipeline.cli import command; command()"]
    command += ["run", str(workflow), "-o", str(output), "--device", "cpu"]
    command += ["--workers", str(workers)]
    peaks: dict[int, int] = {}
    start = time.perf_counter()
    process = subprocess.Popen(command)  # noqa: S603
    watcher = threading.Thread(target=watch, args=(process, peaks))
    watcher.start()
    process.wait()
    watcher.join()
    seconds = time.perf_counter() - start
    (report,) = json.loads((output / "run.json").read_text(encoding="utf-8"))["images"]
    files = [path for path in output.rglob("*") if path.is_file()]
    return {
        "model": model,
        "workers": workers,
        "cells": report["cells"],
        "seconds": round(seconds, 1),
        **{f"{stage}_s": round(value, 1) for stage, value in report["seconds"].items()},
        "peak_gb": [round(peak / 1e9, 2) for peak in sorted(peaks.values(), reverse=True)[:3]],
        "files": len(files),
        "mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def main() -> None:
    """Run the benchmark, print its table, write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=["threshold", "mask_rcnn"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [
            measure(arguments.image.absolute(), model, arguments.workers, Path(name))
            for model in arguments.models
        ]
    for row in rows:
        print("\n".join(f"{key:>12}  {value}" for key, value in row.items()), end="\n\n")
    if arguments.json:
        document = {"machine": platform.processor() or platform.machine(), "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
