"""Every task has one outcome, here, in threads and on workers, whatever it does to its process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellseg.pipeline.config import Config
from cellseg.pipeline.execute import Failure, Outcome, execute
from cellseg.pipeline.faults import DIED
from cellseg.pipeline.logs import LogFiles
from cellseg.pipeline.stopping import Stopped, heeding
from chores import Chore

ONE = Config(device="cpu")
TWO = Config(device="cpu", workers=2)
THREADS = Config(device="cpu", tiles_at_once=2)


def outcomes(
    kinds: list[str], log: Path, config: Config, logs: LogFiles | None = None
) -> dict[str, Outcome[Chore]]:
    tasks = deque(Chore(kind, number, log) for number, kind in enumerate(kinds))
    found = {}
    for outcome in execute(tasks, config, logs):
        found[f"{outcome.task.kind}{outcome.task.number}"] = outcome
        if outcome.task.kind == "first":
            tasks.append(Chore("added", 7, log))
    return found


def tries(log: Path) -> Any:
    return log.read_text(encoding="utf-8").split().count


@pytest.mark.parametrize("config", [ONE, THREADS, TWO], ids=["here", "threads", "processes"])
def test_tasks_succeed_fail_and_are_tried_three_times(tmp_path: Path, config: Config) -> None:
    log = tmp_path / "log"
    found = outcomes(["first", "moody", "broken", "wrong"], log, config)
    results = {name: outcome.result for name, outcome in found.items() if not outcome.failure}
    assert results == {"first0": 0, "moody1": 10, "added7": 70}
    failure = found["broken2"].failure
    assert failure is not None
    assert failure.reason == "RuntimeError: not this time"
    assert "chores.py" in str(failure.traceback)
    assert found["wrong3"].failure == Failure("always wrong")
    count = tries(log)
    assert [count(name) for name in ("first0", "moody1", "broken2", "wrong3")] == [1, 2, 3, 1]
    assert all(outcome.where for outcome in found.values())


def test_what_kills_its_worker_is_found_and_no_other_is_blamed(tmp_path: Path) -> None:
    log, logs = tmp_path / "log", LogFiles(tmp_path / "logs")
    logs.open()
    kinds = ["poison", *["fine"] * 6, "deadly", *["fine"] * 6]
    found = outcomes(kinds, log, TWO, logs)
    logs.close()
    assert {name for name, outcome in found.items() if outcome.failure} == {"poison0"}
    assert found["poison0"].failure == Failure(DIED)
    assert {name: each.result for name, each in found.items() if not each.failure} == {
        f"{kind}{number}": 10 * number for number, kind in enumerate(kinds) if number
    }
    assert tries(log)("poison0") == 3
    assert "a worker died" in logs.path.read_text(encoding="utf-8")


def test_workers_that_are_killed_at_any_time_cost_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tasks = deque(Chore("slow", number, log) for number in range(60))
    found, killed = {}, 0
    for outcome in execute(tasks, TWO):
        found[outcome.task.number] = outcome.result
        if len(found) in (5, 20, 40):
            pid = int(outcome.where.rpartition(":")[2])
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    assert found == {number: 10 * number for number in range(60)}
    assert killed >= 2


@pytest.mark.parametrize("config", [ONE, THREADS, TWO], ids=["here", "threads", "processes"])
def test_asked_to_stop_what_is_at_work_ends_and_nothing_new_begins(
    tmp_path: Path, config: Config
) -> None:
    log = tmp_path / "log"
    tasks = deque(Chore("slow", number, log) for number in range(500))
    found = []

    def go() -> None:
        for outcome in execute(tasks, config):
            found.append(outcome.task.number)
            if len(found) == 3:
                os.kill(os.getpid(), signal.SIGUSR1)

    with heeding(), pytest.raises(Stopped, match="SIGUSR1"):
        go()
    started = log.read_text(encoding="utf-8").split()
    assert len(started) == len(found) < 100
    assert tasks


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    tasks = deque([Chore("endless", 0, tmp_path / "log")])

    def insist() -> None:
        for pause in (0.2, 0.1, 1.2):  # the same one twice is one
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=insist)
    asking.start()
    with heeding(), pytest.raises(Stopped, match="SIGTERM"):
        list(execute(tasks, ONE))
    asking.join()


def test_no_tasks_no_outcomes(tmp_path: Path) -> None:
    assert outcomes([], tmp_path / "log", ONE) == {}
