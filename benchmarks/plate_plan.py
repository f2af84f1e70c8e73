"""Seconds and memory to plan a plate of 384 wells with nine fields each, of one and four channels.

    python benchmarks/plate_plan.py --json plate_plan.json

The plate is made of links to a few small TIFFs, named as ImageXpress does. `cellseg run --dry-run`
and `cellseg inspect` are run on it as commands, start of Python included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile

WELLS, SITES, CHANNELS = 384, 9, (1, 4)
SIDE = 64
COMMAND = "from cellseg.pipeline.cli import main; main()"
LOOK_EVERY = 0.02


def plate(folder: Path, channels: int, *, symbolic: bool) -> Path:
    """Make a plate of links; return its folder."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for channel in range(1, channels + 1):
        target = folder.parent / f"{folder.name}_source_{channel}.tif"
        tifffile.imwrite(target, random.integers(100, 4000, (SIDE, SIDE), np.uint16))
        for well in range(WELLS):
            name = f"{chr(ord('A') + well // 24)}{well % 24 + 1:02d}"
            for site in range(1, SITES + 1):
                path = folder / f"plate_{name}_s{site}_w{channel}.tif"
                (path.symlink_to if symbolic else path.hardlink_to)(target)
    return folder


def watched(arguments: list[str], folder: Path) -> tuple[float, float, float]:
    """Return the seconds, those of the processor and the highest memory, in MB, of a command."""
    start, most = time.perf_counter(), 0
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    with subprocess.Popen(  # noqa: S603 - a command of our own
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as command:
        seen = psutil.Process(command.pid)
        while command.poll() is None:
            try:
                most = max(most, seen.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(LOOK_EVERY)
    assert command.returncode == 0, arguments
    after = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    return time.perf_counter() - start, after - before, most / 1e6


def rows(folder: Path) -> list[dict[str, Any]]:
    """Measure every command on every plate."""
    found = []
    for channels in CHANNELS:
        for symbolic in (False, True):
            kind = "symbolic" if symbolic else "hard"
            here = plate(folder / f"{kind}_{channels}", channels, symbolic=symbolic)
            workflow = folder / f"{kind}_{channels}.toml"
            workflow.write_text(f'images = "{here}"\n[model]\nname = "threshold"\n', "utf-8")
            for command in (["run", str(workflow), "--dry-run"], ["inspect", str(here)]):
                seconds, processor, megabytes = watched(command, folder)
                found.append(
                    {
                        "command": command[0],
                        "links": kind,
                        "channels": channels,
                        "files": WELLS * SITES * channels,
                        "seconds": round(seconds, 1),
                        "cpu": round(processor, 1),
                        "megabytes": round(megabytes),
                    }
                )
    return found


def main() -> None:
    """Run and print; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder))
    words = ("command", "links", "channels", "files", "seconds", "cpu", "megabytes")
    for row in [dict(zip(words, words, strict=True)), *found]:
        print(f"{row['command']:8}" + "".join(f"{row[word]!s:>10}" for word in words[1:]))
    if arguments.json:
        document = {"machine": platform.processor() or platform.machine(), "rows": found}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
