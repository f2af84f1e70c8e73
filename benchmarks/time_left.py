"""How right the time left is that a run foretells, from its first tenth on.

    python benchmarks/time_left.py --json time_left.json

A slide that draws itself with an exact segmenter, where half of the work follows on the tiles, and
the demo plate several times over with the shipped network. Every second a run says when it will
end; printed is how far off that was, as a part of what was left, at each tenth of its time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine import plate
from benchmarks.lazy_slide import LazyExact, Slide
from cellseg.models import Segmenter
from cellseg.pipeline import Config, read_workflow
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run

EVERY = 0.2
"""Seconds between two looks."""


def follow(workflow: Path, workers: int, segmenter: Segmenter | None) -> list[tuple[float, float]]:
    """Run; return pairs of seconds since the start, and seconds left as foretold then."""
    config = Config(device="cpu", workers=workers, threads=1)
    going = Run(
        plan(read_workflow(workflow, output=workflow.with_suffix("")), config, segmenter), config
    )
    start, told = time.monotonic(), [(0.0, float("nan"))]
    for step in going.steps():
        now = time.monotonic() - start
        if step.seconds_left is not None and now - told[-1][0] > EVERY:
            told.append((now, step.seconds_left))
    print(f"  behind the last step: {time.monotonic() - start - now:.2f} s", file=sys.stderr)
    for stage, seconds in going.left.spent.items():
        print(
            f"  {stage}: {seconds:.2f} s, {going.left.guessed.get(stage, 0.0):.2f}", file=sys.stderr
        )
    return [*told[1:], (time.monotonic() - start, 0.0)]


def errors(told: list[tuple[float, float]]) -> dict[str, float]:
    """Return how far off the end was that was foretold, as a part of the whole time, by tenths.

    And of what was left, at the first tenth.
    """
    whole = told[-1][0]
    found: dict[str, float] = {"whole_s": whole}
    for tenth in range(1, 10):
        now, left = next(each for each in told if each[0] >= whole * tenth / 10)
        found[f"{tenth}/10"] = (now + left - whole) / whole
        if tenth == 1:
            found["of what was left at 1/10"] = (now + left - whole) / (whole - now)
    return found


def main() -> None:
    """Measure both, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", type=int, default=8000, help="px of the slide")
    parser.add_argument("--fields", type=int, default=60)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: dict[str, Any] = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            Slide(options.side, options.side, seed=5, giant_px=200, empty_px=512).write(
                folder / "slide.lazy"
            )
            text = 'images = "slide.lazy"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 512\n'
            (folder / "slide.toml").write_text(text)
            rows[f"slide, {workers}"] = errors(follow(folder / "slide.toml", workers, LazyExact()))
            path = plate(folder, options.fields, "mask_rcnn")
            rows[f"plate, {workers}"] = errors(follow(path, workers, None))
    text = json.dumps(rows, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
