"""A results folder as layers of a viewer: pixels, labels and cells, lazy; no Qt and no napari."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.normalise import decide
from cellseg.models.settings import Percentile
from cellseg.pipeline.image import Image
from cellseg.pipeline.ngff import attributes
from cellseg.pipeline.review.contents import Contents, Entry, is_results
from cellseg.pipeline.review.label_arrays import Corrected, LabelArrays
from cellseg.pipeline.sampling import sample_windows
from cellseg.pipeline.voxel import Voxel

__all__ = ["LayerData", "Scale", "get_reader", "layers_of", "open_results", "points_of"]

LayerData = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: the data, the layer's settings, and its kind."""
LISTS = "overlaps_with"
"""The column of the table that holds lists."""
COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue")
"""Of channels whose file names no colour."""
LARGEST_PX = 4096
"""Side of the largest plane that is shown without coarser levels."""
COARSEST_PX = 1024
SAMPLE_PX = 2048 * 2048
POINTS = 300_000
"""Of more cells no points are shown: a viewer would be slow with them."""


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return what reads a path for napari; None if it is nothing of cellseg."""
    if isinstance(path, list) or not is_results(Path(path)):
        return None
    return _read


def _read(path: str) -> list[LayerData]:
    return open_results(Path(path))


def open_results(path: Path, image: str | None = None) -> list[LayerData]:
    """Return one image of a results folder as layers.

    Parameters
    ----------
    path : Path
        See `Contents.read`.
    image : str, optional
        Its name; by default the first one.

    Returns
    -------
    list of (data, settings, kind)
        Image layers, a label layer for each of `labels`, and points. What could not be opened
        is said in ``settings["metadata"]["cellseg"]["warnings"]`` of the first one.

    Raises
    ------
    CellsegError
        If there are no results, or no such image.
    """
    contents = Contents.read(path)
    entry = contents[image] if image is not None else contents.entries[0]
    corrected = None
    if contents.editable and entry.results.edits_path.is_file():
        from cellseg.pipeline.review.edits import Editor

        corrected = Corrected(Editor(contents.folder, entry.name))
    return layers_of(contents, entry, LabelArrays.open(entry, corrected), contents.cells(entry))


def layers_of(
    contents: Contents, entry: Entry, labels: LabelArrays, cells: pd.DataFrame
) -> list[LayerData]:
    """Return the layers of one image.

    Parameters
    ----------
    contents : Contents
    entry : Entry
    labels : LabelArrays
    cells : DataFrame
        Of this image.
    """
    warnings: list[str] = []
    image: Image | None = None
    try:
        image = contents.pixels(entry)
    except CellsegError as error:
        warnings.append(f"{entry.name}: shown without its image: {error}")
    scale = Scale.of(entry, labels, image)
    layers = [] if image is None else _pixel_layers(image, scale)
    layers += _label_layers(labels, scale)
    if len(cells) <= POINTS:
        layers.append(_points(cells, scale))
    for number, (_, settings, _kind) in enumerate(layers):
        about: dict[str, Any] = {"results": str(contents.folder), "image": entry.name}
        if number == 0:
            about["warnings"] = warnings
        settings["metadata"] = {"cellseg": {**settings.pop("about"), **about}}
        settings["units"] = scale.units
        settings["axis_labels"] = scale.axes
    return layers


class Scale:
    """How the px of labels and image lie on each other, and on the specimen.

    Parameters
    ----------
    axes : tuple of str
        Those that are shown: t and z only where there are several.
    voxel : (z, y, x) or None
        Size of a voxel of the labels in um, if it is known.
    factor : (y, x)
        Px of the image in a px of the labels.
    """

    def __init__(
        self, axes: tuple[str, ...], voxel: Voxel | None, factor: tuple[float, float]
    ) -> None:
        self.axes, self.voxel, self.factor = axes, voxel, factor

    @classmethod
    def of(cls, entry: Entry, labels: LabelArrays, image: Image | None) -> Scale:
        """Return the scale of an image and its labels."""
        voxel, factor = labels.voxel, (1.0, 1.0)
        if entry.pixel_um is not None:
            voxel = (voxel[0] if voxel else 1.0, *entry.pixel_um)
        if entry.level and image is not None and entry.level <= len(image.levels):
            factor = image.levels[entry.level - 1].factor
        return cls(labels.axes, voxel, factor)

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of each axis."""
        unit = "um" if self.voxel else "pixel"
        return tuple("pixel" if axis == "t" else unit for axis in self.axes)

    @property
    def labels(self) -> tuple[float, ...]:
        """Step from one px of the labels to the next, along each axis."""
        z, y, x = self.voxel or (1.0, *self.factor)
        size = {"t": 1.0, "z": z, "y": y, "x": x}
        return tuple(size[axis] for axis in self.axes)

    @property
    def pixels(self) -> tuple[float, ...]:
        """The same of the image at full resolution."""
        *lead, y, x = self.labels
        return *lead, y / self.factor[0], x / self.factor[1]

    @property
    def shift(self) -> tuple[float, ...]:
        """Where the centre of the labels' first px lies, from that of the image's."""
        *lead, y, x = self.pixels
        shifts = ((f - 1) / 2 * side for f, side in zip(self.factor, (y, x), strict=True))
        return *(0.0 for _ in lead), *shifts


