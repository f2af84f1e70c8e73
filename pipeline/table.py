"""The cell table: one row for every label of an image, measured run by run of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.audit import SeamCounts
from cellseg.pipeline.candidate import SEAMS
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.measure import Columns, column_types, measure, reach
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.overlaps import Overlaps
from cellseg.pipeline.patch import Near
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.worker import side_by_side

READ, WINDOW = 2048, 1024
"""Px on a side; cells are read, and in smaller groups measured, whose centres share such a window.

The larger the one, the less often a chunk is decoded for several; the smaller the other, the less
memory the lists of their pixels take."""

FIRST: dict[str, pa.DataType] = {
    "image": pa.string(),
    "plate": pa.string(),
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
    "layer": pa.uint16(),
    "overlap_px": pa.int64(),
    "overlaps_with": pa.list_(pa.uint32()),
    "y0_px": pa.int32(),
    "x0_px": pa.int32(),
    "y1_px": pa.int32(),
    "x1_px": pa.int32(),
    "class": pa.uint8(),
    "score": pa.float32(),
    "seam": pa.string(),
    "touches_edge": pa.bool_(),
    "region": pa.string(),
    "z_px": pa.float64(),
    "z_um": pa.float64(),
    "z0_px": pa.int32(),
    "z1_px": pa.int32(),
    "planes": pa.int32(),
    "volume_px": pa.int64(),
    "volume_um3": pa.float64(),
    "surface_um2": pa.float64(),
    "touches_end": pa.bool_(),
    "track": pa.uint32(),
    "parent": pa.uint32(),
}
"""The first columns of every table, in order."""
OF_VOLUMES = (
    "z_px",
    "z_um",
    "z0_px",
    "z1_px",
    "planes",
    "volume_px",
    "volume_um3",
    "surface_um2",
    "touches_end",
)
"""Columns that are null where cells are not linked over planes."""
SIZES = (
    "area_px",
    "area_um2",
    "overlap_px",
    "score",
    "volume_px",
    "volume_um3",
    "surface_um2",
)
"""Columns among the first that measure a cell, as all behind them do that hold numbers."""
BOX = ("y0_px", "x0_px", "y1_px", "x1_px")
DECIDED = ("t", "z", "y_px", "x_px", *BOX, "area_px", "class", "score", "seam")
"""What `cells_of` needs."""
OVERLAPS = ("layer", "overlap_px", "overlaps_with")
"""What `overlaps_of` needs."""
AUDITED = ("y_px", "x_px", "area_px", "straight_edge", "touches_edge")
"""What `seam_counts` needs."""


def schema(settings: Measure, channels: Sequence[str]) -> pa.Schema:
    """Return the columns of a table and their types."""
    return _schema(settings, tuple(channels))


@lru_cache(maxsize=64)
def _schema(settings: Measure, channels: tuple[str, ...]) -> pa.Schema:
    measured = column_types(settings, channels)
    types = {name: pa.from_numpy_dtype(dtype) for name, dtype in measured.items()} | FIRST
    return pa.schema([(name, types[name]) for name in dict.fromkeys([*FIRST, *types])])


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of some type holds numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def measurements(columns: pa.Schema) -> list[str]:
    """Return which columns of a cell table are measurements, in order; the others say where."""
    return [
        field.name
        for field in columns
        if is_number(field.type) and (field.name in SIZES or field.name not in FIRST)
    ]


def cell_table(
    scene: Scene,
    cells: Cells,
    overlaps: Overlaps,
    ids: NDArray[np.uint32],
    labels: LabelStore,
    near: Callable[[int], Near] | None = None,
) -> pa.Table:
    """Measure some of an image's cells.

    Parameters
    ----------
    scene : Scene
        The image.
    cells : Cells
    overlaps : Overlaps
        How they overlap, each with any cell of the image.
    ids : uint32 (N,)
        Their labels.
    labels : LabelStore
        The painted labels.
    near : callable, optional
        From a plane to what gives the centres of its cells.

    Returns
    -------
    Table
        One row for each cell, in order; `schema` names the columns.
    """
    columns = schema(scene.workflow.measure, scene.measured)
    rows, places = [columns.empty_table()], [np.zeros(0, np.intp)]
    for plane in np.unique(cells.plane).tolist():
        there = np.flatnonzero(cells.plane == plane)
        parts = cells.take(there), overlaps.take(there), ids[there]
        centres = None if near is None else near(plane)
        rows.append(_plane_table(scene, plane, *parts, labels, centres).cast(columns))
        places.append(there)
    place = np.concatenate(places)
    by_plane = pa.concat_tables(rows)
    # Labels that were corrected need not go plane by plane.
    return by_plane if (np.diff(place) > 0).all() else by_plane.take(np.argsort(place))


def cells_of(scene: Scene, rows: pa.Table) -> Cells:
    """Return the cells of some rows of a table, to be measured again; their masks are unknown."""
    columns = {name: rows[name].to_numpy() for name in DECIDED}
    unknown = np.zeros(len(rows), np.int32)
    return Cells(
        plane=(columns["t"] * scene.shape[2] + columns["z"]).astype(np.int32),
        tile=unknown,
        index=unknown,
        boxes=np.stack([columns[name] for name in BOX], axis=1).astype(np.int32),
        centres=np.stack([columns["y_px"], columns["x_px"]], axis=1),
        areas=columns["area_px"].astype(np.int64),
        scores=columns["score"].astype(np.float32),
        classes=columns["class"].astype(np.uint8),
        seam=np.array([SEAMS.index(word) for word in columns["seam"]], np.uint8),
        digests=np.zeros(len(rows), np.uint64),
    )


def overlaps_of(rows: pa.Table) -> Overlaps:
    """Return how the cells of some rows of a table overlap."""
    others = rows["overlaps_with"].combine_chunks()
    return Overlaps(
        layer=(rows["layer"].to_numpy() - 1).astype(np.uint16),
        covered=rows["overlap_px"].to_numpy().astype(np.int64),
        counts=others.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64),
        others=others.flatten().to_numpy().astype(np.uint32),
    )


def seam_counts(scene: Scene, rows: pa.Table) -> SeamCounts:
    """Count the cells of some rows near the borders of tiles."""
    columns = {name: rows[name].to_numpy() for name in AUDITED}
    return SeamCounts.of(
        scene.grid,
        np.stack([columns["y_px"], columns["x_px"]], axis=1),
        columns["area_px"],
        columns["straight_edge"],
        columns["touches_edge"],
    )


def _plane_table(
    scene: Scene,
    plane: int,
    cells: Cells,
    overlaps: Overlaps,
    ids: NDArray[np.uint32],
    labels: LabelStore,
    near: Near | None,
) -> pa.Table:
    """Return the rows of one plane."""
    measured = _measured(scene, plane, cells, overlaps.layer, ids, labels, near)
    described = _described(scene, plane, cells, ids) | overlapping_columns(overlaps)
    columns = {name: pa.array(values) for name, values in described.items()}
    # What is not a number is not known.
    columns |= {name: pa.array(values, from_pandas=True) for name, values in measured.items()}
    for name in (*OF_VOLUMES, "track", "parent"):
        columns[name] = pa.nulls(len(cells), FIRST[name])
    names = [*FIRST, *(name for name in measured if name not in FIRST)]
    return pa.table({name: columns[name] for name in names})


def _measured(
    scene: Scene,
    plane: int,
    cells: Cells,
    layers: NDArray[np.uint16],
    ids: NDArray[np.uint32],
    labels: LabelStore,
    near: Near | None,
) -> Columns:
    """Return what is measured on the cells of a plane, each in its own layer."""
    t, z = scene.plane(plane)
    settings, measured = scene.workflow.measure, Columns()
    names, around = scene.measured, reach(settings)
    about: dict[str, Any] = {
        "settings": settings,
        "pixel_um": scene.voxel_um[1:] if scene.voxel_um else None,
        "near": near,
        "extent": scene.grid.plane.shape,
        "tops": scene.tops,
    }

    def look(together: NDArray[np.intp]) -> list[tuple[NDArray[np.intp], Columns]]:
        """Measure cells that are read at once."""
        window = _around(cells, together).grow(around, scene.grid.plane)
        pixels = scene.read_measured(t, z, window)
        painted = [labels.read(t, z, window, layer=layer) for layer in range(labels.layers)]
        occupied = np.logical_or.reduce([layer > 0 for layer in painted])
        found = []
        for alone, layer in _apart(cells, together, layers):
            inner = _around(cells, alone).grow(around, scene.grid.plane)
            part, corner = inner.within(window).slices, (inner.y0, inner.x0)
            seen = painted[layer][part], pixels[:, *part], ids[alone], names
            columns = measure(*seen, origin=corner, occupied=occupied[part], **about)
            found.append((alone, columns))
        return found

    for found in side_by_side(look, windows(cells, READ)):
        for alone, columns in found:
            for name, values in columns.items():
                measured.setdefault(name, np.zeros(len(cells), values.dtype))[alone] = values
    return measured


def _apart(
    cells: Cells, together: NDArray[np.intp], layers: NDArray[np.uint16]
) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Yield cells that are measured at once, of some that are read at once, and their layer."""
    for group in windows(cells.take(together), WINDOW):
        members = together[group]
        for layer in np.unique(layers[members]).tolist():
            yield members[layers[members] == layer], layer


