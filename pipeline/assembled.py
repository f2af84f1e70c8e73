"""Assembled: one lazy image of many files, each a channel, a plane or a time point of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.fields import Part
from cellseg.pipeline.image import Image, fingerprint, open_image
from cellseg.pipeline.plate import Field
from cellseg.pipeline.source import Shape, Window, naming, stamp
from cellseg.pipeline.tiff_header import read_header
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import to_voxel

__all__ = ["assemble", "fingerprints", "open_field"]

TIFF = (".tif", ".tiff", ".btf")
AXES = ("time points", "channels", "planes")
Places = tuple[int, int, int]
"""Along T, C and Z."""
OPEN = 64
"""Files whose structure is kept in a process."""


@dataclass(frozen=True, eq=False)
class FilesSource:
    """A `PixelSource` of files that each hold a part of the image.

    Parameters
    ----------
    path : Path
        The first file.
    shape, dtype
        See `PixelSource`.
    counts : (T, C, Z)
        How many files there are along each axis. Where there is one, it may have several
        time points, channels or planes.
    files : tuple of Path
        In the order of T, C, Z.
    stamps : tuple of (size, time of change)
        What each was when it was opened.
    """

    path: Path
    shape: Shape
    dtype: np.dtype[Any]
    counts: Places
    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]

    def read(self, window: Window) -> NDArray[Any]:
        """Return the pixels in five ranges; only the files under them are touched."""
        ts, cs, zs, ys, xs = window
        box = Box(ys.start, xs.start, ys.stop, xs.stop)
        found = np.empty([len(axis) for axis in window], self.dtype)
        for t, c, z in product(ts, cs, zs):
            found[t - ts.start, c - cs.start, z - zs.start] = self._plane((t, c, z), box)
        return found

    def _plane(self, place: Places, box: Box) -> NDArray[Any]:
        """Return a box of a plane of one channel."""
        pairs = list(zip(place, self.counts, strict=True))
        number = 0
        for index, count in pairs:
            number = number * count + (index if count > 1 else 0)
        t, c, z = (0 if count > 1 else index for index, count in pairs)
        path, known = self.files[number], self.stamps[number]
        with naming(path):
            if stamp(path) != known:
                raise CellsegError(f"{path}: changed since it was opened. Run again.")
            plane: NDArray[Any] = _opened(path, known).read(t, z, box, [c])[0]
        return plane


@lru_cache(maxsize=OPEN)
def _opened(path: Path, known: tuple[int, int]) -> Image:  # noqa: ARG001 a key of the cache
    return open_image(path)


def open_field(source: Field) -> Image:
    """Open the image of a field, without reading pixels.

    Raises
    ------
    CellsegError
        If it cannot be opened, or its files do not make an image.
    """
    if source.problem is not None:
        raise CellsegError(source.problem)
    if source.parts:
        image = assemble(source.parts, source.channels, source.numbering)
    else:
        image = open_image(source.path)
    if source.channel is not None and image.channels == ("0",):
        image = replace(image, channels=(source.channel,))
    if source.spacing_um is not None:
        known = to_voxel(*source.spacing_um, image.shape[2])
        image = replace(image, voxel=known or image.voxel)
    return image


def assemble(parts: Sequence[Part], channels: Sequence[str], numbering: Sequence[str]) -> Image:
    """Open files as one image, without reading pixels.

    The first file is opened, of the others no more than a header is read: all must
    have its size. Channels may differ in type and are promoted to one that holds the
    values of all; planes and time points of one channel may not, as their grey levels
    would not compare.

    Parameters
    ----------
    parts : sequence of Part
        Every place of the image once.
    channels : sequence of str
        Their names; empty where the files themselves hold the channels.
    numbering : sequence of str
        Names of the channels that the image should have, by which they are numbered.

    Raises
    ------
    CellsegError
        If a file is missing or damaged, or does not fit the others.
    """
    first = parts[0].path
    image = open_image(first)
    last = [(part.t, part.c, part.z) for part in parts]
    counts: Places = tuple(1 + max(axis) for axis in zip(*last, strict=True))
    within = image.shape[:3]
    for word, count, inside in zip(AXES, counts, within, strict=True):
        if count > 1 and inside > 1:
            raise CellsegError(
                f"{first}: holds {inside} {word}, and {count} of them are files of their own."
                " Mend the pattern, or split the files."
            )
    placed = sorted(parts, key=lambda part: (part.t, part.c, part.z))
    files = tuple(part.path for part in placed)
    stamps = []
    for path in files:
        with naming(path):
            stamps.append(stamp(path))
    dtype, remarks = _common(placed, image)
    t, c, z = (max(pair) for pair in zip(counts, within, strict=True))
    height, width = map(int, image.shape[3:])
    shape = t, c, z, height, width
    source = FilesSource(first, shape, dtype, counts, files, tuple(stamps))
    named = counts[1] > 1 or (len(channels) == shape[1] and channels[0])
    names = channels if named else image.channels
    deep = image.voxel[0] if image.voxel and within[2] > 1 else None
    voxel = to_voxel(deep, *image.voxel[1:], z) if image.voxel else None
    chunks = image.stored.chunks
    whole = Image.from_source(source, chunks, names, voxel)
    more = len(files) - 1
    said = f"{first} (and {more} more file{'s' * (more != 1)})" if more else str(first)
    numbered = tuple(numbering) if set(whole.channels) < set(numbering) else ()
    return replace(whole, source=said, numbering=numbered, remarks=(*image.remarks, *remarks))


def _common(parts: Sequence[Part], image: Image) -> tuple[np.dtype[Any], list[str]]:
    """Return a type that holds the pixels of all files, which are as large as the first.

    And what there is to say: whose pixels are of another size.
    """
    first, types = parts[0].path, dict[int, tuple[Path, np.dtype[Any]]]()
    sizes: dict[Any, Path] = {}
    for part in parts:
        path = part.path
        shape, dtype, size = _facts(path, image if path == first else None)
        sizes.setdefault(size, path)
        if shape != image.shape:
            raise CellsegError(
                f"{path}: its shape (T, C, Z, Y, X) is {shape}, that of {first.name}"
                f" {image.shape}. The files of one image must be alike: take it out."
            )
        other, of_channel = types.setdefault(part.c, (path, dtype))
        if dtype != of_channel:
            raise CellsegError(
                f"{path}: pixels are {dtype}, those of {other.name} {of_channel}."
                " Grey levels of one channel must compare: convert one of them."
            )
    others = [path.name for path in [*sizes.values()][1:]]
    remark = (
        f"the size of its pixels is that of {first.name}; {others[0]} says another."
        " Set pixel_size_um if it is wrong"
        if others
        else None
    )
    return np.result_type(*(dtype for _, dtype in types.values())), [remark] if remark else []


def _facts(path: Path, opened: Image | None) -> tuple[tuple[int, ...], np.dtype[Any], Any]:
    """Return shape, type and stated pixel size of a file, from its header if that says it all."""
    if path.suffix.lower() in TIFF:
        with naming(path):
            header = read_header(path)
        if header is not None:
            return (1, 1, 1, header.height, header.width), header.dtype, header.resolution
    image = opened or open_image(path)
    return image.shape, image.dtype, image.voxel


def fingerprints(parts: Sequence[Part]) -> list[tuple[int, int, int, str]]:
    """Return what tells one state of the files of an image from another.

    Raises
    ------
    CellsegError
        If one is missing.
    """
    return [(part.t, part.c, part.z, fingerprint(part.path)) for part in parts]
