"""Channel names and pixel size of a TIFF: OME-XML, ImageJ's description, resolution tags."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from xml.etree import ElementTree

import tifffile

from cellseg.pipeline.voxel import Voxel, to_um, to_voxel

RGB, YCBCR = 2, 6
"""Values of the tag PhotometricInterpretation."""

COLOURS = ("red", "green", "blue", "alpha")

MACRO_AND_SCAN = 2
"""Images of an SCN file with one scanned area."""

PLAUSIBLE_UM = (0.001, 15.0)
"""Range in which a resolution tag, or an ImageJ file in inches, is believed, in um. Software that
knows no scale writes a printer's: 300 dpi is 85 um, 96 and 72 dpi are 265 and 353 um, and a bare
"1" is a centimetre or an inch. No microscope has such pixels, and none of theirs is
in the range of a printer (1200 dpi is 21 um)."""


def main_series(tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """Return the series that is the image: the first, but in an SCN file the largest.

    There the first is the whole slide in little.
    """
    if tif.is_scn:
        return max(tif.series, key=lambda series: prod(series.shape))
    return tif.series[0]


def remarks(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> list[str]:
    """Return what a user should know: that an SCN file holds other scanned areas."""
    if not tif.is_scn or len(tif.series) <= MACRO_AND_SCAN:
        return []
    return [
        f"holds {len(tif.series)} images, of which the largest ({series.name}) is read;"
        " export the others on their own to have their cells"
    ]


def channel_names(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> list[str | None]:
    """Return the names of the channels, as many as the file gives, in its order.

    Colour samples are red, green and blue, after the name of their channel if
    there are several.
    """
    pixels = _ome_pixels(tif, series)
    given: list[str | None] = []
    if pixels is not None:
        given = [each.get("Name") for each in pixels if each.tag.endswith("Channel")]
    sizes = dict(zip(series.get_axes(False), series.get_shape(False), strict=True))
    samples = sizes.get("S", 1)
    if samples == 1:
        return given
    is_colour = samples in (3, 4) and series.keyframe.photometric in (RGB, YCBCR)
    colours = list(COLOURS[:samples]) if is_colour else [str(index) for index in range(samples)]
    groups = sizes.get("C", 1)
    if groups == 1:
        return [*colours]
    names = given if len(given) == groups else [None] * groups
    return [f"{name or group} {colour}" for group, name in enumerate(names) for colour in colours]


def voxel(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, planes: int) -> Voxel | None:
    """Return the size of a pixel (z, y, x) in um, or None where it is unknown."""
    pixels = _ome_pixels(tif, series)
    if pixels is not None:
        z, y, x = (
            to_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "ZYX"
        )
        return to_voxel(z, y, x, planes)
    if tif.is_imagej:
        return _imagej_voxel(tif, series.keyframe, planes)
    if tif.is_svs and (aperio := _aperio_voxel(series.keyframe, planes)) is not None:
        return aperio
    return _tagged_voxel(series.keyframe, planes)


def _ome_pixels(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> ElementTree.Element | None:
    """Return the first Pixels element that has the size of the series."""
    if not tif.is_ome or series.kind != "ome":
        return None
    height, width = series.keyframe.shaped[2:4]
    # tifffile has parsed the same text with the same parser to find the series.
    for element in ElementTree.fromstring(tif.ome_metadata or "").iter():  # noqa: S314
        size = element.get("SizeY"), element.get("SizeX")
        if element.tag.endswith("Pixels") and size == (str(height), str(width)):
            return element
    return None


def _aperio_voxel(page: tifffile.TiffPage, planes: int) -> Voxel | None:
    """Return what the description of an Aperio slide says: ``MPP``, um a pixel."""
    side = to_um(tifffile.tifffile.svs_description_metadata(page.description).get("MPP"), "um")
    return to_voxel(None, side, side, planes)


def _imagej_voxel(tif: tifffile.TiffFile, page: tifffile.TiffPage, planes: int) -> Voxel | None:
    metadata = tif.imagej_metadata or {}
    # ImageJ writes "µ" as a six-character escape.
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ")
    sides = [to_um(length, unit) for length in _per_unit(page)]
    across, down = map(_believed, sides) if unit in ("inch", "in") else sides
    return to_voxel(to_um(metadata.get("spacing"), unit), down, across, planes)


def _tagged_voxel(page: tifffile.TiffPage, planes: int) -> Voxel | None:
    unit = {2: "inch", 3: "cm"}.get(int(page.resolutionunit))
    across, down = (_believed(to_um(length, unit)) for length in _per_unit(page))
    return to_voxel(None, down, across, planes)


def _believed(size: float | None) -> float | None:
    """Return a size in um if no program for pictures would write it."""
    return size if size is not None and PLAUSIBLE_UM[0] <= size <= PLAUSIBLE_UM[1] else None


def _per_unit(page: tifffile.TiffPage) -> Sequence[float | None]:
    """Return the width and height of a pixel in the page's unit, None where there is no tag."""
    if "XResolution" not in page.tags or "YResolution" not in page.tags:
        return None, None
    return [1 / pixels if pixels > 0 else None for pixels in page.resolution]
