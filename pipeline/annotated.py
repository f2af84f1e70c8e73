"""AnnData on disk, written some thousand cells at a time: measurements, and what describes cells.

Source: https://anndata.readthedocs.io/en/stable/fileformat-prose.html. HDF5 files and zarr groups
hold the same groups and arrays, so one writer serves both; see `Store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellseg.pipeline.cell_columns import Measurement, measurements
from cellseg.pipeline.cell_rows import of_length, with_columns
from cellseg.pipeline.exported import ExportedImage
from cellseg.pipeline.table_files import plain

ROWS = 2**14
"""Cells that are written together, and lie together on disk."""
TEXT = "text"
"""The type of an array of words."""
INDEX = "_index"
ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
WORDS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}
WORD = {"encoding-type": "string", "encoding-version": "0.2.0"}
GROUP = {"encoding-type": "dict", "encoding-version": "0.1.0"}
FRAME = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": INDEX}
ANNDATA = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
CATEGORIES = {"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False}
NULLABLE = {"encoding-version": "0.1.0"}


class Store(Protocol):
    """What holds groups and arrays by their path."""

    def group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Make a group."""

    def array(
        self, path: str, shape: tuple[int, ...], dtype: Any, attributes: Mapping[str, Any]
    ) -> Any:
        """Make an array, of a numpy dtype or of `TEXT`; values are assigned to its slices."""


@dataclass
class Column:
    """A column of ``obs`` as a first reading of the table finds it.

    Parameters
    ----------
    name : str
    kind : DataType
    nulls : int
    words : dict
        The different words of one with few of them, and their codes.
    """

    name: str
    kind: pa.DataType
    nulls: int = 0
    words: dict[str, int] = field(default_factory=dict)

    @property
    def categorical(self) -> bool:
        """Whether it is written as codes of few words; a list of labels is not."""
        return bool(pa.types.is_string(self.kind))


@dataclass
class Found:
    """What a first reading of the table finds.

    Parameters
    ----------
    count : int
        Cells.
    columns : list of Column
        Of ``obs``; those without any value are left out.
    measured : list of Measurement
        Of ``X``; as well.
    spatial : tuple of str
        The columns of a cell's x and y, in um where they are known for all cells.
    """

    count: int
    columns: list[Column]
    measured: list[Measurement]
    spatial: tuple[str, str]

    @property
    def unit(self) -> str:
        """Of `spatial`."""
        return self.spatial[0].rpartition("_")[2]


Words = Callable[[pa.Table], Mapping[str, Sequence[str]]]
"""Gives the words of columns beside those of the table, for some of its rows."""


def rows_of(images: Iterable[ExportedImage], schema: pa.Schema, length: int) -> Iterator[pa.Table]:
    """Yield the rows of images, with all columns of a schema, at most `length` at a time."""
    for image in images:
        for table in image.rows.tables(length):
            yield with_columns(table, schema)


def survey(images: Sequence[ExportedImage]) -> tuple[pa.Schema, Found]:
    """Read the table once, for what must be known before it is written."""
    schema = pa.unify_schemas([image.rows.schema for image in images])
    measured = measurements(schema, {channel for image in images for channel in image.channels})
    names = {each.name for each in measured} - {"score"}
    columns = [Column(f.name, f.type) for f in schema if f.name not in names]
    nulls, count = dict.fromkeys(schema.names, 0), 0
    for table in rows_of(images, schema, ROWS):
        count += len(table)
        for name in schema.names:
            nulls[name] += table[name].null_count
        for column in columns:
            if column.categorical:
                column.words |= dict.fromkeys(pc.unique(table[column.name].drop_null()).to_pylist())
    for column in columns:
        column.nulls = nulls[column.name]
        column.words = {word: code for code, word in enumerate(sorted(column.words))}
    known = {name for name in schema.names if nulls[name] < count or not count}
    located = not count or not nulls["x_um"]
    return schema, Found(
        count,
        [column for column in columns if column.name in known],
        [each for each in measured if each.name in known],
        ("x_um", "y_um") if located and count else ("x_px", "y_px"),
    )


