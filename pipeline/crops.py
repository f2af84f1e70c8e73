"""Small pictures of single cells with their outlines, from the image or else its overview."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.normalise import Normalisation, decide
from cellseg.models.settings import Percentile
from cellseg.pipeline.assembled import open_field
from cellseg.pipeline.files import DAMAGED
from cellseg.pipeline.image import Image, open_image
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.inputs import Inputs
from cellseg.pipeline.overview import GAMMA, LARGEST, OUTLINE, outlines
from cellseg.pipeline.pictures import Picture, read_picture, resized
from cellseg.pipeline.place import Place
from cellseg.pipeline.plate import Field, find
from cellseg.pipeline.results import Results
from cellseg.pipeline.sampling import sample_windows
from cellseg.pipeline.source import Shape
from cellseg.pipeline.table import BOX
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import Workflow, read_workflow

SIDE = 168
"""Px of a crop, on either side."""
AROUND, LEAST_PX = 1.7, 40
"""A crop shows so many times the longer side of its cell, and at least so many px."""
OTHERS = (96, 150, 190)
"""Colour of the outlines of the cells around the one that is shown."""
UNREADABLE = (CellsegError, *DAMAGED, IndexError)
"""What reading results raises of which a part is gone."""


@dataclass(frozen=True, eq=False)
class CropImage:
    """One image that crops are cut from.

    Parameters
    ----------
    here : ImageResults
    source : Field or None
        The image, where it can still be found.
    workflow : Workflow or None
        What was done with it.
    level : int
        Of its pyramid.
    """

    here: ImageResults
    source: Field | None
    workflow: Workflow | None
    level: int

    @cached_property
    def image(self) -> Image | None:
        """The lazy image at the level that was read; None if it is gone."""
        if self.source is None:
            return None
        try:
            return open_field(self.source).at_level(self.level)
        except UNREADABLE:
            return None

    @cached_property
    def inputs(self) -> Inputs:
        """The first plane that the model sees."""
        assert self.image is not None  # noqa: S101 - asked first
        assert self.source is not None  # noqa: S101
        entries = self.workflow.model.channels if self.workflow else (0,)
        numbering = self.source.numbering
        return Inputs.of(entries, self.image.channels, self.image.source, numbering).first

    @cached_property
    def shape(self) -> Shape:
        """Shape of the labels, (T, 1, Z, Y, X)."""
        shape: Shape = open_image(self.here.labels.layer_paths[0]).shape
        return shape

    @property
    def plane(self) -> Box:
        """All of a plane."""
        return Box(0, 0, *self.shape[3:])

    def in_overview(self, t: int, z: int) -> bool:
        """Whether the overview shows this plane."""
        return (t, z) == (0, self.shape[2] // 2)

    @lru_cache(maxsize=4)  # noqa: B019 - the image lives as long as the report is made
    def contrast(self, t: int, z: int) -> Normalisation:
        """Return how grey levels of a plane become 0 to 1, as in the overview."""
        assert self.image is not None  # noqa: S101 - asked first
        sample = sample_windows(self.image, self.inputs.channels, t, z)
        return decide(Percentile(), [self.inputs.see(window) for window in sample])

    def grey(self, t: int, z: int, box: Box) -> NDArray[np.uint8]:
        """Return a box of a plane as the overview shows it, uint8 (h, w)."""
        assert self.image is not None  # noqa: S101 - asked first
        pixels = self.inputs.see(self.image.read(t, z, box, self.inputs.channels))
        shown = np.clip(self.contrast(t, z).apply(pixels)[0], 0, 1) ** GAMMA * 255
        return np.asarray(shown, np.uint8)

    @cached_property
    def overview(self) -> Picture:
        """The picture of all of it; without its caption, where the labels say where that begins."""
        whole = read_picture(self.here.overview_path)
        try:
            height, width = (-(-side // overview_step(self.plane)) for side in self.plane.shape)
        except UNREADABLE:
            return whole
        return whole[:height, :width]


def open_sources(folder: Path) -> tuple[Workflow | None, dict[str, Field]]:
    """Return the workflow of a results folder, and its images by name as far as they are there.

    Images are found even where the workflow is one of another version of cellseg.
    """
    path = folder / "workflow.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        found = find([Path(entry) for entry in raw["images"]], raw.get("pattern"))
    except (*UNREADABLE, TypeError):
        return None, {}
    try:
        workflow = read_workflow(path)
    except UNREADABLE:
        workflow = None
    return workflow, {field.name: field for field in found.fields}


@dataclass(frozen=True)
class Crop:
    """A picture of a cell.

    Parameters
    ----------
    picture : uint8 (SIDE, SIDE, 3)
    across : int
        Px of the image that it is across.
    of_overview : bool
        Whether it is cut from the overview, as the image itself is gone.
    """

    picture: Picture
    across: int
    of_overview: bool


class Crops:
    """Cuts pictures of cells of a results folder.

    Parameters
    ----------
    folder : Path
    reports : mapping
        Lines of ``run.json`` by the name of the image.
    """

    def __init__(self, folder: Path, reports: Mapping[str, Mapping[str, Any]]) -> None:
        self.results = Results(folder)
        self.reports = reports
        self.workflow, self.sources = open_sources(folder)
        self.images: dict[str, CropImage] = {}

    def image(self, name: str) -> CropImage:
        """Return an image of the folder, the same one each time."""
        if name not in self.images:
            report = self.reports[name]
            here, source = self.results.at(Place.read(report)), self.sources.get(name)
            if source is not None and str(source.path) != report["source"]:
                source = None
            level = report.get("level") or 0
            self.images[name] = CropImage(here, source, self.workflow, level)
        return self.images[name]

    def cut(self, row: Mapping[str, Any]) -> Crop | None:
        """Return the picture of a cell; None if neither image nor overview show it.

        Parameters
        ----------
        row : mapping
            Its row of the table.
        """
        try:
            image = self.image(row["image"])
            box = _around(image.plane, *(row[name] for name in BOX))
            layer = row["layer"] - 1
            labels = image.here.labels.read(row["t"], row["z"], box, layer=layer)
            grey = self._background(image, row, box)
        except UNREADABLE:
            return None
        if grey is None:
            return None
        picture = _outlined(grey, labels, row["label"])
        return Crop(picture, max(box.shape), of_overview=image.image is None)

    def _background(
        self, image: CropImage, row: Mapping[str, Any], box: Box
    ) -> NDArray[np.uint8] | None:
        """Return the pixels of a box: of the image, else of its overview, grey or coloured."""
        if image.image is not None:
            return image.grey(row["t"], row["z"], box)
        if not image.in_overview(row["t"], row["z"]):
            return None
        step = overview_step(image.plane)
        part = image.overview[
            box.y0 // step : -(-box.y1 // step), box.x0 // step : -(-box.x1 // step)
        ]
        return part if part.size else None


def overview_step(plane: Box) -> int:
    """Return the px of a plane for each px of its overview."""
    level = 0
    while max(plane.shape) >> level > LARGEST:
        level += 1
    return int(2**level)


def _around(plane: Box, y0: int, x0: int, y1: int, x1: int) -> Box:
    """Return a square around a cell, moved into the plane; smaller where the plane is."""
    side = round(max(AROUND * max(y1 - y0, x1 - x0), LEAST_PX))
    edges = []
    for low, high, length in ((y0, y1, plane.y1), (x0, x1, plane.x1)):
        own = min(side, length)
        start = min(max((low + high - own) // 2, 0), length - own)
        edges.append((start, start + own))
    (top, bottom), (left, right) = edges
    return Box(top, left, bottom, right)


def _outlined(shown: NDArray[np.uint8], labels: NDArray[Any], label: int) -> Picture:
    """Draw the outline of a cell, and fainter those around it, on its pixels; a square."""
    longest = max(labels.shape)
    height, width = (max(round(SIDE * side / longest), 1) for side in labels.shape)
    grey = resized(shown, height, width)
    picture = grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2)
    rows = np.arange(height) * labels.shape[0] // height
    columns = np.arange(width) * labels.shape[1] // width
    large = labels[rows[:, None], columns]
    picture = picture.copy()
    if shown.ndim == 2:
        picture[outlines(large) & (large != label)] = OTHERS
    picture[outlines((large == label).astype(np.uint8))] = OUTLINE
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    square[top : top + height, left : left + width] = picture
    return square
