"""What is left of a run is foretold with what follows on its tiles, at the pace of its workers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cellseg.pipeline import Config
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run
from cellseg.pipeline.time_left import COSTS, ENDS, Image, Spent, TimeLeft
from engines import demo


def segmented(tiles: int, workers: int, first: float = 1.0) -> TimeLeft:
    """A run of a slide of 100 tiles, so many of which took a second on each worker."""
    left = TimeLeft()
    stages = {"complete": 1.0, "measure": 1.0, "finish": 1.0}
    left.images["slide"] = Image(100.0, 100, 100, stages)
    for number in range(tiles):
        seconds = first if number < workers else 1.0
        left.note(
            "slide", "segment", Spent(seconds, None, seconds, 100, 2000), str(number % workers)
        )
    left.started = time.monotonic() - (tiles - workers + first * workers) / workers
    return left


def later() -> dict[str, float]:
    return {each: COSTS[each].of(200_000, 100.0, 100) for each in ("complete", "measure", "finish")}


def test_nothing_is_foretold_before_a_tile_is_done() -> None:
    assert TimeLeft().seconds() is None
    assert segmented(0, 1).seconds() is None


def test_what_follows_on_the_tiles_is_foreseen() -> None:
    expected = 90 + sum(later().values()) + ENDS
    assert segmented(10, 1).seconds() == pytest.approx(expected, rel=0.01)


def test_workers_share_what_can_be_shared() -> None:
    shared = later()["complete"] / 2 + later()["measure"] / 2 + later()["finish"]
    assert segmented(10, 2).seconds() == pytest.approx(90 / 2 + shared + ENDS, rel=0.01)


def test_the_first_tile_of_a_process_says_nothing_of_the_others() -> None:
    assert segmented(10, 1, first=3.0).seconds() == pytest.approx(
        90 + sum(later().values()) + ENDS, rel=0.01
    )


def test_a_stage_that_is_slower_than_guessed_is_foretold_so_from_then_on() -> None:
    left = segmented(100, 1)
    for _ in range(2):
        spent = 2 * later()["measure"] / 4
        left.note("slide", "measure", Spent(spent, None, spent, 4), "0")
        assert left.started is not None
        left.started -= spent
    # Half of it has taken twice as long, and so will the rest.
    expected = later()["measure"] + later()["complete"] + later()["finish"]
    assert left.seconds() == pytest.approx(expected + ENDS, rel=0.02)


def test_a_run_says_it_with_each_step_and_has_nothing_left_at_its_end(tmp_path: Path) -> None:
    config = Config(device="cpu")
    steps = list(Run(plan(demo(tmp_path, "out", fields=2), config), config).steps())
    told = [step.seconds_left for step in steps]
    assert all(each is not None and each > 0 for each in told)
    assert told[-1] == ENDS
