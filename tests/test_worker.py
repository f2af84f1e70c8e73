"""What a process has cores for is done side by side, and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cellseg.models.timing import drain, part, recorded
from cellseg.pipeline import worker
from cellseg.pipeline.faults import attempt
from cellseg.pipeline.worker import at_work, has_in_hand, side_by_side


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    yield
    has_in_hand(1)


class Crowd:
    """Counts who is in it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, item: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        return item**2


@pytest.mark.parametrize(
    ("tiles", "threads", "items", "most"), [(1, 1, 9, 1), (2, 1, 9, 2), (1, 3, 9, 3), (4, 2, 3, 3)]
)
def test_idle_cores_help_out(tiles: int, threads: int, items: int, most: int) -> None:
    has_in_hand(tiles, threads)
    crowd = Crowd()
    with at_work():
        assert side_by_side(crowd, range(items)) == [item**2 for item in range(items)]
    assert crowd.most == most


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 2)])
def test_a_task_of_an_engine_counts_itself(threads: int, most: int) -> None:
    has_in_hand(threads)
    crowd = Crowd()
    answer = attempt(lambda: side_by_side(crowd, range(6)))
    assert answer.failure is None
    assert crowd.most == most


def test_of_tasks_at_work_none_takes_a_core_of_another_one() -> None:
    has_in_hand(3)
    crowd, meet = Crowd(), threading.Barrier(2)

    def task() -> None:
        with at_work():
            meet.wait()
            side_by_side(crowd, range(12))
            meet.wait()

    tasks = [threading.Thread(target=task) for _ in range(2)]
    for each in tasks:
        each.start()
    for each in tasks:
        each.join()
    assert crowd.most == 3


def test_nested_work_ends_and_cores_come_back() -> None:
    has_in_hand(2)
    for _ in range(3):
        with at_work():
            found = side_by_side(lambda n: sum(side_by_side(abs, range(n))), range(5))
        assert found == [0, 0, 1, 3, 6]
    crowd = Crowd()
    with at_work():
        side_by_side(crowd, range(8))
    assert crowd.most == 2


def test_the_first_error_is_raised_and_nothing_more_is_begun() -> None:
    has_in_hand(2)
    begun = []

    def fail(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)
        raise ValueError(str(item))

    with at_work(), pytest.raises(ValueError, match="0"):
        side_by_side(fail, range(50))
    assert len(begun) <= 2
    assert side_by_side(abs, []) == []


def test_who_helps_is_counted_to_the_part_that_it_helps() -> None:
    has_in_hand(2)
    meet = threading.Barrier(2)

    def meeting(_: int) -> None:
        with part("inner"):
            meet.wait(10)

    with recorded(), at_work():
        with part("outer"), part("stage"):
            side_by_side(meeting, range(2))
        found = drain()
    paths = sorted(each.path for each in found)
    inner = ("outer", "stage", "inner")
    assert paths == sorted([("outer",), ("outer", "stage"), ("outer", "stage"), inner, inner])
    assert worker.tiles() == 2
