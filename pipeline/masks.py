"""The cells of an image from files, whole where they overlap: labels, stacks, annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers, to_layers
from cellseg.pipeline.annotations import Annotations
from cellseg.pipeline.coco import CocoImage, read_coco
from cellseg.pipeline.geojson import read_annotations
from cellseg.pipeline.image import READERS, Image, open_image, reader_of
from cellseg.pipeline.imagej import names_in, read_rois
from cellseg.pipeline.labelme import read_labelme
from cellseg.pipeline.place import Place

FORMS = (
    "TIFF or OME-Zarr label images, TIFF stacks with a plane for each cell, COCO or labelme .json,"
    " GeoJSON, ImageJ's .zip or .roi, a folder of them, or a results folder of cellseg"
)
Labels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Masks:
    """The cells of one image: as label layers, or as objects.

    Parameters
    ----------
    source : str
        For messages.
    shape : (..., H, W)
        Of the plane or volume, without leading axes of length 1.
    layers : tuple of Image
        Label images; each label lies in one of them. Empty where there are `cells`.
    cells : Instances, optional
    """

    source: str
    shape: tuple[int, ...]
    layers: tuple[Image, ...] = ()
    cells: Instances | None = None

    def label_image(self) -> Labels | None:
        """Return the label image of `shape`; None where one cannot hold all."""
        if len(self.layers) != 1:
            return None
        return np.asarray(self.layers[0].pixels).reshape(self.shape)

    def instances(self) -> Instances:
        """Return the cells in the order of their labels or of the file.

        The planes of a volume lie below each other, as in one tall image.
        """
        if self.cells is not None:
            return self.cells
        width = self.shape[-1]
        self._check_types()
        return _cut([np.asarray(layer.pixels).reshape(-1, width) for layer in self.layers])

    def label_layers(self) -> tuple[NDArray[np.int32], NDArray[np.uint8] | None]:
        """Return labels int32 (L, H, W) of the first plane, each label whole in one layer.

        And the class of each label from 0 on, uint8, where the file has classes.
        """
        height, width = self.shape[-2:]
        if self.cells is not None:
            classes = np.concatenate([np.zeros(1, np.uint8), self.cells.classes])
            return to_layers(self.cells, (height, width)), classes
        self._check_types()
        planes = [np.asarray(layer.pixels[0, 0, 0]) for layer in self.layers]
        if any(plane.dtype.kind == "i" and plane.min(initial=0) < 0 for plane in planes):
            raise CellsegError(f"{self.source}: labels below 0. Renumber them from 1 on.")
        return np.stack(planes).astype(np.int32), None

    def _check_types(self) -> None:
        for layer in self.layers:
            if layer.dtype.kind not in "iu":
                raise CellsegError(
                    f"{self.source}: pixels are {layer.dtype}, label images need integers."
                )


def _cut(layers: Sequence[Labels]) -> Instances:
    """Return what `from_layers` returns, in time that goes with the pixels where labels allow."""
    from scipy import ndimage

    if any(layer.min() < 0 or layer.max() > layer.size for layer in layers):
        return from_layers(np.stack(layers))
    found = [
        (label, number, window)
        for number, layer in enumerate(layers)
        for label, window in enumerate(ndimage.find_objects(layer), 1)
        if window is not None
    ]
    if len({label for label, *_ in found}) < len(found):
        return from_layers(np.stack(layers))
    return Instances.stack(
        [
            ((window[0].start, window[1].start), layers[number][window] == label, 1.0, 1)
            for label, number, window in sorted(found, key=lambda cell: cell[0])
        ]
    )


@dataclass(frozen=True)
class MaskSource:
    """Where the cells of one image lie.

    Parameters
    ----------
    path : Path
        The file or folder.
    annotated : CocoImage or Annotations, optional
        What is drawn in the image.
    layers : tuple of Path
        Its label images, where they are not all that lie there.
    """

    path: Path
    annotated: CocoImage | Annotations | None = None
    layers: tuple[Path, ...] = ()

    def planes(self) -> int:
        """Return how many planes the file has; 1 of what is drawn."""
        if self.annotated is not None:
            return 1
        return math.prod(self._image.shape[:3])

    def extent(self) -> tuple[int, int] | None:
        """Return height and width in px; None of annotations that do not say it."""
        if self.annotated is not None:
            return self.annotated.shape
        height, width = self._image.shape[3:]
        return height, width

    @property
    def _image(self) -> Image:
        return open_image((*self.layers, self.path)[0])

    def read(self, planes: int, extent: tuple[int, int] | None = None) -> Masks:
        """Return the cells, of a partner with as many planes.

        Parameters
        ----------
        planes : int
            Those of the image, or of the other label image. A TIFF with as many
            is a label volume, whatever its values. With another number of
            planes that hold 0 and one other value in all, it is a stack of
            cells, a plane each.
        extent : (H, W), optional
            Of the image, for annotations that do not say it. By default as much as they need.

        Raises
        ------
        CellsegError
            If the file cannot be read, or something drawn is no cell.
        """
        if self.annotated is not None:
            return self._drawn(extent)
        stack = self.stack() if self.planes() != planes else None
        return _labels(self.path, self.layers) if stack is None else stack

    def _drawn(self, extent: tuple[int, int] | None) -> Masks:
        found = self.annotated
        if isinstance(found, Annotations):
            found = found.over(extent or found.shape or found.reach)
        assert found is not None and found.shape is not None  # noqa: S101, PT018 - asked before
        return Masks(found.where, found.shape, cells=found.instances())

    def stack(self) -> Masks | None:
        """Return the cells of a TIFF with one in each plane; None if it is no such stack.

        Planes without a cell are passed over; a hole in a mask stays one. Memory
        grows with the cells, one plane is read at a time.
        """
        if self.annotated is not None or reader_of(self.path) is READERS[".zarr"]:
            return None
        image = open_image(self.path)
        planes = image.pixels.reshape((-1, *image.shape[3:]))
        if len(planes) == 1:
            return None
        found, values = [], set[Any]()
        for number in range(len(planes)):
            plane = np.asarray(planes[number])
            mask = plane != 0
            values.add(plane.max() if mask.any() else 0)
            if len(values - {0}) > 1 or not (plane[mask] == plane.max()).all():
                return None
            found.append(Instances.stack([((0, 0), mask, 1.0, 1)]))
        cells = Instances.concatenate(found)
        return Masks(str(self.path), image.shape[3:], cells=cells)


def read_pair(one: MaskSource, other: MaskSource) -> tuple[Masks, Masks]:
    """Return the cells of the two sides of a comparison.

    See `MaskSource.read`; two TIFFs with as many planes are stacks where
    both hold 0 and one other value, else volumes.
    """
    if (planes := one.planes()) == other.planes() > 1:
        stacks = one.stack(), other.stack()
        if stacks[0] is not None and stacks[1] is not None:
            return stacks[0], stacks[1]
    return one.read(other.planes(), other.extent()), other.read(planes, one.extent())


def _labels(path: Path, layers: Sequence[Path] = ()) -> Masks:
    """Return a label image, or the label layers of an OME-Zarr group."""
    paths = [*layers] or [path]
    if not layers and reader_of(path) is READERS[".zarr"]:
        from cellseg.pipeline.ome_zarr import label_layers

        paths = label_layers(path)
    images = tuple(open_image(each) for each in paths)
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise CellsegError(f"{path}: its label images differ in shape.")
    *planes, height, width = shapes.pop()
    return Masks(str(path), (*(axis for axis in planes if axis != 1), height, width), images)


def _coco(path: Path) -> dict[str, MaskSource]:
    found: dict[str, MaskSource] = {}
    for image in read_coco(path):
        name = stem_of(Path(image.file_name).name)
        if name in found:
            raise CellsegError(f"{path}: two images are called {name}. Rename one of them.")
        found[name] = MaskSource(path, image)
    return found


def _one(path: Path) -> dict[str, MaskSource]:
    return {stem_of(path.name): MaskSource(path)}


def _drawn(path: Path, found: Annotations) -> dict[str, MaskSource]:
    return {stem_of(stem_of(found.file_name)): MaskSource(path, found)}


def _json(path: Path) -> dict[str, MaskSource]:
    """Read labelme, GeoJSON or COCO, by what is in the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CellsegError(f"{path}: not JSON ({error}).") from error
    if isinstance(document, dict) and "shapes" in document:
        return _drawn(path, read_labelme(path, document))
    if isinstance(document, list) or "type" in document:
        return _geojson(path)
    return _coco(path)


