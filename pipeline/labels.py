"""The labels of an image on disk: an OME-Zarr 0.5 group of label images; there only once whole.

Cells that share no pixel share a label image, ``cells``; where cells overlap, the
others lie in ``cells_2`` and so on. All of them are painted region by region.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import zarr

from cellseg.pipeline.files import write_json
from cellseg.pipeline.ngff import Version, group_node, node_attributes
from cellseg.pipeline.paint import LabelImage
from cellseg.pipeline.pyramid import Change, Pyramid, Shape
from cellseg.pipeline.source import stamp
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import Voxel

__all__ = ["LabelStore", "Shape", "layer_name"]


def layer_name(layer: int) -> str:
    """Return the name of a layer from 0: ``cells``, ``cells_2``, ``cells_3``."""
    return f"cells_{layer + 1}" if layer else "cells"


@dataclass(frozen=True)
class LabelStore:
    """The labels of one image, in layers; each cell lies whole in one of them.

    Parameters
    ----------
    path : Path
        The ``labels.zarr`` folder, or the ``labels`` of a field.
    unfinished : Path, optional
        Where they lie until they are whole; by default beside `path`.
    ngff : "0.4" or "0.5"
        Version of OME-Zarr: 0.4 is zarr v2, without shards.
    """

    path: Path
    unfinished: Path | None = None
    ngff: Version = "0.5"

    def key(self) -> str | None:
        """Return the key they were written with, or None if there are no whole labels."""
        ours = self._attributes().get("cellseg", {})
        return str(ours["key"]) if "key" in ours else None

    @property
    def layers(self) -> int:
        """Number of label images; 0 where there are none."""
        return len(self._attributes().get("ome", {}).get("labels", ()))

    def _attributes(self) -> dict[str, Any]:
        if not (self.path / "zarr.json").is_file():
            return {}
        try:
            return node_attributes(self.path)
        except (ValueError, TypeError, OSError):
            return {}

    @property
    def layer_paths(self) -> list[Path]:
        """The label images, in order."""
        return [self.path / layer_name(layer) for layer in range(self.layers)]

    def state(self) -> str:
        """Return what tells one state of the pixels from another, whoever wrote them.

        Names, sizes and times of change of the files of the full resolution.
        """
        digest = blake2b(digest_size=8)
        for image in self.layer_paths:
            for path in sorted((image / "0").rglob("*")):
                if path.is_file():
                    digest.update(repr((str(path.relative_to(self.path)), *stamp(path))).encode())
        return digest.hexdigest()

    @property
    def changed_ns(self) -> int:
        """When a file of the full resolution was last changed or put there, in ns."""
        paths = (path for image in self.layer_paths for path in (image / "0").rglob("*"))
        return max((path.stat().st_ctime_ns for path in paths if path.is_file()), default=0)

    def _images(self) -> list[Pyramid]:
        return [Pyramid(path) for path in self.layer_paths]

    def rescale(self, voxel_um: Voxel | None) -> None:
        """Write another size of a voxel into the metadata; the pixels stay."""
        for image in self._images():
            image.rescale(voxel_um)

    def read(self, t: int, z: int, box: Box, level: int = 0, layer: int = 0) -> LabelImage:
        """Return the labels of a layer in a box of a plane, uint32 (h, w)."""
        return Pyramid(self.path / layer_name(layer)).read(t, z, box, level)

    @property
    def shape(self) -> Shape:
        """Their (T, Z, Y, X)."""
        return self._images()[0].shape

    def change(self, t: int, z: int, boxes: Sequence[Box], change: Change, layer: int = 0) -> None:
        """Change parts of a plane of labels that are in their place, and the levels above.

        Each file is whole before and after; see `cellseg.pipeline.pyramid.Pyramid.change`.
        """
        Pyramid(self.path / layer_name(layer)).change(t, z, boxes, change)

    def sweep(self) -> None:
        """Remove the temporary files that a killed writer has left behind."""
        for image in self.layer_paths:
            for left in image.rglob("*.partial"):
                left.unlink()

    def add_layer(self) -> None:
        """Add a label image without cells, behind those that there are."""
        layers = self.layers
        partial = self.path / f".{layer_name(layers)}.partial"
        Pyramid(self.path / layer_name(0)).copy_empty(partial)
        self._take_layer(partial, layers)

    def _take_layer(self, partial: Path, layer: int) -> None:
        """Put a new label image in its place, then list it."""
        place = self.path / layer_name(layer)
        shutil.rmtree(place, ignore_errors=True)  # of a writer that was killed: not listed yet
        partial.replace(place)
        group = zarr.open_group(self.path, mode="r+")
        attributes: dict[str, Any] = group.attrs.asdict()
        names = [layer_name(number) for number in range(layer + 1)]
        group.attrs.put({**attributes, "ome": {**attributes["ome"], "labels": names}})

    @property
    def _unfinished(self) -> Path:
        return self.unfinished or self.path.with_name(f"{self.path.name}.partial")

    def start(
        self,
        key: str,
        shape: Shape,
        voxel_um: Voxel | None,
        layers: int = 1,
        levels: int | None = None,
    ) -> None:
        """Begin the labels: all of their arrays, without pixels.

        Parameters
        ----------
        key : str
            Kept in the attributes.
        shape : (T, Z, Y, X)
            T and Z are left out where they are 1.
        voxel_um : (z, y, x) or None
            Size of a voxel in um.
        layers : int
            Number of label images; 0 if it is not known yet, to begin again.
        levels : int, optional
            Levels of their pyramids: those of the image that they lie in, which NGFF wants.
            By default as many as lead to 256 px.
        """
        shutil.rmtree(self._unfinished, ignore_errors=True)
        names = [layer_name(layer) for layer in range(layers)]
        for name in names:
            own = {"key": key, "layers": layers}
            self._start_image(name, shape, voxel_um, levels, own)
        whole = group_node({"labels": names}, cellseg={"key": key})
        write_json(self._unfinished / "zarr.json", whole)

    def _start_image(
        self,
        name: str,
        shape: Shape,
        voxel_um: Voxel | None,
        levels: int | None,
        _own: dict[str, Any],
    ) -> None:
        Pyramid(self._unfinished / name).start(shape, voxel_um, levels)

    def started(self, key: str) -> bool:
        """Whether labels of this key were begun and not finished."""
        return LabelStore(self._unfinished).key() == key

    def painted(self, key: str) -> LabelStore:
        """Return where the labels of this key can be read, finished or not."""
        return self if self.key() == key else LabelStore(self._unfinished)

    def paint(
        self, t: int, z: int, region: Box, labels: Callable[[Box], LabelImage], layer: int = 0
    ) -> None:
        """Write one region of a plane of a layer: its shards, and the one over them.

        Parameters
        ----------
        t, z : int
        region : Box
            A core of the plane's `regions`.
        labels : callable
            Gives the labels of a box inside it.
        layer : int
        """
        Pyramid(self._unfinished / layer_name(layer)).paint(t, z, region, labels)

    def finish(self, times: int, depth: int) -> None:
        """Make the upper levels, and put the labels in their place.

        Parameters
        ----------
        times, depth : int
            T and Z of their shape.
        """
        for image in LabelStore(self._unfinished)._images():
            # Of a run that was killed here, some may be in their place already.
            if image.path.is_dir():
                image.finish(times, depth)
        # A killed writer leaves its own temporary files behind.
        for left in self._unfinished.rglob("*.partial"):
            left.unlink()
        self._publish()

    def _publish(self) -> None:
        """Put labels that are whole in their place."""
        self._remove()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished.replace(self.path)

    def clear(self) -> None:
        """Remove the labels, finished or not."""
        self._remove()
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _remove(self) -> None:
        # Labels lose first what makes them some: a kill must not leave half of them.
        (self.path / "zarr.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
