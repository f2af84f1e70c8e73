"""What an editor knows of cells before it reads a pixel: where the table and the log put them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.models import CellsegError
from cellseg.models.errors import nearest
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.order import RUN
from cellseg.pipeline.place import Place
from cellseg.pipeline.results import Results
from cellseg.pipeline.table import BOX
from cellseg.pipeline.tiles import Box

__all__ = ["Row", "TableRows", "image_results", "images_of"]

NAMES = ("label", "t", "z", *BOX, "z0_px", "z1_px", "layer", "class")


@dataclass(frozen=True)
class Row:
    """Where the table puts a cell.

    Parameters
    ----------
    t : int
    planes : range
    box : Box
    layer : int
        From 0.
    class_ : int
    """

    t: int
    planes: range
    box: Box
    layer: int
    class_: int


class TableRows:
    """The rows of the cell table of an image, a part of them in memory at a time."""

    def __init__(self, here: ImageResults) -> None:
        self._here = here
        self._part = lru_cache(maxsize=4)(self._read)

    def _read(self, part: int, _changed: int) -> dict[str, Any]:
        rows = self._here.rows_of(part * RUN, (part + 1) * RUN, NAMES)
        columns = {name: rows[name].to_numpy() for name in NAMES}
        order = np.argsort(columns["label"], kind="stable")
        return {name: values[order] for name, values in columns.items()}

    def find(self, label: int) -> Row | None:
        """Return the row of a cell; None if it has none."""
        path = self._here.cells_path
        columns = self._part(label // RUN, path.stat().st_mtime_ns if path.is_file() else 0)
        place = int(np.searchsorted(columns["label"], label))
        if place == len(columns["label"]) or columns["label"][place] != label:
            return None
        row = {name: values[place] for name, values in columns.items()}
        first, last = row["z"], row["z"] + 1
        if row["z0_px"] is not None and not np.isnan(row["z0_px"]):
            first, last = row["z0_px"], row["z1_px"]
        box = Box(*(int(row[name]) for name in BOX))
        planes = range(int(first), int(last))
        return Row(int(row["t"]), planes, box, int(row["layer"]) - 1, int(row["class"]))

    @property
    def highest(self) -> int:
        """The highest label of the table; 0 where it is empty."""
        return self._here.highest_label()


def images_of(results: Path) -> dict[str, ImageResults]:
    """Return the part of a results folder that belongs to each image that is done.

    Raises
    ------
    CellsegError
        If it is no results folder.
    """
    lines = [line for line in Results(results).read_run()["images"] if line["state"] == "done"]
    return {line["name"]: Results(results).at(Place.read(line)) for line in lines}


def image_results(results: Path, image: str) -> ImageResults:
    """Return the part of a results folder that belongs to an image; see `images_of`."""
    found = images_of(results)
    if image not in found:
        raise CellsegError(
            f"{results}: it has no image {image} that is done.{nearest(image, found)}"
        )
    return found[image]
