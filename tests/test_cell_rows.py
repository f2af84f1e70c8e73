"""Rows of a table, cut and joined: the same rows in the same order."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cellseg.pipeline.cell_rows import of_length, together, with_columns


def tables(lengths: list[int]) -> list[pa.Table]:
    """Tables of so many rows, numbered through."""
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    spans = zip([0, *ends], ends, strict=False)
    return [pa.table({"label": pa.array(range(*span), pa.int64())}) for span in spans]


def rows(found: list[pa.Table]) -> list[int]:
    return [label for table in found for label in table["label"].to_pylist()]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 10))
def test_small_tables_are_joined_and_large_ones_stay_whole(lengths: list[int], least: int) -> None:
    found = list(together(tables(lengths), least))
    assert rows(found) == list(range(sum(lengths)))
    assert all(len(table) >= least for table in found[:-1])
    assert all(len(table) < least + max(lengths) for table in found)


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 10))
def test_tables_are_cut_to_a_length(lengths: list[int], length: int) -> None:
    found = list(of_length(tables(lengths), length))
    assert rows(found) == list(range(sum(lengths)))
    assert all(len(table) == length for table in found[:-1])


def test_a_column_that_is_missing_is_null() -> None:
    schema = pa.schema([("well", pa.string()), ("label", pa.int64())])
    (table,) = tables([2])
    found = with_columns(table, schema)
    assert found.schema == schema
    assert found["well"].to_pylist() == [None, None]
    assert with_columns(found, schema) is found
