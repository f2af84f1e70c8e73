"""What the engine costs, and what workers bring: overhead, speed-up, and 100,000 tiles.

    python benchmarks/engine.py --fields 48 --json engine.json

``overhead``: a plate with one worker against a plain loop over the same stages, in turn, best of
some rounds. ``speed-up``: the same plate with one worker and with two, one torch thread each, from
start to end and from the first field on, as a longer run would show. ``waiting``: the same with
tiles that only wait, where no core is wanting: what the engine itself loses. ``tiles``: 100,000
tiles of no work through two dask workers; the scheduler is in this process, whose memory is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import psutil

from cellseg.pipeline import Config, Workflow, read_workflow
from cellseg.pipeline.execute import execute
from cellseg.pipeline.gather import gather
from cellseg.pipeline.job import Job
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run
from cellseg.pipeline.tasks import STAGES, Unit
from cellseg.pipeline.time_left import Spent

ONE = Config(device="cpu", threads=1)
TWO = Config(device="cpu", workers=2, threads=1, worker_kind="process")


@dataclass(frozen=True, eq=False)
class Idle(Unit):
    """A tile as it is sent to workers, with no work in it."""

    def __call__(self) -> dict[str, Spent]:
        """Say that it is done."""
        return {"segment": Spent(0.0, None)}


@dataclass(frozen=True, eq=False)
class Waiting(Unit):
    """A tile that takes its time and no core, so that cores are no limit."""

    def __call__(self) -> dict[str, Spent]:
        """Wait."""
        time.sleep(0.2)
        return {"segment": Spent(0.2, None)}


def plate(folder: Path, fields: int, model: str) -> Path:
    """Write a plate of so many fields, copies of those of the demo plate, and its workflow."""
    (folder / "plate").mkdir()
    with resources.as_file(resources.files("cellseg.workflows") / "demo_plate") as images:
        found = sorted(images.glob("*.tif"))
        for number in range(fields):
            name = f"X_{chr(65 + number // 24)}{number % 24 + 1:02d}_s1_w1.tif"
            shutil.copy2(found[number % len(found)], folder / "plate" / name)
    text = f'images = "plate"\n[model]\nname = "{model}"\n[output]\nreport = false\n'
    (folder / "w.toml").write_text(text, encoding="utf-8")
    return folder / "w.toml"


def at(path: Path, name: str) -> Workflow:
    """Return the workflow with its results in an empty folder."""
    shutil.rmtree(path.parent / name, ignore_errors=True)
    return read_workflow(path, output=path.parent / name)


def plain(workflow: Workflow) -> tuple[float, float]:
    """Do what a run does in a plain loop; return the seconds, by the clock and of the CPU."""
    planned = plan(workflow, ONE)
    start, busy = time.perf_counter(), time.process_time()
    for scene in planned.scenes:
        job = Job(scene.prepare(), planned.results)
        job.work.clear_others()
        for stage in job.route():
            for unit in job.missing(stage):
                STAGES[stage](job, unit)
    going = Run(planned, ONE)
    for scene in planned.scenes:
        going._report(scene)
    gather(planned.results, workflow, going.ordered)
    return time.perf_counter() - start, time.process_time() - busy


def run_seconds(workflow: Workflow, config: Config) -> tuple[float, float]:
    """Run; return the seconds in all, and from the first tile on, for each field after it."""
    going = Run(plan(workflow, config), config)
    start, first, done = time.perf_counter(), 0.0, 0
    for step in going.steps():
        if step.report is not None:
            first, done = first or time.perf_counter(), done + 1
            last = time.perf_counter()
    assert not going.result().failed
    return time.perf_counter() - start, (last - first) / (done - 1)


def overhead(path: Path, rounds: int) -> dict[str, Any]:
    """Compare one worker with a plain loop."""
    loops, runs = [], []
    for _ in range(rounds):
        loops.append(plain(at(path, "plain")))
        busy = time.process_time()
        seconds = run_seconds(at(path, "run"), ONE)[0]
        runs.append((seconds, time.process_time() - busy))
    found: dict[str, Any] = {}
    for number, clock in enumerate(("s", "cpu_s")):
        loop, run = min(each[number] for each in loops), min(each[number] for each in runs)
        found |= {f"loop_{clock}": loop, f"run_{clock}": run, f"overhead_{clock}": run / loop - 1}
    return found


def speed_up(path: Path, rounds: int) -> dict[str, Any]:
    """Compare two workers with one."""
    pairs = [
        (run_seconds(at(path, "one"), ONE), run_seconds(at(path, "two"), TWO))
        for _ in range(rounds)
    ]
    whole = max(one[0] / two[0] for one, two in pairs)
    later = max(one[1] / two[1] for one, two in pairs)
    return {
        "one_s": min(one[0] for one, _ in pairs),
        "two_s": min(two[0] for _, two in pairs),
        "speed_up": whole,
        "speed_up_after_start": later,
    }


def many_tiles(path: Path, count: int) -> dict[str, Any]:
    """Send tiles without work to workers; return what that costs this process."""
    planned = plan(at(path, "many"), ONE)
    job = Job(replace(planned.scenes[0].prepare()), planned.results)
    process = psutil.Process()
    before, start, busy = process.memory_info().rss, time.perf_counter(), time.process_time()
    tasks = deque(Idle(job, ("segment",), number) for number in range(count))
    most, first = before, 0.0
    for done, _ in enumerate(execute(tasks, TWO)):
        first = first or time.perf_counter()
        if done % 1000 == 0:
            most = max(most, process.memory_info().rss)
    last = time.perf_counter()
    return {
        "tiles": count,
        "ms_a_tile": 1e3 * (last - first) / count,
        "cpu_ms_a_tile": 1e3 * (time.process_time() - busy) / count,
        "start_s": first - start,
        "before_mb": before / 1e6,
        "most_mb": most / 1e6,
    }


def waiting(path: Path, count: int) -> dict[str, Any]:
    """Compare two workers with one on tiles that wait, from the first one on."""
    planned = plan(at(path, "waiting"), ONE)
    job = Job(planned.scenes[0].prepare(), planned.results)
    seconds = []
    for config in (ONE, TWO):
        tasks = deque(Waiting(job, ("segment",), number) for number in range(count))
        moments = [time.perf_counter() for _ in execute(tasks, config)]
        seconds.append((moments[-1] - moments[0]) / (count - config.workers))
    return {
        "one_s_a_tile": seconds[0],
        "two_s_a_tile": seconds[1],
        "times": seconds[0] / seconds[1],
    }


def main() -> None:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--fields", type=int, default=48)
    parser.add_argument("--model", default="mask_rcnn")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=["overhead", "speed-up", "tiles"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as name:
        path = plate(Path(name), options.fields, options.model)
        if "tiles" in options.only:
            small = Path(name) / "small"
            small.mkdir()
            found["tiles"] = many_tiles(plate(small, 1, "threshold"), options.tiles)
            found["waiting"] = waiting(small / "w.toml", 200)
        if "overhead" in options.only:
            found["overhead"] = overhead(path, options.rounds)
        if "speed-up" in options.only:
            found["speed-up"] = speed_up(path, options.rounds)
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
