"""The results folder: the only code that writes there, each file whole or not at all."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.cell_rows import together
from cellseg.pipeline.diameter import Estimated
from cellseg.pipeline.files import append_line
from cellseg.pipeline.files import replace_file as replace_file
from cellseg.pipeline.files import write_json as write_json
from cellseg.pipeline.inside import InsideLabels
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.ngff import Version, group_node
from cellseg.pipeline.pictures import captioned, few_colours
from cellseg.pipeline.place import Place
from cellseg.pipeline.table_files import row_groups, rows_like, write_csv, write_table

KEY, LABELS_KEY, FACTS = "cellseg.key", "cellseg.labels", "cellseg.facts"
Facts = dict[str, Any]
TABLE = "cells"
Decided = Callable[[pa.Table], pa.Array]
"""From some rows of the cell table to a column of truth values; each row's own decides it."""
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
DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
"""What reading a file that is missing, empty or cut off raises."""


@dataclass(frozen=True)
class Results:
    """The folder of one run: ``workflow.toml``, ``run.json``, ``cells.parquet``, ``images/``.

    And ``images.parquet``, ``wells.parquet``, ``controls.parquet`` and ``gates.json``; and
    ``diameter.json``, where the diameter of the cells was estimated.
    """

    folder: Path

    @property
    def cells_path(self) -> Path:
        """The table of all cells."""
        return self.folder / "cells.parquet"

    @property
    def run_path(self) -> Path:
        """What was run, on what, and how it went."""
        return self.folder / "run.json"

    def image(self, name: str) -> ImageResults:
        """Return the part that belongs to one image."""
        return self.at(Place.of_image(name))

    def at(self, place: Place) -> ImageResults:
        """Return the part that belongs to the image of a place."""
        field = self.folder / place.plate / str(place.group) if place.plate else None
        inside = Path(place.inside) if place.inside else None
        return ImageResults(self.folder / place.folder, field, inside, place.ngff)

    def write_workflow(self, toml: str) -> None:
        """Write the resolved workflow."""
        replace_file(
            self.folder / "workflow.toml", lambda path: path.write_text(toml, encoding="utf-8")
        )

    def write_run(self, document: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        write_json(self.run_path, document)

    @property
    def logs_folder(self) -> Path:
        """What each process has noted, see `cellseg.pipeline.logs`."""
        return self.folder / "logs"

    @property
    def profile_path(self) -> Path:
        """The trace of a run that was asked for one, see `cellseg.pipeline.profile`."""
        return self.folder / "profile.json"

    def start_profile(self) -> None:
        """Begin a trace, in place of that of an earlier run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profile_path.with_suffix(".txt").unlink(missing_ok=True)
        self.profile_path.write_text("[\n", encoding="utf-8")

    def append_profile(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Append events to the trace, a line each; viewers need no more than it holds by then."""
        with self.profile_path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(event)},\n" for event in events)

    def end_profile(self, last: Mapping[str, Any], table: str) -> None:
        """End the trace with an event, which makes it whole JSON, and write the table."""
        with self.profile_path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(last)}\n]\n")
        path = self.profile_path.with_suffix(".txt")
        replace_file(path, lambda partial: partial.write_text(f"{table}\n", encoding="utf-8"))

    @property
    def report_path(self) -> Path:
        """The page that shows how it went."""
        return self.folder / "report.html"

    def write_report(self, html: str) -> None:
        """Write ``report.html``."""
        replace_file(self.report_path, lambda path: path.write_text(html, encoding="utf-8"))

    def drop_report(self) -> None:
        """Remove a report of what is no longer so."""
        self.report_path.unlink(missing_ok=True)

    @property
    def differences_path(self) -> Path:
        """Where these cells differ from those of other results."""
        return self.folder / "differences.parquet"

    def read_run(self) -> dict[str, Any]:
        """Return ``run.json``; each of its ``images`` has a name and a state.

        Raises
        ------
        CellsegError
            If it is missing or damaged: this is no results folder.
        """
        try:
            document = json.loads(self.run_path.read_text(encoding="utf-8"))
            _ = [(report["name"], report["state"]) for report in document["images"]]
        except (*DAMAGED, TypeError):
            raise CellsegError(
                f"{self.folder}: no results folder of cellseg: its run.json is missing or damaged."
                " Give the output folder of a run."
            ) from None
        return dict(document)

    @property
    def progress_path(self) -> Path:
        """How far the run is, while it runs."""
        return self.folder / "progress.json"

    def write_progress(self, document: Mapping[str, Any]) -> None:
        """Write how far the run is."""
        write_json(self.progress_path, document)

    def read_progress(self) -> dict[str, Any] | None:
        """Return how far the run is; None if it has not said so yet."""
        try:
            return dict(json.loads(self.progress_path.read_text(encoding="utf-8")))
        except (*DAMAGED, TypeError):
            return None

    def clear_progress(self) -> None:
        """Remove what a run has said of how far it is."""
        self.progress_path.unlink(missing_ok=True)

    @property
    def diameter_path(self) -> Path:
        """The estimated diameter of the cells."""
        return self.folder / "diameter.json"

    def write_diameter(self, key: str, estimated: Estimated) -> None:
        """Write the diameter of the cells, and what it was estimated from."""
        document = {"key": key, "px": estimated.px, "estimated_from": estimated.images}
        write_json(self.diameter_path, document)

    def read_diameter(self, key: str) -> Estimated | None:
        """Return what an earlier run has estimated; None if it has not, or found no cells."""
        try:
            document = json.loads(self.diameter_path.read_text(encoding="utf-8"))
            if document["key"] != key or document["px"] is None:
                return None
            return Estimated(float(document["px"]), tuple(document["estimated_from"]))
        except (*DAMAGED, TypeError):
            return None

    @property
    def gates_path(self) -> Path:
        """What the threshold of each gate came to."""
        return self.folder / "gates.json"

    def write_gates(self, gates: Mapping[str, Any]) -> None:
        """Write what each gate came to; where there is none, remove what an earlier run wrote."""
        if gates:
            write_json(self.gates_path, gates)
        else:
            self.gates_path.unlink(missing_ok=True)

    def write_summary(self, name: str, table: pa.Table | None, csv: bool) -> None:
        """Write a table of images, wells or controls, or remove that of an earlier run.

        Parameters
        ----------
        name : "images", "wells" or "controls"
        table : Table or None
            None where there is nothing to tell.
        csv : bool
            Whether to write it as CSV too.
        """
        path = self.folder / f"{name}.parquet"
        if table is None:
            path.unlink(missing_ok=True)
        else:
            write_table(path, [table], table.schema)
        if table is None or not csv:
            path.with_suffix(".csv").unlink(missing_ok=True)
        else:
            write_csv(path.with_suffix(".csv"), [table], table.schema)

    def write_cells(
        self,
        places: Sequence[Place],
        none: pa.Table,
        csv: bool,
        decided: Mapping[str, Decided] | None = None,
    ) -> int:
        """Gather the tables of some images, in that order, into one; return its rows.

        Images with other channels have other columns: where an image lacks
        one, its cells are null there.

        Parameters
        ----------
        places : sequence of Place
        none : Table
            What to write where there is no image: no rows, all columns.
        csv : bool
            Whether to write ``cells.csv`` too; one of an earlier run goes where not.
        decided : dict, optional
            Columns behind the others, which follow from all cells of the run; see `Decided`.
        """
        paths = [self.at(place).cells_path for place in places]
        schemas = [self.at(place).cells_schema() for place in places]
        schema = pa.unify_schemas(schemas or [none.schema])
        more = decided or {}
        whole = pa.schema([*schema, *((name, pa.bool_()) for name in more)])

        def tables() -> Iterator[pa.Table]:
            # Many small images together: a group of rows for each would take as long to write.
            for table in together(table for path in paths for table in rows_like(path, schema)):
                for name, values in more.items():
                    table = table.append_column(name, values(table))
                yield table

        rows = write_table(self.cells_path, tables(), whole)
        if csv:
            write_csv(self.folder / "cells.csv", tables(), whole)
        else:
            (self.folder / "cells.csv").unlink(missing_ok=True)
        return rows


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
