"""labelme: the shapes that its users draw in an image, one JSON file an image.

Source: ``labelme/label_file.py`` and ``labelme/utils/shape.py`` of
https://github.com/wkentaro/labelme (2.9 to 5.8). Points are x, y in px from the upper left corner
of the image's first pixel.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.annotations import Annotations, Shape, Skipped
from cellseg.pipeline.areas import Area, Ellipse, Stencil
from cellseg.pipeline.polygons import Feature, edges_of, rectangle
from cellseg.pipeline.tiles import FAR

LINES = {"line", "linestrip", "point", "points"}
AREAS = ("polygon", "rectangle", "oriented_rectangle", "rotation", "circle", "mask")
"""``rotation`` is what X-AnyLabeling calls a rectangle that is turned."""
Points = NDArray[np.float64]
"""Float64 (N, 2) of y and x."""


def read_labelme(path: Path, document: Mapping[str, Any]) -> Annotations:
    """Return what is drawn in the image of a labelme file.

    Shapes with one ``group_id`` are one cell. The pixels of the image, ``imageData``, are not
    looked at.

    Parameters
    ----------
    path : Path
    document : mapping
        What is in it.

    Raises
    ------
    CellsegError
        If its shapes are no list.
    """
    shapes = document["shapes"]
    if not isinstance(shapes, list):
        raise CellsegError(f'{path}: "shapes" is no list. Save it again in labelme.')
    found, skipped = [], []
    for number, each in enumerate(shapes, 1):
        shape = each if isinstance(each, Mapping) else {}
        name = str(shape.get("label") or "")
        where = f"{path}: shape {number}" + (f" ({name})" if name else "")
        area = _area(shape)
        if isinstance(area, str):
            skipped.append(Skipped(where, area))
        else:
            group = shape.get("group_id")
            found.append(Shape(where, area, name, None if group is None else str(group)))
    # Written on Windows, the path of the image has its separators.
    image = PureWindowsPath(str(document.get("imagePath") or path.name)).name
    return Annotations(str(path), image, _size(document), tuple(found), tuple(skipped))


def _size(document: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of the image, where they are stated."""
    sides = [document.get(name) for name in ("imageHeight", "imageWidth")]
    height, width = (side if isinstance(side, int) and side > 0 else None for side in sides)
    return None if height is None or width is None else (height, width)


def _area(shape: Mapping[str, Any]) -> Area | str:
    """Return the area of a shape, or why it is none."""
    kind = shape.get("shape_type") or "polygon"
    if kind in LINES:
        return f"a {kind}, which is no area"
    if kind not in AREAS:
        return f"of the unknown type {kind}; known are {', '.join(AREAS)}"
    points = _points(shape.get("points"))
    if points is None:
        return "its points are not pairs of numbers"
    if kind == "mask":
        return _mask(points, shape.get("mask"))
    if kind == "circle":
        return _circle(points)
    if kind == "rectangle" and len(points) == 2:
        return Feature("", (rectangle(*points.min(axis=0), *points.max(axis=0)),))
    return outline(points)


def outline(points: Points) -> Area | str:
    """Return the area in a ring of corners, float64 (N, 2) of y and x, or why there is none.

    Of a ring that crosses itself, what lies in an odd number of its loops is inside.
    """
    corners = len(np.unique(points, axis=0))
    if corners < 3:
        return f"an outline of {corners} corner{'s' * (corners != 1)}; an area needs 3"
    return Feature("", (edges_of([points]),))


def _points(given: object) -> Points | None:
    """Return points as y, x; None if they are none."""
    try:
        points = np.asarray(given, np.float64).reshape(-1, 2)[:, ::-1]
    except (TypeError, ValueError):
        return None
    return points if len(points) and (np.abs(points) < FAR).all() else None


def _circle(points: Points) -> Area | str:
    """Return a circle by its centre and a point on it."""
    if len(points) != 2:
        return f"a circle of {len(points)} points; it needs its centre and one on its edge"
    radius = float(np.hypot(*(points[1] - points[0])))
    y, x = points[0].tolist()
    return Ellipse(y, x, radius, radius)


def _mask(points: Points, picture: object) -> Area | str:
    """Return a mask, a PNG in base64, by the corners of its first and last pixel."""
    try:
        pixels = imagecodecs.png_decode(base64.b64decode(str(picture), validate=True))
    except (ValueError, RuntimeError):
        return "its mask is no PNG in base64"
    if pixels.ndim > 2:
        pixels = pixels.max(axis=2)
    y, x = np.floor(points.min(axis=0)).astype(int).tolist()
    return Stencil((y, x), pixels > 0)
