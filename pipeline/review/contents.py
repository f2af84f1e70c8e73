"""What a results folder holds for a review: its images, their wells, and where each lies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.assembled import open_field
from cellseg.pipeline.files import DAMAGED
from cellseg.pipeline.hcs import members
from cellseg.pipeline.image import Image, open_image
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.ngff import attributes
from cellseg.pipeline.place import Place
from cellseg.pipeline.plate import Field, find
from cellseg.pipeline.results import Results
from cellseg.pipeline.workflow import read_workflow

__all__ = ["Contents", "Entry", "is_results", "results_folder"]

WELL = re.compile(r"([A-Z]{1,2})0*(\d+)")
ORIGIN = ("plate", "well", "site")
PLATES = ((2, 3), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates that are sold."""


@dataclass(frozen=True)
class Entry:
    """One image that is done.

    Parameters
    ----------
    name : str
    plate, well, site : str or None
    cells : int
        As many rows as it has in the table.
    level : int
        Level of the image's pyramid that the labels are of.
    pixel_um : (y, x) or None
        Size of a pixel of the labels.
    results : ImageResults
        Where its labels and table lie.
    group : Path or None
        The OME-Zarr image that holds its pixels, where results and pixels lie together.
    """

    name: str
    plate: str | None
    well: str | None
    site: str | None
    cells: int
    level: int
    pixel_um: tuple[float, float] | None
    results: ImageResults
    group: Path | None = None


@dataclass(frozen=True)
class Contents:
    """A results folder, or an OME-Zarr plate with labels that is in none.

    Parameters
    ----------
    folder : Path
    entries : tuple of Entry
        The images that are done, in the order of the run.
    editable : bool
        Whether corrections can be kept: only in a results folder.
    undone : int
        As many images of the run failed, or were not come to.
    """

    folder: Path
    entries: tuple[Entry, ...]
    editable: bool = True
    undone: int = 0

    @classmethod
    def read(cls, path: Path) -> Contents:
        """Read what a path holds.

        Parameters
        ----------
        path : Path
            A results folder, its ``run.json``, the ``plate.zarr`` in it, or any OME-Zarr plate
            of which some fields have labels.

        Raises
        ------
        CellsegError
            If it is none of these, or none of its images is done.
        """
        folder = results_folder(path)
        if folder is not None:
            return cls._of_run(folder)
        found = _members(path)
        if found:
            return cls(path, found, editable=False)
        raise CellsegError(
            f"{path}: no results of cellseg: there is no run.json, and it is no OME-Zarr plate with"
            " labels. Give the output folder of a run."
        )

    @classmethod
    def _of_run(cls, folder: Path) -> Contents:
        try:
            images = json.loads(Results(folder).run_path.read_text(encoding="utf-8"))["images"]
            done = [image for image in images if image["state"] == "done"]
        except (*DAMAGED, TypeError):
            raise CellsegError(
                f"{folder}: its run.json is damaged. Run the workflow again."
            ) from None
        if not done:
            raise CellsegError(f"{folder}: none of its images is done. Run the workflow first.")
        entries = tuple(_entry(folder, report) for report in done)
        return cls(folder, entries, undone=len(images) - len(done))

    def __getitem__(self, name: str) -> Entry:
        """Return the image of a name; a CellsegError names the nearest where there is none."""
        names = [entry.name for entry in self.entries]
        if name not in names:
            raise CellsegError(
                f"{self.folder}: no image {name!r} that is done; there are {len(names)}."
                f"{nearest(name, names)}"
            )
        return self.entries[names.index(name)]

    @property
    def plates(self) -> list[str]:
        """Names of the plates, in the order of the run; of a plate without name, nothing."""
        return list(dict.fromkeys(each.plate or "" for each in self.entries if each.well))

    def fields(self, plate: str, well: str) -> list[Entry]:
        """Return the images of a well."""
        return [e for e in self.entries if (e.plate or "", e.well) == (plate, well)]

    def grid(self, plate: str) -> tuple[int, int]:
        """Return how many rows and columns the plate has: the smallest sold that holds its wells.

        A plate that is larger than any is as large as its wells need.
        """
        wells = [well_place(e.well) for e in self.entries if e.well and (e.plate or "") == plate]
        rows, columns = (1 + max(axis) for axis in zip(*filter(None, wells), strict=True))
        fitting = [shape for shape in PLATES if shape[0] >= rows and shape[1] >= columns]
        return fitting[0] if fitting else (rows, columns)

    @cached_property
    def wells(self) -> pd.DataFrame:
        """A row for each plate and well: that of ``wells.parquet``, or the count of cells."""
        known = self.folder / "wells.parquet"
        if self.editable and known.is_file():
            table = pd.read_parquet(known)
            table["plate"] = table["plate"].fillna("")
            return table
        rows = [(e.plate or "", e.well, e.cells) for e in self.entries if e.well]
        table = pd.DataFrame(rows, columns=["plate", "well", "cells"])
        grouped = table.groupby(["plate", "well"], sort=False)["cells"]
        return grouped.agg(images="size", cells="sum").reset_index()

    def pixels(self, entry: Entry) -> Image:
        """Open the image itself, without reading its pixels.

        Raises
        ------
        CellsegError
            If it is gone, or no longer where the workflow looks for it.
        """
        if entry.group is not None:
            return open_image(entry.group)
        if entry.name not in self._sources:
            raise CellsegError(
                f"{entry.name}: its image is no longer found where the workflow looks for it."
            )
        return open_field(self._sources[entry.name])

    @cached_property
    def _sources(self) -> dict[str, Field]:
        workflow = read_workflow(self.folder / "workflow.toml", output=self.folder)
        found = find([Path(path) for path in workflow.images], workflow.pattern)
        return {field.name: field for field in found.fields}

    def cells(self, entry: Entry | None = None) -> pd.DataFrame:
        """Return the table of an image, or of all; as it was measured, without corrections."""
        path = Results(self.folder).cells_path if entry is None else entry.results.cells_path
        if entry is None and not self.editable:
            tables = [pd.read_parquet(each.results.cells_path) for each in self.entries]
            return pd.concat(tables, ignore_index=True)
        try:
            return pd.read_parquet(path)
        except (*DAMAGED,) as error:
            raise CellsegError(f"{path}: cannot be read: {error}. Run cellseg measure.") from None


