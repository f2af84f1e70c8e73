"""The cell table: one row for every label of an image, measured window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.candidate import SEAMS, around
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.measure import column_types, measure
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.stitch import Stitched
from cellseg.pipeline.tiles import Box

WINDOW = 1024
"""Px on a side; cells are measured in groups whose centres share such a window."""

FIRST: dict[str, pa.DataType] = {
    "image": pa.string(),
    "well": pa.string(),
    "site": pa.string(),
    "label": pa.uint32(),
    "t": pa.int32(),
    "z": pa.int32(),
    "y_px": pa.float64(),
    "x_px": pa.float64(),
    "y_um": pa.float64(),
    "x_um": pa.float64(),
    "area_px": pa.int64(),
    "area_um2": pa.float64(),
    "class": pa.uint8(),
    "score": pa.float32(),
    "seam": pa.string(),
    "touches_edge": pa.bool_(),
}
"""The first columns of every table, in order."""


def schema(groups: Sequence[str], channels: Sequence[str]) -> pa.Schema:
    """Return the columns of a table and their types."""
    measured = column_types(groups, channels)
    types = {name: pa.from_numpy_dtype(dtype) for name, dtype in measured.items()} | FIRST
    return pa.schema([(name, types[name]) for name in dict.fromkeys([*FIRST, *types])])


def cell_table(scene: Scene, planes: Sequence[Stitched], labels: LabelStore) -> pa.Table:
    """Measure every cell of an image.

    Parameters
    ----------
    scene : Scene
        The image.
    planes : sequence of Stitched
        The cells of each plane, as painted: label k is the k-th of them all.
    labels : LabelStore
        The painted label image.

    Returns
    -------
    Table
        One row for each label, in order; `schema` names the columns.
    """
    columns = schema(scene.workflow.measure.groups, scene.image.channels)
    rows, first = [columns.empty_table()], 1
    for plane, cells in enumerate(planes):
        if len(cells):
            rows.append(_plane_table(scene, plane, cells, first, labels).cast(columns))
        first += len(cells)
    return pa.concat_tables(rows)


def _plane_table(
    scene: Scene, plane: int, cells: Stitched, first: int, labels: LabelStore
) -> pa.Table:
    """Return the rows of one plane."""
    t, z = scene.plane(plane)
    channels = range(len(scene.image.channels))
    measured: dict[str, NDArray[Any]] = {}
    for group in windows(cells):
        window = around([Box(*box) for box in cells.boxes[group].tolist()])
        pixels = scene.image.read(t, z, window, channels)
        where = f"t={t}, z={z}, y={window.y0}:{window.y1}, x={window.x0}:{window.x1}"
        scene.check_finite(pixels, channels, where)
        found = measure(
            labels.read(t, z, window),
            pixels,
            first + group,
            scene.image.channels,
            groups=scene.workflow.measure.groups,
            pixel_um=scene.voxel_um[1:] if scene.voxel_um else None,
            origin=(window.y0, window.x0),
        )
        for name, values in found.items():
            measured.setdefault(name, np.zeros(len(cells), values.dtype))[group] = values
    described = _described(scene, plane, cells, first)
    columns = {name: pa.array(values) for name, values in (described | measured).items()}
    for name in ("y_um", "x_um", "area_um2"):
        columns[name] = pa.array(measured[name], from_pandas=True)
    names = [*FIRST, *(name for name in measured if name not in FIRST)]
    return pa.table({name: columns[name] for name in names})


def _described(scene: Scene, plane: int, cells: Stitched, first: int) -> dict[str, Any]:
    """Return the columns that are known without measuring."""
    t, z = scene.plane(plane)
    count = len(cells)
    sides = cells.boxes[:, [2, 3]] == scene.grid.plane.shape
    starts = cells.boxes[:, [0, 1]] == 0
    return {
        "image": [scene.name] * count,
        "well": pa.array([scene.source.well] * count, pa.string()),
        "site": pa.array([scene.source.site] * count, pa.string()),
        "label": np.arange(first, first + count, dtype=np.uint32),
        "t": np.full(count, t, np.int32),
        "z": np.full(count, z, np.int32),
        "class": cells.classes,
        "score": cells.scores,
        "seam": np.array(SEAMS)[cells.seam].tolist(),
        "touches_edge": sides.any(axis=1) | starts.any(axis=1),
    }


def windows(cells: Stitched) -> Iterator[NDArray[np.intp]]:
    """Yield the cells in groups that lie close together, by the window their centre is in.

    A cell longer than a window comes alone, so that no group's box is much
    larger than a window and the cells that reach out of it.
    """
    large = (cells.boxes[:, 2:] - cells.boxes[:, :2]).max(axis=1, initial=0) > WINDOW
    for cell in large.nonzero()[0]:
        yield np.array([cell])
    small = (~large).nonzero()[0]
    place = (cells.centres[small] // WINDOW).astype(np.int64)
    order = np.lexsort((place[:, 1], place[:, 0]))
    changes = np.flatnonzero((np.diff(place[order], axis=0) != 0).any(axis=1)) + 1
    for group in np.split(small[order], changes):
        if len(group):
            yield np.sort(group)
