"""SpatialData: labels, outlines and table of all images in one zarr store.

Sources: the layout, https://spatialdata.scverse.org/en/stable/design_doc.html and what
spatialdata 0.7 writes (container 0.2, zarr v3; elements 0.3: OME-Zarr 0.5 and GeoParquet; tables
0.2: AnnData). It is written here by hand: a slide's labels and polygons are never in memory, and
nothing has to be installed.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from cellseg.pipeline.annotated import ROWS, TEXT, Writer, survey, write_cells
from cellseg.pipeline.exported import ExportedImage
from cellseg.pipeline.files import DAMAGED, whole_folder
from cellseg.pipeline.labels import layer_name
from cellseg.pipeline.ngff import level_count, read_json
from cellseg.pipeline.outline import Ring, outlines
from cellseg.pipeline.pyramid import Pyramid, regions
from cellseg.pipeline.tiles import Box

TABLE, KEY, INSTANCE = "cells", "element", "label"
CONTAINER = {
    "spatialdata_attrs": {"version": "0.2", "spatialdata_software_version": "0.7.3"},
    "cellseg": {"version": "1"},
}
"""Attributes of the store: whose layout it follows, and by whom it may be replaced."""
ELEMENT = {"spatialdata_attrs": {"version": "0.3"}}
POLYGON, MULTIPOLYGON = 3, 6
"""Kinds of geometry in WKB."""
CENTRE = 0.5
"""Where the centre of the first pixel is: at 0 in the table, but not in SpatialData."""


def write_spatialdata(images: Sequence[ExportedImage], path: Path) -> Iterator[str]:
    """Write one store for all images; yield the name of each.

    Of an image ``a``: labels ``a_cells``, ``a_cells_2`` where cells overlap, 3D where it has
    several planes; shapes ``a_outlines``, of each plane; coordinate systems ``a_px`` and, where
    the size of a pixel is known, ``a_um``. Time points are images of their own, ``a_cells_t0``;
    planes have outlines of their own, ``a_outlines_z0``. The table ``cells`` annotates all labels.
    """
    names = element_names([image.name for image in images])
    with whole_folder(path, _ours) as folder:
        for name in ("", "labels", "shapes", "tables"):
            zarr.create_group(folder / name, attributes={} if name else CONTAINER)
        labels = [
            name
            for image in images
            for name in _write_labels(image, names[image.name], folder / "labels")
        ]
        zarr.open_group(folder / "labels").attrs.put({"ome": {"version": "0.5", "labels": labels}})
        for image in images:
            _write_shapes(image, names[image.name], folder / "shapes")
        yield from _write_table(images, names, folder / "tables" / TABLE)


def _ours(path: Path) -> bool:
    """Whether a folder is a store that was written here."""
    try:
        return "cellseg" in read_json(path / "zarr.json")["attributes"]
    except (*DAMAGED, TypeError):
        return False


def element_names(names: Sequence[str]) -> dict[str, str]:
    """Return a name for each image with the characters that SpatialData allows; no two alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("_.") or "image"
        tries = (plain if number == 1 else f"{plain}-{number}" for number in count(1))
        found[name] = next(each for each in tries if each.lower() not in taken)
        taken.add(found[name].lower())
    return found


def label_element(image: ExportedImage, name: str, t: int, layer: int) -> str:
    """Return the name of the labels of one time point and layer."""
    return f"{name}_{layer_name(layer)}" + (f"_t{t}" if image.shape[0] > 1 else "")


def _write_labels(image: ExportedImage, name: str, folder: Path) -> Iterator[str]:
    """Write the labels of an image; yield the names of the elements."""
    times, depth, height, width = image.shape
    source = image.results.labels
    axes = "zyx" if depth > 1 else "yx"
    grid = regions(Box(0, 0, height, width))
    for t in range(times):
        for layer in range(source.layers):
            element = label_element(image, name, t, layer)
            written = Pyramid(folder / element)
            written.start((1, depth, height, width), None, level_count(source.layer_paths[0]))
            for z in range(depth):
                for position in range(len(grid)):
                    # Bound now, as painting asks for it at once.
                    def read(box: Box, t: int = t, z: int = z, layer: int = layer) -> Any:
                        return source.read(t, z, box, layer=layer)

                    written.paint(0, z, grid.core(position), read)
            written.finish(1, depth)
            group = zarr.open_group(folder / element)
            ome: Any = group.attrs["ome"]
            (multiscale,) = ome["multiscales"]
            multiscale["coordinateTransformations"] = transformations(image, name, axes)
            ome["version"] = "0.5-dev-spatialdata"
            group.attrs.put({"ome": ome, **ELEMENT})
            yield element


def transformations(image: ExportedImage, name: str, axes: str) -> list[dict[str, Any]]:
    """Return the way to the coordinate systems of an image."""
    listed = [{"name": axis, "type": "space", "unit": "unit"} for axis in axes]
    here = {"name": axes, "axes": listed}
    to_px = {
        "type": "identity",
        "input": here,
        "output": {"name": f"{name}_px", "axes": listed},
    }
    if image.voxel is None:
        return [to_px]
    um = [{**axis, "unit": "micrometer"} for axis in listed]
    size = dict(zip("zyx", image.voxel, strict=True))
    to_um = {
        "type": "scale",
        "scale": [size[axis] for axis in axes],
        "input": here,
        "output": {"name": f"{name}_um", "axes": um},
    }
    return [to_px, to_um]


