"""Corrected fields as a training set: review, export, `cellseg train --from`, run again.

Images are written as the model saw them: the channels that it sees, at its magnification. What
is corrected and not applied yet counts too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers
from cellseg.models.scale import magnify
from cellseg.pipeline.change import Change
from cellseg.pipeline.exported import ExportedImage
from cellseg.pipeline.remeasure import scenes_of
from cellseg.pipeline.review.edits import Editor
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.table import BOX
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.training_set import TrainingSet

SIZE = 1024
BATCH = 65536
COLUMNS = ("label", "t", "z", "z0_px", "z1_px", *BOX, "class", "seam")
Fields = Literal["corrected", "reviewed", "done"]
Places = NDArray[np.int64]
"""Int64 (N, 6): t, z and the box y0, x0, y1, x1 of something in a plane."""


def write_training(
    images: Sequence[ExportedImage],
    output: Path,
    folder: Path,
    fields: Fields = "corrected",
    size: int = SIZE,
) -> Iterator[str]:
    """Write fields of a results folder as a training set; yield the name of each image.

    Parameters
    ----------
    images : sequence of ExportedImage
    output : Path
        What an earlier export has written there goes.
    folder : Path
        The results.
    fields : str
        Images with corrected cells; those that somebody has looked at in the review; or all.
    size : int
        Images that are larger are cut: of corrected ones a crop of this side around each cell
        that was corrected and is in no crop yet, of others around any cell. In px as the model
        sees them.

    Raises
    ------
    CellsegError
        If no image is left, or the images are gone.
    """
    scenes, lost = scenes_of(folder)
    seen = {scene.name: scene for scene in scenes}
    written, lines = TrainingSet(output), list[str]()
    written.retire()
    sources: dict[str, str] = {}
    # A training needs the classes of all images, or of none.
    classed = any(_has_classes(_Field(folder, image), fields) for image in images)
    if classed:
        names = images[0].classes
        lines += [f"class {number}: {name}" for number, name in enumerate(names, 1)]
    for image in images:
        field = _Field(folder, image)
        if (chosen := _chosen(field, fields)) is None:
            yield image.name
            continue
        if image.name not in seen:
            raise CellsegError(f"{image.name}: {lost.get(image.name, 'its image is gone.')}")
        for name, pixels, cells in _crops(field, seen[image.name], chosen, size, classed=classed):
            written.add(name, pixels, cells, classed=classed)
            sources[name] = image.name
            lines.append(f"{name}: {len(cells)} cells")
        written.note(sources)
        yield image.name
    if not sources:
        raise CellsegError(
            f"{folder}: no image is {fields}. Correct cells and run cellseg measure, or take all"
            " images by --fields done."
        )
    written.write_report(lines)


def _has_classes(field: _Field, fields: Fields) -> bool:
    """Whether an image is taken that has cells of several classes."""
    return field.classed and _chosen(field, fields) is not None


def _chosen(field: _Field, fields: Fields) -> Places | None:
    """Return around what an image is cut, or None if it is left out."""
    corrected = field.corrected()
    if fields == "corrected":
        return corrected if len(corrected) else None
    if fields == "reviewed" and not field.reviewed:
        return None
    return corrected if len(corrected) else field.cells()


@dataclass(frozen=True, eq=False)
class _Field:
    """An image of a results folder, as it is after all corrections."""

    folder: Path
    image: ExportedImage

    @cached_property
    def editor(self) -> Editor | None:
        """What knows the corrections that are not applied; None where there is no log of them."""
        if not self.image.results.edits_path.is_file():
            return None
        return Editor(self.folder, self.image.name)

    @property
    def reviewed(self) -> bool:
        """Whether somebody has looked at it in the review."""
        return self.editor is not None and bool(self.editor.log)

    @cached_property
    def classed(self) -> bool:
        """Whether there are cells of several classes."""
        return int(self.classes.max()) > 1

    def _tables(self) -> Iterator[Any]:
        return (part for part in self.image.results.cell_rows(COLUMNS, BATCH) if len(part))

    def _places(self, *, edited: bool) -> Places:
        found = [np.zeros((0, 6), np.int64)]
        for table in self._tables():
            linked = table["z0_px"].is_valid().to_numpy(zero_copy_only=False)
            middle = (
                table["z0_px"].fill_null(0).to_numpy() + table["z1_px"].fill_null(0).to_numpy()
            ) // 2
            z = np.where(linked, middle, table["z"].to_numpy())
            boxes = [table[name].to_numpy() for name in BOX]
            rows = np.stack([table["t"].to_numpy(), z, *boxes], axis=1).astype(np.int64)
            if edited:
                rows = rows[np.array(table["seam"].to_pylist()) == "edited"]
            found.append(rows)
        return np.concatenate(found)

    def cells(self) -> Places:
        """Return where all cells are."""
        return self._places(edited=False)

    def corrected(self) -> Places:
        """Return where cells were corrected, removed ones too as far as the log knows them."""
        places = [(each.t, each.z, *each.box) for each in self._changes]
        return np.concatenate(
            [self._places(edited=True), np.array(places, np.int64).reshape(-1, 6)]
        )

    def instances(self, t: int, z: int, box: Box) -> NDArray[Any]:
        """Return the label images (L, h, w) of a window."""
        labels = self.image.results.labels
        if self.editor is None:
            return np.stack([labels.read(t, z, box, layer=n) for n in range(labels.layers)])
        return np.stack([self.editor.labels(t, z, box, n) for n in range(self.editor.layers)])

    @property
    def _changes(self) -> list[Change]:
        """What the log has done to cells; that one was accepted does nothing."""
        edits = self.editor.surviving if self.editor is not None else ()
        return [each for edit in edits if edit.what != "accept" for each in edit.changes]

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """The class of each label, as far as it is known, else 1."""
        tables = [(t["label"].to_numpy(), t["class"].to_numpy()) for t in self._tables()]
        changed = {each.label for each in self._changes}
        most = max([0, *changed, *(int(labels[-1]) for labels, _ in tables)])
        known = np.ones(most + 1, np.uint8)
        for labels, classes in tables:
            known[labels] = classes
        for label in changed:
            known[label] = self.editor.class_of(label) if self.editor is not None else 1
        return known


def _crops(
    field: _Field, scene: Scene, places: Places, size: int, *, classed: bool
) -> Iterator[tuple[str, NDArray[Any], Instances]]:
    """Yield name, pixels and cells of each crop, or of each plane that is small."""
    plane, image = scene.grid.plane, field.image
    side = max(round(size / scene.zoom), 1)
    whole = max(plane.shape) <= side
    classes = field.classes if classed else None
    for t, z in np.unique(places[:, :2], axis=0).tolist():
        here = places[(places[:, :2] == (t, z)).all(axis=1), 2:]
        name = image.name if len(image.planes) == 1 else f"{image.name}_t{t}_z{z}"
        for box in [plane] if whole else windows(here, plane, side):
            pixels = scene.inputs.see(scene.image.read(t, z, box, scene.inputs.channels))
            layers = field.instances(t, z, box)
            pixels, layers = _as_seen(pixels, layers, scene.zoom)
            cells = _cells(layers, classes)
            yield name if whole else f"{name}_y{box.y0}_x{box.x0}", pixels, cells


def windows(boxes: NDArray[np.integer], plane: Box, side: int) -> Iterator[Box]:
    """Yield windows of a side in a plane such that each box lies in one, or its middle does.

    Parameters
    ----------
    boxes : integers (N, 4)
        y0, x0, y1, x1; in their order, each that is in no window yet gets one around it.
    plane : Box
    side : int
        Where the plane is smaller, windows are as large as it is.
    """
    left = np.asarray(boxes, np.int64)
    height, width = (min(side, length) for length in plane.shape)
    while len(left):
        middle = (left[0, :2] + left[0, 2:]) // 2
        low = np.clip(
            middle - (height // 2, width // 2), 0, np.subtract(plane.shape, (height, width))
        )
        high = np.add(low, (height, width))
        yield Box(*low.tolist(), *high.tolist())
        inside = (left[:, :2] >= low).all(axis=1) & (left[:, 2:] <= high).all(axis=1)
        inside[0] = True
        left = left[~inside]


def _as_seen(
    pixels: NDArray[Any], layers: NDArray[Any], zoom: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return pixels and labels at the magnification at which the model sees them."""
    if zoom == 1:
        return pixels, layers
    seen = magnify(pixels.astype(np.float32), zoom)
    rows, columns = (
        np.minimum(((np.arange(length) + 0.5) / zoom).astype(int), limit - 1)
        for length, limit in zip(seen.shape[1:], layers.shape[1:], strict=True)
    )
    if pixels.dtype.kind in "iu":
        about = np.iinfo(pixels.dtype)
        seen = np.clip(np.rint(seen), about.min, about.max)
    return seen.astype(pixels.dtype), layers[:, rows[:, None], columns]


def _cells(layers: NDArray[Any], classes: NDArray[np.uint8] | None) -> Instances:
    """Return the cells of some label images, with their classes where there are several."""
    cells = from_layers(layers)
    if classes is None:
        return cells
    labels = np.unique(layers[layers > 0])
    kinds = np.array([classes[n] if n < len(classes) else 1 for n in labels.tolist()], np.uint8)
    return Instances(cells.boxes, cells.masks, cells.scores, kinds)
