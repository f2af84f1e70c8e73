"""What a run takes, and where: `cellseg run --profile` writes a trace of it and a table.

The trace, ``profile.json``, is in Chrome's trace-event format (array form, "Trace Event Format",
Google 2016), which https://ui.perfetto.dev and chrome://tracing open: a bar for every unit of a
stage and for the parts of it, by process and thread. It grows with the run, so that one that was
killed leaves what it has done.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellseg.models.timing import Noted, drain
from cellseg.pipeline.plan import ImageReport
from cellseg.pipeline.profile_table import ProfileTable, Row
from cellseg.pipeline.results import Results
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.time_left import Spent
from cellseg.pipeline.worker import where

__all__ = ["Profile", "process_began"]

PYTHON = "start Python"
"""What a run takes before the first part that is noted: the interpreter, the command's imports."""
COMPUTES = ("segment", "model"), ("segment",)
"""What ends the start-up; the second, where all there is shows background."""
SUMMARY = "cellseg_profile"
"""Name of the trace's event that holds the table, for programs; viewers show nothing of it."""


def process_began() -> float:
    """Return when this process began, in seconds since 1970; where unknown, about now.

    From /proc/self/stat, field 22 (proc(5)), to a hundredth of a second.
    """
    try:
        told = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        ticks = int(told.rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = time.process_time()
    return time.time() - max(age, 0.0)


@dataclass
class _Sum:
    """Parts of one path, added up."""

    start: float
    units: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0


@dataclass
class _Process:
    """A process as the trace numbers it, and its threads."""

    number: int
    threads: dict[int, int] = field(default_factory=dict)


class Profile:
    """The trace of a run as it grows, and in the end the table.

    It is one of this command: what an earlier one has noted in the same results is dropped.

    Parameters
    ----------
    results : Results
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.began = process_began()
        self.sums: dict[tuple[str, ...], _Sum] = {}
        self.processes: dict[str, _Process] = {}
        self.parts_done: dict[str, dict[str, float]] = {}
        self.megapixels: dict[str, float] = {}
        results.start_profile()
        self._begin()

    def _begin(self) -> None:
        """Take up what this process has done so far, most of it before anything was noted."""
        noted = drain()
        first = min((each.start for each in noted), default=time.time())
        known = sum(each.core_seconds for each in noted if len(each.path) == 1)
        core_seconds, thread = max(time.process_time() - known, 0.0), threading.get_ident()
        before = max(first - self.began, 0.0)
        self.add(where(), [Noted((PYTHON,), self.began, before, core_seconds, thread, {}), *noted])

    def add(self, process: str, noted: Iterable[Noted]) -> None:
        """Take up parts that a process has noted; `process` is as `cellseg.pipeline.worker` says.

        Raises
        ------
        OSError
            If the disk is full or read-only.
        """
        events = []
        for each in noted:
            own = self.sums.setdefault(each.path, _Sum(each.start))
            own.start = min(own.start, each.start)
            own.units += 1
            own.seconds += each.seconds
            own.core_seconds += each.core_seconds
            events += self._events(process, each)
        if events:
            self.results.append_profile(events)

    def _events(self, process: str, noted: Noted) -> list[dict[str, Any]]:
        """Return an event of the trace, and the names of process and thread if they are new."""
        events = []
        name = process.split(" ")[0]  # without the GPU, which is not known from the start
        if name not in self.processes:
            self.processes[name] = _Process(1 + len(self.processes))
            events.append(_name("process_name", name, self.processes[name].number, 0))
        here = self.processes[name]
        if noted.thread not in here.threads:
            number = here.threads[noted.thread] = 1 + len(here.threads)
            events.append(_name("thread_name", f"thread {number}", here.number, number))
        event = {
            "name": noted.path[-1],
            "cat": "/".join(noted.path[:-1]) or "stage",
            "ph": "X",
            "ts": round((noted.start - self.began) * 1e6, 1),
            "dur": round(noted.seconds * 1e6, 1),
            "pid": here.number,
            "tid": here.threads[noted.thread],
            "args": {**noted.about, "core_ms": round(noted.core_seconds * 1e3, 3)},
        }
        return [*events, event]

    def note(self, scene: Scene, spent: Mapping[str, Spent]) -> None:
        """Note of which image units of stages were done, and which part of the stage each was."""
        height, width = scene.shape[3:]
        self.megapixels[scene.name] = scene.planes * height * width / 1e6
        for stage, own in spent.items():
            done = self.parts_done.setdefault(stage, {})
            done[scene.name] = done.get(scene.name, 0.0) + 1 / own.units

    def close(self, reports: Mapping[str, ImageReport]) -> ProfileTable:
        """End the trace, and write the table of what was done; return it.

        Parameters
        ----------
        reports : dict of ImageReport
            Of the images so far, by name.
        """
        self.add(where(), drain())
        table = self.table(reports)
        summary = {"name": SUMMARY, "ph": "M", "pid": 1, "tid": 0, "args": table.document}
        self.results.end_profile(summary, table.text)
        return table

    def table(self, reports: Mapping[str, ImageReport]) -> ProfileTable:
        """Return the table of what was done so far."""
        cells = {name: report.cells for name, report in reports.items()}
        paths = sorted(self.sums, key=lambda path: self.sums[path].start)
        rows = [self._row(path, self.sums[path], cells) for path in paths]
        done = self.parts_done.get("segment", {})
        return ProfileTable(
            tuple(rows),
            wall_seconds=time.time() - self.began,
            start_seconds=self._start_seconds(),
            megapixels=sum(part * self.megapixels[name] for name, part in done.items()),
            cells=round(sum(part * cells.get(name, 0) for name, part in done.items())),
            processes=len(self.processes),
        )

    def _start_seconds(self) -> float | None:
        """Return the seconds from the start of the command until a tile was computed."""
        starts = [self.sums[path].start for path in COMPUTES if path in self.sums]
        return starts[0] - self.began if starts else None

    def _row(self, path: tuple[str, ...], own: _Sum, cells: Mapping[str, int]) -> Row:
        done = self.parts_done.get(path[0], {})
        return Row(
            path,
            own.units,
            own.seconds,
            own.core_seconds,
            sum(part * self.megapixels[name] for name, part in done.items()),
            sum(part * cells.get(name, 0) for name, part in done.items()),
        )


def _name(what: str, name: str, process: int, thread: int) -> dict[str, Any]:
    """Return the event that names a process or a thread."""
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def read_summary(path: Path) -> dict[str, Any]:
    """Return the table of a trace that has ended, as `ProfileTable.document` has it.

    Raises
    ------
    ValueError
        If the trace has not ended, or is none.
    """
    events = json.loads(path.read_text(encoding="utf-8"))
    return dict(next(event["args"] for event in events if event["name"] == SUMMARY))