def _around(cells: Cells, chosen: NDArray[np.intp]) -> Box:
    """Return the box around some cells."""
    boxes = cells.boxes[chosen]
    return Box(*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())


def _described(scene: Scene, plane: int, cells: Cells, ids: NDArray[np.uint32]) -> dict[str, Any]:
    """Return the columns that are known without measuring."""
    t, z = scene.plane(plane)
    count = len(cells)
    sides = cells.boxes[:, [2, 3]] == scene.grid.plane.shape
    starts = cells.boxes[:, [0, 1]] == 0
    return {
        **origin_columns(scene, count),
        "label": ids,
        "t": np.full(count, t, np.int32),
        "z": np.full(count, z, np.int32),
        **{name: cells.boxes[:, side] for side, name in enumerate(BOX)},
        "class": cells.classes,
        "score": pa.array(cells.scores, from_pandas=True),
        "seam": np.array(SEAMS)[cells.seam].tolist(),
        "touches_edge": sides.any(axis=1) | starts.any(axis=1),
        "region": pa.array(region_names(scene, cells.centres), pa.string()),
    }


def origin_columns(scene: Scene, count: int) -> dict[str, Any]:
    """Return the columns that say which image some cells are of."""
    return {
        "image": [scene.name] * count,
        "plate": pa.array([scene.source.plate] * count, pa.string()),
        "well": pa.array([scene.source.well] * count, pa.string()),
        "site": pa.array([scene.source.site] * count, pa.string()),
    }


