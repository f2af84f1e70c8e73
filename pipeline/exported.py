"""The cells of a results folder in the files of others, every cell whole.

Images stream one after the other. Of an image a COCO file needs, at a time, the
masks of a few thousand cells and the labels around some of them; a TIFF stack
the masks of all cells of a plane, and one plane.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.meeting import spread
from cellseg.pipeline.coco import rle_of
from cellseg.pipeline.image import open_image
from cellseg.pipeline.masks import stem_of
from cellseg.pipeline.place import Place
from cellseg.pipeline.results import DAMAGED, ImageResults, Results, replace_file
from cellseg.pipeline.table import BOX, WINDOW
from cellseg.pipeline.tiles import Box

BATCH = 4096
"""Cells that are read together."""
COLUMNS = ("label", "t", "z", "z0_px", "z1_px", "layer", "y_px", "x_px", *BOX, "class", "score")
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
    """

    t: int
    z: int
    labels: NDArray[np.int64]
    cells: Instances


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
    """

    name: str
    file_name: str
    shape: tuple[int, int, int, int]
    results: ImageResults

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

    def cells(self, only: tuple[int, int] | None = None) -> Iterator[ExportedPlane]:
        """Yield the cells in the order of their labels, some thousand of a plane at a time.

        Of a 3D cell, its section in each plane that has one. Of all planes, or of one t, z.
        """
        for table in self.results.cell_rows(COLUMNS, BATCH):
            rows = _by_plane(table)
            planes = np.stack([rows["t"], rows["z"]], axis=1)
            for t, z in np.unique(planes, axis=0).tolist():
                if only not in (None, (t, z)):
                    continue
                there = np.flatnonzero((planes == (t, z)).all(axis=1))
                chosen = {name: values[there] for name, values in rows.items()}
                labels = chosen["label"].astype(np.int64)
                cells = self._instances(t, z, chosen)
                there = np.flatnonzero([mask.any() for mask in cells.masks])
                yield ExportedPlane(t, z, labels[there], _tight(cells))

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


def _by_plane(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the columns of some rows, those of a 3D cell once for each of its planes."""
    linked = table["z0_px"].is_valid().to_numpy()
    z = table["z"].to_numpy()
    first = np.where(linked, table["z0_px"].fill_null(0).to_numpy(), z)
    counts = np.where(linked, table["z1_px"].fill_null(0).to_numpy() - first, 1)
    row, number = spread(counts)
    names = [name for name in COLUMNS if name not in ("z0_px", "z1_px")]
    rows = {name: table[name].to_numpy()[row] for name in names}
    return rows | {"z": first[row] + number}


def find_images(folder: Path) -> list[ExportedImage]:
    """Return the images of a results folder that are done.

    Raises
    ------
    CellsegError
        If it is no results folder, or none of its images is done.
    """
    results = Results(folder)
    try:
        document = json.loads(results.run_path.read_text(encoding="utf-8"))
        reports = [image for image in document["images"] if image["state"] == "done"]
    except (*DAMAGED, TypeError):
        raise CellsegError(
            f"{folder}: no results folder of cellseg: its run.json is missing or damaged."
            " Give the output folder of a run."
        ) from None
    if not reports:
        raise CellsegError(f"{folder}: none of its images is done. Run the workflow to its end.")
    return [_image(results, report) for report in reports]


def _image(results: Results, report: Mapping[str, Any]) -> ExportedImage:
    name, source = report["name"], Path(report["source"]).name
    image = results.at(Place.read(report))
    labels = image.labels
    if not labels.layers or not image.cells_path.is_file():
        raise CellsegError(
            f"{image.folder}: its labels or its table are missing. Run the workflow again."
        )
    times, _, depth, height, width = open_image(labels.layer_paths[0]).pixels.shape
    return ExportedImage(name, source, (times, depth, height, width), image)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` once written, or goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.writing")
    try:
        yield written
        replace_file(path, written.replace)
    finally:
        written.unlink(missing_ok=True)


def write_coco(images: Sequence[ExportedImage], path: Path) -> Iterator[str]:
    """Write one COCO file; yield the name of each image that is in it.

    A plane is an image there. Each cell has its run lengths (compressed), box,
    area, class as ``category_id``, and, beside the format, ``score`` and ``label``.
    """
    with _whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        planes = [(image, t, z) for image in images for t, z in image.planes]
        ids = {(image.name, t, z): number for number, (image, t, z) in enumerate(planes, 1)}
        listed = [_coco_image(number, *plane) for number, plane in enumerate(planes, 1)]
        file.write(f'{{"images": {json.dumps(listed)},\n"annotations": [')
        most, number = 1, 0
        for image in images:
            for plane in image.cells():
                most = max(most, int(plane.cells.classes.max(initial=0)))
                at = ids[image.name, plane.t, plane.z]
                number = _write_annotations(file, image, plane, at, number)
            yield image.name
        names = ["cell"] if most == 1 else [f"class {number}" for number in range(1, most + 1)]
        categories = [{"id": rank, "name": name} for rank, name in enumerate(names, 1)]
        file.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')


def _coco_image(number: int, image: ExportedImage, t: int, z: int) -> dict[str, Any]:
    _, _, height, width = image.shape
    return {"id": number, "file_name": image.plane_name(t, z), "height": height, "width": width}


def _write_annotations(
    file: IO[str], image: ExportedImage, plane: ExportedPlane, image_id: int, number: int
) -> int:
    """Append some cells; return the number of the last."""
    cells, areas = plane.cells, plane.cells.areas().tolist()
    _, _, height, width = image.shape
    for i, (label, (y0, x0, y1, x1)) in enumerate(
        zip(plane.labels.tolist(), cells.boxes.tolist(), strict=True)
    ):
        number += 1
        annotation = {
            "id": number,
            "image_id": image_id,
            "category_id": int(cells.classes[i]),
            "segmentation": rle_of((y0, x0), cells.masks[i], (height, width)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": areas[i],
            "iscrowd": 0,
            "score": float(cells.scores[i]),
            "label": label,
        }
        file.write(f"{',' * (number > 1)}\n{json.dumps(annotation)}")
    return number


def write_stacks(images: Sequence[ExportedImage], folder: Path) -> Iterator[str]:
    """Write a TIFF stack for each plane of each image; yield the name of each image.

    Axes (cell, y, x), uint8, 255 on the cell and 0 elsewhere, in the order of the
    labels, zlib. A plane without cells is one empty plane. Slides are better
    served by COCO: here every cell takes the time of a whole plane.
    """
    for image in images:
        for t, z in image.planes:
            cells = Instances.concatenate([part.cells for part in image.cells((t, z))])
            write_stack(folder / image.stack_name(t, z), cells, image.shape[2:])
        yield image.name


def write_stack(path: Path, cells: Instances, shape: tuple[int, int]) -> None:
    """Write objects of a plane as a TIFF stack of masks; see `write_stacks`."""
    import tifffile

    def planes() -> Iterator[NDArray[np.uint8]]:
        for (y0, x0, y1, x1), mask in zip(cells.boxes.tolist(), cells.masks, strict=True):
            plane = np.zeros(shape, np.uint8)
            plane[y0:y1, x0:x1][mask] = 255
            yield plane
        if not len(cells):
            yield np.zeros(shape, np.uint8)

    count = max(len(cells), 1)
    large = count * shape[0] * shape[1] > LARGEST_TIFF
    with _whole(path) as partial, tifffile.TiffWriter(partial, bigtiff=large) as file:
        file.write(
            planes(),
            shape=(count, *shape),
            dtype=np.uint8,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": "QYX"},
        )
