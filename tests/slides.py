"""Slides as scanners write them, in small: pyramids, SVS, NDPI and SCN."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

RGBImage = NDArray[np.uint8]


def reduced(data: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return every `factor`-th pixel of (..., Y, X)."""
    return data[..., ::factor, ::factor]


def write_pyramid(path: Path, data: NDArray[Any], factors: tuple[int, ...] = (2, 4)) -> None:
    """Write (Y, X) or (C, Y, X) with its levels: OME-TIFF with SubIFDs, or OME-Zarr."""
    axes = "CYX"[-data.ndim :]
    if path.suffix == ".zarr":
        _write_zarr(path, data, axes, factors)
        return
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path) as tif:
        metadata = {"axes": axes, **size}
        tif.write(data, subifds=len(factors), tile=(64, 64), compression="zlib", metadata=metadata)
        for factor in factors:
            level = reduced(data, factor)
            tif.write(level, subfiletype=1, tile=(64, 64), compression="zlib")


def _write_zarr(path: Path, data: NDArray[Any], axes: str, factors: tuple[int, ...]) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    datasets = []
    for number, factor in enumerate((1, *factors)):
        level = reduced(data, factor)
        chunks = (1,) * (data.ndim - 2) + (64, 64)
        group.create_array(str(number), shape=level.shape, dtype=level.dtype, chunks=chunks)[:] = (
            level
        )
        scale = [1.0] * (data.ndim - 2) + [0.5 * factor] * 2
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(number), "coordinateTransformations": transformations})
    kinds = {"C": {"name": "c", "type": "channel"}}
    space = {a: {"name": a.lower(), "type": "space", "unit": "micrometer"} for a in "YX"}
    described = [(kinds | space)[axis] for axis in axes]
    multiscale: dict[str, Any] = {"name": "image", "axes": described, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}


def stained(seed: int = 0, height: int = 256, width: int = 384) -> RGBImage:
    """Return noise in colour, uint8 (Y, X, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write_svs(path: Path, data: RGBImage, mpp: float | None = 0.25) -> None:
    """Write an Aperio slide: baseline, thumbnail, a level, label and macro."""
    said = "Aperio Image Library v11.2.1\r\n46000x32914 (240x240) JPEG/RGB Q=30|AppMag = 40"
    said += f"|MPP = {mpp}" if mpp else ""
    tiled: dict[str, Any] = {"tile": (64, 64), "compression": "jpeg", "photometric": "rgb"}
    tiled |= {"compressionargs": {"level": 100, "outcolorspace": "rgb"}, "metadata": None}
    plain: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(data, description=said, **tiled)
        tif.write(data[::8, ::8], description="Aperio thumbnail", **plain)
        tif.write(data[::4, ::4], description="Aperio level", **tiled)
        tif.write(data[:40, :30], description="Aperio\r\nlabel 30x40", subfiletype=1, **plain)
        tif.write(data[:30, :80], description="Aperio\r\nmacro 80x30", subfiletype=9, **plain)


def write_scn(path: Path, areas: list[RGBImage], macro: RGBImage) -> None:
    """Write a Leica slide: the whole of it in little, then its scanned areas, two levels each."""
    pages, images = [macro], [_scn_image("macro", [(0, macro)])]
    for number, area in enumerate(areas):
        images.append(_scn_image(f"area {number}", [(len(pages), area), (len(pages) + 1, area)]))
        pages += [area, area[::4, ::4]]
    text = f"<scn><collection>{''.join(images)}</collection></scn>"
    with tifffile.TiffWriter(path) as tif:
        for page in pages:
            options: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": 3}
            tif.write(page, photometric="rgb", description=text, metadata=None, **options)
            text = ""


def _scn_image(name: str, levels: list[tuple[int, RGBImage]]) -> str:
    found = "".join(f'<dimension r="{r}" ifd="{ifd}"/>' for r, (ifd, _) in enumerate(levels))
    return f'<image name="{name}"><pixels>{found}</pixels></image>'


def write_ndpi(path: Path, data: RGBImage) -> None:
    """Write a Hamamatsu slide: baseline, a level, and the macro; 64-bit offsets in a 32-bit TIFF.

    With pixels of 0.5 um, uncompressed.
    """
    pages = [(data, 20.0), (data[::4, ::4], 5.0), (data[:50, :90], -1.0)]
    body = bytearray(b"II*\0" + bytes(8))
    link = 4
    for pixels, magnification in pages:
        starts = [len(body)]
        body += np.ascontiguousarray(pixels).tobytes()
        for values in (struct.pack("<3H", 8, 8, 8), struct.pack("<2I", 20_000, 1), b"Hamamatsu\0"):
            starts.append(len(body))
            body += values + bytes(len(values) % 2)
        struct.pack_into("<Q", body, link, len(body))
        entries = _ndpi_entries(pixels, magnification, starts)
        body += struct.pack("<H", len(entries)) + b"".join(entries)
        link = len(body)
        body += bytes(8 + 4 * len(entries))
    path.write_bytes(body)


def _ndpi_entries(pixels: RGBImage, magnification: float, starts: list[int]) -> list[bytes]:
    height, width = pixels.shape[:2]
    data, bits, resolution, make = starts
    tags: list[tuple[int, str, int, float]] = [
        (256, "I", 1, width),
        (257, "I", 1, height),
        (258, "H", 3, bits),
        (259, "H", 1, 1),
        (262, "H", 1, 2),
        (271, "s", 10, make),
        (273, "I", 1, data),
        (277, "H", 1, 3),
        (278, "I", 1, height),
        (279, "I", 1, pixels.size),
        (282, "2I", 1, resolution),
        (283, "2I", 1, resolution),
        (296, "H", 1, 3),
        (65420, "I", 1, 1),
        (65421, "f", 1, magnification),
    ]
    codes = {"s": 2, "H": 3, "I": 4, "2I": 5, "f": 11}
    packed = {"f": "<HHIf"}
    return [
        struct.pack(packed.get(kind, "<HHII"), tag, codes[kind], count, value)
        for tag, kind, count, value in tags
    ]
