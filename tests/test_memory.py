"""The peak memory of a stage is its own, not that of what the process did before."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellseg.pipeline import Config, memory
from cellseg.pipeline.dask_cluster import connected
from cellseg.pipeline.memory import peak_mb, reset_peak

SCRIPT = """
import numpy as np
from cellseg.pipeline.memory import peak_mb, reset_peak
reset_peak()
held = np.ones(200_000_000, np.uint8)
with_it = peak_mb()
del held
reset_peak()
print(with_it, peak_mb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets the mark")
def test_the_peak_is_of_what_came_after_the_reset() -> None:
    # In a process of its own: what other tests have left would be given back meanwhile.
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    with_it, without = map(float, found.stdout.split())
    assert 190 < with_it - without < 260


def test_without_proc_the_whole_life_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no" / "clear_refs")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "no" / "status")
    reset_peak()
    assert (peak_mb() or 0) > 20
    assert not list(tmp_path.iterdir())


CHURN = """
import resource
from threading import Thread

def churn():
    for _ in range(20):
        bytearray(b"1") * 100_000_000

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
"""
IN_A_THREAD = """
from cellseg.pipeline.config import keep_freed_memory
keep_freed_memory()
before = faults()
for _ in range(2):
    thread = Thread(target=churn)
    thread.start()
    thread.join()
print(faults() - before)
"""
PAGES = 100_000_000 // 4096
"""Of one array; each page that the system gives is a fault."""
GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not GLIBC, reason="other allocators are left as they are")
def test_a_thread_gets_the_memory_again_that_it_has_freed() -> None:
    command = [sys.executable, "-c", CHURN + IN_A_THREAD]
    found = subprocess.run(command, capture_output=True, check=True)
    assert 0.9 * PAGES < int(found.stdout) < 3 * PAGES


def faults_of_a_worker() -> int:
    about: dict[str, Any] = {}
    exec(CHURN, about)  # noqa: S102 - what the other test runs
    before: int = about["faults"]()
    about["churn"]()
    return int(about["faults"]() - before)


@pytest.mark.skipif(not GLIBC, reason="other allocators are left as they are")
def test_so_does_a_worker() -> None:
    with connected(Config(device="cpu", workers=2), 1) as client:
        assert client.submit(faults_of_a_worker).result() < 3 * PAGES
