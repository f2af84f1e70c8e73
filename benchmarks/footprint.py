"""What a run takes while it runs: memory of every process, files and bytes of its results."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY = 0.2
"""Seconds between two looks at the memory."""
UNIQUE_EVERY = 3.0
"""The same for the memory that no other process shares, which takes longer to find out."""
FOLDER_EVERY = 3.0
LOOKING = 0.05
"""Part of the time that looking through the results folder may take."""


@dataclass
class Footprint:
    """What a run takes while it runs: memory of every process, files and bytes on the disk.

    Parameters
    ----------
    process : Popen
    folder : Path
        The results.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    peaks: dict[int, int] = field(default_factory=dict)
    """Largest resident memory of each process, in bytes."""
    unique: dict[int, int] = field(default_factory=dict)
    """Largest memory of each process that it shares with none, in bytes."""
    files: int = 0
    size: int = 0
    """Most files and most bytes seen in the folder."""

    def to_the_end(self) -> None:
        """Look until the run is over."""
        unique_at = folder_at = 0.0
        while self.process.poll() is None:
            now = time.monotonic()
            self._look_at_memory(unique=now >= unique_at)
            if now >= unique_at:
                unique_at = now + UNIQUE_EVERY
            if now >= folder_at:
                self.look_at_folder()
                took = time.monotonic() - now
                folder_at = now + max(FOLDER_EVERY, took / LOOKING)
            time.sleep(EVERY)

    def _look_at_memory(self, *, unique: bool) -> None:
        try:
            parent = psutil.Process(self.process.pid)
            everyone = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for one in everyone:
            try:
                self.peaks[one.pid] = max(self.peaks.get(one.pid, 0), _peak(one))
                if unique:
                    own = int(one.memory_full_info().uss)
                    self.unique[one.pid] = max(self.unique.get(one.pid, 0), own)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def look_at_folder(self) -> tuple[int, int]:
        """Return the files and bytes in the results now."""
        sizes = list(_sizes(self.folder))
        self.files, self.size = max(self.files, len(sizes)), max(self.size, sum(sizes))
        return len(sizes), sum(sizes)

    def workers(self, peaks: dict[int, int]) -> list[float]:
        """Return the peaks of all processes but the first one, in MB."""
        mine = [size for pid, size in peaks.items() if pid != self.process.pid]
        return [round(size / 1e6, 1) for size in sorted(mine, reverse=True)]


def _peak(process: psutil.Process) -> int:
    """Return the largest resident memory a process had, or has now where no kernel tells.

    cellseg has the kernel forget it when a stage begins, so that it must be asked every now and
    then; ``memory_mb`` in ``run.json`` has the peaks of all stages.
    """
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(process.memory_info().rss)


def _sizes(folder: Path | str) -> Iterator[int]:
    """Yield the bytes of each file below a folder that others write to meanwhile."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(entry.path)
            else:
                yield entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
