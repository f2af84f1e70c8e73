"""TIFF files: their structure, checked, and turned into a `Layout` that reads any box.

A file is parsed once in a process, into numbers and a decoder, no open file. So
graphs carry a path, workers can pickle them, and no file stays open or locked;
tifffile's own zarr store allows neither.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import Image
from cellseg.pipeline.source import Shape, Window, naming, stamp
from cellseg.pipeline.tiff_layout import Layout, Page
from cellseg.pipeline.tiff_metadata import channel_names, main_series, remarks, voxel

AXES = {"T": 0, "C": 1, "S": 1, "Z": 2, "I": 2, "Q": 2}
"""Where an axis of a series belongs in (T, C, Z). S are colour samples; I and Q
are pages without a stated meaning, which are taken for a stack."""

PRIVATE_TAGS = 32768


def read_tiff(path: Path) -> Image:
    """Open the first series of a TIFF, of an SCN file the largest, with the levels of its pyramid.

    What a slide's file holds beside it (label, macro, thumbnail) is left out.
    OME-TIFF, ImageJ hyperstacks and tifffile's own files say what their axes
    are; pages of any other file are taken for planes along z. Values are as
    stored: no colour map, no inversion.

    Raises
    ------
    CellsegError
        If the file is no TIFF, damaged, truncated, or has axes or pixels that are not supported.
    """
    with naming(path):
        identity = stamp(path)
        layouts = _layouts(path, identity)
        full, *levels = [
            (TiffSource(path, identity, layout.shape, layout.dtype, level), layout.chunks)
            for level, layout in enumerate(layouts)
        ]
        about = layouts[0].channels, layouts[0].voxel
        return Image.from_source(*full, *about, levels, layouts[0].remarks)


@dataclass(frozen=True, eq=False)
class TiffSource:
    """A `PixelSource`: a path, what it held when it was opened, and a level of its pyramid."""

    path: Path
    identity: tuple[int, int]
    shape: Shape
    dtype: np.dtype[Any]
    level: int = 0

    def read(self, window: Window) -> NDArray[Any]:
        """Return the pixels in five ranges; see `PixelSource`."""
        if stamp(self.path) != self.identity:
            raise CellsegError(f"{self.path}: changed since it was opened. Run again.")
        layout = _layouts(self.path, self.identity)[self.level]
        ts, cs, zs, ys, xs = window
        samples = layout.shaped[4]
        found = np.empty([len(axis) for axis in window], self.dtype)
        for t in ts:
            for group in range(cs.start // samples, -(-cs.stop // samples)):
                wanted = [c for c in cs if c // samples == group]
                for z in zs:
                    plane = layout.read_plane(int(layout.order[t, group, z]), ys, xs)
                    for c in wanted:
                        found[t - ts.start, c - cs.start, z - zs.start] = plane[..., c % samples]
        return found


@lru_cache(maxsize=16)
def _layouts(path: Path, identity: tuple[int, int]) -> tuple[Layout, ...]:  # noqa: ARG001 a key of the cache
    """Parse a file, once in a process for each of its states: its levels, the largest first."""
    with tifffile.TiffFile(path) as tif:
        series = _first_series(tif, path)
        layouts = [_layout(tif, series, path)]
        for level in series.levels[1:]:
            try:
                layouts.append(_layout(tif, level, path, layouts[0]))
            # A damaged level costs the full resolution nothing.
            except CellsegError:
                break
        return tuple(layouts)


def _layout(
    tif: tifffile.TiffFile,
    series: tifffile.TiffPageSeries,
    path: Path,
    full: Layout | None = None,
) -> Layout:
    """Return the layout of a series, or of a level that has its names from the `full` one."""
    keyframe = series.keyframe
    order = _order(series, path)
    pages, in_one_piece = _pages(series, path)
    if order.size != len(pages) * prod(keyframe.shaped[:2]):
        raise CellsegError(f"{path}: {len(pages)} pages do not make its axes {series.axes}.")
    _check_within_files(pages, path)
    dtype = np.dtype("uint8") if series.dtype.kind == "b" else series.dtype
    return Layout(
        pages=pages,
        order=order,
        shaped=keyframe.shaped,
        segment=_segment(keyframe),
        dtype=dtype,
        stored=dtype.newbyteorder(keyframe.parent.byteorder) if in_one_piece else None,
        decode=keyframe.decode,
        blank=keyframe.nodata,
        channels=full.channels if full else tuple(channel_names(tif, series)),
        voxel=None if full else voxel(tif, series, order.shape[2]),
        remarks=() if full else tuple(remarks(tif, series)),
    )


def _first_series(tif: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    """Return the first series, refusing what tifffile would quietly read as less than all."""
    if not len(tif.pages):
        raise CellsegError(f"{path}: a TIFF without images, or truncated.")
    _check_tags(tif, path)
    _check_chain(tif, path)
    series = main_series(tif)
    if series.kind == "generic" and (tif.is_imagej or (tif.is_ome and len(tif.pages) > 1)):
        said = "OME-XML" if tif.is_ome else "ImageJ description"
        raise CellsegError(
            f"{path}: its {said} does not fit its pages: truncated, or metadata kept in another"
            " file. Copy it again, or save it anew as one OME-TIFF."
        )
    if series.transform is not None or series.keyframe.dtype is None:
        raise CellsegError(f"{path}: this kind of pixel is not supported. Save it as OME-TIFF.")
    return series


def _check_tags(tif: tifffile.TiffFile, path: Path) -> None:
    """Raise if tifffile has dropped a standard tag whose value is past the end of the file.

    OME-XML often lies there; without it an image would pass for a plain stack.
    """
    page, file, tiff = tif.pages.first, tif.filehandle, tif.tiff
    file.seek(page.offset)
    (count,) = struct.unpack(tiff.tagnoformat, file.read(tiff.tagnosize))
    tags = file.read(count * tiff.tagsize)
    codes = {
        struct.unpack_from(f"{tif.byteorder}H", tags, start)[0]
        for start in range(0, len(tags), tiff.tagsize)
    }
    lost = sorted(code for code in codes if code < PRIVATE_TAGS and code not in page.tags)
    if lost:
        name = tifffile.TIFF.TAGS.get(lost[0], lost[0])
        raise CellsegError(f"{path}: truncated: its tag {name} is cut off. Copy the file again.")


def _check_chain(tif: tifffile.TiffFile, path: Path) -> None:
    """Raise if the list of pages breaks off, which tifffile only logs."""
    position = tif.pages.next_page_offset
    if tif.is_scanimage or position is None:
        return
    tif.filehandle.seek(position)
    following = tif.filehandle.read(tif.tiff.offsetsize)
    if following != bytes(tif.tiff.offsetsize):
        raise CellsegError(
            f"{path}: truncated: the list of pages breaks off after {len(tif.pages)}."
            " Copy the file again."
        )


def _order(series: tifffile.TiffPageSeries, path: Path) -> NDArray[np.intp]:
    """Return the number of each plane by (T, C, Z), from the axes of the series."""
    axes, shape = series.get_axes(False), series.get_shape(False)
    outer, _, inner = axes.partition("YX")
    if inner not in ("", "S") or shape[len(outer) :][:2] != series.keyframe.shaped[2:4]:
        raise CellsegError(f"{path}: axes {axes} are stored in an order that is not supported.")
    kept = [(axis, size) for axis, size in zip(outer, shape, strict=False) if size > 1]
    places = [AXES.get(axis) for axis, _ in kept]
    if None in places or places.count(0) > 1 or places.count(2) > 1:
        sizes = ", ".join(f"{axis}: {size}" for axis, size in kept)
        raise CellsegError(
            f"{path}: axes ({sizes}) cannot be told apart as T, C and Z."
            " Save it as OME-TIFF with these axes, or split it."
        )
    by_place = sorted(range(len(kept)), key=lambda axis: places[axis] or 0)
    sizes_at = [
        prod(size for (_, size), at in zip(kept, places, strict=True) if at == place)
        for place in range(3)
    ]
    numbers = np.arange(prod(sizes_at), dtype=np.intp).reshape([size for _, size in kept])
    return numbers.transpose(by_place).reshape(sizes_at)


def _pages(series: tifffile.TiffPageSeries, path: Path) -> tuple[tuple[Page, ...], bool]:
    """Return the pages, and whether each lies uncompressed in one piece."""
    keyframe = series.keyframe
    if series.dataoffset:
        count = prod(series.get_shape(False)) // prod(keyframe.shaped)
        starts = [(path, series.dataoffset + page * keyframe.nbytes) for page in range(count)]
    else:
        pages = tuple(_page(page, keyframe, path) for page in series)
        if not (keyframe.is_final and all(map(_is_one_piece, pages))):
            return pages, False
        starts = [(page.path, int(page.offsets[0])) for page in pages]
    return tuple(
        Page(file, _int64([start]), _int64([keyframe.nbytes]), {}) for file, start in starts
    ), True


def _is_one_piece(page: Page) -> bool:
    ends = page.offsets + page.counts
    return bool(page.offsets.all() and (ends[:-1] == page.offsets[1:]).all())


def _page(
    page: tifffile.TiffPage | tifffile.TiffFrame | None, keyframe: tifffile.TiffPage, path: Path
) -> Page:
    if page is None:
        raise CellsegError(
            f"{path}: pages that its OME-XML lists are missing here or in the files it names."
        )
    if page.hash != keyframe.hash:
        raise CellsegError(f"{path}: its pages differ in shape, type or compression.")
    tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    return Page(
        Path(page.parent.filehandle.path),
        _int64(page.dataoffsets),
        _int64(page.databytecounts),
        {name: table for name, table in tables.items() if table is not None},
    )


def _int64(values: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def _check_within_files(pages: Sequence[Page], path: Path) -> None:
    """Raise for pixels past the end of the file, which tifffile would read as zeros."""
    sizes = {file: file.stat().st_size for file in {page.path for page in pages}}
    for number, page in enumerate(pages, 1):
        end = int((page.offsets + page.counts).max(initial=0))
        if end > sizes[page.path]:
            raise CellsegError(
                f"{path}: truncated: page {number} of {len(pages)} ends at byte {end}, the file at"
                f" {sizes[page.path]}. Copy it again."
            )


def _segment(keyframe: tifffile.TiffPage) -> tuple[int, int, int]:
    if keyframe.is_tiled:
        return keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth
    return 1, min(keyframe.rowsperstrip, keyframe.imagelength), keyframe.imagewidth
