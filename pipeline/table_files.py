"""Tables as files: Parquet and CSV, whole or not there, read group by group of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from cellseg.pipeline.cell_rows import with_columns
from cellseg.pipeline.files import replace_file


def write_table(path: Path, tables: Iterable[pa.Table], schema: pa.Schema, writer: str = "") -> int:
    """Write tables one after the other as a Parquet file; return its rows.

    See `replace_file` for `writer`.
    """
    rows = 0

    def write(partial: Path) -> None:
        nonlocal rows
        # Through Python's own file, whose errors say which one they are.
        with partial.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as out:
            for table in tables:
                out.write_table(table.cast(schema))
                rows += len(table)

    replace_file(path, write, writer)
    return rows


def write_csv(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables one after the other as a CSV file, lists as text."""

    def write(partial: Path) -> None:
        text = plain(schema.empty_table()).schema
        with partial.open("wb") as file, pyarrow.csv.CSVWriter(file, text) as out:
            for table in tables:
                out.write_table(plain(table))

    replace_file(path, write)


def plain(table: pa.Table) -> pa.Table:
    """Return a table with each list as text, its items with spaces between."""
    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            items = pc.cast(table[field.name], pa.list_(pa.string()))
            table = table.set_column(place, field.name, pc.binary_join(items, " "))
    return table


def rows_like(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of an image with all columns of a schema."""
    for table in row_groups(path):
        yield with_columns(table, schema).cast(schema)


def row_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield a Parquet file's rows, group by group; of some columns those that there are."""
    with pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
        wanted = None if columns is None else [name for name in columns if name in there]
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=wanted)


def group_rows(path: Path) -> list[int]:
    """Return the number of rows in each row group of a Parquet file."""
    metadata = pq.read_metadata(path)
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def batches(
    path: Path, columns: Sequence[str], groups: Sequence[int] | None = None, length: int = 2**16
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of some row groups, by default all, `length` rows at a time."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(length, row_groups=groups, columns=list(columns))


def read_table(path: Path) -> pa.Table | None:
    """Return a small table that may be missing: None then."""
    return pq.read_table(path) if path.is_file() else None


def read_columns(path: Path) -> pa.Schema:
    """Return the columns of a table."""
    return pq.read_schema(path)
