"""The folder of a run: what is written of all its images together, each file whole or not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cellseg.models.errors import CellsegError
from cellseg.pipeline.cell_rows import together
from cellseg.pipeline.diameter import Estimated
from cellseg.pipeline.files import DAMAGED, replace_file, write_json
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.place import Place
from cellseg.pipeline.table_files import rows_like, write_csv, write_table

Decided = Callable[[pa.Table], pa.Array]
"""From some rows of the cell table to a column of truth values; each row's own decides it."""


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
