"""A label image on disk: OME-Zarr 0.5, sharded, with a pyramid; there only once it is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from cellseg.pipeline.paint import LabelImage, halve
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.voxel import Voxel

CHUNK = 512
SHARD = 2048
"""Px on a side; a shard is one file, and painted as one region."""
SMALLEST = 256
"""The pyramid ends where both sides are at most this many px."""


@dataclass(frozen=True)
class LabelStore:
    """The label image of one image.

    Parameters
    ----------
    path : Path
        The ``labels.zarr`` folder.
    """

    path: Path

    def key(self) -> str | None:
        """Return the key it was written with, or None if there is no whole label image."""
        ours = self._attributes().get("cellseg", {})
        return str(ours["key"]) if "key" in ours else None

    def _attributes(self) -> dict[str, Any]:
        if not (self.path / "zarr.json").is_file():
            return {}
        try:
            return dict(zarr.open_group(self.path, mode="r").attrs.asdict())
        except (ValueError, OSError):
            return {}

    def rescale(self, voxel_um: Voxel | None) -> None:
        """Write another size of a voxel into the metadata; the pixels stay."""
        old = self._attributes()
        (multiscale,) = old["ome"]["multiscales"]
        axes = "".join(axis["name"] for axis in multiscale["axes"])
        ome = _metadata(axes, len(multiscale["datasets"]), voxel_um, multiscale["name"])
        if ome != old["ome"]:
            zarr.open_group(self.path, mode="r+").attrs.put({**old, "ome": ome})

    def read(self, t: int, z: int, box: Box, level: int = 0) -> LabelImage:
        """Return the labels in a box of a plane, uint32 (h, w)."""
        array = zarr.open_array(self.path / str(level), mode="r", zarr_format=3)
        return np.asarray(array[_index(array.ndim, array.shape, t, z, box)], np.uint32)

    def write(
        self,
        key: str,
        shape: tuple[int, int, int, int],
        voxel_um: Voxel | None,
        region: Callable[[int, int, Box], LabelImage],
    ) -> None:
        """Write the whole label image and its pyramid.

        Parameters
        ----------
        key : str
            Kept in the attributes.
        shape : (T, Z, Y, X)
            T and Z are left out where they are 1.
        voxel_um : (z, y, x) or None
            Size of a voxel in um.
        region : callable
            Gives the labels of a box of plane t, z.
        """
        unfinished = self.path.with_name(f"{self.path.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        names = "".join(name for name, length in zip("tz", shape[:2], strict=True) if length > 1)
        levels = _levels(shape[2:])
        group = zarr.create_group(unfinished, zarr_format=3)
        arrays = [
            _create(group, str(level), (*_lead(shape), *sides), f"{names}yx")
            for level, sides in enumerate(levels)
        ]
        for plane in range(shape[0] * shape[1]):
            t, z = divmod(plane, shape[1])
            _fill(arrays[0], t, z, levels[0], partial(region, t, z))
            for finer, coarser, sides in zip(arrays, arrays[1:], levels[1:], strict=False):
                _fill(coarser, t, z, sides, partial(_halved, finer, t, z))
        group.attrs.put(
            {
                "ome": _metadata(f"{names}yx", len(levels), voxel_um, self.path.parent.name),
                "cellseg": {"key": key},
            }
        )
        # An old label image loses first what makes it one: a kill must not leave half of it.
        (self.path / "zarr.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        unfinished.replace(self.path)


def _levels(sides: tuple[int, int]) -> list[tuple[int, int]]:
    levels = [sides]
    while max(levels[-1]) > SMALLEST:
        height, width = levels[-1]
        levels.append((-(-height // 2), -(-width // 2)))
    return levels


def _lead(shape: tuple[int, int, int, int]) -> tuple[int, ...]:
    return tuple(length for length in shape[:2] if length > 1)


def _create(group: zarr.Group, name: str, shape: tuple[int, ...], axes: str) -> zarr.Array[Any]:
    sides = [min(CHUNK * -(-length // CHUNK), SHARD) for length in shape[-2:]]
    lead = (1,) * (len(shape) - 2)
    return group.create_array(
        name,
        shape=shape,
        dtype="uint32",
        chunks=(*lead, CHUNK, CHUNK),
        shards=(*lead, *sides),
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        fill_value=0,
        dimension_names=list(axes),
    )


def _index(ndim: int, shape: tuple[int, ...], t: int, z: int, box: Box) -> tuple[int | slice, ...]:
    """Return the index of a box of plane t, z in an array without axes of length 1."""
    # With one leading axis the other of t and z is 0, so their sum is the place on it.
    lead = {2: (), 3: (t + z,), 4: (t, z)}[ndim]
    return *lead, slice(box.y0, min(box.y1, shape[-2])), slice(box.x0, min(box.x1, shape[-1]))


def _fill(
    array: zarr.Array[Any],
    t: int,
    z: int,
    sides: tuple[int, int],
    region: Callable[[Box], LabelImage],
) -> None:
    """Write a plane shard by shard."""
    shards = Grid(Box(0, 0, *sides), SHARD, 0)
    for position in range(len(shards)):
        box = shards.core(position)
        labels = region(box)
        if labels.any():
            array[_index(array.ndim, array.shape, t, z, box)] = labels


def _halved(finer: zarr.Array[Any], t: int, z: int, box: Box) -> LabelImage:
    wide = Box(2 * box.y0, 2 * box.x0, 2 * box.y1, 2 * box.x1)
    found: NDArray[Any] = np.asarray(finer[_index(finer.ndim, finer.shape, t, z, wide)])
    return halve(found.astype(np.uint32, copy=False))


def _metadata(axes: str, levels: int, voxel_um: Voxel | None, name: str) -> dict[str, Any]:
    """Return the OME-Zarr 0.5 metadata of a label image with its levels."""
    size = dict(zip("zyx", voxel_um or (1.0, 1.0, 1.0), strict=True))
    unit = {"unit": "micrometer"} if voxel_um else {}
    space: dict[str, Any] = {a: {"name": a, "type": "space", **unit} for a in "zyx"}
    described = space | {"t": {"name": "t", "type": "time"}}

    def scale(level: int) -> list[float]:
        return [size.get(a, 1.0) * (2**level if a in "yx" else 1) for a in axes]

    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": scale(level)}],
        }
        for level in range(levels)
    ]
    multiscale = {"name": name, "axes": [described[a] for a in axes], "datasets": datasets}
    return {"version": "0.5", "multiscales": [multiscale], "image-label": {"version": "0.5"}}