def _write_shapes(image: ExportedImage, name: str, folder: Path) -> None:
    """Write the outlines of an image, plane by plane; a plane without cells has none."""
    times, depth, *_ = image.shape
    with ExitStack() as stack:
        writers: dict[tuple[int, int], pq.ParquetWriter] = {}
        for plane in image.cells():
            place = plane.t, plane.z
            if not len(plane.labels):
                continue
            if place not in writers:
                suffix = (f"_t{plane.t}" if times > 1 else "") + (
                    f"_z{plane.z}" if depth > 1 else ""
                )
                group = folder / f"{name}_outlines{suffix}"
                _start_shapes(image, name, group)
                file = stack.enter_context((group / "shapes.parquet").open("wb"))
                writers[place] = stack.enter_context(
                    pq.ParquetWriter(file, _geoparquet(), compression="zstd")
                )
            traced = outlines(plane.cells.boxes[:, :2], plane.cells.masks)
            shapes = [wkb(parts) for parts in traced.polygons()]
            rows = pa.table([pa.array(shapes, pa.binary()), pa.array(plane.labels)], _geoparquet())
            writers[place].write_table(rows)


def _start_shapes(image: ExportedImage, name: str, group: Path) -> None:
    attributes = {
        "encoding-type": "ngff:shapes",
        "axes": ["x", "y"],
        "coordinateTransformations": transformations(image, name, "xy"),
    }
    zarr.create_group(group, attributes=attributes | ELEMENT)


def _geoparquet() -> pa.Schema:
    """Return the columns of a GeoParquet file: shapes, and the label of each as its index."""
    import pandas as pd

    frame = pd.DataFrame(
        {"geometry": np.array([], object)}, pd.Index(np.array([], np.int64), name=INSTANCE)
    )
    described = pa.Schema.from_pandas(frame).metadata
    column = {"encoding": "WKB", "crs": None, "geometry_types": ["Polygon", "MultiPolygon"]}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return pa.schema(
        [("geometry", pa.binary()), (INSTANCE, pa.int64())],
        {**described, b"geo": json.dumps(geo).encode()},
    )


def wkb(parts: Sequence[Sequence[Ring]]) -> bytes:
    """Return the parts of a cell as well-known binary: OGC 06-103r4, 8."""
    polygons = [
        struct.pack("<BII", 1, POLYGON, len(rings)) + b"".join(map(_ring, rings)) for rings in parts
    ]
    if len(polygons) == 1:
        return polygons[0]
    return struct.pack("<BII", 1, MULTIPOLYGON, len(polygons)) + b"".join(polygons)


def _ring(ring: Ring) -> bytes:
    corners = ring.astype("<f8")
    closed = corners.tobytes() + corners[:1].tobytes()
    return struct.pack("<I", len(ring) + 1) + closed


class Zarr:
    """A `cellseg.pipeline.annotated.Store` in a zarr group."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Make a group."""
        zarr.create_group(self.path / path, attributes=_json(attributes))

    def array(
        self, path: str, shape: tuple[int, ...], dtype: Any, attributes: Mapping[str, Any]
    ) -> Any:
        """Make an array."""
        return zarr.create_array(
            self.path / path,
            shape=shape,
            chunks=tuple(min(ROWS, max(side, 1)) for side in shape),
            dtype=str if dtype is TEXT else dtype,
            attributes=_json(attributes),
        )


def _json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in attributes.items()}


def _write_table(
    images: Sequence[ExportedImage], names: Mapping[str, str], path: Path
) -> Iterator[str]:
    """Write the table; yield the name of each image."""
    schema, found = survey(images)
    by_name = {image.name: image for image in images}

    def element(place: tuple[str, int, int]) -> str:
        name, t, layer = place
        return label_element(by_name[name], names[name], t, layer - 1)

    def elements(rows: pa.Table) -> dict[str, list[str]]:
        places = zip(*(rows[each].to_pylist() for each in ("image", "t", "layer")), strict=True)
        return {KEY: [known[place] for place in places]}

    known = {place: element(place) for place in _places(images)}
    regions = list(known.values())
    annotates = {"region": regions, "region_key": KEY, "instance_key": INSTANCE}
    attributes: dict[str, Any] = {"version": "0.2"}
    attributes["spatialdata-encoding-type"] = "ngff:regions_table"
    attributes |= annotates if regions else dict.fromkeys(annotates)
    writer = Writer(Zarr(path), found, {KEY: regions}, attributes)
    notes: dict[str, Any] = {"spatial_unit": found.unit}
    if regions:
        notes["spatialdata_attrs"] = annotates
    writer.write_notes("uns", notes)
    sizes = {image.name: _pixel(image, found.unit) for image in images}

    def shift(rows: pa.Table) -> NDArray[np.float64]:
        return CENTRE * np.array([sizes[name] for name in rows["image"].to_pylist()])

    yield from write_cells(writer, images, schema, elements, shift)


def _pixel(image: ExportedImage, unit: str) -> tuple[float, float]:
    """Return the size of a pixel along x and y."""
    return image.voxel[:0:-1] if unit == "um" and image.voxel else (1.0, 1.0)


def _places(images: Sequence[ExportedImage]) -> dict[tuple[str, int, int], None]:
    """Return the image, time point and layer of the labels that some cell is in, in order."""
    found: dict[tuple[str, int, int], None] = {}
    for image in images:
        for rows in image.rows.tables(ROWS, ["t", "layer"]):
            pairs = np.unique(np.stack([rows["t"].to_numpy(), rows["layer"].to_numpy()], 1), axis=0)
            found |= {(image.name, *pair): None for pair in pairs.tolist()}
    return found
