"""GeoJSON, as QuPath exports annotations: named polygons with holes, in px of the image."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.annotations import Annotations, Shape, Skipped
from cellseg.pipeline.polygons import Edges, Feature, Floats, crossing, edges_of
from cellseg.pipeline.tiles import FAR

AREAS = ("Polygon", "MultiPolygon")
CORNERS = 3
NAMED = 10


def read_geojson(path: Path, classes: Sequence[str] = ()) -> tuple[Feature, ...]:
    """Return the areas of a GeoJSON file.

    A FeatureCollection, a list of features, a feature or a bare geometry; or a zip file with one
    such file, as `cellseg.pipeline.to_geojson` writes them. A feature is
    called as its `properties.name` or `properties.classification.name` says, the first
    that is there, else by its number in the file, from 1.

    Parameters
    ----------
    path : Path
    classes : sequence of str
        Only features whose name or classification is one of these; none: all.

    Raises
    ------
    CellsegError
        If the file is no GeoJSON, holds no such area, something else than areas among
        those asked for, or an area that is empty or crosses itself.
    """
    given = list(enumerate(_features(_document(path), path), 1))
    if not given:
        raise CellsegError(f"{path}: no features in it; a region needs a polygon at least.")
    chosen = [(k, each) for k, each in given if not classes or set(classes) & set(_names(each))]
    if not chosen:
        known = sorted({name for _, each in given for name in _names(each)})
        raise CellsegError(
            f"{path}: none of its {len(given)} features is called {' or '.join(classes)}, as"
            f" [region] classes asks.{nearest(classes[0], known)}"
            f" Known: {', '.join(known[:NAMED]) or 'no names at all'}."
        )
    return tuple(_feature(each, k, path) for k, each in chosen)


def _document(path: Path) -> Any:
    """Return what a file holds."""
    try:
        return json.loads(_text(path))
    except OSError as error:
        raise CellsegError(f"{path}: cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise CellsegError(
            f"{path}: not GeoJSON: {error}. Export it again, in QuPath by File > Export objects"
            " as GeoJSON."
        ) from None


def _text(path: Path) -> str:
    """Return what is in a file, or in the one file of a zip file."""
    if path.suffix.lower() != ".zip":
        return path.read_text(encoding="utf-8-sig")
    with zipfile.ZipFile(path) as packed:
        names = packed.namelist()
        if len(names) != 1:
            raise ValueError(f"a zip file with {len(names)} files in it; one is expected")
        return packed.read(names[0]).decode("utf-8-sig")


def _features(document: Any, path: Path) -> list[dict[str, Any]]:
    """Return the features of a document, each an object."""
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        document = document.get("features")
    found = document if isinstance(document, list) else [document]
    for number, each in enumerate(found, 1):
        if not isinstance(each, dict) or not isinstance(each.get("type"), str):
            got = json.dumps(each, default=str)[:40]
            raise CellsegError(
                f"{path}: feature {number} is {got}; expected a GeoJSON FeatureCollection"
                " or a list of features."
            )
    return [each if each["type"] == "Feature" else {"geometry": each} for each in found]


def _names(feature: dict[str, Any]) -> list[str]:
    """Return what a feature is called: its name, its classification."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    class_ = properties.get("classification")
    class_ = class_.get("name") if isinstance(class_, dict) else class_
    return [name for name in (properties.get("name"), class_) if isinstance(name, str) and name]


def _where(feature: dict[str, Any], number: int, path: Path) -> str:
    """Return what messages call a feature."""
    names = _names(feature)
    return f"{path}: feature {number}" + (f" ({names[0]})" if names else "")


