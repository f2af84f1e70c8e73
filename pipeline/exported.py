"""The cells of a results folder as the exports see them: image by image, every cell whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.meeting import spread
from cellseg.pipeline.cell_rows import CellRows, rows_by_image, rows_of_file
from cellseg.pipeline.image import open_image
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.masks import stem_of
from cellseg.pipeline.place import Place
from cellseg.pipeline.results import Results
from cellseg.pipeline.table import BOX, WINDOW
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import Voxel

BATCH = 4096
"""Cells that are read together."""
COLUMNS = ("label", "t", "z", "z0_px", "z1_px", "layer", "y_px", "x_px", *BOX, "class", "score")
ORIGIN = ("plate", "well", "site")
LARGEST_TIFF = 2**32 - 2**25
"""Bytes of pixels from which offsets no longer fit a classic TIFF."""


@dataclass(frozen=True)
class ExportedPlane:
    """Some cells of one plane.

    Parameters
    ----------
    t, z : int
    labels : int64 (N,)
        Ascending.
    cells : Instances
    rows : Table
        What was asked for of their rows in the cell table.
    """

    t: int
    z: int
    labels: NDArray[np.int64]
    cells: Instances
    rows: pa.Table


@dataclass(frozen=True)
class ExportedImage:
    """One image of a results folder.

    Parameters
    ----------
    name : str
    file_name : str
        Of the image they were found in.
    shape : (T, Z, H, W)
    results : ImageResults
    rows : CellRows
        Of the table of all cells, which has columns that the image's own may lack.
    voxel : (z, y, x) or None
        Size of a voxel in um.
    source : Path
        The image itself.
    level : int
        Of its pyramid, that the px are of.
    classes : tuple of str
        What the model calls its classes, the first of them class 1; none where they have no names.
    channels : tuple of str
        Channels measured, as far as they are known.
    stated : mapping
        What ``run.json`` says of plate, well and site.
    """

    name: str
    file_name: str
    shape: tuple[int, int, int, int]
    results: ImageResults
    rows: CellRows
    voxel: Voxel | None = None
    source: Path = Path()
    level: int = 0
    classes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    stated: Mapping[str, str | None] = field(default_factory=dict)

    @cached_property
    def origin(self) -> dict[str, str | None]:
        """Plate, well and site, as far as they are known: of an image without cells maybe not."""
        first = next(self.rows.tables(1, ORIGIN), None)
        if first is None:
            return {name: self.stated.get(name) for name in ORIGIN}
        return {name: first[name][0].as_py() for name in ORIGIN}

    @cached_property
    def enlargement(self) -> tuple[float, float]:
        """How many px of the full resolution a px is along y and x.

        Raises
        ------
        CellsegError
            If a level of the image's pyramid was read and the image cannot be.
        """
        if self.level == 0:
            return 1.0, 1.0
        try:
            return open_image(self.source).levels[self.level - 1].factor
        except (CellsegError, OSError, IndexError):
            raise CellsegError(
                f"{self.source}: cannot be read, and its level {self.level} was segmented: where"
                " its cells are at full resolution is not known. Put the image back."
            ) from None

    @property
    def planes(self) -> list[tuple[int, int]]:
        """The planes as t, z."""
        times, depth, *_ = self.shape
        return [(t, z) for t in range(times) for z in range(depth)]

    def plane_name(self, t: int, z: int) -> str:
        """Return a file name for one plane: the image's own, where it has one plane."""
        whole = self.name == stem_of(self.file_name)
        suffix = self.file_name[len(self.name) :] if whole else Path(self.file_name).suffix
        return self._of_plane(t, z) + suffix

    def stack_name(self, t: int, z: int) -> str:
        """Return the name of the TIFF stack of one plane."""
        return f"{self._of_plane(t, z)}.tif"

    def _of_plane(self, t: int, z: int) -> str:
        return self.name if len(self.planes) == 1 else f"{self.name}_t{t}_z{z}"

    def cells(
        self, only: tuple[int, int] | None = None, columns: Sequence[str] = ()
    ) -> Iterator[ExportedPlane]:
        """Yield the cells in the order of their labels, some thousand of a plane at a time.

        Of a 3D cell, its section in each plane that has one. Of all planes, or of one t, z.
        With some columns of the table, or none.
        """
        needed = list(dict.fromkeys([*COLUMNS, *columns]))
        for table in self.rows.tables(BATCH, needed):
            rows, row = _by_plane(table)
            planes = np.stack([rows["t"], rows["z"]], axis=1)
            for t, z in np.unique(planes, axis=0).tolist():
                if only not in (None, (t, z)):
                    continue
                there = np.flatnonzero((planes == (t, z)).all(axis=1))
                cells = self._instances(t, z, {name: each[there] for name, each in rows.items()})
                there = there[[bool(mask.any()) for mask in cells.masks]]
                chosen = table.select(list(columns)).take(row[there])
                yield ExportedPlane(
                    t, z, rows["label"][there].astype(np.int64), _tight(cells), chosen
                )

    def _instances(self, t: int, z: int, rows: Mapping[str, NDArray[Any]]) -> Instances:
        """Return the cells of some rows, read in groups that lie close together."""
        boxes = np.stack([rows[name] for name in BOX], axis=1).astype(np.int32)
        masks: list[NDArray[np.bool_]] = [np.zeros((0, 0), bool)] * len(boxes)
        windows = np.stack([rows["y_px"] // WINDOW, rows["x_px"] // WINDOW], axis=1)
        groups = np.concatenate([windows, rows["layer"][:, None]], axis=1)
        _, group = np.unique(groups, axis=0, return_inverse=True)
        for number in range(group.max(initial=-1) + 1):
            near = np.flatnonzero(group == number)
            y0, x0 = boxes[near, :2].min(axis=0).tolist()
            y1, x1 = boxes[near, 2:].max(axis=0).tolist()
            layer = int(rows["layer"][near[0]]) - 1
            drawn = self.results.labels.read(t, z, Box(y0, x0, y1, x1), layer=layer)
            for i in near.tolist():
                top, left, bottom, right = boxes[i].tolist()
                crop = drawn[top - y0 : bottom - y0, left - x0 : right - x0]
                masks[i] = crop == rows["label"][i]
        return Instances(
            boxes, tuple(masks), rows["score"].astype(np.float32), rows["class"].astype(np.uint8)
        )


def _tight(cells: Instances) -> Instances:
    """Return objects in boxes that fit; those without a pixel go."""
    columns = cells.boxes[:, :2].tolist(), cells.masks, cells.scores, cells.classes
    return Instances.stack(
        [
            ((y, x), mask, float(score), int(class_))
            for (y, x), mask, score, class_ in zip(*columns, strict=True)
        ]
    )


def _by_plane(table: pa.Table) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
    """Return the columns of some rows, those of a 3D cell once for each of its planes.

    And which row each is.
    """
    linked = table["z0_px"].is_valid().to_numpy()
    z = table["z"].to_numpy()
    first = np.where(linked, table["z0_px"].fill_null(0).to_numpy(), z)
    counts = np.where(linked, table["z1_px"].fill_null(0).to_numpy() - first, 1)
    row, number = spread(counts)
    names = [name for name in COLUMNS if name not in ("z0_px", "z1_px")]
    rows = {name: table[name].to_numpy()[row] for name in names}
    return rows | {"z": first[row] + number}, row


def find_images(folder: Path) -> list[ExportedImage]:
    """Return the images of a results folder that are done.

    Raises
    ------
    CellsegError
        If it is no results folder, or none of its images is done.
    """
    results = Results(folder)
    document = results.read_run()
    reports = [image for image in document["images"] if image["state"] == "done"]
    if not reports:
        raise CellsegError(f"{folder}: none of its images is done. Run the workflow to its end.")
    gathered: dict[str, CellRows] | None = None
    # While a run is going on, or after it was killed, the table of all cells is that of an
    # earlier one.
    if document.get("state", "done") == "done" and results.cells_path.is_file():
        gathered = rows_by_image(results.cells_path)
    classes = tuple(document.get("model", {}).get("classes") or ())
    return [_image(results, report, gathered, classes) for report in reports]


def _image(
    results: Results,
    report: Mapping[str, Any],
    gathered: Mapping[str, CellRows] | None,
    classes: tuple[str, ...],
) -> ExportedImage:
    name, source = report["name"], Path(report["source"])
    image = results.at(Place.read(report))
    labels = image.labels
    if not labels.layers or not image.cells_path.is_file():
        raise CellsegError(
            f"{image.folder}: its labels or its table are missing. Run the workflow again."
        )
    drawn = open_image(labels.layer_paths[0])
    times, _, depth, height, width = drawn.shape
    rows = rows_of_file(image.cells_path)
    if gathered is not None:
        rows = gathered.get(name, CellRows(results.cells_path, ()))
    return ExportedImage(
        name,
        source.name,
        (times, depth, height, width),
        image,
        rows,
        voxel=drawn.voxel,
        source=source,
        level=report.get("level") or 0,
        classes=classes,
        channels=tuple(report.get("channels") or ()),
        stated={name: report.get(name) for name in ORIGIN},
    )
