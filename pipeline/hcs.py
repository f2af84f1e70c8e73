"""OME-Zarr plates and collections: the images in them, and where each lies on its plate.

Read from the JSON of plate and wells alone. What is damaged costs no more than itself: it is
a member with a fault, which becomes a line of its own in the results.

Sources: https://ngff.openmicroscopy.org/0.4 and 0.5, "plate", "well", "bioformats2raw.layout".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.pipeline.ngff import attributes, zarr_format
from cellseg.pipeline.source import naming

__all__ = ["Grid", "Member", "grid_over", "members"]

NAMED = 12


@dataclass(frozen=True)
class Member:
    """One image of an input, and what its plate says of it.

    Parameters
    ----------
    path : Path
        The file or OME-Zarr group.
    group : str or None
        Its path in an OME-Zarr plate as the plate spells it: row, column and field, ``B/3/0``.
    plate, well, site, acquisition : str or None
        Name of the plate, well as ``B03``, path of the field in its well, and id of the
        acquisition where the plate states several.
    fault : str or None
        Why there is no image, where the plate shows it: one line.
    """

    path: Path
    group: str | None = None
    plate: str | None = None
    well: str | None = None
    site: str | None = None
    acquisition: str | None = None
    fault: str | None = None


def members(path: Path) -> list[Member]:
    """Return the images that a path means: those of a plate, a well or a collection, or itself.

    Parameters
    ----------
    path : Path
        A file or an OME-Zarr group. A field of a plate given by its own path is found on it.

    Returns
    -------
    list of Member
        At least one. Wells in the order of row and column, fields as the well lists them.
    """
    if not path.is_dir() or zarr_format(path) is None:
        return [Member(path)]
    try:
        found = attributes(path)
        if "multiscales" in found:
            return [_of_a_plate(path) or Member(path)]
        if "plate" in found:
            return _Plate.open(path, path.stat().st_mtime_ns).members()
        if "well" in found:
            return _well_by_itself(path, found)
        if "bioformats2raw.layout" in found:
            return _collection(path)
    except CellsegError as error:
        return [Member(path, fault=str(error))]
    return [_of_a_plate(path) or Member(path)]


@dataclass(frozen=True)
class Grid:
    """The rows and columns of a plate, and the acquisitions that it states.

    Parameters
    ----------
    rows, columns : tuple of str
    acquisitions : tuple of dict
        As in the plate's metadata; empty where there are not several.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    acquisitions: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def around(cls, wells: Sequence[str], known: Grid | None) -> Grid:
        """Return a grid with a place for each well: the known one, with what it lacks."""
        known = known or cls((), ())
        rows = sorted({well.partition("/")[0] for well in wells} - {*known.rows}, key=_ranked)
        columns = sorted({well.partition("/")[2] for well in wells} - {*known.columns}, key=_ranked)
        return cls((*known.rows, *rows), (*known.columns, *columns), known.acquisitions)

    def order(self, well: str) -> tuple[int, int, str]:
        """Return what wells are sorted by."""
        row, _, column = well.partition("/")
        return _place(row, self.rows), _place(column, self.columns), well


def grid_over(field: Path) -> Grid | None:
    """Return the grid of the plate that a field is part of."""
    plate = _plate_over(field, 3)
    return None if plate is None else plate.grid


def _ranked(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else len(name)), name


