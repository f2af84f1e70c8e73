"""OME-Zarr images (NGFF 0.4 and 0.5): the first multiscale image, with its levels.

Sources: https://ngff.openmicroscopy.org/0.4 and https://ngff.openmicroscopy.org/0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import Image
from cellseg.pipeline.ngff import Layout, attributes, layout
from cellseg.pipeline.source import CHUNK_PX, Shape, Window, naming
from cellseg.pipeline.voxel import Voxel, to_um, to_voxel

AXES = "tczyx"
VERSIONS = ("0.4", "0.5")


def read_ome_zarr(path: Path) -> Image:
    """Open the first multiscale image in an OME-Zarr group, at full resolution.

    Of a group of label images, as a run writes it, that is the first one; `label_layers`
    names the others. Chunks that were never written read as the fill value, as zarr has it.

    Raises
    ------
    CellsegError
        If it is not an OME-Zarr image (a plate, a collection, any other zarr), or damaged.
    """
    path, metadata = _first_image(path)
    multiscale = _multiscale(path, metadata)
    with naming(path):
        level = multiscale["datasets"][0]
        folder = path / level["path"]
        about = layout(folder) or _asked(folder)
        axes = _axes(path, multiscale, about.shape)
        source = ZarrSource(path, folder, about, axes)
        names = [each.get("label") for each in metadata.get("omero", {}).get("channels", [])]
        scales = [_scale(entry, len(about.shape)) for entry in (level, multiscale)]
        voxel = _voxel(multiscale["axes"], axes, scales, source.shape[2])
        levels = ((each, each.chunks) for each in _levels(path, multiscale, axes))
        return Image.from_source(source, source.chunks, names, voxel, levels)


def _levels(
    path: Path, multiscale: Mapping[str, Any], axes: tuple[int | None, ...]
) -> Iterator[ZarrSource]:
    """Yield the levels below the full resolution, as far as they can be read."""
    for level in multiscale["datasets"][1:]:
        folder = path / str(level["path"])
        try:
            about = layout(folder) or _asked(folder)
        # A missing or damaged level costs the full resolution nothing.
        except Exception:
            return
        if len(about.shape) != len(multiscale["axes"]):
            return
        yield ZarrSource(path, folder, about, axes)


@dataclass(frozen=True, eq=False)
class ZarrSource:
    """A `PixelSource`: a zarr array, which opens its store where it is unpickled.

    Parameters
    ----------
    path : Path
        The OME-Zarr group.
    folder : Path
        The array of its full resolution, or of another level.
    layout : Layout
        What the array's metadata says.
    axes : tuple of 5 int or None
        Which axis of the array is t, c, z, y and x; None for one it does not have.
    """

    path: Path
    folder: Path
    layout: Layout
    axes: tuple[int | None, ...]

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """The array, opened when its pixels are first asked for."""
        return zarr.open_array(str(self.folder), mode="r")

    @property
    def shape(self) -> Shape:
        """(T, C, Z, Y, X)."""
        t, c, z, y, x = (1 if axis is None else self.layout.shape[axis] for axis in self.axes)
        return t, c, z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels in native byte order; bool is read as uint8."""
        dtype = self.layout.dtype
        return np.dtype("uint8") if dtype.kind == "b" else dtype.newbyteorder("=")

    @property
    def chunks(self) -> Shape:
        """Chunks of the store, small ones merged in y and x up to 1024 px."""
        own = [1 if axis is None else self.layout.chunks[axis] for axis in self.axes]
        for axis in (3, 4):
            own[axis] *= max(CHUNK_PX // own[axis], 1)
        t, c, z, y, x = map(min, own, self.shape)
        return t, c, z, y, x

    def read(self, window: Window) -> NDArray[Any]:
        """Return the pixels in five ranges; see `PixelSource`."""
        key: list[slice | int] = [0] * self.array.ndim
        for axis, wanted in zip(self.axes, window, strict=True):
            if axis is not None:
                key[axis] = slice(wanted.start, wanted.stop)
        found = np.asarray(self.array[tuple(key)])
        present = [axis for axis in self.axes if axis is not None]
        # Axes of length 1 that mean nothing here are gone from what was read.
        order = np.argsort(np.argsort(present))
        shape = [len(wanted) for wanted in window]
        return found.transpose(order).reshape(shape).astype(self.dtype, copy=False)


def level_folder(path: Path, level: int = 0) -> Path:
    """Return the folder of a level, 0 the full resolution, or `path` itself if there is none."""
    try:
        image, metadata = _first_image(path)
        multiscale = _multiscale(image, metadata)
        with naming(path):
            folder = image / multiscale["datasets"][level]["path"]
    except CellsegError:
        return path
    return folder if folder.is_dir() else path


def label_layers(path: Path) -> list[Path]:
    """Return the label images of an OME-Zarr group, in the order in which it lists them.

    Parameters
    ----------
    path : Path
        A group of label images, as ``labels.zarr`` is; an image with such a group in its
        ``labels``; or a label image, which is its own only layer.

    Raises
    ------
    CellsegError
        If a group lists a label image that is not there, or is damaged.
    """
    for group in (path, path / "labels"):
        if names := _label_names(group, attributes(group)):
            layers = [group / name for name in names]
            missing = [layer for layer in layers if not layer.is_dir()]
            if missing:
                raise CellsegError(
                    f"{group}: lists the label image {missing[0].name}, which is not there."
                    " Write the labels again, or take it from the list."
                )
            return layers
    return [path]


def _label_names(path: Path, metadata: Mapping[str, Any]) -> list[str]:
    """Return the label images that a group lists; none if it is no group of labels."""
    with naming(path):
        names = metadata.get("labels") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CellsegError(f"{path}: labels are {names!r}, not a list of names.")
        return names


def _first_image(path: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return the group itself, or the first image of a group of labels, and its metadata."""
    metadata = attributes(path)
    if "multiscales" in metadata or not (names := _label_names(path, metadata)):
        return path, metadata
    return path / names[0], attributes(path / names[0])


def _multiscale(path: Path, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first multiscale image, or say what the group is instead."""
    with naming(path):
        images = metadata.get("multiscales") or []
        if not images or not images[0].get("datasets"):
            raise CellsegError(f"{path}: {_what_instead(path, metadata)}")
        version = str(metadata.get("version") or images[0].get("version") or VERSIONS[0])
        if version not in VERSIONS:
            raise CellsegError(
                f"{path}: OME-Zarr version {version}; readable are {' and '.join(VERSIONS)}."
            )
        return dict(images[0])


def _what_instead(path: Path, metadata: Mapping[str, Any]) -> str:
    if "plate" in metadata:
        return f"an OME-Zarr plate; give its fields, for example by the glob {path}/*/*/*."
    if "well" in metadata:
        return f"a well of an OME-Zarr plate; give its fields, for example by the glob {path}/*."
    if "bioformats2raw.layout" in metadata:
        return f"a collection of OME-Zarr images; give one of them, for example {path}/0."
    return "not an OME-Zarr image: a zarr without multiscales metadata."


def _asked(folder: Path) -> Layout:
    """Return what zarr itself says of an array."""
    array = zarr.open_array(str(folder), mode="r")
    return Layout(array.shape, array.chunks, np.dtype(array.dtype))


def _axes(
    path: Path, multiscale: Mapping[str, Any], shape: Sequence[int]
) -> tuple[int | None, ...]:
    """Return which axis of the array is t, c, z, y and x."""
    kinds = {"time": "t", "channel": "c"}
    names = [
        kinds.get(axis.get("type", ""), str(axis["name"]).lower()) for axis in multiscale["axes"]
    ]
    lost = [
        name
        for name, size in zip(names, shape, strict=True)
        if size > 1 and (name not in AXES or names.count(name) > 1)
    ]
    if lost or not {"y", "x"} <= set(names):
        raise CellsegError(
            f"{path}: axes {', '.join(names)}; readable are y and x, with t, c and z once each."
        )
    return tuple(names.index(name) if name in names else None for name in AXES)


def _scale(entry: Mapping[str, Any], ndim: int) -> Sequence[float]:
    """Return the scale that an image or one of its levels states; 1 where it states none."""
    scales = [
        each["scale"]
        for each in entry.get("coordinateTransformations") or []
        if each.get("type") == "scale" and "scale" in each
    ]
    return [float(factor) for factor in scales[0]] if scales else [1.0] * ndim


def _voxel(
    described: Sequence[Mapping[str, Any]],
    axes: Sequence[int | None],
    scales: Sequence[Sequence[float]],
    planes: int,
) -> Voxel | None:
    z, y, x = (
        None
        if axis is None
        else to_um(scales[0][axis] * scales[1][axis], described[axis].get("unit"))
        for axis in axes[2:]
    )
    return to_voxel(z, y, x, planes)
