"""GeoJSON for QuPath: a FeatureCollection with the outline of every cell for each image.

Sources: the format, RFC 7946. What QuPath reads of it, in
https://github.com/qupath/qupath (v0.4 and later): ``QuPathTypeAdapters.java`` (``id`` a UUID;
properties ``objectType``, ``name``, ``classification``, ``measurements`` as an object of numbers),
``ROITypeAdapters.java`` (``plane`` in the geometry) and ``PathIO.java`` (``readObjects``: .geojson,
.json, and a .zip of them, but no .gz). Coordinates, in
https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html: px of the full
resolution, its upper left corner at 0, 0.
"""

from __future__ import annotations

import json
import math
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.cell_columns import class_name, gates, measurements
from cellseg.pipeline.exported import ExportedImage, ExportedPlane
from cellseg.pipeline.files import whole
from cellseg.pipeline.outline import Ring, outlines

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "cellseg")
COLOURS = (
    (228, 26, 28),
    (55, 126, 184),
    (77, 175, 74),
    (152, 78, 163),
    (255, 127, 0),
    (166, 86, 40),
    (247, 129, 191),
    (153, 153, 153),
)
"""Of classifications, in turn: Brewer's Set1 without its yellow, which no background bears."""
COMPRESSION = 5
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can state: the same cells are the same bytes."""


def write_geojson(images: Sequence[ExportedImage], folder: Path) -> Iterator[str]:
    """Write ``<image>.geojson.zip`` for each image; yield its name.

    A cell is a detection, a Polygon with its holes or, if it has several parts, a MultiPolygon,
    exactly along the edges of its pixels. Its classification is its class, where there are
    several, and the gates that it passes, with ": " between, as QuPath joins them; its
    measurements are those of the table. Of a 3D cell there is a detection in each of its planes.
    """
    for image in images:
        with (
            whole(folder / f"{image.name}.geojson.zip") as partial,
            zipfile.ZipFile(
                partial, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION
            ) as packed,
        ):
            entry = zipfile.ZipInfo(f"{image.name}.geojson", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with packed.open(entry, "w", force_zip64=True) as file:
                _write(image, file)
        yield image.name


def _write(image: ExportedImage, file: IO[bytes]) -> None:
    """Write the cells of an image, some thousand at a time."""
    schema = image.rows.schema
    measured = [each.name for each in measurements(schema)]
    gated, between = gates(schema), ""
    file.write(b'{"type": "FeatureCollection", "features": [')
    for plane in image.cells(columns=[*measured, *gated, "z0_px"]):
        features = _features(image, plane, measured, gated)
        lines = (json.dumps(feature, separators=(",", ":")) for feature in features)
        if text := ",\n".join(lines):
            file.write(f"{between}\n{text}".encode())
            between = ","
    file.write(b"\n]}\n")


def _features(
    image: ExportedImage, plane: ExportedPlane, measured: Sequence[str], gated: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield some cells of a plane."""
    traced = outlines(plane.cells.boxes[:, :2], plane.cells.masks)
    numbers = {name: plane.rows[name].to_pylist() for name in measured}
    passed = {name: plane.rows[name].to_pylist() for name in gated}
    linked = plane.rows["z0_px"].is_valid().to_pylist()
    scale = np.array(image.enlargement[::-1])
    where = {"plane": {"c": -1, "z": plane.z, "t": plane.t}} if len(image.planes) > 1 else {}
    classes = plane.cells.classes.tolist()
    for i, (label, parts) in enumerate(zip(plane.labels.tolist(), traced.polygons(), strict=True)):
        said = [name for name in gated if passed[name][i]]
        if len(image.classes) > 1 or classes[i] > 1:
            said.insert(0, class_name(classes[i], image.classes))
        named = f"{image.name}/{label}" + (f"/z{plane.z}" if linked[i] else "")
        properties: dict[str, Any] = {"objectType": "detection", "name": str(label)}
        if said:
            known = [*image.classes, *gated]
            properties["classification"] = _classification(said, known)
        properties["measurements"] = _finite({name: numbers[name][i] for name in measured})
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(NAMESPACE, named)),
            "geometry": geometry(parts, scale) | where,
            "properties": properties,
        }


def _classification(said: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Return a classification; its colour follows from the names alone."""
    number = known.index(said[-1]) if said[-1] in known else len(known)
    return {"name": ": ".join(said), "color": list(COLOURS[number % len(COLOURS)])}


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the numbers that JSON can hold."""
    return {name: v for name, v in values.items() if v is not None and math.isfinite(v)}


def geometry(parts: Sequence[Sequence[Ring]], scale: NDArray[np.float64]) -> dict[str, Any]:
    """Return the parts of a cell as GeoJSON, their x and y times `scale`."""
    polygons = [[_closed(ring, scale) for ring in rings] for rings in parts]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: Ring, scale: NDArray[np.float64]) -> list[list[float]]:
    corners: list[list[float]] = (ring if (scale == 1).all() else ring * scale).tolist()
    return [*corners, corners[0]]
