"""Formats of microscopes' makers, through bioio, which is an extra: as lazy as bioio is.

Its readers decode a plane of a channel as one piece, so a plane is held at a time, and a
second one. For slides convert to OME-Zarr or OME-TIFF.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import Image
from cellseg.pipeline.source import CHUNK_PX, Shape, Window, naming, stamp
from cellseg.pipeline.voxel import to_um, to_voxel

PLUGINS = {
    ".czi": "bioio_czi",
    ".dv": "bioio_dv",
    ".ims": "bioio_bioformats",
    ".lif": "bioio_lif",
    ".nd2": "bioio_nd2",
    ".oib": "bioio_bioformats",
    ".oif": "bioio_bioformats",
    ".r3d": "bioio_dv",
    ".vsi": "bioio_bioformats",
}
"""The reader of each suffix."""
INSTALL = 'pip install "cellseg[bioio]"'
JAVA = "pip install bioio bioio-bioformats (it runs Java)"
COLOURS = ("red", "green", "blue", "alpha")
COLOURS_OF = {".czi": ("blue", "green", "red")}
"""Where colour samples come in another order: as Zeiss stores them, which bioio-czi 3 keeps."""
HELD = 4
"""Planes kept decoded in a process: of the channels of one tile, the next needs the same."""


def read_other(path: Path) -> Image:
    """Open the first image of a file with whatever reader bioio has for it.

    Raises
    ------
    CellsegError
        If bioio or its reader is not installed, with the line that installs it, or if it
        cannot read the file.
    """
    with naming(path):
        identity = stamp(path)
        opened = _opened(path, identity)
        source = BioioSource(path, identity, _shape(opened), np.dtype(opened.dtype))
        sizes = opened.physical_pixel_sizes
        z, y, x = (to_um(each, "um") for each in (sizes.Z, sizes.Y, sizes.X))
        chunks = (1, _samples(opened), 1, CHUNK_PX, CHUNK_PX)
        voxel = to_voxel(z, y, x, source.shape[2])
        return Image.from_source(source, chunks, _names(opened, path), voxel, (), _remarks(opened))


@dataclass(frozen=True, eq=False)
class BioioSource:
    """A `PixelSource`: a path, and what it held when it was opened."""

    path: Path
    identity: tuple[int, int]
    shape: Shape
    dtype: np.dtype[Any]

    def read(self, window: Window) -> NDArray[Any]:
        """Return the pixels in five ranges; see `PixelSource`."""
        if stamp(self.path) != self.identity:
            raise CellsegError(f"{self.path}: changed since it was opened. Run again.")
        samples = _samples(_opened(self.path, self.identity))
        ts, cs, zs, ys, xs = window
        found = np.empty([len(axis) for axis in window], self.dtype)
        for t in ts:
            for c in cs:
                for z in zs:
                    plane = _plane(self.path, self.identity, t, c // samples, z)
                    part = plane[ys.start : ys.stop, xs.start : xs.stop, c % samples]
                    found[t - ts.start, c - cs.start, z - zs.start] = part
        return found


_READING = Lock()
"""Not every reader behind bioio bears two threads."""


@lru_cache(maxsize=HELD)
def _plane(path: Path, identity: tuple[int, int], t: int, c: int, z: int) -> NDArray[Any]:
    """Return a plane (Y, X, samples)."""
    with _READING:
        lazy = _opened(path, identity).dask_data[t, c, z]
        plane = np.asarray(lazy.compute(scheduler="synchronous"))
    return plane.reshape(*plane.shape[:2], -1)


@lru_cache(maxsize=HELD)
def _opened(path: Path, identity: tuple[int, int]) -> Any:  # noqa: ARG001 a key of the cache
    """Return what bioio makes of a file, (T, C, Z, Y, X) or with colour samples behind."""
    plugin = PLUGINS[path.suffix.lower()]
    if find_spec("bioio") is None or find_spec(plugin) is None:
        raise CellsegError(
            f"{path}: {path.suffix} files are read through bioio, which is not installed for them."
            f" Install it: {JAVA if plugin == 'bioio_bioformats' else INSTALL}"
        )
    from bioio import BioImage

    return BioImage(path)


def _samples(opened: Any) -> int:
    return int(opened.dask_data.shape[5]) if opened.dask_data.ndim > len("TCZYX") else 1


def _shape(opened: Any) -> Shape:
    t, c, z, y, x = opened.dask_data.shape[:5]
    return t, c * _samples(opened), z, y, x


def _names(opened: Any, path: Path) -> list[str | None]:
    """Return the names of the channels; of colours, red, green and blue."""
    names = [str(name) for name in opened.channel_names or ()]
    samples, groups = _samples(opened), opened.dask_data.shape[1]
    if samples == 1:
        return [*names]
    colours = COLOURS_OF.get(path.suffix.lower(), COLOURS)[:samples]
    if groups == 1:
        return [*colours]
    return [f"{name} {colour}" for name in names for colour in colours]


def _remarks(opened: Any) -> list[str]:
    scenes = list(opened.scenes)
    if len(scenes) < 2:
        return []
    return [
        f"holds {len(scenes)} images, of which the first ({scenes[0]}) is read; save the others as"
        " files of their own to have their cells"
    ]
