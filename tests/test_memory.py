"""The peak memory of a stage is its own, not that of what the process did before."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cellseg.pipeline import memory
from cellseg.pipeline.memory import peak_mb, reset_peak


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets the mark")
def test_the_peak_is_of_what_came_after_the_reset() -> None:
    reset_peak()
    held = np.ones(200_000_000, np.uint8)
    with_it = peak_mb()
    del held
    reset_peak()
    without = peak_mb()
    assert with_it is not None
    assert without is not None
    assert 190 < with_it - without < 260


def test_without_proc_the_whole_life_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "no" / "clear_refs")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "no" / "status")
    reset_peak()
    assert (peak_mb() or 0) > 20
    assert not list(tmp_path.iterdir())
