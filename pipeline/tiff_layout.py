"""Layout: where every pixel of a TIFF lies, and how to decode just those under a box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.source import CHUNK_PX, Shape
from cellseg.pipeline.voxel import Voxel

LARGE_PX = 2**21
"""A segment of more px holds several tiles: the last one decoded is kept for the next tile."""


@dataclass(frozen=True, eq=False)
class Page:
    """Where the segments (strips or tiles) of one page lie.

    Parameters
    ----------
    path : Path
        The file, which in a multi-file OME-TIFF is not always the one opened.
    offsets, counts : int64 (N,)
        First byte and number of bytes of each segment; 0 for one never written.
    tables : dict
        JPEG tables, as the decoder takes them.
    """

    path: Path
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    tables: dict[str, bytes]


@dataclass(frozen=True, eq=False)
class Layout:
    """All that is needed to read any pixel of a TIFF.

    Parameters
    ----------
    pages : tuple of Page
        Those of the first series, at one level of its pyramid.
    order : intp (T, C / samples, Z)
        Number of each plane, counted through pages, separate samples and depths.
    shaped : (separate samples, depths, Y, X, interleaved samples)
        Shape of a page.
    segment : (depths, Y, X)
        Shape of a segment in px.
    dtype : numpy.dtype
        Type of the pixels in native byte order.
    stored : numpy.dtype or None
        Type and byte order of pages that lie uncompressed in one piece: their rows are read as
        they are, without a decoder.
    decode : callable
        tifffile's decoder of one segment.
    blank : float
        Grey level of segments never written.
    channels : tuple of str or None
    voxel : (z, y, x) or None
        In um.
    remarks : tuple of str
        What the user should know of the file.
    """

    pages: tuple[Page, ...]
    order: NDArray[np.intp]
    shaped: Shape
    segment: tuple[int, int, int]
    dtype: np.dtype[Any]
    stored: np.dtype[Any] | None
    decode: Callable[..., Any]
    blank: float
    channels: tuple[str | None, ...]
    voxel: Voxel | None
    remarks: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """(T, C, Z, Y, X)."""
        t, c, z = self.order.shape
        return t, c * self.shaped[4], z, self.shaped[2], self.shaped[3]

    @property
    def chunks(self) -> Shape:
        """Chunks of about 1024 px made of whole tiles, or bands of whole strips."""
        _, height, width = self.segment
        if self.stored is not None:
            height = width = CHUNK_PX
        rows = max(min(CHUNK_PX, 16 * CHUNK_PX**2 // width) // height, 1) * height
        columns = max(CHUNK_PX // width, 1) * width
        return 1, self.shaped[4], 1, min(rows, self.shaped[2]), min(columns, self.shaped[3])

    def read_plane(self, number: int, ys: range, xs: range) -> NDArray[Any]:
        """Return a box of one plane (h, w, interleaved samples)."""
        page, part = divmod(number, self.shaped[0] * self.shaped[1])
        with self.pages[page].path.open("rb", buffering=0) as file:
            if self.stored is not None:
                return self._read_rows(file, page, part, ys, xs)
            return self._read_segments(file, page, part, ys, xs)

    def _read_rows(
        self, file: BinaryIO, page: int, part: int, ys: range, xs: range
    ) -> NDArray[Any]:
        _, _, height, width, samples = self.shaped
        pixel = samples * self.dtype.itemsize
        start = int(self.pages[page].offsets[0]) + (part * height * width + xs.start) * pixel
        rows = [
            _read(file, self.pages[page].path, start + y * width * pixel, len(xs) * pixel)
            for y in ys
        ]
        found = np.frombuffer(b"".join(rows), self.stored)
        return found.reshape(len(ys), len(xs), samples)

    def _read_segments(
        self, file: BinaryIO, page: int, part: int, ys: range, xs: range
    ) -> NDArray[Any]:
        found = np.full((len(ys), len(xs), self.shaped[4]), self.blank, self.dtype)
        for index, depth, y, x in self._segments_under(part, ys, xs):
            if prod(self.segment) > LARGE_PX:
                segment = _last_large(self, page, index)
            else:
                segment = self.read_segment(file, page, index)
            if segment is None:
                continue
            rows = range(max(y, ys.start), min(y + segment.shape[1], ys.stop))
            columns = range(max(x, xs.start), min(x + segment.shape[2], xs.stop))
            found[
                rows.start - ys.start : rows.stop - ys.start,
                columns.start - xs.start : columns.stop - xs.start,
            ] = segment[depth, rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        return found

    def _segments_under(
        self, part: int, ys: range, xs: range
    ) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, depth within, y and x of each segment under a box."""
        sample, depth = divmod(part, self.shaped[1])
        depths, height, width = self.segment
        counts = [
            -(-whole // part) for whole, part in zip(self.shaped[1:4], self.segment, strict=True)
        ]
        layer = sample * counts[0] + depth // depths
        for row in range(ys.start // height, -(-ys.stop // height)):
            for column in range(xs.start // width, -(-xs.stop // width)):
                index = (layer * counts[1] + row) * counts[2] + column
                yield index, depth % depths, row * height, column * width

    def read_segment(self, file: BinaryIO, page: int, index: int) -> NDArray[Any] | None:
        """Return a decoded segment (depths, h, w, samples), or None if it was never written."""
        where = self.pages[page]
        offset, count = int(where.offsets[index]), int(where.counts[index])
        if offset == 0 or count == 0:
            return None
        data = _read(file, where.path, offset, count)
        segment: NDArray[Any] = self.decode(data, index, **where.tables)[0]
        return segment


@lru_cache(maxsize=1)
def _last_large(layout: Layout, page: int, index: int) -> NDArray[Any] | None:
    """Decode a segment of many tiles once for neighbouring tiles, not once for each."""
    with layout.pages[page].path.open("rb", buffering=0) as file:
        return layout.read_segment(file, page, index)


def _read(file: BinaryIO, path: Path, offset: int, count: int) -> bytes:
    file.seek(offset)
    data = file.read(count)
    if len(data) != count:
        raise CellsegError(
            f"{path}: truncated: {count} bytes wanted at {offset}, {len(data)} found."
            " Copy the file again."
        )
    return data