def _geojson(path: Path) -> dict[str, MaskSource]:
    return _drawn(path, read_annotations(path))


def _zip(path: Path) -> dict[str, MaskSource]:
    """Read ImageJ's ROIs, or one GeoJSON file, by what is in the file."""
    if any(name.lower().endswith("json") for name in names_in(path)):
        return _geojson(path)
    return _rois(path)


def _rois(path: Path) -> dict[str, MaskSource]:
    return _drawn(path, read_rois(path))


MASK_READERS: dict[str, Callable[[Path], dict[str, MaskSource]]] = {
    **dict.fromkeys(READERS, _one),
    ".json": _json,
    ".geojson": _geojson,
    ".zip": _zip,
    ".roi": _rois,
}
"""For each suffix, in lower case, what gives the images of a file by name without suffix."""


def is_mask_file(path: Path) -> bool:
    """Whether `path` is one file, or zarr group, that `find_masks` reads."""
    if not path.exists():
        return False
    return reader_of(path) is not None or (path.is_file() and path.suffix.lower() in MASK_READERS)


def find_masks(path: Path) -> dict[str, MaskSource]:
    """Return the masks at `path`, by the image's name without suffix.

    Parameters
    ----------
    path : Path
        A label image (TIFF or OME-Zarr, layers included), a TIFF stack of
        binary planes, annotations (COCO, labelme, GeoJSON, ImageJ's ROIs), a
        folder of those, or a results folder. In a folder with images,
        annotations do not count.

    Raises
    ------
    CellsegError
        If there is none, or two have one name.
    """
    if is_mask_file(path):
        return _in_file(path)
    if not path.is_dir():
        raise CellsegError(f"{path}: no such label image or folder. Give {FORMS}.")
    found = _of_results(path)
    for file in () if found else _files(path):
        for name, source in _in_file(file).items():
            if name in found:
                raise CellsegError(
                    f"{path}: {found[name].path.name} and {file.name} have one name, {name}."
                    " Remove one of them."
                )
            found[name] = source
    if not found:
        raise CellsegError(f"{path}: no label images. Give {FORMS}.")
    return found


