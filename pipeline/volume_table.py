"""The cell table of volumes: one row for every 3D cell, measured in groups that lie close."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.candidate import SEAMS
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.measure import reach
from cellseg.pipeline.overlaps import Overlaps
from cellseg.pipeline.patch import Columns, Near
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.solid import measure_solid
from cellseg.pipeline.table import (
    BOX,
    FIRST,
    origin_columns,
    overlapping_columns,
    region_names,
    schema,
)
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.volumes import Volumes

WINDOW, PLANES = 512, 16
"""Px on a side, and planes; cells are measured in groups whose centres share such a window."""
BOX_3D = ("z0_px", "y0_px", "x0_px", "z1_px", "y1_px", "x1_px")
DECIDED_VOLUMES = ("t", "z_px", "y_px", "x_px", *BOX_3D, "volume_px", "class", "score", "seam")
"""What `volumes_of` needs."""


def volume_table(
    scene: Scene,
    volumes: Volumes,
    overlaps: Overlaps,
    ids: NDArray[np.uint32],
    labels: LabelStore,
    near: Callable[[int], Near] | None = None,
) -> pa.Table:
    """Measure some of an image's 3D cells.

    Parameters
    ----------
    scene, overlaps, ids, labels
        See `cellseg.pipeline.table.cell_table`.
    volumes : Volumes
    near : callable, optional
        From a time point to what gives the centres of its cells.

    Returns
    -------
    Table
        One row for each cell, in order; `cellseg.pipeline.table.schema` names the columns.
    """
    columns = schema(scene.workflow.measure, scene.measured)
    if not len(volumes):
        return columns.empty_table()
    measured = _measured(scene, volumes, overlaps.layer, ids, labels, near)
    described = _described(scene, volumes, measured, ids) | overlapping_columns(overlaps)
    # What is not a number is not known.
    rows = {name: pa.array(values, from_pandas=True) for name, values in measured.items()}
    rows |= {name: pa.array(values) for name, values in described.items()}
    for name in ("track", "parent"):
        rows[name] = pa.nulls(len(volumes), FIRST[name])
    return pa.table({name: rows[name] for name in columns.names}).cast(columns)


def volumes_of(rows: pa.Table) -> Volumes:
    """Return the 3D cells of some rows of a table, to be measured again."""
    columns = {name: rows[name].to_numpy() for name in DECIDED_VOLUMES}
    return Volumes(
        t=columns["t"].astype(np.int32),
        boxes=np.stack([columns[name] for name in BOX_3D], axis=1).astype(np.int32),
        centres=np.stack([columns[name] for name in ("z_px", "y_px", "x_px")], axis=1),
        sizes=columns["volume_px"].astype(np.int64),
        scores=columns["score"].astype(np.float32),
        classes=columns["class"].astype(np.uint8),
        seam=np.array([SEAMS.index(word) for word in columns["seam"]], np.uint8),
    )


def _measured(
    scene: Scene,
    volumes: Volumes,
    layers: NDArray[np.uint16],
    ids: NDArray[np.uint32],
    labels: LabelStore,
    near: Callable[[int], Near] | None,
) -> Columns:
    """Return what is measured on the cells, each in its own layer."""
    measured: Columns = {}
    settings = scene.workflow.measure
    for group in close_together(volumes):
        t, (low, high), inner = int(volumes.t[group[0]]), *_around(volumes, group)
        window = inner.grow(reach(settings), scene.grid.plane)
        pixels = np.stack([scene.read_measured(t, z, window) for z in range(low, high)], axis=1)
        painted = [
            np.stack([labels.read(t, z, window, layer=layer) for z in range(low, high)])
            for layer in range(labels.layers)
        ]
        occupied = np.logical_or.reduce([layer > 0 for layer in painted])
        for layer in np.unique(layers[group]).tolist():
            alone = group[layers[group] == layer]
            found = measure_solid(
                painted[layer],
                pixels,
                ids[alone],
                scene.measured,
                settings=settings,
                voxel_um=scene.voxel_um,
                origin=(low, window.y0, window.x0),
                occupied=occupied,
                near=None if near is None else near(t),
                extent=scene.grid.plane.shape,
                tops=scene.tops,
            )
            for name, values in found.items():
                measured.setdefault(name, np.zeros(len(volumes), values.dtype))[alone] = values
    return measured


def _around(volumes: Volumes, group: NDArray[np.intp]) -> tuple[tuple[int, int], Box]:
    """Return first plane and the one after the last, and the box, around some cells."""
    z0, y0, x0 = volumes.boxes[group, :3].min(axis=0).tolist()
    z1, y1, x1 = volumes.boxes[group, 3:].max(axis=0).tolist()
    return (z0, z1), Box(y0, x0, y1, x1)


def close_together(volumes: Volumes) -> Iterator[NDArray[np.intp]]:
    """Yield the cells in groups that lie close together, by the window their centre is in.

    A cell longer than a window comes alone, so that memory goes with a window and the
    cells that reach out of it.
    """
    sides = (PLANES, WINDOW, WINDOW)
    large = np.any(volumes.boxes[:, 3:] - volumes.boxes[:, :3] > sides, axis=1)
    for cell in large.nonzero()[0]:
        yield np.array([cell])
    small = (~large).nonzero()[0]
    place = np.column_stack([volumes.t[small], volumes.centres[small] // sides]).astype(np.int64)
    order = np.lexsort(place.T[::-1])
    changes = np.flatnonzero((np.diff(place[order], axis=0) != 0).any(axis=1)) + 1
    for group in np.split(small[order], changes):
        if len(group):
            yield np.sort(group)


def _described(
    scene: Scene, volumes: Volumes, measured: Columns, ids: NDArray[np.uint32]
) -> dict[str, Any]:
    """Return the columns that are known without measuring."""
    count, depth = len(volumes), scene.shape[2]
    boxes = dict(zip(BOX_3D, volumes.boxes.T, strict=True))
    low, high = volumes.boxes[:, 1:3], volumes.boxes[:, 4:]
    at_side = (low == 0).any(axis=1) | (high == scene.grid.plane.shape).any(axis=1)
    return {
        **origin_columns(scene, count),
        "label": ids,
        "t": volumes.t,
        "z": np.rint(measured["z_px"]).astype(np.int32),
        **{name: boxes[name] for name in (*BOX, "z0_px", "z1_px")},
        "class": volumes.classes,
        "score": pa.array(volumes.scores, from_pandas=True),
        "seam": np.array(SEAMS)[volumes.seam].tolist(),
        "touches_edge": at_side,
        "region": pa.array(region_names(scene, volumes.centres[:, 1:]), pa.string()),
        "touches_end": (boxes["z0_px"] == 0) | (boxes["z1_px"] == depth),
    }
