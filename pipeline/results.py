"""The results folder: the only code that writes there, each file whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances
from cellseg.pipeline.diameter import Estimated
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.stitch import Stitched

KEY = b"cellseg.key"
DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
"""What reading a file that is missing, empty or cut off raises."""


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside `path`, then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def write_json(path: Path, document: object) -> None:
    """Write a JSON document that a person can read."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


@dataclass(frozen=True)
class Results:
    """The folder of one run: ``workflow.toml``, ``run.json``, ``cells.parquet``, ``images/``.

    And ``diameter.json``, where the diameter of the cells was estimated.
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
        return ImageResults(self.folder / "images" / name)

    def write_workflow(self, toml: str) -> None:
        """Write the resolved workflow."""
        replace_file(
            self.folder / "workflow.toml", lambda path: path.write_text(toml, encoding="utf-8")
        )

    def write_run(self, document: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        write_json(self.run_path, document)

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

    def write_cells(self, names: Sequence[str], none: pa.Table, csv: bool) -> int:
        """Gather the tables of the named images, in that order, into one; return its rows.

        Images with other channels have other columns: where an image lacks
        one, its cells are null there.

        Parameters
        ----------
        names : sequence of str
        none : Table
            What to write where there is no image: no rows, all columns.
        csv : bool
            Whether to write ``cells.csv`` too.
        """
        paths = [self.image(name).cells_path for name in names]
        schemas = [pq.read_schema(path).remove_metadata() for path in paths]
        schema = pa.unify_schemas(schemas or [none.schema])
        rows = 0

        def tables() -> Iterable[pa.Table]:
            for path in paths:
                table = pq.read_table(path)
                missing = [field for field in schema if field.name not in table.column_names]
                for field in missing:
                    table = table.append_column(field, pa.nulls(len(table), field.type))
                yield table.select(schema.names).replace_schema_metadata(None)

        def write_parquet(partial: Path) -> None:
            nonlocal rows
            with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
                for table in tables():
                    writer.write_table(table)
                    rows += len(table)

        def write_csv(partial: Path) -> None:
            with pyarrow.csv.CSVWriter(partial, schema) as writer:
                for table in tables():
                    writer.write_table(table)

        replace_file(self.cells_path, write_parquet)
        if csv:
            replace_file(self.folder / "cells.csv", write_csv)
        return rows


@dataclass(frozen=True)
class ImageResults:
    """The folder of one image: ``labels.zarr``, ``cells.parquet``, ``overview.png``.

    And ``tiles/``, until the image is done, and ``stitched.npz``, the decisions on its cells.
    What depends on input and workflow carries their key; what carries another
    key is as good as not there.
    """

    folder: Path

    @property
    def labels(self) -> LabelStore:
        """The label image."""
        return LabelStore(self.folder / "labels.zarr")

    @property
    def cells_path(self) -> Path:
        """The table of this image's cells."""
        return self.folder / "cells.parquet"

    @property
    def overview_path(self) -> Path:
        """The picture with outlines."""
        return self.folder / "overview.png"

    def clear(self) -> None:
        """Remove everything of this image, first what would make the rest count as complete."""
        self.cells_path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tile_path(self, key: str, index: int) -> Path:
        return self.folder / "tiles" / key / f"{index:07d}.npz"

    def clear_tiles(self, but: str | None = None) -> None:
        """Remove the tile files, except those of the key `but`."""
        tiles = self.folder / "tiles"
        for folder in tiles.iterdir() if tiles.is_dir() else ():
            if folder.name != but:
                shutil.rmtree(folder)
        if but is None and tiles.is_dir():
            tiles.rmdir()

    def tiles_done(self, key: str) -> set[int]:
        """Return the numbers of the tiles that are segmented."""
        return {int(path.stem) for path in (self.folder / "tiles" / key).glob("*.npz")}

    def write_tile(self, key: str, index: int, found: Instances) -> None:
        """Write what was found in one tile."""
        _write_arrays(self._tile_path(key, index), found.to_arrays())

    def read_tile(self, key: str, index: int) -> Instances:
        """Return what was found in one tile.

        Raises
        ------
        CellsegError
            If the file is damaged; it is removed, so that the next run makes it anew.
        """
        path = self._tile_path(key, index)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Instances.from_arrays(arrays)
        except DAMAGED as error:
            path.unlink(missing_ok=True)
            raise CellsegError(f"{path}: damaged ({error}), removed. Run again.") from error

    def write_stitched(self, key: str, planes: Sequence[Stitched]) -> None:
        """Write the cells of all planes, one array for each of their fields."""
        arrays: dict[str, NDArray[Any]] = {"key": np.array(key)}
        for field in fields(Stitched):
            if field.name != "extra":
                parts = [getattr(plane, field.name) for plane in planes]
                arrays[field.name] = np.concatenate(parts)
        arrays["cells"] = np.array([len(plane) for plane in planes])
        arrays["extras"] = np.array([len(plane.extra) for plane in planes])
        extra = Instances.concatenate([plane.extra for plane in planes])
        arrays |= {f"extra_{name}": values for name, values in extra.to_arrays().items()}
        _write_arrays(self.folder / "stitched.npz", arrays)

    def stitched_done(self, key: str) -> bool:
        """Whether the cells are decided."""
        try:
            with np.load(self.folder / "stitched.npz", allow_pickle=False) as arrays:
                return str(arrays["key"]) == key
        except DAMAGED:
            return False

    def drop_stitched(self) -> None:
        """Forget the decisions: they name objects by their number in tiles that are no more."""
        (self.folder / "stitched.npz").unlink(missing_ok=True)

    def read_stitched(self, key: str) -> list[Stitched] | None:
        """Return the cells of each plane, or None if they are not decided yet."""
        path = self.folder / "stitched.npz"
        if not self.stitched_done(key):
            return None
        with np.load(path, allow_pickle=False) as arrays:
            packed = ("boxes", "scores", "classes", "bits")
            extra = Instances.from_arrays({name: arrays[f"extra_{name}"] for name in packed})
            names = tuple(f.name for f in fields(Stitched) if f.name != "extra")
            ends = np.cumsum(arrays["cells"])[:-1]
            parts = {name: np.split(arrays[name], ends) for name in names}
            extras = np.split(np.arange(len(extra)), np.cumsum(arrays["extras"])[:-1])
        return [
            Stitched(**{name: parts[name][i] for name in names}, extra=extra.take(mine))
            for i, mine in enumerate(extras)
        ]

    def write_cells(self, key: str, table: pa.Table) -> None:
        """Write the table of this image's cells."""
        table = table.replace_schema_metadata({KEY: key.encode()})
        replace_file(self.cells_path, lambda path: pq.write_table(table, path, compression="zstd"))

    def cells_done(self, key: str) -> bool:
        """Whether the table is there."""
        try:
            metadata = pq.read_schema(self.cells_path).metadata or {}
        except (OSError, pa.ArrowInvalid):
            return False
        return bool(metadata.get(KEY) == key.encode())

    def count_cells(self) -> int:
        """Return the number of rows in the table."""
        return int(pq.read_metadata(self.cells_path).num_rows)

    def write_overview(self, picture: NDArray[np.uint8]) -> None:
        """Write the picture (H, W, 3)."""
        from PIL import Image

        image = Image.fromarray(picture)
        replace_file(self.overview_path, lambda path: image.save(path, format="PNG"))


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    replace_file(path, write)
