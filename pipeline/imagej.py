"""ImageJ's regions of interest: the areas in a ``.roi`` file or in a zip file of them.

Source: ``ij/io/RoiDecoder.java`` and ``ij/gui/ShapeRoi.java`` of https://github.com/imagej/ImageJ,
which the package roifile reads. Whole coordinates are corners of pixels.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellseg.models.errors import CellsegError
from cellseg.pipeline.annotations import Annotations, Shape, Skipped
from cellseg.pipeline.areas import Area, Ellipse
from cellseg.pipeline.labelme import outline
from cellseg.pipeline.polygons import Feature, edges_of, rectangle

if TYPE_CHECKING:
    from roifile import ImagejRoi

LINES = {
    "LINE": "a line",
    "FREELINE": "a line",
    "POLYLINE": "a line",
    "ANGLE": "an angle",
    "POINT": "points",
    "NOROI": "empty",
}
"""Of the types that are no areas, what to call them."""


def read_rois(path: Path) -> Annotations:
    """Return the areas of a ROI file, or of a zip file of them; the file is called as its image.

    ``_rois``, ``_RoiSet`` and the like behind the name of the image do not count. What lies in a
    later plane of a stack is skipped: the first plane is what is trained on.

    Raises
    ------
    CellsegError
        If the file is damaged, or the package roifile is missing.
    """
    found, skipped = [], []
    for name, data in _files(path):
        where = f"{path}: {name}"
        roi = _parsed(data)
        area = roi if isinstance(roi, str) else _later(roi) or _area(roi)
        if isinstance(area, str):
            skipped.append(Skipped(where, area))
        else:
            found.append(Shape(where, area))
    return Annotations(str(path), image_name(path), None, tuple(found), tuple(skipped))


def image_name(path: Path) -> str:
    """Return the name of the image that a file of ROIs belongs to, without suffix."""
    return re.sub(r"[ _-]?(rois?|roi ?set)$", "", path.stem, flags=re.IGNORECASE) or path.stem


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each ROI."""
    if path.suffix.lower() == ".roi":
        yield path.stem, path.read_bytes()
        return
    if not any(name.lower().endswith(".roi") for name in names_in(path)):
        raise CellsegError(
            f"{path}: no ROIs in it. Save it in ImageJ's ROI Manager by More > Save."
        )
    with zipfile.ZipFile(path) as packed:
        for entry in packed.infolist():  # by place, as several may have one name
            if entry.filename.lower().endswith(".roi"):
                yield entry.filename[: -len(".roi")], packed.read(entry)


def names_in(path: Path) -> list[str]:
    """Return the names of the files in a zip file.

    Raises
    ------
    CellsegError
        If it is none, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            return packed.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CellsegError(f"{path}: cannot be read: {error}. Save it again.") from None


def _parsed(data: bytes) -> ImagejRoi | str:
    """Return a ROI, or why it is none."""
    try:
        from roifile import ImagejRoi
    except ImportError:
        raise CellsegError(
            "ImageJ's ROI files are read by the package roifile, which is not installed."
            " Install it by pip install roifile."
        ) from None
    try:
        return ImagejRoi.frombytes(data)
    # roifile raises whatever a cut off file makes of it.
    except Exception as error:
        return f"damaged ({error})"


def _later(roi: ImagejRoi) -> str | None:
    """Say so if a ROI lies in a later plane than the first."""
    for what, number in (("time point", roi.t_position), ("plane", roi.z_position)):
        if number > 1:
            return f"in {what} {number}; only the first is taken"
    if roi.position > 1 and not roi.c_position:
        return f"in plane {roi.position} of a stack; only the first is taken"
    return None


def _area(roi: ImagejRoi) -> Area | str:
    """Return the area of a ROI, or why it is none."""
    name = roi.roitype.name
    if roi.composite:
        return _composite(roi)
    if name in LINES:
        return f"{LINES[name]}, which is no area"
    if name in ("RECT", "OVAL"):
        top, left, bottom, right = _sides(roi)
        if name == "RECT":
            return Feature("", (rectangle(top, left, bottom, right),))
        return Ellipse(
            (top + bottom) / 2, (left + right) / 2, (bottom - top) / 2, (right - left) / 2
        )
    return outline(np.asarray(roi.coordinates(), np.float64).reshape(-1, 2)[:, ::-1])


def _sides(roi: ImagejRoi) -> tuple[float, float, float, float]:
    """Return top, left, bottom and right, with fractions where there are any."""
    if roi.subpixelrect:
        return roi.yd, roi.xd, roi.yd + roi.heightd, roi.xd + roi.widthd
    return roi.top, roi.left, roi.bottom, roi.right


def _composite(roi: ImagejRoi) -> Area | str:
    """Return what lies in an odd number of rings."""
    try:
        paths = roi.coordinates(multi=True)
    except (NotImplementedError, RuntimeError):
        return "a composite of curves; make polygons of it in ImageJ by Edit > Selection"
    rings = [np.asarray(ring, np.float64)[:, ::-1] for ring in paths]
    rings = [ring for ring in rings if len(np.unique(ring, axis=0)) > 2]
    if not rings:
        return "a composite without an outline of 3 corners"
    return Feature("", (edges_of(rings),))
