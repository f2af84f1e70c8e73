"""Every task has one outcome, here and on workers, whatever it does to its process."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from cellseg.pipeline.config import Config
from cellseg.pipeline.execute import Failure, Outcome, execute
from chores import Chore


def outcomes(kinds: list[str], log: Path, workers: int) -> dict[str, Outcome[Chore]]:
    tasks = deque(Chore(kind, number, log) for number, kind in enumerate(kinds))
    found = {}
    for outcome in execute(tasks, Config(device="cpu", workers=workers)):
        found[outcome.task.kind] = outcome
        if outcome.task.kind == "first":
            tasks.append(Chore("added", 7, log))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_succeed_fail_and_are_tried_again(tmp_path: Path, workers: int) -> None:
    log = tmp_path / "log"
    deadly = {"deadly": 40} if workers > 1 else {}
    found = outcomes(["first", "moody", "broken", "wrong", *deadly], log, workers)
    results = {kind: outcome.result for kind, outcome in found.items() if not outcome.failure}
    assert results == {"first": 0, "moody": 10, "added": 70} | deadly
    assert found["broken"].failure is not None
    assert found["broken"].failure.reason == "RuntimeError: not this time"
    assert "chores.py" in str(found["broken"].failure.traceback)
    assert found["wrong"].failure == Failure("always wrong")
    if workers == 1:
        # A worker that dies takes results with it, and those tasks are done once more.
        tried = log.read_text(encoding="utf-8").split()
        assert [tried.count(name) for name in ("first0", "moody1", "broken2", "wrong3")] == [
            1, 2, 2, 1,
        ]  # fmt: skip


def test_no_tasks_no_outcomes(tmp_path: Path) -> None:
    assert outcomes([], tmp_path / "log", 1) == {}
