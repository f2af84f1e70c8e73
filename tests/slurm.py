"""A real SLURM for tests: the one that is there, else one of this machine alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "slurm_node.sh"


def call(*command: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def is_up() -> bool:
    """Whether a SLURM answers."""
    if shutil.which("sinfo") is None:
        return False
    asked = ["sinfo", "--noheader"]
    done = subprocess.run(asked, capture_output=True, timeout=30, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


@pytest.fixture(scope="session")
def slurm() -> str:
    """Name of the node of a SLURM that is up; it stays so."""
    if not is_up():
        if os.geteuid() != 0 or shutil.which("slurmctld") is None:
            pytest.skip("no SLURM, and none to start: see tests/slurm_node.sh")
        call("bash", str(NODE), "up")
    return call("sinfo", "--noheader", "--Node", "--format=%N").split()[0]


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until something holds, and fail if it does not in time."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "it took too long"
        time.sleep(0.1)


def state_of(job: str) -> str:
    """Return the state of a job, of a part of an array or of all; nothing once it is forgotten."""
    asked = ["squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return " ".join(sorted(set(done.stdout.split())))
