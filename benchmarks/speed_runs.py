"""Whole runs, timed: the command line in a process of its own, from its start to its exit code."""

from __future__ import annotations

import itertools
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import tomli_w

from benchmarks.speed_scenes import Input
from cellseg.pipeline import Config
from cellseg.pipeline.profile import read_summary
from cellseg.pipeline.settings import parse_value

COMMAND = "from cellseg.pipeline.cli import command; command()"
START = ("start Python", "plan", "start workers", "look")
"""Stages before the first tile; there is nothing of them in a rate."""
EVERY = 0.1
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Configuration:
    """Keys of ``config.toml``, by which runs are told apart.

    Parameters
    ----------
    keys : tuple of (str, value)
    """

    keys: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def read(cls, text: str) -> Configuration:
        """Return what ``key=value,key=value`` says."""
        pairs = [pair.partition("=") for pair in text.split(",") if pair]
        return cls(tuple((key.strip(), parse_value(value.strip())) for key, _, value in pairs))

    @classmethod
    def product(cls, **values: Sequence[str] | None) -> list[Configuration]:
        """Return a configuration for each choice of a value of every key; one at least."""
        chosen = {key: each for key, each in values.items() if each}
        pairs = itertools.product(*([(key, v) for v in each] for key, each in chosen.items()))
        return [cls(each) for each in pairs]

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return ",".join(f"{key}={value}" for key, value in self.keys) or "as shipped"

    @property
    def config(self) -> Config:
        """The configuration itself."""
        return Config.model_validate(dict(self.keys))

    def write(self, folder: Path) -> Path:
        """Write it as a file; return it."""
        path = folder / "config.toml"
        path.write_text(tomli_w.dumps(dict(self.keys)), encoding="utf-8")
        return path


@dataclass(frozen=True)
class Ran:
    """One run.

    Parameters
    ----------
    seconds : float
        From the start of the command to its exit code.
    core_seconds : float
        Of all its processes.
    peak_mb : float
        The most that one of them held.
    profile : dict
        As `cellseg.pipeline.profile_table.ProfileTable.document` has it.
    """

    seconds: float
    core_seconds: float
    peak_mb: float
    profile: dict[str, Any]

    @property
    def start_seconds(self) -> float:
        """Until the first tile was computed; of a run without one, all."""
        start = self.profile["start_seconds"]
        return self.seconds if start is None else float(start)

    @property
    def later_seconds(self) -> float:
        """From then on."""
        return self.seconds - self.start_seconds

    @property
    def later_core_seconds(self) -> float:
        """Seconds of a core in all stages but those of the start."""
        rows = self.profile["rows"]
        later = [row for row in rows if "/" not in row["path"] and row["path"] not in START]
        return float(sum(row["core_seconds"] for row in later))

    @property
    def network_share(self) -> float:
        """Part of the processes' core seconds that the network took."""
        rows = [row for row in self.profile["rows"] if row["path"].endswith("/model/network")]
        return float(sum(row["core_seconds"] for row in rows)) / self.core_seconds

    def row(self, path: str) -> dict[str, Any] | None:
        """Return a row of the profile."""
        return next((row for row in self.profile["rows"] if row["path"] == path), None)


def run_command(given: Input, model: str, configuration: Configuration, folder: Path) -> Ran:
    """Run the command line on some images; what it writes is removed.

    Raises
    ------
    RuntimeError
        If it ends with another exit code than 0; with what it has said.
    """
    output = folder / "results"
    command = [sys.executable, "-c", COMMAND, "run", str(given.workflow(folder, model))]
    command += ["-o", str(output), "--profile", "--config", str(configuration.write(folder))]
    peaks: dict[int, int] = {}
    before, start = _core_seconds(), time.perf_counter()
    said = folder / "said.txt"
    with said.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)  # noqa: S603
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - start
        watcher.join()
    if code:
        raise RuntimeError(f"{' '.join(command)}: {code}: {said.read_text('utf-8')[-2000:]}")
    profile = read_summary(output / "profile.json")
    shutil.rmtree(output)
    peak = max(peaks.values(), default=0) / 1e6
    return Ran(seconds, _core_seconds() - before, peak, profile)


def _core_seconds() -> float:
    """Return what all processes have taken that this one has started, and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def middle(runs: Sequence[Ran], value: str) -> float:
    """Return the median of an attribute of some runs."""
    return float(median(getattr(run, value) for run in runs))


def middle_of_row(runs: Sequence[Ran], path: str, key: str) -> float:
    """Return the median of a number of a row of their profiles; 0 where a run has no such row."""
    rows = [run.row(path) or {} for run in runs]
    return float(median(row.get(key) or 0.0 for row in rows))


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