def _feature(feature: dict[str, Any], number: int, path: Path) -> Feature:
    """Return one feature's area, checked."""
    names, where = _names(feature), _where(feature, number, path)
    geometry = feature.get("geometry")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(geometry, dict) or kind not in AREAS:
        raise CellsegError(
            f"{where} is {kind or 'without a geometry'}; a region is made of {' or '.join(AREAS)}."
            " Leave it out of the file, or choose others by [region] classes."
        )
    given = geometry.get("coordinates")
    given = [given] if kind == "Polygon" else given
    if not isinstance(given, list) or not given:
        raise CellsegError(f"{where} is empty. Remove it, or draw it again.")
    polygons = tuple(_polygon(rings, where) for rings in given)
    return Feature(names[0] if names else str(number), polygons)


def _polygon(rings: Any, where: str) -> Edges:
    """Return the sides of a polygon and its holes."""
    if not isinstance(rings, list) or not rings:
        raise CellsegError(f"{where} has an empty polygon. Remove it, or draw it again.")
    edges = edges_of([_ring(ring, where) for ring in rings])
    met = crossing(edges)
    if met is not None:
        y, x = met
        raise CellsegError(
            f"{where} crosses itself near x = {x:g}, y = {y:g}: what is inside is not clear."
            " Mend the outline there, or split it into two."
        )
    return edges


def _ring(ring: Any, where: str) -> Floats:
    """Return the corners of a ring, float64 (N, 2) of y and x; the closing one left out."""
    corners = np.array(list(_corners(ring, where)), np.float64).reshape(-1, 2)
    if len(corners) > 1 and (corners[0] == corners[-1]).all():
        corners = corners[:-1]
    if len(np.unique(corners, axis=0)) < CORNERS:
        raise CellsegError(
            f"{where} has an outline of {len(corners)} corner{'s' * (len(corners) != 1)}; an area"
            f" needs {CORNERS} different ones. Remove it, or draw it again."
        )
    return corners


def _corners(ring: Any, where: str) -> Iterator[tuple[float, float]]:
    """Yield y and x of each corner of a ring."""
    for corner in ring if isinstance(ring, list) else [ring]:
        pair = corner[:2] if isinstance(corner, list) else []
        numbers = [v for v in pair if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) != len(pair) or len(pair) < 2 or not all(abs(v) < FAR for v in numbers):
            raise CellsegError(
                f"{where} has the corner {json.dumps(corner, default=str)[:40]}; expected two"
                " numbers [x, y], in px of the image."
            )
        yield float(numbers[1]), float(numbers[0])


def read_annotations(path: Path) -> Annotations:
    """Return the cells of a GeoJSON file, one for each feature that is an area.

    What lies in an odd number of the rings of a polygon is inside. The image is called as the
    file is; what kind of cell it is says the classification, else the name.

    Raises
    ------
    CellsegError
        If the file is no GeoJSON.
    """
    found, skipped = [], []
    for number, feature in enumerate(_features(_document(path), path), 1):
        where = _where(feature, number, path)
        cell = _cell(feature, where)
        if isinstance(cell, str):
            skipped.append(Skipped(where, cell))
        else:
            found.append(Shape(where, cell, (*reversed(_names(feature)), "")[0]))
    name = path.stem if path.suffix.lower() == ".zip" else path.name
    return Annotations(str(path), name, None, tuple(found), tuple(skipped))


def _cell(feature: dict[str, Any], where: str) -> Feature | str:
    """Return the area of a cell, or why it is none."""
    geometry = feature.get("geometry")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(geometry, dict) or kind not in AREAS:
        return f"{kind or 'without a geometry'}; a cell is a {' or a '.join(AREAS)}"
    plane = geometry.get("plane") or {}
    for axis in ("t", "z"):
        if plane.get(axis, 0) > 0:
            return f"in a later plane, {axis} = {plane[axis]}; only the first is taken"
    given = geometry.get("coordinates")
    given = [given] if kind == "Polygon" else given
    try:
        drawn = [[_ring(ring, "") for ring in rings] for rings in given or ()]
    except (CellsegError, TypeError) as error:
        return str(error).strip().removesuffix(" Remove it, or draw it again.").rstrip(".")
    polygons = tuple(edges_of(rings) for rings in drawn if rings)
    return Feature(where, polygons) if polygons else "empty"
