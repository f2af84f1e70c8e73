"""Kill a run again and again, and compare what it ends in with an undisturbed run's, byte by byte.

    python benchmarks/kills.py --kills 200 --workers 1 2 --json kills.json

Each kill is a SIGKILL: to the whole process group, to its first process alone
or to one worker, half of them at a random moment, half shortly after some
process has entered a stage drawn by chance, or has begun to write. What is
killed is started again at once, until it comes to its end; then every file but
``run.json``, ``workflow.toml`` and ``report.html`` must be that of the undisturbed run, and no
more tiles may have been segmented twice than were in flight. The exit code is 1
if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import psutil

# The benchmarks are not installed, and may be started as a file.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lazy_slide import Slide
from benchmarks.watched import IDLE, LOOK_EVERY, STATES, Started
from cellseg.pipeline.plate import discover
from cellseg.pipeline.segment import opened
from cellseg.pipeline.tiles import Box, Grid

ROOT = Path(__file__).resolve().parent.parent
RUN = "import json, sys; from benchmarks.watched import compute; compute(*json.loads(sys.argv[1]))"
SETTLES = 10.0
"""Seconds that a worker has to follow its parent."""
AFTER = 0.03
"""Most seconds between the start of a stage and a kill that is meant for it."""
GIVES_UP = 3
"""Starts that end in an error one after the other: no kill explains that."""
PART = 0.7
"""Random moments are drawn from this part of an undisturbed run's time."""


@dataclass(eq=False)
class Trial:
    """One case with one number of workers, run without and with kills.

    Parameters
    ----------
    case : str
        ``slide`` or ``plate``.
    workflow : dict
        Without its output.
    workers : int
    folder : Path
        For results and logs.
    """

    case: str
    workflow: dict[str, Any]
    workers: int
    folder: Path
    failed: int = 0
    """Starts that ended with an error, because a tile's worker was killed twice, say."""
    groups: list[int] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)

    def start(self, name: str) -> Started:
        """Start the run whose results are called `name`, or start it again."""
        states = self.folder / "states" / f"{len(self.groups)}"
        states.mkdir(parents=True)
        workflow = self.workflow | {"output": {"path": str(self.folder / name)}}
        arguments = json.dumps([workflow, self.workers, self.case, str(self.log(name))])
        search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with (self.folder / f"{name}.err").open("ab") as errors:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", RUN, arguments],
                env=os.environ | {"PYTHONPATH": search, STATES: str(states)},
                stderr=errors,
                start_new_session=True,
            )
        self.groups.append(process.pid)
        return Started(process, states)

    def log(self, name: str) -> Path:
        """Return the file in which the segmented windows of a run are noted."""
        return self.folder / f"{name}.log"

    def windows(self, name: str) -> Counter[str]:
        """Return how often each window was segmented."""
        return Counter(self.log(name).read_text(encoding="utf-8").split())

    def undisturbed(self) -> tuple[float, list[str]]:
        """Run once without kills; return the seconds after its start, and the stages seen."""
        started = self.start("undisturbed")
        started.wait_for(None)
        begun, seen = time.monotonic(), set()
        while not started.ended:
            seen |= {state for states in started.doing().values() for state in states.split()}
            time.sleep(LOOK_EVERY)
        if started.process.returncode:
            sys.exit((self.folder / "undisturbed.err").read_text(encoding="utf-8"))
        return time.monotonic() - begun, sorted(seen - set(IDLE))

    def disturbed(self, name: str, random: np.random.Generator, kills: int, plan: Plan) -> int:
        """Run to the end with up to so many kills; return how many there were."""
        done, in_a_row, started = 0, 0, self.start(name)
        while True:
            if started.ended:
                if started.process.returncode == 0:
                    return done
                in_a_row = in_a_row + 1 if started.process.returncode > 0 else 0
                self.failed += started.process.returncode > 0
                if in_a_row > GIVES_UP:
                    sys.exit((self.folder / f"{name}.err").read_text(encoding="utf-8"))
                started = self.start(name)
            if done == kills:
                started.process.wait()
                continue
            victim = str(
                random.choice(["group", "parent", "worker"][: 3 if self.workers > 1 else 1])
            )
            plan.wait(started, random)
            state = started.kill(victim, random)
            if state is not None:
                done += 1
                self.stages.update(state.split())
                self.victims[victim] += 1

    def left_behind(self) -> int:
        """Return the processes that outlived their run, once they had time to end."""
        last = time.monotonic() + SETTLES
        while (alive := _alive(self.groups)) and time.monotonic() < last:
            time.sleep(0.1)
        return alive


def _alive(groups: Sequence[int]) -> int:
    mine, alive = set(groups), 0
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            zombie = process.status() == psutil.STATUS_ZOMBIE
            alive += os.getpgid(process.pid) in mine and not zombie
    return alive


@dataclass(frozen=True)
class Plan:
    """When to kill: at a random moment, or in a stage.

    Parameters
    ----------
    seconds : float
        What an undisturbed run takes after its start.
    stages : list of str
        What was seen in it.
    """

    seconds: float
    stages: list[str]

    def wait(self, started: Started, random: np.random.Generator) -> None:
        """Wait for the moment of the next kill, or until the run has ended."""
        if random.random() < 0.5:
            started.wait_for(None)
            moment = random.uniform(0, PART * self.seconds)
        else:
            started.wait_for(str(random.choice(self.stages)))
            moment = random.uniform(0, AFTER)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.process.wait(moment)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a results folder that must not depend on its run."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix != ".log"
        and path.relative_to(folder).as_posix() not in ("run.json", "workflow.toml", "report.html")
    }