def well_place(well: str | None) -> tuple[int, int] | None:
    """Return row and column, from 0, of a well such as ``B03``; None if it is none."""
    match = WELL.fullmatch(well or "")
    if match is None or int(match[2]) < 1:
        return None
    row = 0
    for letter in match[1]:
        row = row * 26 + ord(letter) - ord("A") + 1
    return row - 1, int(match[2]) - 1


def row_letters(row: int) -> str:
    """Return the letters of a row from 0: ``A`` to ``Z``, ``AA``, ..."""
    return (row_letters(row // 26 - 1) if row >= 26 else "") + chr(ord("A") + row % 26)


def results_folder(path: Path) -> Path | None:
    """Return the results folder that a path means; None if it means none."""
    for folder in (path, path.parent):
        inside = folder == path or path.name == "run.json" or path.suffix == ".zarr"
        if inside and (folder / "run.json").is_file() and (folder / "workflow.toml").is_file():
            return folder
    return None


def is_results(path: Path) -> bool:
    """Return whether `Contents.read` can make something of a path, without reading much."""
    if results_folder(path) is not None:
        return True
    try:
        return path.is_dir() and "plate" in attributes(path)
    except CellsegError:
        return False


def _entry(folder: Path, report: Mapping[str, Any]) -> Entry:
    place = Place.read(report)
    results = Results(folder).at(place)
    group = Path(place.inside) if place.inside else results.field
    pixel = report.get("pixel_um")
    return Entry(
        report["name"],
        *_origin(report, place, results),
        int(report.get("cells", 0)),
        int(report.get("level") or 0),
        None if pixel is None else (float(pixel[0]), float(pixel[1])),
        results,
        group,
    )


def _origin(
    report: Mapping[str, Any], place: Place, results: ImageResults
) -> tuple[str | None, str | None, str | None]:
    """Return plate, well and site: as the run has said, or its table, or the place in a plate."""
    if "well" in report:
        return report.get("plate"), report["well"], report.get("site")
    try:
        for rows in results.cell_rows(ORIGIN, 1):
            plate, well, site = (rows[name][0].as_py() for name in ORIGIN)
            return plate, well, site
    except (*DAMAGED,):
        pass
    if place.group is None:
        return None, None, None
    row, column, site = place.group.split("/")
    return None, f"{row}{int(column):02}" if column.isdecimal() else f"{row}{column}", site


def _members(path: Path) -> tuple[Entry, ...]:
    """Return the fields of an OME-Zarr plate that have labels and a table of cellseg."""
    if not is_results(path):
        return ()
    found: Sequence[Any] = [member for member in members(path) if member.fault is None]
    entries = []
    for member in found:
        results = ImageResults(member.path, member.path)
        if results.labels.layers and results.cells_path.is_file():
            name = f"{member.well}_{member.site}"
            origin = member.plate, member.well, member.site
            count = results.count_cells()
            entries.append(Entry(name, *origin, count, 0, None, results, member.path))
    return tuple(entries)