def _in_file(path: Path) -> dict[str, MaskSource]:
    suffix = ".zarr" if path.is_dir() else path.suffix.lower()
    return MASK_READERS[suffix](path)


def _files(folder: Path) -> list[Path]:
    """Return the images of a folder, or where there are none the files of other formats."""
    files = [path for path in sorted(folder.iterdir()) if is_mask_file(path)]
    return [path for path in files if reader_of(path) is not None] or files


def _of_results(folder: Path) -> dict[str, MaskSource]:
    """Return the label images of a results folder; of its last run only those that are done."""
    if not (folder / "run.json").is_file():
        files = sorted(folder.glob("images/*/labels.zarr"))
        return {file.parent.name: MaskSource(file) for file in files}
    from cellseg.pipeline.results import Results

    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    stores = {
        image["name"]: Results(folder).at(Place.read(image)).labels
        for image in document["images"]
        if image["state"] == "done"
    }
    return {
        name: MaskSource(store.path, layers=tuple(store.layer_paths))
        for name, store in stores.items()
        if store.path.is_dir()
    }


def stem_of(name: str) -> str:
    """Return a file name without its suffix, `.ome` before it included."""
    stem, dot, suffix = name.rpartition(".")
    if f"{dot}{suffix.lower()}" not in {*MASK_READERS, ".png", ".jpg", ".jpeg", ".bmp"}:
        return name
    return stem[:-4] if stem.lower().endswith(".ome") else stem
