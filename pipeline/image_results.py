"""The folder of one image in the results: its labels, table, picture and edits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellseg.pipeline.files import DAMAGED, append_line, replace_file, write_json
from cellseg.pipeline.inside import InsideLabels
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.ngff import Version, group_node
from cellseg.pipeline.pictures import captioned, few_colours
from cellseg.pipeline.table_files import row_groups, write_table

KEY, LABELS_KEY, FACTS = "cellseg.key", "cellseg.labels", "cellseg.facts"
Facts = dict[str, Any]
TABLE = "cells"
FEATURES: dict[str, Any] = {
    "type": "feature_table",
    "table_version": "1",
    "backend": "parquet",
    "region": {"path": "../labels/cells"},
    "instance_key": "label",
    "index_key": "label",
    "index_type": "int",
}
"""What ngio's table specification 1 wants of a table of labels."""


@dataclass(frozen=True)
class ImageResults:
    """The folder of one image: ``labels.zarr``, ``cells.parquet``, ``overview.png``.

    And ``work/``, until the image is done: see `cellseg.pipeline.unfinished`. What
    depends on input and workflow carries their key; what carries another key is as
    good as not there.

    Parameters
    ----------
    folder : Path
        The folder.
    field : Path, optional
        The field of an OME-Zarr plate that takes labels and table, in its groups ``labels``
        and ``tables``; the picture is then in ``overviews`` beside the plate.
    inside : Path, optional
        The input image whose own group takes the labels.
    ngff : "0.4" or "0.5"
        Version of OME-Zarr that the labels are written in.
    """

    folder: Path
    field: Path | None = None
    inside: Path | None = None
    ngff: Version = "0.5"

    @property
    def labels(self) -> LabelStore:
        """The label images."""
        partial = self.folder / "labels.partial"
        if self.inside is not None:
            return InsideLabels(self.inside / "labels", partial, self.ngff)
        if self.field is not None:
            return LabelStore(self.field / "labels", partial)
        return LabelStore(self.folder / "labels.zarr")

    @property
    def cells_path(self) -> Path:
        """The table of this image's cells."""
        if self.field is not None:
            return self.field / "tables" / TABLE / "table.parquet"
        return self.folder / "cells.parquet"

    @property
    def overview_path(self) -> Path:
        """The picture with outlines."""
        if self.field is not None:
            return self.folder.parent.parent / "overviews" / f"{self.folder.name}.png"
        return self.folder / "overview.png"

    @property
    def edits_path(self) -> Path:
        """The log of this image's corrections; of a field it lies in ``edits`` beside the plate."""
        if self.field is not None:
            return self.folder.parent.parent / "edits" / f"{self.folder.name}.jsonl"
        return self.folder / "edits.jsonl"

    def append_edits(self, line: str) -> int:
        """Append a line to the log, behind its last whole one; return its bytes then."""
        return append_line(self.edits_path, line)

    def retire_edits(self) -> Path | None:
        """Keep a log whose labels are gone under another name; return it, None if there is none."""
        path = self.edits_path
        if not path.is_file():
            return None
        names = (path.with_name(f"{path.stem}.{number}.jsonl") for number in count(1))
        kept = next(name for name in names if not name.exists())
        path.rename(kept)
        return kept

    def clear(self) -> None:
        """Remove everything of this image, first what would make the rest count as complete.

        A log of corrections is kept, under another name.
        """
        self.cells_path.unlink(missing_ok=True)
        self.overview_path.unlink(missing_ok=True)
        self.retire_edits()
        if self.field is not None:
            shutil.rmtree(self.field, ignore_errors=True)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix != self.edits_path.suffix:
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the folder of a field that is done: nothing of it is left there."""
        if self.field is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # others are not done yet
                self.folder.parent.rmdir()

    def image_key(self) -> str | None:
        """Return the key that the image in a field was written with; None if there is none."""
        try:
            node = json.loads((self.field / "zarr.json").read_text("utf-8")) if self.field else {}
            return str(node["attributes"]["cellseg"]["key"])
        except (*DAMAGED, TypeError):
            return None

    def write_cells(
        self, key: str, labels: str, tables: Iterable[pa.Table], schema: pa.Schema, facts: Facts
    ) -> None:
        """Write the table of this image's cells.

        Parameters
        ----------
        key, labels : str
            Of the table and of the labels that it was measured on.
        tables : iterable of Table
            The rows, in order.
        schema : Schema
        facts : dict
            What else is known of the image; JSON.
        """
        metadata = {KEY: key, LABELS_KEY: labels, FACTS: json.dumps(facts)}
        path = self.cells_path
        if self.field is None:
            write_table(path, tables, schema.with_metadata(metadata))
            return
        whole, partial = self.field / "tables", self.folder / "tables.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write_json(partial / "zarr.json", group_node({}, tables=[TABLE]))
        write_json(partial / TABLE / "zarr.json", group_node({}, **FEATURES))
        write_table(partial / path.relative_to(whole), tables, schema.with_metadata(metadata))
        (whole / "zarr.json").unlink(missing_ok=True)
        shutil.rmtree(whole, ignore_errors=True)
        whole.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(whole)

    def _metadata(self) -> dict[bytes, bytes]:
        try:
            return dict(pq.read_schema(self.cells_path).metadata or {})
        except (OSError, pa.ArrowInvalid):
            return {}

    def cells_done(self, key: str) -> bool:
        """Whether the table is there."""
        return self._metadata().get(KEY.encode()) == key.encode()

    def measured_on(self, labels: str) -> bool:
        """Whether there is a table of the cells of these labels, if perhaps with other columns."""
        return self._metadata().get(LABELS_KEY.encode()) == labels.encode()

    def facts(self) -> Facts:
        """Return what was written with the table."""
        return dict(json.loads(self._metadata()[FACTS.encode()]))

    def facts_or_none(self) -> Facts:
        """Return what was written with the table; nothing where there is none."""
        return self.facts() if FACTS.encode() in self._metadata() else {}

    @property
    def cells_columns(self) -> tuple[str, ...]:
        """Names of the table's columns; none where there is no table."""
        return tuple(pq.read_schema(self.cells_path).names) if self.cells_path.is_file() else ()

    def count_cells(self) -> int:
        """Return the number of rows in the table."""
        return int(pq.read_metadata(self.cells_path).num_rows)

    def cells_schema(self) -> pa.Schema:
        """Return the columns of the table, and their types."""
        return pq.read_schema(self.cells_path).remove_metadata()

    def cell_groups(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield some columns of the table, group by group of its rows; those that there are."""
        yield from row_groups(self.cells_path, columns)

    def cell_rows(self, columns: Sequence[str], length: int) -> Iterator[pa.Table]:
        """Yield some columns of the table, `length` rows at a time."""
        with pq.ParquetFile(self.cells_path) as file:
            for batch in file.iter_batches(length, columns=list(columns)):
                yield pa.Table.from_batches([batch])

    def rows_of(self, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        """Return some columns of the rows with labels from `first` to before `last`, ascending.

        No rows where there is no table.
        """
        if not self.cells_path.is_file():
            return pa.table({name: [] for name in columns})
        wanted = [("label", ">=", first), ("label", "<", last)]
        return pq.read_table(self.cells_path, columns=list(columns), filters=wanted)

    def highest_label(self) -> int:
        """Return the highest label of the table; 0 where it is empty, or there is none."""
        if not self.cells_path.is_file():
            return 0
        parts = (rows["label"].to_numpy() for rows in self.cell_rows(("label",), 2**16))
        return max((int(labels.max(initial=0)) for labels in parts), default=0)

    def write_overview(self, picture: NDArray[np.uint8], caption: str) -> None:
        """Write the picture (H, W, 3), and a line or more of text under it."""
        image = few_colours(captioned(picture, caption))
        # A third of the time of the usual 6, and no larger a file.
        about: dict[str, Any] = {"format": "PNG", "compress_level": 1}
        replace_file(self.overview_path, lambda path: image.save(path, **about))
