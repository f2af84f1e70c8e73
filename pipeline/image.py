"""Image: the pixels of any readable file as one lazy array (T, C, Z, Y, X)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cached_property
from hashlib import blake2b
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.levels import Level, coarser
from cellseg.pipeline.source import PixelSource, Shape, Stored, stamp
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import Voxel, enlarged

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["READERS", "Image", "find_channel", "fingerprint", "open_image"]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
FILES_IN_FINGERPRINT = 100_000


@dataclass(frozen=True, eq=False)
class Image:
    """A lazy image.

    Parameters
    ----------
    stored : Stored (T, C, Z, Y, X)
        Grey levels in the type of the file: 8- or 16-bit integer, float32 or float64.
    channels : tuple of C str
        Names of the channels, all different; ``"0"``, ``"1"``, ... where the file names none.
    voxel : (z, y, x) or None
        Size of a pixel in um; None if unknown. z is 1.0 where there is one plane of unknown depth.
    source : str
        Path of the file.
    levels : tuple of Level
        Coarser copies that the file keeps, finest first; `at_level` gives one as an image.
    remarks : tuple of str
        What the user should know of it.
    numbering : tuple of str
        Names of the channels that it should have, where it lacks some: channels are
        numbered by these, so that a number means the same channel in a whole plate.
    """

    stored: Stored
    channels: tuple[str, ...]
    voxel: Voxel | None
    source: str
    levels: tuple[Level, ...] = ()
    remarks: tuple[str, ...] = ()
    numbering: tuple[str, ...] = ()

    @classmethod
    def from_source(
        cls,
        source: PixelSource,
        chunks: Shape,
        channels: Sequence[str | None],
        voxel: Voxel | None,
        levels: Iterable[tuple[PixelSource, Shape]] = (),
        remarks: Sequence[str] = (),
    ) -> Image:
        """Build from what a reader found.

        Parameters
        ----------
        source : PixelSource
            The full resolution.
        chunks : (T, C, Z, Y, X)
            In which it is best read.
        channels : sequence of str or None
            As the file names them.
        voxel : (z, y, x) or None
            In um.
        levels : iterable of (PixelSource, chunks)
            What may be coarser copies, finest first; used up to the first that is none.
        remarks : sequence of str
            See `Image`.

        Raises
        ------
        CellsegError
            If the pixels are of a type that is not supported, or if there are none.
        """
        if source.dtype.name not in DTYPES:
            raise CellsegError(
                f"{source.path}: pixels are {source.dtype.name}; readable are"
                f" {', '.join(DTYPES)}. Convert them, to float32 if the range matters."
            )
        if 0 in source.shape:
            raise CellsegError(
                f"{source.path}: no pixels, the shape (T, C, Z, Y, X) is {source.shape}"
            )
        alike = takewhile(lambda each: each[0].dtype == source.dtype, levels)
        return cls(
            Stored(source, chunks),
            _distinct(channels, source.shape[1]),
            voxel,
            str(source.path),
            coarser(source.shape, (Stored(*each) for each in alike)),
            tuple(remarks),
        )

    @cached_property
    def pixels(self) -> da.Array:
        """The same pixels as a dask array, for whoever computes with all of them."""
        return self.stored.lazy()

    @property
    def shape(self) -> Shape:
        """(T, C, Z, Y, X)."""
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.stored.dtype

    def at_level(self, number: int) -> Image:
        """Return a level of the pyramid as an image of its own, with its own size of a pixel.

        Parameters
        ----------
        number : int
            0 is the full resolution, 1 the finest of the coarser ones.

        Raises
        ------
        CellsegError
            If there is no such level; lists those that there are.
        """
        if number == 0:
            return self
        if number > len(self.levels):
            shapes = [self.shape, *(level.stored.shape for level in self.levels)]
            sizes = [shape[3:] for shape in shapes]
            known = ", ".join(f"{n} ({h} x {w} px)" for n, (h, w) in enumerate(sizes))
            raise CellsegError(
                f"{self.source}: no level {number}; there are {len(sizes)}: {known}."
                ' Set level to one of them, or to "auto".'
            )
        level = self.levels[number - 1]
        voxel = enlarged(self.voxel, level.factor)
        return replace(self, stored=level.stored, voxel=voxel, levels=())

    def channel_index(self, channel: int | str) -> int:
        """Return the index of a channel given by index or name; see `find_channel`."""
        return find_channel(self.channels, self.source, channel, self.numbering)

    def read(self, t: int, z: int, box: Box, channels: Sequence[int]) -> NDArray[Any]:
        """Return a box of one plane, decoding only what lies under it.

        Parameters
        ----------
        t, z : int
            The plane.
        box : Box
            Inside the plane, in px.
        channels : sequence of int
            Indices of the channels wanted, in the order wanted.

        Returns
        -------
        (C, h, w), type of the file

        Raises
        ------
        CellsegError
            If the file is damaged, truncated, or has changed since it was opened.
        """
        *_, height, width = self.shape
        if box.intersect(Box(0, 0, height, width)) != box:
            raise ValueError(f"{box} is not inside the plane of {height} x {width} px")
        if self.stored.chunks[1] == 1:
            return np.concatenate([self._read(t, z, box, range(c, c + 1)) for c in channels])
        # Interleaved colours are decoded together: ask for them in one piece.
        first = min(channels)
        together = self._read(t, z, box, range(first, max(channels) + 1))
        return np.ascontiguousarray(together[[c - first for c in channels]])

    def _read(self, t: int, z: int, box: Box, channels: range) -> NDArray[Any]:
        """Return a box of one plane, (C, h, w)."""
        inside = range(box.y0, box.y1), range(box.x0, box.x1)
        found = self.stored.read((range(t, t + 1), channels, range(z, z + 1), *inside))
        return found[0, :, 0]


def find_channel(
    channels: Sequence[str], source: str, channel: int | str, numbering: Sequence[str] = ()
) -> int:
    """Return the index of a channel given by index or name.

    Parameters
    ----------
    channels : sequence of str
        Names of those there are.
    source : str
        Where they are; the first words of the error.
    channel : int or str
    numbering : sequence of str
        Names of those that a number counts, if others than `channels`; see `Image`.

    Raises
    ------
    CellsegError
        If there is no such channel; lists those that exist, the nearest name first.
    """
    numbered = numbering or channels
    if isinstance(channel, int) and 0 <= channel < len(numbered):
        channel = numbered[channel]
    if channel in channels:
        return channels.index(str(channel))
    if channel in numbered:
        raise CellsegError(
            f"{source}: channel {channel!r} is missing or lacks planes here, which others of its"
            f" plate have; there is {', '.join(map(repr, channels))}. Add its files, or let the"
            " model see another."
        )
    names = sorted(channels, key=lambda name: -SequenceMatcher(None, name, str(channel)).ratio())
    raise CellsegError(
        f"{source}: no channel {channel!r}; there are {len(names)}:"
        f" {', '.join(map(repr, names))}, or by index 0 to {len(numbered) - 1}."
    )


def _tiff(path: Path) -> Image:
    from cellseg.pipeline.tiff import read_tiff

    return read_tiff(path)


def _other(path: Path) -> Image:
    from cellseg.pipeline.other_formats import read_other

    return read_other(path)


def _ome_zarr(path: Path) -> Image:
    from cellseg.pipeline.ome_zarr import read_ome_zarr

    return read_ome_zarr(path)


READERS: dict[str, Callable[[Path], Image]] = {
    ".tif": _tiff,
    ".tiff": _tiff,
    ".btf": _tiff,
    ".svs": _tiff,
    ".ndpi": _tiff,
    ".scn": _tiff,
    ".zarr": _ome_zarr,
    **dict.fromkeys(
        (".czi", ".dv", ".ims", ".lif", ".nd2", ".oib", ".oif", ".r3d", ".vsi"), _other
    ),
}
"""One reader for each suffix, in lower case; ``.ome.tif`` and the like end in one of them."""


def reader_of(path: Path) -> Callable[[Path], Image] | None:
    """Return the entry of `READERS` for a path, or None; a zarr group needs no suffix."""
    if path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        return READERS[".zarr"]
    return READERS.get(path.suffix.lower())


def open_image(path: Path) -> Image:
    """Open an image without reading its pixels.

    Raises
    ------
    CellsegError
        If it is missing, of an unknown format, damaged or truncated.
    """
    if not path.exists():
        raise CellsegError(f"{path}: no such file or folder.")
    reader = reader_of(path)
    if reader is None:
        kind = "a folder" if path.is_dir() else f"{path.suffix or 'a file without suffix'}"
        raise CellsegError(
            f"{path}: {kind} is not an image format; readable are {', '.join(READERS)}."
            + nearest(path.suffix.lower(), READERS)
        )
    return reader(path)


def fingerprint(path: Path, level: int = 0) -> str:
    """Return what tells one state of an input from another, so that a run knows what it may reuse.

    A file: its size and time of change. A zarr: its metadata, and name, size
    and time of change of the files of its full resolution, or of the level that is
    read (the first 100,000 of them, in order of name). So a file replaced, saved
    again or still growing is noticed, and labels or pyramid levels added to a zarr
    do not count. Not noticed: a change that keeps size and time, changes past the
    first 100,000 chunks, and other files of a multi-file OME-TIFF. The path is no
    part of it: a moved folder is the same input.

    Raises
    ------
    CellsegError
        If it is missing.
    """
    if not path.exists():
        raise CellsegError(f"{path}: no such file or folder.")
    if path.is_file():
        return "{}-{}".format(*stamp(path))
    from cellseg.pipeline.ome_zarr import level_folder

    digest = blake2b(digest_size=16)
    for name in ("zarr.json", ".zattrs"):
        if (path / name).is_file():
            digest.update((path / name).read_bytes())
    folder = level_folder(path, level)
    for file in islice(_files(folder), FILES_IN_FINGERPRINT):
        digest.update(repr((file.relative_to(folder).as_posix(), *stamp(file))).encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry


def _distinct(names: Sequence[str | None], count: int) -> tuple[str, ...]:
    """Name every channel, and no two alike."""
    given = [(name or "").strip() for name in names] if len(names) == count else [""] * count
    filled = [name or str(index) for index, name in enumerate(given)]
    apart = [
        name if filled.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(filled)
    ]
    return tuple(apart if len(set(apart)) == count else map(str, range(count)))
