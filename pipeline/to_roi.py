"""ImageJ: the outlines of the cells of each image as a zip file for the ROI Manager.

Sources: the format, ``ij/io/RoiDecoder.java`` and ``ij/gui/ShapeRoi.java`` of
https://github.com/imagej/ImageJ, which the package roifile writes. In ImageJ whole coordinates are
corners of pixels, so that a polygon along the edges of pixels selects these very pixels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.exported import ExportedImage, ExportedPlane
from cellseg.pipeline.files import whole
from cellseg.pipeline.outline import Ring, outlines

if TYPE_CHECKING:
    from roifile import ImagejRoi

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can state: the same cells are the same bytes."""
MOVE, LINE, CLOSE = 0.0, 1.0, 4.0
"""Segments of a path, as Java's PathIterator numbers them."""
VERSION = 227
"""Of the format: the first that has fractions of px is 222; an older one would lose them."""
WHOLE = 2**15
"""From here on corners of px do not fit what ImageJ reserves for whole numbers."""


def write_rois(images: Sequence[ExportedImage], folder: Path) -> Iterator[str]:
    """Write ``<image>_rois.zip`` for each image; yield its name.

    A ROI is called like the cell's label, with zeros before it so that lists are in order; where
    an image has several planes, with its time point and plane, ``0012_t0_z3``, and lies in that
    plane. A cell with holes or of several parts is a composite selection, any other a traced
    one. Of a 3D cell there is a ROI in each of its planes.
    """
    for image in images:
        with (
            whole(folder / f"{image.name}_rois.zip") as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            digits = len(str(max(len(image.rows), 1)))
            for plane in image.cells():
                for name, roi in _rois(image, plane, digits):
                    entry = zipfile.ZipInfo(f"{name}.roi", EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    packed.writestr(entry, roi.tobytes())
        yield image.name


def _rois(
    image: ExportedImage, plane: ExportedPlane, digits: int
) -> Iterator[tuple[str, ImagejRoi]]:
    """Yield some cells of a plane, each with its name."""
    traced = outlines(plane.cells.boxes[:, :2], plane.cells.masks)
    several = len(image.planes) > 1
    for label, parts in zip(plane.labels.tolist(), traced.polygons(), strict=True):
        name = f"{label:0{digits}}" + (f"_t{plane.t}_z{plane.z}" if several else "")
        rings = [ring for part in parts for ring in part]
        roi = _polygon(rings[0]) if len(rings) == 1 else _composite(rings)
        roi.name = name
        if several:
            roi.z_position, roi.t_position = plane.z + 1, plane.t + 1
            roi.position = plane.t * image.shape[1] + plane.z + 1
        yield name, roi


def _empty(corners: Ring) -> ImagejRoi:
    """Return a ROI that states the box around its corners."""
    from roifile import ROI_OPTIONS, ImagejRoi

    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    roi = ImagejRoi(version=VERSION, options=ROI_OPTIONS(0))
    # Beyond, the box is of no use: ImageJ takes it from the corners.
    roi.left, roi.top = min(left, WHOLE - 1), min(top, WHOLE - 1)
    roi.right, roi.bottom = min(right, WHOLE - 1), min(bottom, WHOLE - 1)
    return roi


def _polygon(ring: Ring) -> ImagejRoi:
    """Return one ring."""
    from roifile import ROI_OPTIONS, ROI_TYPE

    roi = _empty(ring)
    roi.roitype = ROI_TYPE.TRACED
    roi.n_coordinates = len(ring)
    roi.integer_coordinates = ring - (roi.left, roi.top)
    if ring.max() >= WHOLE:
        roi.integer_coordinates = np.minimum(roi.integer_coordinates, WHOLE - 1)
        roi.options |= ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        roi.subpixel_coordinates = ring.astype(np.float32)
    return roi


def _composite(rings: Sequence[Ring]) -> ImagejRoi:
    """Return several rings, of which what lies in an odd number is inside."""
    from roifile import ROI_TYPE

    roi = _empty(np.concatenate(rings))
    roi.roitype = ROI_TYPE.RECT
    roi.multi_coordinates = np.concatenate([_path(ring) for ring in rings])
    roi.shape_roi_size = len(roi.multi_coordinates)
    return roi


def _path(ring: Ring) -> NDArray[np.float32]:
    """Return a ring as segments of a path: how, x and y of each, and that it is closed."""
    steps = np.full((len(ring), 3), LINE, np.float32)
    steps[0, 0] = MOVE
    steps[:, 1:] = ring
    return np.append(steps.ravel(), np.float32(CLOSE))
