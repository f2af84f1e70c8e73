"""The review queue: the most doubtful first, with the reason in words, progress kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellseg.pipeline.review.doubts import KINDS, doubts
from cellseg.pipeline.review.norms import Norms
from cellseg.pipeline.review.queue import Queue


def cells(count: int = 60, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Ordinary cells, with some columns that are not."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "image": "one",
            "plate": "P",
            "label": np.arange(1, count + 1, dtype=np.uint32),
            "area_px": rng.integers(300, 360, count),
            "score": np.full(count, 0.95, np.float32),
            "seam": "interior",
            "overlap_px": 0,
            "touches_edge": False,
            "solidity": rng.normal(0.95, 0.01, count),
            "eccentricity": rng.normal(0.6, 0.05, count),
        }
    )
    return frame.assign(**columns)


def test_each_kind_of_doubt_is_found_and_said() -> None:
    frame = cells()
    frame.loc[0, "score"] = 0.4
    frame.loc[1, "seam"] = "joined"
    frame.loc[2, "area_px"] = 3000
    frame.loc[3, "solidity"] = 0.6
    frame.loc[4, "overlap_px"] = 150
    frame.loc[5, "touches_edge"] = True
    found = doubts(frame).ranked().set_index("label")
    for label, kind, said in (
        (1, "score", "score 0.40"),
        (2, "seam", "put together from pieces"),
        (3, "size", "large for its plate"),
        (4, "shape", "less convex than usual"),
        (5, "overlap", "% under others"),
        (6, "edge", "touches the edge"),
    ):
        assert said in found["reason"].loc[label]
        assert found[kind].loc[label] > 0
    assert (found[found.index > 6][list(KINDS)] == 0).to_numpy().mean() > 0.99
    assert set(found.index[:6]) == {1, 2, 3, 4, 5, 6}
    assert found["doubt"].between(0, 1).all()


def test_what_is_usual_is_learnt_plate_by_plate() -> None:
    small, large = cells(seed=1), cells(seed=2, plate="Q")
    large["area_px"] *= 10
    every = pd.concat([small, large], ignore_index=True)
    assert (doubts(large, Norms.of(every)).ranked()["size"] == 0).all()
    moved = doubts(large.assign(plate="P"), Norms.of(every)).ranked()
    assert (moved["size"] > 0.5).all()


def test_columns_that_are_missing_and_no_cells_are_borne() -> None:
    few = cells()[["image", "plate", "label", "area_px"]]
    assert len(doubts(few)) == len(few)
    assert len(doubts(cells(0))) == 0
    assert doubts(cells(3, plate=None, score=np.nan)).ranked()["doubt"].notna().all()


def test_the_queue_goes_on_to_what_is_open_and_back_to_anything() -> None:
    frame = cells()
    frame.loc[[3, 5, 7], "score"] = [0.2, 0.3, 0.4]
    queue = Queue(doubts(frame))
    queue.filter(least=0.3)
    assert [label for _, label in queue.keys] == [4, 6, 8]
    assert queue.step() == ("one", 4)
    queue.mark(("one", 4), "accept")
    queue.mark(("one", 6), "reject")
    assert queue.step() == ("one", 8)
    assert queue.step() is None
    assert queue.step(-1) == ("one", 6)
    assert queue.done == 2
    queue.filter((), 0.3, open_only=True)
    assert queue.keys == [("one", 8)]
    queue.filter(["score"], 0.0, open_only=False)
    assert len(queue) == 3
