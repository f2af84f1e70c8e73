"""Status: how far a run is, told from its results folder by any other process or machine."""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cellseg.pipeline.lock import alive
from cellseg.pipeline.plan import ImageReport
from cellseg.pipeline.result import Progress
from cellseg.pipeline.results import Results

__all__ = ["Heartbeat", "Status", "read_status", "span"]

EVERY = 2.0
"""Seconds between two signs of life."""
SILENT = 600.0
"""Seconds without one after which a run on another machine counts as stopped."""
NAMED = 20
"""Images whose reasons are printed."""
State = Literal["running", "stopped", "done"]


@dataclass
class Heartbeat:
    """Writes how far a run is, every few seconds, until it is done.

    Parameters
    ----------
    results : Results
    images : int
        How many there are.
    """

    results: Results
    images: int
    started: float = field(default_factory=time.time)
    written: float = 0.0
    dashboard: str | None = None
    tiles_at_start: int | None = None

    def beat(self, step: Progress, reports: Iterable[ImageReport]) -> None:
        """Note a step of the run, and the images that are done or cannot be."""
        if self.tiles_at_start is None:
            # What earlier runs have done says nothing of how fast this one is.
            self.tiles_at_start = max(step.tiles - 1, 0)
        now = time.time()
        if now - self.written < EVERY:
            return
        self.written = now
        reports = list(reports)
        done = [report for report in reports if report.state == "done"]
        failed = {each.name: each.reason for each in reports if each.state == "failed"}
        self.results.write_progress(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self.started,
                "updated": now,
                "images": self.images,
                "done": len(done),
                "failed": failed,
                "cells": sum(report.cells for report in done),
                "tiles": step.tiles,
                "all_tiles": step.all_tiles,
                "tiles_at_start": self.tiles_at_start,
                "image": step.image,
                "stage": step.stage,
                "dashboard": self.dashboard,
                "seconds_left": step.seconds_left,
            }
        )


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Parameters
    ----------
    folder : Path
    state : "running", "stopped" or "done"
        Stopped: it was killed, and the same command goes on from there.
    images, done : int
        All images, and those that are done.
    failed : dict of str to str
        Images that could not be done, and why.
    cells : int
        In the images that are done.
    tiles, all_tiles : int
        0 where the run is done.
    seconds : float
        That it took, or has taken so far.
    seconds_left : float or None
        At the rate so far; None if that is not known.
    silent : float
        Seconds since the last sign of life.
    at : str
        Image and stage at work.
    where : str
        Process and machine.
    dashboard : str or None
        Address of a page that shows the workers.
    """

    folder: Path
    state: State
    images: int
    done: int
    failed: dict[str, str]
    cells: int
    tiles: int = 0
    all_tiles: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    silent: float = 0.0
    at: str = ""
    where: str = ""
    dashboard: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return vars(self) | {"folder": str(self.folder)}

    @property
    def text(self) -> str:
        """The same for people, in a few lines."""
        lines = [self._first_line, f"  images    {self._images}"]
        if self.all_tiles:
            share = self.tiles / self.all_tiles
            lines.append(f"  tiles     {self.tiles} of {self.all_tiles} ({share:.0%})")
        lines.append(f"  cells     {self.cells:,} in the images that are done")
        if self.state == "running":
            lines.append(f"  at work   {self.at} ({self.where})")
            left = "not known yet" if self.seconds_left is None else span(self.seconds_left)
            lines.append(f"  time      {span(self.seconds)} so far, left {left}")
            if self.dashboard:
                lines.append(f"  workers   {self.dashboard}")
        if self.state == "stopped":
            lines.append("  The same `cellseg run` goes on from there.")
        lines += [f"  failed    {n}: {why}" for n, why in list(self.failed.items())[:NAMED]]
        if len(self.failed) > NAMED:
            lines.append(f"  and {len(self.failed) - NAMED} more; see {self.folder / 'run.json'}")
        return "\n".join(lines)

    @property
    def _first_line(self) -> str:
        if self.state == "done":
            return f"{self.folder}: done, in {span(self.seconds)}"
        if self.state == "running":
            return f"{self.folder}: running"
        return f"{self.folder}: stopped before its end, last sign of life {span(self.silent)} ago"

    @property
    def _images(self) -> str:
        waiting = self.images - self.done - len(self.failed)
        counts = {"done": self.done, "failed": len(self.failed), "to do": waiting}
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return f"{self.images}: {said or 'none done yet'}"


def read_status(folder: Path) -> Status:
    """Return how far the run of a results folder is.

    Raises
    ------
    CellsegError
        If it is no results folder.
    """
    results = Results(folder)
    document = results.read_run()
    reports = list(document["images"])
    failed = {each["name"]: each["reason"] for each in reports if each["state"] == "failed"}
    done = sum(each["state"] == "done" for each in reports)
    if document.get("state") == "done":
        about = len(reports), done, failed, int(document["cells"])
        return Status(folder, "done", *about, seconds=float(document["seconds"]))
    beat = results.read_progress()
    if beat is None:
        silent = time.time() - results.run_path.stat().st_mtime
        count = len(reports) or int(document.get("planned", 0))
        return Status(folder, _state(None, silent), count, done, failed, 0, silent=silent)
    return _from_beat(folder, beat)


def _from_beat(folder: Path, beat: Mapping[str, Any]) -> Status:
    """Return what a sign of life says."""
    now = time.time()
    silent, taken = now - beat["updated"], beat["updated"] - beat["started"]
    finished = beat["tiles"] - beat["tiles_at_start"]
    left = beat["all_tiles"] - beat["tiles"]
    return Status(
        folder,
        _state(beat, silent),
        beat["images"],
        beat["done"],
        dict(beat["failed"]),
        beat["cells"],
        beat["tiles"],
        beat["all_tiles"],
        seconds=now - beat["started"],
        seconds_left=_left(beat, taken / finished * left if finished > 0 else None, silent),
        silent=silent,
        at=f"{beat['image']} {beat['stage']}".strip(),
        where=f"process {beat['pid']} on {beat['host']}",
        dashboard=beat.get("dashboard"),
    )


def _left(beat: Mapping[str, Any], by_tiles: float | None, silent: float) -> float | None:
    """Return the seconds left as the run foresees them; else, at the rate of its tiles."""
    foreseen = beat.get("seconds_left")
    return by_tiles if foreseen is None else max(foreseen - silent, 0.0)


def _state(beat: Mapping[str, Any] | None, silent: float) -> State:
    """Return whether a run that is not done still goes on."""
    if beat is not None and beat["host"] == socket.gethostname():
        return "running" if alive(int(beat["pid"])) else "stopped"
    return "running" if silent < SILENT else "stopped"


def span(seconds: float) -> str:
    """Return a length of time for people: ``2:03:11`` or ``12 s``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return str(datetime.timedelta(seconds=round(seconds)))