class Writer:
    """Writes an AnnData object.

    Parameters
    ----------
    store : Store
    found : Found
    extra : mapping
        Columns of words beside those of the table, and the different words of each.
    attributes : mapping
        Of the group itself, beside those of AnnData.
    """

    def __init__(
        self,
        store: Store,
        found: Found,
        extra: Mapping[str, Sequence[str]] = MappingProxyType({}),
        attributes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.store = store
        self.found = found
        self.extra = {name: {w: n for n, w in enumerate(words)} for name, words in extra.items()}
        self.rows = 0
        store.group("", {**ANNDATA, **attributes})
        for name in ("layers", "obsm", "obsp", "varm", "varp"):
            store.group(name, GROUP)
        self.values = store.array("X", (found.count, len(found.measured)), np.float32, ARRAY)
        self.spatial = store.array("obsm/spatial", (found.count, 2), np.float64, ARRAY)
        self._start_columns()
        self._write_measurements()

    def _start_columns(self) -> None:
        """Make the arrays of ``obs``."""
        order = [*self.extra, *(column.name for column in self.found.columns)]
        self.store.group("obs", FRAME | {"column-order": np.array(order, object)})
        self.columns: dict[str, Any] = {INDEX: self._column(f"obs/{INDEX}", TEXT)}
        for name, words in self.extra.items():
            self.columns[name] = self._start_words(f"obs/{name}", words)
        for column in self.found.columns:
            self.columns[column.name] = self._start(f"obs/{column.name}", column)

    def _column(self, path: str, dtype: Any) -> Any:
        return self.store.array(path, (self.found.count,), dtype, WORDS if dtype is TEXT else ARRAY)

    def _start(self, path: str, column: Column) -> Any:
        """Make the array, or arrays, of a column."""
        if column.categorical:
            return self._start_words(path, column.words)
        if pa.types.is_list(column.kind):
            return self._column(path, TEXT)
        dtype = np.dtype(column.kind.to_pandas_dtype())
        if not column.nulls or dtype.kind == "f":
            return self._column(path, dtype)
        kind = "boolean" if dtype.kind == "b" else "integer"
        self.store.group(path, NULLABLE | {"encoding-type": f"nullable-{kind}"})
        return self._column(f"{path}/values", dtype), self._column(f"{path}/mask", np.bool_)

    def _start_words(self, path: str, words: Mapping[str, int]) -> Any:
        self.store.group(path, CATEGORIES)
        self.write_words(f"{path}/categories", list(words))
        return self._column(f"{path}/codes", np.int32)

    def write_words(self, path: str, words: Sequence[str]) -> None:
        """Write an array of words."""
        array = self.store.array(path, (len(words),), TEXT, WORDS)
        if words:
            array[:] = np.array(words, object)

    def write_notes(self, path: str, notes: Mapping[str, Any]) -> None:
        """Write words, lists of words and groups of them under ``uns``."""
        self.store.group(path, GROUP)
        for name, value in notes.items():
            if isinstance(value, Mapping):
                self.write_notes(f"{path}/{name}", value)
            elif isinstance(value, str):
                self.store.array(f"{path}/{name}", (), TEXT, WORD)[()] = value
            else:
                self.write_words(f"{path}/{name}", value)

    def _write_measurements(self) -> None:
        """Write ``var``: a row for each measurement, with its unit and channel."""
        columns = {
            INDEX: [each.name for each in self.found.measured],
            "unit": [each.unit for each in self.found.measured],
            "channel": [each.channel for each in self.found.measured],
        }
        self.store.group("var", FRAME | {"column-order": np.array(["unit", "channel"], object)})
        for name, words in columns.items():
            self.write_words(f"var/{name}", words)

    def add(
        self, table: pa.Table, extra: Mapping[str, Sequence[str]], shift: NDArray[np.float64]
    ) -> None:
        """Write the next cells.

        Parameters
        ----------
        table : Table
        extra : mapping
            The words of the columns beside those of the table.
        shift : float64 (N, 2) or (1, 2)
            Added to x and y.
        """
        rows = slice(self.rows, self.rows + len(table))
        self.rows += len(table)
        if self.found.measured:
            names = [each.name for each in self.found.measured]
            self.values[rows] = np.stack([numbers(table[name]) for name in names], axis=1).astype(
                np.float32
            )
        self.spatial[rows] = np.stack([numbers(table[n]) for n in self.found.spatial], 1) + shift
        labels = pc.cast(table["label"], pa.string())
        whole = pc.binary_join_element_wise(table["image"], labels, "/")
        self.columns[INDEX][rows] = whole.to_numpy()
        for name, words in extra.items():
            self.columns[name][rows] = np.array([self.extra[name][w] for w in words], np.int32)
        for column in self.found.columns:
            self._add(column, table[column.name], rows)

    def _add(self, column: Column, values: pa.ChunkedArray, rows: slice) -> None:
        """Write the next values of a column."""
        arrays = self.columns[column.name]
        if column.categorical:
            words = [column.words.get(word, -1) for word in values.to_pylist()]
            arrays[rows] = np.array(words, np.int32)
        elif pa.types.is_list(column.kind):
            arrays[rows] = plain(pa.table({"": values}))[""].to_numpy()
        elif isinstance(arrays, tuple):
            empty = False if pa.types.is_boolean(column.kind) else 0
            arrays[0][rows] = values.fill_null(empty).to_numpy()
            arrays[1][rows] = values.is_null().to_numpy()
        else:
            arrays[rows] = values.to_numpy()


def numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return numbers, those that are unknown as NaN."""
    found: NDArray[np.float64] = pc.cast(values, pa.float64()).fill_null(np.nan).to_numpy()
    return found


def write_cells(
    writer: Writer,
    images: Sequence[ExportedImage],
    schema: pa.Schema,
    extra: Words = lambda _: {},
    shift: Callable[[pa.Table], NDArray[np.float64]] = lambda _: np.zeros((1, 2)),
) -> Iterator[str]:
    """Write all cells, see `Writer.add`; yield the name of each image."""
    ends, done = np.cumsum([len(image.rows) for image in images]).tolist(), 0
    for table in of_length(rows_of(images, schema, ROWS), ROWS):
        writer.add(table, extra(table), shift(table))
        while done < len(ends) and ends[done] <= writer.rows:
            yield images[done].name
            done += 1
    yield from (image.name for image in images[done:])