@dataclass(frozen=True)
class _Plate:
    """A plate's own metadata."""

    path: Path
    name: str
    grid: Grid
    wells: tuple[str, ...]

    @classmethod
    @lru_cache(maxsize=8)
    def open(cls, path: Path, _changed: int) -> _Plate:
        """Read it."""
        with naming(path):
            plate = attributes(path)["plate"]
            name = plate.get("name") or path.name.removesuffix(".zarr").removesuffix(".ome")
            acquisitions = tuple(plate.get("acquisitions") or [])
            grid = Grid(
                tuple(str(row["name"]) for row in plate.get("rows") or []),
                tuple(str(column["name"]) for column in plate.get("columns") or []),
                acquisitions if len(acquisitions) > 1 else (),
            )
            wells = tuple(dict.fromkeys(str(well["path"]).strip("/") for well in plate["wells"]))
            return cls(path, str(name), grid, wells)

    def members(self) -> list[Member]:
        """Return all fields, well by well."""
        wells = sorted(self.wells, key=self.grid.order)
        found = [member for well in wells for member in self.fields(well)]
        return found or [Member(self.path, fault=f"{self.path}: a plate that lists no wells.")]

    def fields(self, well: str) -> list[Member]:
        """Return the fields of a well, or what is wrong with it."""
        path = self.path / well
        about = {"plate": self.name, "well": self._name(well)}
        try:
            self._check(well)
            found = list(_fields(path, bool(self.grid.acquisitions)))
        except CellsegError as error:
            return [Member(path, f"{well}/", fault=str(error), **about)]
        return [
            Member(path / field, f"{well}/{field}", site=field, acquisition=acquisition, **about)
            for field, acquisition in found
        ]

    def _check(self, well: str) -> None:
        """Refuse a well that is not on the plate, or not there."""
        row, _, column = well.partition("/")
        for noun, name, known in (
            ("row", row, self.grid.rows),
            ("column", column, self.grid.columns),
        ):
            if known and name not in known:
                listed = ", ".join(known[:NAMED]) + (", ..." if len(known) > NAMED else "")
                raise CellsegError(
                    f"{self.path}: lists the well {well}, which is not on the plate: {noun}"
                    f" {name!r} is none of {listed}. Mend the plate's rows and columns, or its"
                    " wells."
                )
        if not (self.path / well).is_dir():
            raise CellsegError(
                f"{self.path}: lists the well {well}, which is not there. Copy it again, or take"
                " it from the list."
            )

    def _name(self, well: str) -> str:
        """Return ``B03`` whatever the spelling of row and column; their path if that fails."""
        row, _, column = well.partition("/")
        letters = row.upper() if re.fullmatch(r"[A-Za-z]{1,2}", row) else None
        if letters is None and row in self.grid.rows:
            letters = _letters(self.grid.rows.index(row))
        digits = re.search(r"\d+$", column)
        number = int(digits[0]) if digits else None
        if number is None and column in self.grid.columns:
            number = self.grid.columns.index(column) + 1
        return well if letters is None or number is None else f"{letters}{number:02d}"


def _place(name: str, known: Sequence[str]) -> int:
    return known.index(name) if name in known else len(known)


def _letters(index: int) -> str:
    """Return A for 0, Z for 25, AA for 26."""
    first, last = divmod(index, 26)
    return (chr(ord("A") + first - 1) if first else "") + chr(ord("A") + last)


def _fields(well: Path, several: bool) -> Iterator[tuple[str, str | None]]:
    """Yield the fields that a well lists, and the acquisition of each where there are several."""
    found = attributes(well)
    if "well" not in found:
        raise CellsegError(f"{well}: a well without metadata, so its fields are not known.")
    with naming(well):
        images: Sequence[Mapping[str, Any]] = found["well"].get("images") or []
        listed = {str(image["path"]).strip("/"): image.get("acquisition") for image in images}
    if not listed:
        raise CellsegError(f"{well}: a well that lists no fields.")
    for field, acquisition in listed.items():
        yield field, str(acquisition) if several and acquisition is not None else None


def _plate_over(path: Path, levels: int) -> _Plate | None:
    """Return the plate some folders above, if that is one."""
    if len(path.parents) < levels:
        return None
    above = path.absolute().parents[levels - 1]
    try:
        return _Plate.open(above, above.stat().st_mtime_ns) if zarr_format(above) else None
    except (CellsegError, OSError):
        return None


def _of_a_plate(path: Path) -> Member | None:
    """Return a field given by its own path as its plate has it."""
    plate = _plate_over(path, 3)
    if plate is None:
        return None
    well = "/".join(path.absolute().parts[-3:-1])
    fields = plate.fields(well) if well in plate.wells else []
    return next((each for each in fields if each.path.name == path.name), None)


def _well_by_itself(path: Path, found: Mapping[str, Any]) -> list[Member]:
    plate = _plate_over(path, 2)
    well = "/".join(path.absolute().parts[-2:])
    if plate is not None and well in plate.wells:
        return plate.fields(well)
    with naming(path):
        return [Member(path / str(image["path"])) for image in found["well"]["images"]]


def _collection(path: Path) -> list[Member]:
    """Return the images of what bioformats2raw wrote, in the order of its series."""
    listed = attributes(path / "OME").get("series")
    with naming(path):
        if listed is None:
            numbers = [each.name for each in path.iterdir() if each.name.isdecimal()]
            listed = sorted(numbers, key=int)
        found = [Member(path / str(name)) for name in listed]
    return found or [Member(path, fault=f"{path}: a collection of images that holds none.")]
