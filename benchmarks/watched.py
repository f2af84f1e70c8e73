"""A run that can be watched from outside: which windows it segments, and what each process does.

For `benchmarks/kills.py`. A run started with the environment variable
`STATES` keeps a small file for each of its processes with the stage it is in.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.lazy_slide import LazyExact
from cellseg.models import FitsImage, Instances, Segmenter, load_model
from cellseg.models.settings import ThresholdSettings
from cellseg.pipeline import Config, Workflow, run

STATES = "CELLSEG_BENCHMARK_STATES"
"""Environment variable: the folder in which each process notes what it is doing."""
EVERY = 0.005
"""Seconds between two notes."""
LOOK_EVERY = 0.002
"""Seconds between two looks at what the processes do."""
LONGEST_WAIT = 60.0
ORDER = {"stages", "execute", "tasks", "job", "run", "__init__"}
"""Modules that say what comes next and do nothing themselves."""
IDLE = ("starting", "waiting")
WRITING = "writing"
PAUSE_S = 0.01
"""Seconds that a window of the lazy slide takes longer: to be hit, it must last."""


class Watched:
    """A segmenter that notes each window it begins, in a file that all processes append to.

    Parameters
    ----------
    inner : Segmenter
    log : str
        Path of the file.
    pause_s : float
        Seconds to wait at each window: an exact segmenter is too fast to be hit.
    """

    key = "watched"

    def __init__(self, inner: Segmenter, log: str, pause_s: float = 0.0) -> None:
        self.inner, self.log, self.pause_s = inner, log, pause_s

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        """Return the objects of each plane; see `cellseg.models.Segmenter`."""
        lines = "".join(f"{identity(plane)}\n" for plane in planes)
        file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(file, lines.encode())
        finally:
            os.close(file)
        time.sleep(self.pause_s * len(planes))
        return self.inner.segment(planes)


class WatchedFitting(Watched):
    """The same for a model that decides something once per image."""

    def fit_image(self, sample: Sequence[NDArray[np.float32]]) -> Segmenter:
        """Return the segmenter for one image; see `cellseg.models.FitsImage`."""
        assert isinstance(self.inner, FitsImage)
        return Watched(self.inner.fit_image(sample), self.log, self.pause_s)


def identity(plane: NDArray[np.float32]) -> str:
    """Return what tells a window from others: its size and its pixels."""
    height, width = plane.shape[-2:]
    return f"{height}x{width}-{zlib.crc32(np.ascontiguousarray(plane).tobytes()):08x}"


def compute(workflow: dict[str, Any], workers: int, case: str, log: str) -> None:
    """Run a case to its end; what is started, killed and started again."""
    watched: Watched
    if case == "slide":
        watched = Watched(LazyExact(), log, PAUSE_S)
    else:
        watched = WatchedFitting(load_model(ThresholdSettings()), log)
    checked = Workflow.model_validate_json(json.dumps(workflow))
    result = run(checked, Config(device="cpu", workers=workers), watched)
    sys.exit("; ".join(str(image.reason) for image in result.failed) or None)


def doing(stack: traceback.StackSummary) -> str:
    """Return the module of the pipeline that a stack is in, and whether it is writing a file."""
    pipeline = [Path(f.filename).stem for f in stack if Path(f.filename).parent.name == "pipeline"]
    busy = [module for module in pipeline if module not in ORDER]
    writing = any(
        f.name == "replace_file" or (f.name == "__setitem__" and "zarr" in f.filename)
        for f in stack
    )
    stage = busy[0] if busy else IDLE[bool(pipeline)]
    return f"{stage} {WRITING}" if writing else stage


def _note(path: Path, thread: int) -> None:
    """Keep what the main thread is doing in a file, for as long as the process lives."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    while True:
        frame = sys._current_frames().get(thread)
        if frame is not None:
            stack = traceback.StackSummary.extract(
                traceback.walk_stack(frame), lookup_lines=False, limit=200
            )
            stack.reverse()
            os.pwrite(file, doing(stack).ljust(63).encode() + b"\n", 0)
        time.sleep(EVERY)


if STATES in os.environ:
    # Here, so that a worker that unpickles the segmenter notes what it does too.
    _main = threading.main_thread().ident
    _path = Path(os.environ[STATES]) / str(os.getpid())
    threading.Thread(target=_note, args=(_path, _main), daemon=True).start()


@dataclass(eq=False)
class Started:
    """A run that has been started: its first process, and what all of them say they are doing."""

    process: subprocess.Popen[bytes]
    states: Path

    def doing(self) -> dict[int, str]:
        """Return what each process was last seen doing, by its id."""
        found = {}
        for path in self.states.iterdir():
            found[int(path.name)] = path.read_text(encoding="utf-8").strip() or IDLE[0]
        return found

    @property
    def ended(self) -> bool:
        """Whether the first process is gone."""
        return self.process.poll() is not None

    def wait_for(self, stage: str | None) -> None:
        """Wait until some process is in a stage, or in any; or until the run has ended."""
        last = time.monotonic() + LONGEST_WAIT
        while not self.ended and time.monotonic() < last:
            seen = [state for states in self.doing().values() for state in states.split()]
            if stage in seen or (stage is None and set(seen) - {IDLE[0]}):
                return
            time.sleep(LOOK_EVERY)

    def kill(self, victim: str, random: np.random.Generator) -> str | None:
        """Kill some of the processes; return what they were doing, or None if there were none."""
        states = self.doing()
        workers = sorted(
            pid for pid in states if pid != self.process.pid and psutil.pid_exists(pid)
        )
        if self.ended or (victim == "worker" and not workers):
            return None
        pid = int(random.choice(workers)) if victim == "worker" else self.process.pid
        hit = [states.get(pid, IDLE[0])] if victim == "worker" else list(states.values())
        with contextlib.suppress(ProcessLookupError):
            if victim == "group":
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        if victim != "worker":
            self.process.wait()
        return max(hit, key=lambda state: (WRITING in state, state not in IDLE), default=IDLE[0])
