"""Parts are noted where they lie, in any thread, and only where somebody asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cellseg.models.timing import Noted, drain, part, recorded
from cellseg.models.timing import noted as named


def spin(seconds: float) -> None:
    """Keep a core busy for so long, as this thread's own clock says."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def noted(work: Callable[[], None]) -> dict[tuple[str, ...], Noted]:
    with recorded():
        work()
        return {each.path: each for each in drain()}


def test_nothing_is_noted_unless_asked() -> None:
    with part("tile"):
        pass
    assert drain() == []
    assert part("tile") is part("network")


def test_a_part_says_in_which_it_lies_when_it_began_and_what_it_took() -> None:
    def work() -> None:
        with part("tile", image="a", unit=3), part("network"):
            time.sleep(0.02)
            spin(0.02)

    before = time.time()
    found = noted(work)
    assert list(found) == [("tile", "network"), ("tile",)]
    tile, network = found["tile",], found["tile", "network"]
    assert before - 0.01 <= tile.start <= network.start <= time.time()
    assert 0.04 <= network.seconds <= tile.seconds
    assert 0.02 <= network.core_seconds < network.seconds
    assert tile.about == {"image": "a", "unit": 3}
    assert tile.thread == threading.get_ident()


def test_a_function_is_a_part_wherever_it_is_called() -> None:
    @named("load")
    def load(number: int) -> int:
        return number + 1

    def work() -> None:
        with part("tile"):
            assert load(2) == 3

    assert load(1) == 2
    assert list(noted(work)) == [("tile", "load"), ("tile",)]


def test_what_a_part_raises_is_noted_and_passed_on() -> None:
    def work() -> None:
        with part("tile"), pytest.raises(KeyError), part("read"):
            raise KeyError
        with part("write"):
            pass

    assert list(noted(work)) == [("tile", "read"), ("tile",), ("write",)]


def helped() -> None:
    """Two threads compute, one of which says nothing of it, as torch's."""
    helper = threading.Thread(target=spin, args=(0.05,))
    with part("tile"):
        helper.start()
        spin(0.01)
        helper.join()


def test_threads_that_only_help_count_for_the_part_that_they_help() -> None:
    assert noted(helped)["tile",].core_seconds >= 0.06


def test_of_parts_at_a_time_each_counts_its_own_thread() -> None:
    def beside() -> None:
        with part("beside"):
            spin(0.05)

    def work() -> None:
        thread = threading.Thread(target=beside)
        with part("tile"):
            thread.start()
            spin(0.01)
            thread.join()
        helped()

    with recorded():
        work()
        first, second = sorted(drain(), key=lambda each: each.start)[::2]
    assert first.core_seconds < 0.05
    assert second.core_seconds >= 0.06


def test_threads_that_ask_at_once_share_what_there_is() -> None:
    found: list[Noted] = []

    def work() -> None:
        for _ in range(300):
            with part("tile"):
                pass
            found.extend(drain())

    with recorded(), ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result()
    assert len(found) == 1200


def test_what_was_noted_is_told_once() -> None:
    with recorded():
        with part("tile"):
            pass
        assert len(drain()) == 1
        assert drain() == []
        with part("tile"):
            pass
    assert drain() == []
