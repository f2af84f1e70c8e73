"""A plate as a run writes it: its metadata lists the fields that are done, and no others.

A field is listed by its well once it is whole, and the well by the plate once it is; what
will be written anew is taken from the lists before it is touched. Only the process that
conducts the run writes here. Source: https://ngff.openmicroscopy.org/0.5, "plate" and "well".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.pipeline.files import write_json
from cellseg.pipeline.hcs import Grid, grid_over
from cellseg.pipeline.ngff import attributes, group_node
from cellseg.pipeline.segment import Scene

__all__ = ["WrittenPlate", "plates_of", "retire"]


@dataclass
class WrittenPlate:
    """An OME-Zarr 0.5 plate in the results.

    Parameters
    ----------
    path : Path
    name : str
    grid : Grid
        Its rows, columns and acquisitions.
    fields : dict of str to acquisition
        Every field that it may have, by row, column and field, in the order of its well.
    done : set of str
        Those that are there.
    """

    path: Path
    name: str
    grid: Grid
    fields: dict[str, str | None]
    done: set[str] = field(default_factory=set)

    def start(self, done: Iterable[str]) -> None:
        """List the fields that are there from earlier runs, before others are begun anew."""
        self.done = set(done)
        listed = {each["path"] for each in _listed(self.path, "plate", "wells")}
        if listed - self._wells():
            self._write_plate(listed & self._wells())
        for well in sorted(listed | self._wells()):
            self._write_well(well)
        self._write_plate(self._wells())

    def add(self, group: str) -> None:
        """List a field that is whole."""
        new = _well(group) not in self._wells()
        self.done.add(group)
        self._write_well(_well(group))
        if new:
            self._write_plate(self._wells())

    def _wells(self) -> set[str]:
        return {_well(group) for group in self.done}

    def _write_well(self, well: str) -> None:
        groups = [group for group in self.fields if _well(group) == well and group in self.done]
        images: list[dict[str, Any]] = [{"path": group.rpartition("/")[2]} for group in groups]
        for image, group in zip(images, groups, strict=True):
            if (acquisition := self.fields[group]) is not None:
                image["acquisition"] = int(acquisition)
        if not images:
            # A well without fields is none.
            (self.path / well / "zarr.json").unlink(missing_ok=True)
            return
        _write(self.path / well.split("/")[0], {})
        _write(self.path / well, {"well": {"images": images, "version": "0.5"}})

    def _write_plate(self, wells: Collection[str]) -> None:
        if not wells:
            (self.path / "zarr.json").unlink(missing_ok=True)
            return
        rows, columns = self.grid.rows, self.grid.columns
        plate: dict[str, Any] = {
            "name": self.name,
            "rows": [{"name": row} for row in rows],
            "columns": [{"name": column} for column in columns],
            "wells": [_place(well, self.grid) for well in sorted(wells, key=self.grid.order)],
            "version": "0.5",
        }
        if self.grid.acquisitions:
            plate["acquisitions"] = list(self.grid.acquisitions)
        _write(self.path, {"plate": plate})


def plates_of(scenes: Iterable[Scene], folder: Path) -> dict[str, WrittenPlate]:
    """Return the plates that some images go to, by their place in the results folder."""
    plates: dict[str, list[Scene]] = {}
    for scene in scenes:
        if scene.place.plate is not None:
            plates.setdefault(scene.place.plate, []).append(scene)
    return {place: _plate(folder / place, inside) for place, inside in plates.items()}


def retire(folder: Path, kept: Collection[str]) -> None:
    """Take the metadata off plates that earlier runs wrote and to which no image goes any more."""
    for path in folder.glob("*.zarr"):
        if path.name not in kept and _listed(path, "plate", "wells"):
            (path / "zarr.json").unlink(missing_ok=True)


def _plate(path: Path, scenes: list[Scene]) -> WrittenPlate:
    fields = {str(scene.place.group): scene.source.acquisition for scene in scenes}
    first = scenes[0].source
    grid = grid_over(first.path) if first.group else None
    grid = Grid.around([_well(group) for group in fields], grid)
    if not grid.acquisitions:
        fields = dict.fromkeys(fields)
    return WrittenPlate(path, first.plate or path.stem, grid, fields)


def _well(group: str) -> str:
    return group.rpartition("/")[0]


def _place(well: str, grid: Grid) -> dict[str, Any]:
    row, _, column = well.partition("/")
    indices = {"rowIndex": grid.rows.index(row), "columnIndex": grid.columns.index(column)}
    return {"path": well, **indices}


def _listed(path: Path, kind: str, what: str) -> list[Mapping[str, Any]]:
    """Return what a group that an earlier run wrote lists."""
    try:
        return list(attributes(path).get(kind, {}).get(what, []))
    except CellsegError:
        return []


def _write(path: Path, ome: Mapping[str, Any]) -> None:
    """Write the metadata of a group, unless it is so already."""
    try:
        if (path / "zarr.json").is_file() and attributes(path) == group_node(ome)["attributes"].get(
            "ome", {}
        ):
            return
    except CellsegError:
        pass
    write_json(path / "zarr.json", group_node(ome))
