"""The queue shows first where another model sees other cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cellseg.pipeline.differences import SCHEMA, Differences
from cellseg.pipeline.results import Results
from cellseg.pipeline.review.differing import DIFFERS, with_differences
from cellseg.pipeline.review.doubts import doubts


def cells() -> pd.DataFrame:
    """Six cells in a row, of an image that is not the first."""
    count = np.arange(1, 7)
    return pd.DataFrame(
        {"image": "a", "label": count, "t": 0, "z": 0, "y_px": 5.0, "x_px": 10.0 * count}
        | {"plate": None, "area_px": 50, "score": 0.95},
        index=count + 100,
    )


def test_each_difference_is_told_by_a_cell(tmp_path: Path) -> None:
    assert with_differences(cells(), tmp_path).equals(cells())
    rows = [
        {"kind": "split", "label_a": 1, "label_b": 2, "others": "3", "x_px": 25.0},
        {"kind": "outline", "label_a": 4, "label_b": 4, "x_px": 40.0},
        {"kind": "only_b", "label_b": 5, "x_px": 50.0},
        {"kind": "only_a", "label_a": 9, "x_px": 63.0},
        {"kind": "only_b", "label_b": 99, "x_px": 50.0},
    ]
    about = {"image": "a", "t": 0, "z": 0, "y_px": 9.0}
    table = pa.Table.from_pylist([about | row for row in rows], schema=SCHEMA)
    Differences(table, 1).write(Results(tmp_path).differences_path)
    found = with_differences(cells(), tmp_path)
    assert found[DIFFERS].tolist() == [
        "",
        "a piece of what was one cell",
        "a piece of what was one cell",
        "had another outline",
        "was no cell before",
        "a cell 5 px from here is gone",
    ]
    ranked = doubts(found).ranked()
    assert set(ranked["label"][:5]) == {2, 3, 4, 5, 6}
    assert ranked["reason"].iloc[0] in found[DIFFERS].tolist()
    assert ranked["differs"].iloc[-1] == 0
