"""The rows of the cell table, image by image, some thousand at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Span = tuple[int, int, int]
"""A row group, and the first and last (half open) of its rows."""
TOGETHER = 2**12
"""Rows of small images that are a group of rows together: a group for each takes long to write, and
what reads one image, or a sample spread over a run, reads whole groups."""


@dataclass(frozen=True)
class CellRows:
    """The rows of one image, in the order of the labels.

    Parameters
    ----------
    path : Path
        A Parquet file.
    spans : sequence of Span
        Where the rows are in it.
    """

    path: Path
    spans: Sequence[Span]

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self.spans)

    @cached_property
    def schema(self) -> pa.Schema:
        """Its columns."""
        return pq.read_schema(self.path).remove_metadata()

    def tables(self, length: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield some columns or all, at most `length` rows at a time."""
        with pq.ParquetFile(self.path) as file:
            for group, start, stop in self.spans:
                rows = file.read_row_group(group, columns=columns).slice(start, stop - start)
                rows = rows.select(columns or rows.column_names).replace_schema_metadata(None)
                for first in range(0, len(rows), length):
                    yield rows.slice(first, length)


def rows_of_file(path: Path) -> CellRows:
    """Return all rows of a table."""
    found = pq.read_metadata(path)
    lengths = [found.row_group(group).num_rows for group in range(found.num_row_groups)]
    return CellRows(path, [(group, 0, length) for group, length in enumerate(lengths)])


def rows_by_image(path: Path) -> dict[str, CellRows]:
    """Return the rows of each image in the table of all cells."""
    spans: dict[str, list[Span]] = {}
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            names = file.read_row_group(group, columns=["image"])["image"]
            codes = names.combine_chunks().dictionary_encode()
            numbers = codes.indices.to_numpy()
            edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
            for start, stop in pairwise(edges):
                if stop > start:
                    name = codes.dictionary[int(numbers[start])].as_py()
                    spans.setdefault(name, []).append((group, start, stop))
    return {name: CellRows(path, found) for name, found in spans.items()}


def of_length(tables: Iterable[pa.Table], length: int) -> Iterator[pa.Table]:
    """Yield the same rows, `length` at a time but for the last."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        while sum(map(len, held)) >= length:
            joined = pa.concat_tables(held)
            yield joined.slice(0, length)
            held = [joined.slice(length)]
    if sum(map(len, held)):
        yield pa.concat_tables(held)


def together(tables: Iterable[pa.Table], least: int = TOGETHER) -> Iterator[pa.Table]:
    """Yield the same rows, tables of few rows joined until they have `least`."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        if rows >= least:
            yield pa.concat_tables(held)
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held)


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return some rows with all columns of a schema, in its order; null where they lack one."""
    there = table.column_names
    if there == schema.names:
        return table
    for field in schema:
        if field.name not in there:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names)