def points_of(cells: pd.DataFrame, axes: Sequence[str]) -> NDArray[np.float64]:
    """Return the centres of cells (N, axes), in px of the labels."""
    columns = {"t": "t", "z": "z", "y": "y_px", "x": "x_px"}
    return cells[[columns[axis] for axis in axes]].to_numpy(np.float64)


def _pixel_layers(image: Image, scale: Scale) -> list[LayerData]:
    """Return an image layer for each channel, or one of interleaved colours."""
    settings: dict[str, Any] = {"scale": scale.pixels}
    count = len(image.channels)
    if count in (3, 4) and image.dtype == np.uint8 and image.stored.chunks[1] == count:
        levels = [_shown(pixels[:, :3], scale.axes, colour=True) for pixels in _levels(image)]
        name = Path(image.source).name
        return [_pixels(levels, name, settings | {"rgb": True})]
    stated = _stated(image)
    limits = _limits(image)
    layers = []
    for c, channel in enumerate(image.channels):
        levels = [_shown(pixels[:, c], scale.axes) for pixels in _levels(image)]
        low, high = stated[c].get("window") or limits[c]
        colour = stated[c].get("colour") or ("gray" if count == 1 else COLOURS[c % len(COLOURS)])
        name = f"channel {channel}" if channel.isdecimal() else channel
        own = {"contrast_limits": (low, high), "colormap": colour, "blending": "additive"}
        layers.append(_pixels(levels, name, settings | own | {"gamma": 0.7}))
    return layers


def _pixels(levels: list[Any], name: str, settings: dict[str, Any]) -> LayerData:
    several = len(levels) > 1
    settings = settings | {"name": name, "multiscale": several, "about": {"kind": "pixels"}}
    return (levels if several else levels[0]), settings, "image"


def _shown(pixels: Any, axes: Sequence[str], *, colour: bool = False) -> Any:
    """Return an array (T, [C], Z, Y, X) with the axes that are shown, colours last."""
    if colour:
        pixels = np.moveaxis(pixels, 1, -1)
    return pixels[tuple(slice(None) if axis in axes else 0 for axis in "tzyx")]


def _levels(image: Image) -> list[Any]:
    """Return an image with its coarser levels; one that has none gets lazy ones."""
    if image.levels or max(image.shape[3:]) <= LARGEST_PX:
        return [image.pixels, *(level.pixels for level in image.levels)]
    levels, step = [image.pixels], 2
    while max(levels[-1].shape[3:]) > COARSEST_PX:
        # Every few-th pixel: a chunk is decoded when it comes into view, and not kept.
        levels.append(image.pixels[..., ::step, ::step])
        step *= 2
    return levels


def _stated(image: Image) -> list[dict[str, Any]]:
    """Return what OME-Zarr metadata say of each channel: the window of its grey levels."""
    count, path = len(image.channels), Path(image.source)
    nothing: list[dict[str, Any]] = [{} for _ in range(count)]
    try:
        channels = attributes(path).get("omero", {}).get("channels", []) if path.is_dir() else []
    except CellsegError:
        return nothing
    if len(channels) != count:
        return nothing
    whole = np.iinfo(image.dtype).max if image.dtype.kind in "iu" else np.inf
    for each, channel in zip(nothing, channels, strict=True):
        window, colour = channel.get("window", {}), str(channel.get("color", ""))
        low, high = window.get("start"), window.get("end")
        if low is not None and high is not None and low < high < whole:
            each["window"] = float(low), float(high)
        if count > 1 and len(colour) == 6 and colour.upper() != "FFFFFF":
            each["colour"] = f"#{colour}"
    return nothing


def _limits(image: Image) -> list[tuple[float, float]]:
    """Return the grey levels of each channel between which it is shown, from a sample."""
    level = next(
        (n for n, each in enumerate(image.levels, 1) if np.prod(each.stored.shape[3:]) < SAMPLE_PX),
        0,
    )
    shown = image.at_level(level)
    middle = shown.shape[2] // 2
    found = decide(Percentile(), sample_windows(shown, range(len(shown.channels)), 0, middle))
    pairs = zip(found.low, found.high, strict=True)
    return [(low, high if high > low else low + 1) for low, high in pairs]


def _label_layers(labels: LabelArrays, scale: Scale) -> list[LayerData]:
    layers = []
    for number, (name, levels) in enumerate(zip(labels.names, labels.arrays, strict=True)):
        several = len(levels) > 1
        settings = {
            "name": name,
            "scale": scale.labels,
            "translate": scale.shift,
            "multiscale": several,
            "opacity": 0.7,
            "about": {"kind": "labels", "layer": number},
        }
        layers.append((levels if several else levels[0], settings, "labels"))
    return layers


def _points(cells: pd.DataFrame, scale: Scale) -> LayerData:
    diameter = 2 * float(np.sqrt(cells["area_px"].median() / np.pi)) if len(cells) else 10.0
    settings = {
        "name": "cell centres",
        "scale": scale.labels,
        "translate": scale.shift,
        "features": flat(cells),
        "size": max(diameter / 3, 2.0),
        "face_color": "white",
        "border_color": "black",
        "visible": False,
        "about": {"kind": "cells"},
    }
    return points_of(cells, scale.axes), settings, "points"


def flat(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a table without lists: labels that a cell overlaps with are text, spaces between."""
    if LISTS not in cells:
        return cells
    # Of a cell that was added nothing is known.
    lists = ([] if labels is None else labels for labels in cells[LISTS])
    return cells.assign(**{LISTS: [" ".join(map(str, labels)) for labels in lists]})
