"""A training set on disk: images, their label images and classes under the same names.

It is what `cellseg train --from nuclei FOLDER` takes; see `cellseg.pipeline.training`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.instances import Instances
from cellseg.models.layers import to_layers
from cellseg.pipeline.files import replace_file, write_json
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.pyramid import regions
from cellseg.pipeline.tiles import Box

IMAGES, LABELS, CLASSES = "images", "labels", "classes"
NOTE = "exported.json"


@dataclass(frozen=True)
class TrainingSet:
    """A folder of `images` and `labels`, and of `classes` where there are several.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    def add(
        self, name: str, pixels: NDArray[Any], cells: Instances, *, classed: bool = False
    ) -> None:
        """Write an image and its cells; one of that name is replaced.

        Parameters
        ----------
        name : str
            Without suffix.
        pixels : (C, H, W), type of the file
            What the network shall see.
        cells : Instances
            Inside the image; where they overlap, their label images are layers of an OME-Zarr.
        classed : bool
            Whether to write the class of each cell as well, as an image of classes.
        """
        layers = to_layers(cells, (pixels.shape[1], pixels.shape[2]))
        self.remove(name)
        # Labels come first: an image without any would be an error of a training.
        if len(layers) == 1:
            count = np.uint16 if len(cells) <= np.iinfo(np.uint16).max else np.uint32
            _write_tiff(self.folder / LABELS / f"{name}.tif", layers.astype(count))
        else:
            _write_layers(self.folder / LABELS / f"{name}.zarr", layers)
        if classed:
            kinds = np.concatenate([np.zeros(1, np.uint8), cells.classes])[layers]
            _write_tiff(self.folder / CLASSES / f"{name}.tif", kinds.max(axis=0, keepdims=True))
        _write_tiff(self.folder / IMAGES / f"{name}.tif", pixels)

    def remove(self, name: str) -> None:
        """Remove an image, if it is there."""
        for part in (IMAGES, CLASSES, LABELS):
            (self.folder / part / f"{name}.tif").unlink(missing_ok=True)
        LabelStore(self.folder / LABELS / f"{name}.zarr").clear()

    def names(self) -> list[str]:
        """Return the names of the images that are there."""
        return sorted(path.stem for path in (self.folder / IMAGES).glob("*.tif"))

    def note(self, sources: Mapping[str, str]) -> None:
        """Note which images an export has written, and what each was cut from.

        `retire` removes those.
        """
        write_json(self.folder / NOTE, {"exported": [*sources], "sources": dict(sources)})

    @property
    def sources(self) -> dict[str, str]:
        """What images were cut from, as far as it was noted."""
        try:
            found = json.loads((self.folder / NOTE).read_text(encoding="utf-8"))["sources"]
            return {str(name): str(source) for name, source in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def retire(self) -> None:
        """Remove what an earlier export has written, and nothing else."""
        try:
            names = json.loads((self.folder / NOTE).read_text(encoding="utf-8"))["exported"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        for name in names:
            self.remove(str(name))
        (self.folder / NOTE).unlink()

    def write_report(self, lines: Sequence[str]) -> Path:
        """Write what there is to say of it as ``report.txt``; return the path."""
        path = self.folder / "report.txt"
        text = "".join(f"{line}\n" for line in lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        return path


def _write_tiff(path: Path, planes: NDArray[Any]) -> None:
    """Write planes (C, H, W), the axis of channels left out where there is one."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = planes if len(planes) > 1 else planes[0]
    axes = {"axes": "CYX" if len(planes) > 1 else "YX"}
    replace_file(
        path,
        lambda partial: tifffile.imwrite(
            partial, pixels, photometric="minisblack", compression="zlib", metadata=axes
        ),
    )


def _write_layers(path: Path, layers: NDArray[np.int32]) -> None:
    """Write label images (L, H, W) as a group of layers."""
    store = LabelStore(path)
    height, width = layers.shape[1:]
    store.start("training", (1, 1, height, width), None, len(layers))
    grid = regions(Box(0, 0, height, width))
    for number, layer in enumerate(layers):
        for position in range(len(grid)):
            store.paint(0, 0, grid.core(position), partial(_part, layer), number)
    store.finish(1, 1)


def _part(layer: NDArray[np.int32], box: Box) -> NDArray[np.uint32]:
    return layer[box.slices].astype(np.uint32)