def region_names(scene: Scene, centres: NDArray[np.float64]) -> list[str | None]:
    """Return the part of the region of interest that each centre y, x (N, 2) lies in."""
    if scene.region is None:
        return [None] * len(centres)
    return scene.region.names_at(centres)


def overlapping_columns(overlaps: Overlaps) -> dict[str, Any]:
    """Return the columns that say how cells overlap."""
    ends = np.concatenate([[0], np.cumsum(overlaps.counts)]).astype(np.int32)
    return {
        "layer": overlaps.layer + np.uint16(1),
        "overlap_px": overlaps.covered,
        "overlaps_with": pa.ListArray.from_arrays(ends, overlaps.others),
    }


def windows(cells: Cells, side: int) -> Iterator[NDArray[np.intp]]:
    """Yield the cells in groups that lie close together, by the window their centre is in.

    Windows are squares of `side` px.

    A cell longer than a window comes alone, so that no group's box is much
    larger than a window and the cells that reach out of it.
    """
    large = (cells.boxes[:, 2:] - cells.boxes[:, :2]).max(axis=1, initial=0) > side
    for cell in large.nonzero()[0]:
        yield np.array([cell])
    small = (~large).nonzero()[0]
    place = (cells.centres[small] // side).astype(np.int64)
    order = np.lexsort((place[:, 1], place[:, 0]))
    changes = np.flatnonzero((np.diff(place[order], axis=0) != 0).any(axis=1)) + 1
    for group in np.split(small[order], changes):
        if len(group):
            yield np.sort(group)
