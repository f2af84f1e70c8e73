"""What the stages of one image hand to each other: one file for each unit of work.

A file is there whole or not at all, so what is there is done: a run that was
killed goes on behind it. Each lies under the key of all that it follows from, and
all of them go when the image is done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from cellseg.models import CellsegError
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.cells import TYPES, Cells
from cellseg.pipeline.decided import Decided
from cellseg.pipeline.files import DAMAGED, own_name, replace_file, write_json
from cellseg.pipeline.keys import Keys
from cellseg.pipeline.link_rules import Shares
from cellseg.pipeline.order import on_plane
from cellseg.pipeline.overlaps import Overlaps, Shared
from cellseg.pipeline.scan import Scan
from cellseg.pipeline.stitch import extent_of
from cellseg.pipeline.table_files import write_table
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.track import Tracks, arrays_of
from cellseg.pipeline.volumes import Volumes

ARRAYS, TABLE, NOTHING, DONE = ".safetensors", ".parquet", ".background", ".done"
"""How files end: arrays; rows of cells; of no content, a tile without anything in it, and a unit
whose outcome lies elsewhere."""
OF_IMAGE = ("segment", "frame", "copy")
"""Stages whose outcome follows from the image and what is found in it alone."""
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Unfinished:
    """The working folder of an image.

    Parameters
    ----------
    folder : Path
        The image's folder in the results.
    keys : Keys
        What identifies the outcome of each stage.
    """

    folder: Path
    keys: Keys

    @property
    def _work(self) -> Path:
        return self.folder / "work"

    def _home(self, stage: str) -> Path:
        own = {"measure": self.keys.cells, **dict.fromkeys(OF_IMAGE, self.keys.tiles)}
        return self._work / stage / own.get(stage, self.keys.labels)

    def _path(self, stage: str, unit: int, suffix: str = ARRAYS) -> Path:
        return self._home(stage) / f"{unit:07d}{suffix}"

    def done(self, stage: str) -> set[int]:
        """Return the numbers of the units of a stage that are done."""
        suffixes = (ARRAYS, TABLE, NOTHING, DONE)
        home = self._home(stage)
        paths = home.iterdir() if home.is_dir() else ()
        return {int(path.stem) for path in paths if path.suffix in suffixes}

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._work, ignore_errors=True)

    def clear_others(self) -> None:
        """Remove what other keys have left."""
        for folder in self._work.glob("*/*"):
            if folder != self._home(folder.parent.name):
                shutil.rmtree(folder, ignore_errors=True)

    def write_tile(self, unit: int, found: Candidates | None) -> None:
        """Write what a tile's window shows; None for one that shows background only."""
        if found is None:
            self.mark("segment", unit, NOTHING)
        else:
            _write(self._path("segment", unit), found.to_arrays())

    def has_tile(self, unit: int) -> bool:
        """Whether it is known what a tile's window shows."""
        return any(self._path("segment", unit, end).is_file() for end in (ARRAYS, NOTHING))

    def read_tile(self, unit: int) -> Candidates:
        """Return what a tile's window shows.

        Raises
        ------
        CellsegError
            If the file is damaged; it is removed, so that the next run makes it anew.
        """
        if self._path("segment", unit, NOTHING).is_file():
            return Candidates.none()
        return Candidates.from_arrays(_read(self._path("segment", unit)))

    def count_background(self, units: Sequence[int] | None = None) -> int:
        """Return how many of some tiles, by default of all, show background only."""
        found = {int(path.stem) for path in self._home("segment").glob(f"*{NOTHING}")}
        return len(found if units is None else found.intersection(units))

    def write_completed(self, unit: int, found: Candidates) -> None:
        """Write the cells of a block that no tile saw whole."""
        extent = extent_of(found) if len(found) else None
        facts = {"extent": [extent.y0, extent.x0, extent.y1, extent.x1]} if extent else {}
        _write(self._path("complete", unit), found.to_arrays(), facts)

    def read_completed(self, unit: int) -> Candidates:
        """Return the cells of a block that no tile saw whole."""
        return Candidates.from_arrays(_read(self._path("complete", unit)))

    def completed_extents(self, first: int, blocks: int) -> dict[int, Box]:
        """Return the box around the completed cells of each block that has some.

        Parameters
        ----------
        first, blocks : int
            Unit of a plane's first block, and how many there are.
        """
        found = {n: _facts(self._path("complete", first + n)) for n in range(blocks)}
        return {n: Box(*facts["extent"]) for n, facts in found.items() if "extent" in facts}

    def write_decided(self, unit: int, decided: Decided) -> None:
        """Write the cells of a block, and the masks that no tile holds."""
        extra = {f"extra_{name}": array for name, array in decided.extra.to_arrays().items()}
        ys = decided.cells.centres[:, 0]
        facts = {"low": float(ys[0]), "high": float(ys[-1])} if len(ys) else {}
        _write(self._path("decide", unit), decided.cells.to_arrays() | extra, facts)

    def read_extra(self, unit: int) -> Candidates:
        """Return the cells of a block whose masks no tile holds."""
        names = Candidates.none().to_arrays()
        found = _read(self._path("decide", unit), [f"extra_{name}" for name in names])
        return Candidates.from_arrays({name: found[f"extra_{name}"] for name in names})

    def decided(self, unit: int, plane: int) -> DecidedBlock | None:
        """Return the cells of a block, to be read in parts, or None if there are none."""
        path = self._path("decide", unit)
        facts = _facts(path)
        return DecidedBlock(path, plane, facts["low"], facts["high"]) if facts else None

    def write_run(self, number: int, cells: Cells) -> None:
        """Write a run of cells, in the order of their labels."""
        facts = {
            "planes": [int(cells.plane.min()), int(cells.plane.max())] if len(cells) else [0, -1],
            "low": int(cells.boxes[:, 0].min(initial=2**31 - 1)),
            "high": int(cells.boxes[:, 2].max(initial=0)),
        }
        _write(self._path("run", number), cells.to_arrays(), facts)

    def read_run(self, number: int) -> Cells:
        """Return a run of cells."""
        return Cells.from_arrays(_read(self._path("run", number)))

    def count_by_plane(self, planes: int) -> NDArray[np.int64]:
        """Return how many cells of all runs each of the image's planes has, int64 (planes,)."""
        counts = np.zeros(planes, np.int64)
        for number in range(self.runs or 0):
            found = _read(self._path("run", number), ["plane"])["plane"]
            counts += np.bincount(found, minlength=planes)
        return counts

    def runs_near(self, plane: int, region: Box) -> list[int]:
        """Return the numbers of the runs that may hold cells in a region of a plane."""
        near = []
        for number in range(self.runs or 0):
            facts = _facts(self._path("run", number))
            first, last = facts["planes"]
            low, high = facts["low"], facts["high"]
            if first <= plane <= last and low < region.y1 and high > region.y0:
                near.append(number)
        return near

    def write_shared(self, unit: int, shared: Shared) -> None:
        """Write what the cells of some regions share."""
        _write(self._path("share", unit), shared.to_arrays())

    def read_shared(self, unit: int) -> Shared:
        """Return what the cells of some regions share."""
        return Shared.from_arrays(_read(self._path("share", unit)))

    def write_overlaps(self, number: int, overlaps: Overlaps) -> None:
        """Write how the cells of a run overlap."""
        _write(self._path("overlaps", number), overlaps.to_arrays())

    def read_overlaps(self, number: int) -> Overlaps:
        """Return how the cells of a run overlap."""
        return Overlaps.from_arrays(_read(self._path("overlaps", number)))

    def write_matches(self, unit: int, shares: Shares) -> None:
        """Write what the cells of some regions share with those of other planes."""
        _write(self._path("match", unit), vars(shares))

    def read_matches(self, unit: int) -> Shares:
        """Return what the cells of some regions share with those of other planes."""
        return Shares(**_read(self._path("match", unit)))

    def write_linked(self, number: int, linked: NDArray[np.uint32]) -> None:
        """Write the label of each cell of a run, 0 for one that is left out."""
        _write(self._path("linked", number), {"labels": linked})

    def read_linked(self, number: int) -> NDArray[np.uint32]:
        """Return the label of each cell of a run, 0 for one that is left out."""
        return _read(self._path("linked", number))["labels"]

    def write_volumes(self, number: int, volumes: Volumes) -> None:
        """Write a run of 3D cells, in the order of their labels."""
        _write(self._path("volumes", number), volumes.to_arrays())

    def read_volumes(self, number: int) -> Volumes:
        """Return a run of 3D cells."""
        return Volumes.from_arrays(_read(self._path("volumes", number)))

    def write_tracks(self, number: int, tracks: Tracks) -> None:
        """Write the tracks of the cells of a run."""
        _write(self._path("tracks", number), arrays_of(tracks))

    def read_tracks(self, number: int) -> Tracks:
        """Return the tracks of the cells of a run."""
        return Tracks(**_read(self._path("tracks", number)))

    def write_ids(self, number: int, labels: NDArray[np.uint32]) -> None:
        """Write the labels of the cells of a run, where they need not be consecutive."""
        _write(self._path("ids", number), {"labels": labels})

    def read_ids(self, number: int) -> NDArray[np.uint32] | None:
        """Return the labels of the cells of a run; None where they are consecutive."""
        path = self._path("ids", number)
        return _read(path)["labels"] if path.is_file() else None

    def write_scan(self, unit: int, scan: Scan) -> None:
        """Write what the label images hold in some regions."""
        _write(self._path("scan", unit), scan.to_arrays())

    def read_scan(self, unit: int) -> Scan:
        """Return what the label images hold in some regions."""
        return Scan.from_arrays(_read(self._path("scan", unit)))

    def read_scanned_labels(self, unit: int) -> NDArray[np.int64]:
        """Return the labels that the label images hold in some regions."""
        return _read(self._path("scan", unit), ["labels"])["labels"]

    def write_touched(self, found: Mapping[str, Any]) -> None:
        """Write what edits have touched: a scan, and arrays beside it."""
        arrays = {name: each for name, each in found.items() if name != "scan"}
        _write(self._path("touched", 0), arrays | found["scan"].to_arrays())

    def read_touched(self) -> dict[str, Any]:
        """Return what edits have touched."""
        arrays = _read(self._path("touched", 0))
        scan = Scan.from_arrays(arrays)
        return {n: each for n, each in arrays.items() if not hasattr(scan, n)} | {"scan": scan}

    def write_runs(self, count: int) -> None:
        """Note that all runs are written."""
        write_json(self._home("order") / "runs.json", {"runs": count})

    @property
    def runs(self) -> int | None:
        """Number of runs, None if they are not all written."""
        return self._noted("order").get("runs")

    def write_links(self, facts: Mapping[str, Any]) -> None:
        """Note that all is linked, and how; ``runs`` is the number of runs of 3D cells."""
        write_json(self._home("link") / "runs.json", facts)

    @property
    def links(self) -> dict[str, Any]:
        """What was noted when all was linked; nothing before."""
        return self._noted("link")

    @property
    def linked_runs(self) -> int | None:
        """Number of runs of 3D cells, None if they are not all written."""
        return self.links.get("runs")

    def _noted(self, stage: str) -> dict[str, Any]:
        path = self._home(stage) / "runs.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (*DAMAGED, TypeError):
            return {}

    def restart(self, stage: str) -> None:
        """Forget what was done in a stage."""
        shutil.rmtree(self._home(stage), ignore_errors=True)

    def mark(self, stage: str, unit: int, suffix: str = DONE) -> None:
        """Note that a unit is done that leaves nothing to read here."""
        path = self._path(stage, unit, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def write_rows(self, number: int, rows: pa.Table) -> None:
        """Write the measured rows of a run."""
        path = self._path("measure", number, TABLE)
        write_table(path, [rows], rows.schema, own_name())

    def rows_path(self, number: int) -> Path:
        """Return where the measured rows of a run lie."""
        return self._path("measure", number, TABLE)


@dataclass(frozen=True)
class DecidedBlock:
    """Cells of a block of a plane on disk; see `cellseg.pipeline.order.SortedCells`."""

    path: Path
    plane: int
    low: float
    high: float

    def between(self, y0: float, y1: float) -> Cells:
        """Return the cells whose centre's y is at least `y0` and less than `y1`."""
        try:
            with safe_open(self.path, framework="numpy") as file:
                ys = file.get_tensor("centres")[:, 0]
                first, last = np.searchsorted(ys, (y0, y1)).tolist()
                arrays = {name: file.get_slice(name)[first:last] for name in TYPES}
        except (*DAMAGED, SafetensorError) as error:
            raise _damaged(self.path, error) from error
        return on_plane(Cells.from_arrays(arrays), self.plane)


def _write(path: Path, arrays: Arrays, facts: Mapping[str, Any] | None = None) -> None:
    """Write arrays, and a few facts that can be read without them.

    One that was taken for dead may still write the same at the time.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = save(contiguous, {"facts": json.dumps(facts or {})})
    replace_file(path, lambda partial: partial.write_bytes(content), own_name())


def _read(path: Path, names: list[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return all arrays of a file, or some."""
    try:
        if names is None:
            return load(path.read_bytes())
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in names}
    except (*DAMAGED, SafetensorError) as error:
        raise _damaged(path, error) from error


def _facts(path: Path) -> dict[str, Any]:
    """Return the facts that a file was written with."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(json.loads(file.metadata()["facts"]))
    except (*DAMAGED, SafetensorError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CellsegError:
    """Remove a damaged file, so that the next run makes it anew, and say so."""
    path.unlink(missing_ok=True)
    return CellsegError(f"{path}: damaged ({error}), removed. Run again.")