def tile_shapes(workflow: dict[str, Any]) -> set[str]:
    """Return the sizes of all windows that tiles read, as `identity` begins with them.

    What is predicted again is seen in windows of other sizes, but for a rare chance.
    """
    tiling, shapes = workflow["tiling"], set()
    for source in discover([Path(image) for image in workflow["images"]], None):
        plane = Box(0, 0, *opened(source).pixels.shape[3:])
        grid = Grid(plane, tiling["size"], tiling["halo"])
        shapes |= {grid.read(position).shape for position in range(len(grid))}
    return {f"{height}x{width}" for height, width in shapes}


def case_of(case: str, folder: Path) -> dict[str, Any]:
    """Return the workflow of a case, without its output."""
    tiling = {"size": 128, "halo": 48}
    if case == "slide":
        slide = Slide(1400, 1400, seed=5, giant_px=110, empty_px=512)
        slide.write(folder / "slide.lazy")
        images, normalise = [str(folder / "slide.lazy")], {"method": "none"}
    else:
        with resources.as_file(resources.files("cellseg.workflows") / "demo_plate") as plate:
            images, normalise = [str(plate)], {"method": "percentile"}
    return {
        "images": images,
        "normalise": normalise,
        "tiling": tiling,
        "stitch": {"window_px": 512},
    }


def measure(
    case: str, workflow: dict[str, Any], workers: int, kills: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Disturb one case until it was killed often enough; return its row of the table."""
    random = np.random.default_rng([options.seed, workers, len(case)])
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        trial = Trial(case, workflow, workers, Path(name))
        plan = Plan(*trial.undisturbed())
        reference, once = digests(trial.folder / "undisturbed"), trial.windows("undisturbed")
        done, runs, differing = 0, 0, set()
        repeated: Counter[str] = Counter()
        while done < kills:
            runs += 1
            most = min(kills - done, options.most)
            done += trial.disturbed(f"run{runs}", random, most, plan)
            found = digests(trial.folder / f"run{runs}")
            differing |= {f"run{runs}: {path}" for path, _ in reference.items() ^ found.items()}
            repeated += trial.windows(f"run{runs}") - once
            print(f"{case}, {workers} worker(s): {done} kills", file=sys.stderr)
        left = trial.left_behind()
    shapes = tile_shapes(workflow)
    of_tiles, again = _tiles_in(once, shapes), _tiles_in(repeated, shapes)
    return {
        "case": case,
        "workers": workers,
        "seconds": round(plan.seconds, 2),
        "tiles": of_tiles,
        "predictions": once.total() - of_tiles,
        "runs": runs,
        "kills": done,
        "starts": len(trial.groups) - 1,
        "failed": trial.failed,
        "differing": len(differing),
        "tiles_repeated": again,
        "in_flight": done * workers * options.in_flight,
        "predictions_repeated": repeated.total() - again,
        "left_behind": left,
        "digest": hashlib.sha256(json.dumps(reference).encode()).hexdigest()[:16],
        "victims": dict(trial.victims),
        "stages": dict(trial.stages.most_common()),
        "different": sorted(differing),
    }


def _tiles_in(windows: Counter[str], shapes: set[str]) -> int:
    return sum(count for name, count in windows.items() if name.partition("-")[0] in shapes)


def right(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether all runs ended alike, and repeated no more than what was in flight."""
    alike = all(
        not row["differing"]
        and not row["left_behind"]
        and row["tiles_repeated"] <= row["in_flight"]
        for row in rows
    )
    return alike and len({(row["case"], row["digest"]) for row in rows}) == len(
        {row["case"] for row in rows}
    )


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """Print one line a trial, and what its processes were doing when they were killed."""
    names = [name for name, value in rows[0].items() if not isinstance(value, dict | list)]
    print("  ".join(f"{name:>{max(len(name), 6)}}" for name in names))
    for row in rows:
        print("  ".join(f"{row[name]!s:>{max(len(name), 6)}}" for name in names))
    for row in rows:
        print(f"\n{row['case']}, {row['workers']} worker(s), killed: {row['victims']}")
        print("  ".join(f"{stage} {count}" for stage, count in row["stages"].items()))
        print("\n".join(row["different"][:20]))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all, shared by the trials")
    parser.add_argument("--most", type=int, default=12, help="most kills of one run")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=["slide", "plate"])
    parser.add_argument("--in-flight", type=int, default=2, help="tiles given to a worker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the results; default: a temporary one")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    """Run the benchmark, print its tables, write its JSON; return 1 if anything differs."""
    options, rows = parse(), []
    trials = len(options.cases) * len(options.workers)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for case in options.cases:
            workflow = case_of(case, Path(name))
            for workers in options.workers:
                kills = -(-options.kills // trials)
                rows.append(measure(case, workflow, workers, kills, options))
    print_tables(rows)
    if options.json:
        document = {"machine": platform.processor() or platform.machine(), "rows": rows}
        options.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return 0 if right(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
