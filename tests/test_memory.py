"""The peak memory of a stage is its own, not that of what the process did before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cellseg.pipeline import memory
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
