"""Rows of the table: sorted, filtered, found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellseg.models import CellsegError
from cellseg.pipeline.review.rows import Rows


@pytest.fixture
def rows() -> Rows:
    return Rows(
        pd.DataFrame(
            {
                "image": ["a", "a", "b"],
                "label": [1, 2, 1],
                "score": [0.5, np.nan, 0.25],
                "class": [1, 2, 1],
                "overlaps_with": [np.array([2, 3]), np.array([]), np.array([])],
            }
        )
    )


def test_sorted_rows_are_found_by_image_and_label(rows: Rows) -> None:
    rows.sort("score")
    assert [rows.key(place) for place in range(3)] == [("b", 1), ("a", 1), ("a", 2)]
    assert rows.place("a", 2) == 2
    rows.sort("score", ascending=False)
    assert [rows.key(place) for place in range(3)] == [("a", 1), ("b", 1), ("a", 2)]
    assert rows.place("c", 1) is None


def test_conditions_filter_and_a_mistake_is_one_line(rows: Rows) -> None:
    rows.filter("score < 0.6", "`class` == 1", "")
    assert len(rows) == 2
    rows.filter("image == 'a' and label > 1")
    assert rows.key(0) == ("a", 2)
    assert rows.place("a", 1) is None
    for wrong, said in (
        ("scor < 1", "Did you mean score?"),
        ("label +", "no condition"),
        ("label", "neither"),
    ):
        with pytest.raises(CellsegError, match=said) as caught:
            rows.filter(wrong)
        assert "\n" not in str(caught.value)
    assert len(rows) == 1


def test_what_is_shown_is_short_text(rows: Rows) -> None:
    assert rows.text(0, 2) == "0.5"
    assert rows.text(1, 2) == ""
    assert rows.text(0, 4) == "2 3"
    assert rows.numeric() == ["label", "score", "class"]
