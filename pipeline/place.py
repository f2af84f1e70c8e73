"""Place: where the results of an image lie, in a folder of its own or in a plate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.pipeline.ngff import Version, zarr_format
from cellseg.pipeline.plate import Field
from cellseg.pipeline.workflow import Output

__all__ = ["Place", "arrange"]

PLATE = "plate.zarr"


@dataclass(frozen=True)
class Place:
    """Where the results of one image lie; small, and a part of ``run.json``.

    Parameters
    ----------
    folder : str
        From the results folder: of labels, table and picture; or, where the rest lies in a
        plate, of what is unfinished.
    plate, group : str or None
        The OME-Zarr plate from the results folder, and in it row, column and field.
    inside : str or None
        The input image whose own ``labels`` group takes the labels.
    ngff : "0.4" or "0.5"
        Version of OME-Zarr that the labels are written in.
    """

    folder: str
    plate: str | None = None
    group: str | None = None
    inside: str | None = None
    ngff: Version = "0.5"

    @classmethod
    def of_image(cls, name: str) -> Place:
        """Return the place of an image that is in no plate."""
        return cls(f"images/{name}")

    @classmethod
    def read(cls, report: Mapping[str, Any]) -> Place:
        """Return the place that a line of ``run.json`` states."""
        return cls(**(report.get("place") or asdict(cls.of_image(report["name"]))))

    @property
    def beside_image(self) -> bool:
        """Whether the labels lie in the group of an image."""
        return self.plate is not None or self.inside is not None

    def described(self, folder: Path) -> list[tuple[str, str]]:
        """Return what lies where in a results folder, in words."""
        if self.plate is not None:
            pictures = folder / "overviews" / "<image>.png"
            return [("plate", str(folder / self.plate)), ("pictures", str(pictures))]
        own = folder / "images" / "<image>"
        labels = "<image>/labels/cells, in the input" if self.inside else str(own / "labels.zarr")
        return [("labels", labels), ("pictures", str(own / "overview.png"))]


def arrange(fields: Sequence[Field], output: Output) -> list[Place]:
    """Return the place of each image of a run.

    Fields of OME-Zarr plates go to ``plate.zarr``; of several plates each goes to one of its
    own name. So do, where images are copied, those of any plate.

    Raises
    ------
    CellsegError
        If labels are to be written inside images that are no OME-Zarr.
    """
    if output.labels == "inside":
        return [_inside(field) for field in fields]
    groups = _groups(fields, output)
    plates = [_plate(field) for field, group in zip(fields, groups, strict=True) if group]
    folders = _folders(list(dict.fromkeys(plates)))
    return [
        Place.of_image(field.name)
        if group is None
        else Place(f"work/{field.name}", folders[_plate(field)], group)
        for field, group in zip(fields, groups, strict=True)
    ]


def _plate(field: Field) -> tuple[str, Path | None]:
    """Return what tells a plate from others, which may have its name."""
    if field.group:
        return field.plate or "plate", field.path.parents[2]
    # Folders that give their plates the same name are as many plates.
    folder = next((each for each in field.path.parents if each.name == field.plate), None)
    return field.plate or "plate", folder


def _folders(plates: Sequence[tuple[str, Path | None]]) -> dict[tuple[str, Path | None], str]:
    """Return the name of each plate in the results."""
    if len(plates) == 1:
        return {plates[0]: PLATE}
    names = [re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".") for name, _ in plates]
    taken: set[str] = set()
    folders = {}
    for each, name in zip(plates, names, strict=True):
        tries = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(one for one in tries if one.lower() not in taken)
        taken.add(free.lower())
        folders[each] = f"{free}.zarr"
    return folders


def _groups(fields: Sequence[Field], output: Output) -> list[str | None]:
    """Return row, column and field in the plate written, or None, of each image."""
    if output.images == "link":
        return [None if field.problem else field.group for field in fields]
    taken: Counter[tuple[Any, str]] = Counter()
    groups: list[str | None] = []
    for field in fields:
        # What is known to be unreadable must not count for a plate of its own.
        group = None if field.problem else field.group
        if field.group is None and (well := _well(field)) is not None:
            group = f"{well}/{taken[_plate(field), well]}"
            taken[_plate(field), well] += 1
        groups.append(group)
    return groups


def _well(field: Field) -> str | None:
    """Return the group of the well of an image that was a file, ``B/03``.

    Its fields are numbered from 0 in the order of the run: programs that show a whole plate
    look for the fields of every well under the names of the first one's.
    """
    well = re.fullmatch(r"([A-Z]{1,2})(\d+)", field.well or "")
    return None if well is None else f"{well[1]}/{well[2]}"


def _inside(field: Field) -> Place:
    if field.parts:
        raise CellsegError(
            f'[output] labels = "inside": {field.name} is made of {len(field.parts)} files, none of'
            ' which holds the labels of all. Set labels to "results".'
        )
    if field.problem is None and zarr_format(field.path) is None:
        raise CellsegError(
            f'[output] labels = "inside": {field.path} is no OME-Zarr image, so it holds no labels.'
            ' Give OME-Zarr images only, or set labels to "results".'
        )
    ngff: Version = "0.4" if zarr_format(field.path) == 2 else "0.5"
    return Place(f"images/{field.name}", inside=str(field.path.absolute()), ngff=ngff)
