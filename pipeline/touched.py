"""Which cells edits leave to be measured again, where the table says what was there before them.

Those of which pixels were edited, or pixels within reach of what is measured, and those from
which a nearest neighbour, or one that is counted, came, went or moved. What all others are, their
rows say: no pixel of theirs is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.change import Change
from cellseg.pipeline.job import Job
from cellseg.pipeline.measure import reach
from cellseg.pipeline.neighbours import ROUNDING, neighbour_distance_px
from cellseg.pipeline.order import RUN
from cellseg.pipeline.scan import Scan, T, X, Y, Z
from cellseg.pipeline.table import BOX, OVERLAPS, overlaps_of
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import depth_px

WINDOW = 256
"""Px on a side of the windows in which cells are looked at together."""
SCANNED = ("label", "t", "z", "z_px", "y_px", "x_px", "z0_px", "z1_px", *BOX, "area_px",
           "volume_px", *OVERLAPS)  # fmt: skip
"""What `scan_of_rows` needs."""
FAR = "second_nearest_px"
Places = dict[tuple[int, int, int], Box]
"""Of a label, t and z, the box that all its pixels there are in."""
Points = dict[int, NDArray[np.float64]]
"""Of a plane, points (N, 3) in it: z, y and x in widths of a pixel."""


@dataclass(frozen=True, eq=False)
class Touched:
    """What edits have touched.

    Parameters
    ----------
    scan : Scan
        Cells whose pixels may be other ones, as they are now.
    looked_for : int64 (M,)
        Labels of those that were scanned, ascending; of one that is gone the scan has nothing.
    again : int64 (N,)
        Labels of the cells to measure again, ascending.
    """

    scan: Scan
    looked_for: NDArray[np.int64]
    again: NDArray[np.int64]


def scan_touched(job: Job, _unit: int) -> None:
    """Find the cells that edits have touched, and look at them as they are now."""
    assert job.corrections is not None  # noqa: S101 - edits are why this is a stage
    changes = [change for change in job.corrections.changes if change.drawn]
    drawn = np.unique(np.array([change.label for change in changes], np.int64))
    places, moved = _before(job, changes, drawn)
    for change in changes:
        _unite(places, (change.label, change.t, change.z), change.region)
    scan = _scan(job, places)
    now = scan.among(drawn)
    _add_points(job, moved, now.low[:, T], now.low[:, Z], now.centres)
    looked_for = np.unique(np.array([label for label, _, _ in places], np.int64))
    said = np.array([change.label for change in job.corrections.changes], np.int64)
    again = [looked_for, said, *_with_moved_neighbours(job, moved)]
    job.work.write_touched(vars(Touched(scan, looked_for, np.unique(np.concatenate(again)))))


def read_touched(job: Job) -> Touched:
    """Return what `scan_touched` has found."""
    return Touched(**job.work.read_touched())


def scan_of_rows(rows: pa.Table, *, linked: bool) -> Scan:
    """Return what label images hold, as rows of their table say; equal to a scan of them.

    Parameters
    ----------
    rows : Table
        `SCANNED` of cells, labels ascending.
    linked : bool
        Whether they are 3D cells.
    """
    column = {name: rows[name].to_numpy() for name in SCANNED if name not in OVERLAPS}
    z0 = column["z0_px"] if linked else column["z"]
    z1 = column["z1_px"] if linked else column["z"] + 1
    sizes = column["volume_px" if linked else "area_px"].astype(np.int64)
    overlaps, labels = overlaps_of(rows), column["label"].astype(np.int64)
    centres = [column["z_px"] if linked else z0, column["y_px"], column["x_px"]]
    layer, t = overlaps.layer.astype(np.int64), column["t"]
    owner, sharing = np.repeat(labels, overlaps.counts), overlaps.covered > 0
    pairs = np.sort(np.stack([owner, overlaps.others.astype(np.int64)], axis=1), axis=1)
    return Scan(
        labels=labels,
        sizes=sizes,
        # Sums of whole numbers: rounding gives back those that the centres were made of.
        sums=np.stack([np.rint(along * sizes) for along in centres], axis=1).astype(np.int64),
        low=_sides(layer, t, z0, column["y0_px"], column["x0_px"]),
        high=_sides(layer + 1, t + 1, z1, column["y1_px"], column["x1_px"]),
        pairs=np.unique(pairs, axis=0),
        sharing=labels[sharing],
        covered=overlaps.covered[sharing],
    )


def _sides(*along: NDArray[Any]) -> NDArray[np.int32]:
    return np.stack(along, axis=1).astype(np.int32)


def _before(job: Job, changes: Sequence[Change], drawn: NDArray[np.int64]) -> tuple[Places, Points]:
    """Return where cells that were edited, or have edits within reach, were; and their centres.

    The centres are only of those that were edited.
    """
    places: Places = {}
    moved: Points = {}
    around = reach(job.scene.workflow.measure)
    for rows in job.here.cell_rows(SCANNED, RUN):
        scan = scan_of_rows(rows, linked=job.scene.linked)
        edited = np.isin(scan.labels, drawn)
        for cell in np.flatnonzero(edited | _meeting(scan, changes, around)).tolist():
            (_, t, z0, y0, x0), (_, _, z1, y1, x1) = scan.low[cell], scan.high[cell]
            for z in range(z0, z1):
                box = Box(int(y0), int(x0), int(y1), int(x1))
                _unite(places, (int(scan.labels[cell]), int(t), z), box)
        low, centres = scan.low[edited], scan.centres[edited]
        _add_points(job, moved, low[:, T], low[:, Z], centres)
    return places, moved


def _meeting(scan: Scan, changes: Sequence[Change], around: int) -> NDArray[np.bool_]:
    """Return which cells have a box that meets those of changes, grown by some px; bool (N,)."""
    met = np.zeros(len(scan), bool)
    order = np.argsort(scan.low[:, Y], kind="stable")
    low, high = scan.low[order], scan.high[order]
    tallest = int((high[:, Y] - low[:, Y]).max(initial=0))
    for change in changes:
        y0, x0, y1, x1 = change.box
        band = np.searchsorted(low[:, Y], (y0 - around - tallest, y1 + around))
        near = slice(*band.tolist())
        inside = (high[near, Y] > y0 - around) & (low[near, T] == change.t)
        inside &= (low[near, X] < x1 + around) & (high[near, X] > x0 - around)
        inside &= (low[near, Z] <= change.z) & (high[near, Z] > change.z)
        met[order[near][inside]] = True
    return met


def _unite(places: Places, where: tuple[int, int, int], box: Box) -> None:
    """Have a place hold a box, too."""
    known = places.get(where, box)
    corner = min(known.y0, box.y0), min(known.x0, box.x0)
    places[where] = Box(*corner, max(known.y1, box.y1), max(known.x1, box.x1))


def _scan(job: Job, places: Places) -> Scan:
    """Look at the cells of some places as they are now."""
    labels, found = job.here.labels, []
    for (t, z, *_), cells in _together(places).items():
        window = Box(
            *(min(getattr(box, side) for box in cells.values()) for side in ("y0", "x0")),
            *(max(getattr(box, side) for box in cells.values()) for side in ("y1", "x1")),
        )
        layers = [labels.read(t, z, window, layer=layer) for layer in range(labels.layers)]
        found.append(Scan.of(layers, window, t, z).among(np.array(sorted(cells), np.int64)))
    return Scan.merged(found)


def _together(places: Places) -> Mapping[tuple[int, ...], dict[int, Box]]:
    """Return labels and their boxes by plane and by the window that a box's middle is in.

    One that is larger than a window comes alone.
    """
    found: dict[tuple[int, ...], dict[int, Box]] = {}
    for (label, t, z), box in places.items():
        middle = (box.y0 + box.y1) // 2 // WINDOW, (box.x0 + box.x1) // 2 // WINDOW
        alone = (label,) if max(box.shape) > WINDOW else ()
        found.setdefault((t, z, *middle, *alone), {})[label] = box
    return found


def _add_points(
    job: Job,
    points: Points,
    t: NDArray[np.int32],
    z: NDArray[np.int32],
    centres: NDArray[np.float64],
) -> None:
    """Add centres (N, 3), in planes and px, to the points of their planes."""
    for plane, some in _by_plane(job, t, z, centres):
        points[plane] = np.concatenate([points.get(plane, np.zeros((0, 3))), some])


def _by_plane(
    job: Job, t: NDArray[np.int32], z: NDArray[np.int32], centres: NDArray[np.float64]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield planes, of 3D cells time points, and the centres in each in widths of a pixel."""
    planes = _planes(job, t, z)
    for plane in np.unique(planes).tolist():
        yield plane, centres[planes == plane] * _scale(job)


def _planes(job: Job, t: NDArray[np.int32], z: NDArray[np.int32]) -> NDArray[np.int64]:
    depth = job.scene.shape[2]
    return t.astype(np.int64) * depth + (0 if job.scene.linked else z)


def _scale(job: Job) -> tuple[float, float, float]:
    """Return how large a voxel is, in widths of a pixel; planes that are not linked are apart."""
    voxel = job.scene.voxel_um
    return depth_px(voxel) if job.scene.linked else 0.0, voxel[1] / voxel[2] if voxel else 1.0, 1.0


def _with_moved_neighbours(job: Job, moved: Points) -> Iterator[NDArray[np.int64]]:
    """Yield labels of cells as near to a point as their second nearest neighbour, or a counted one.

    A cell that has no two neighbours is near to all points.
    """
    # Late, so that to read a workflow loads nothing heavy.
    from scipy.spatial import cKDTree

    settings, voxel = job.scene.workflow.measure, job.scene.voxel_um
    if "neighbours" not in settings.groups or not moved:
        return
    trees = {plane: cKDTree(points) for plane, points in moved.items()}
    counted = neighbour_distance_px(settings, voxel[1:] if voxel else None)
    for rows in job.here.cell_rows((*SCANNED, FAR), RUN):
        scan = scan_of_rows(rows, linked=job.scene.linked)
        far = np.nan_to_num(rows[FAR].to_numpy().astype(np.float64), nan=np.inf)
        far = np.maximum(far, counted) * (1 + 2 * ROUNDING)
        planes = _planes(job, scan.low[:, T], scan.low[:, Z])
        for plane, tree in trees.items():
            here = planes == plane
            distance, _ = tree.query(scan.centres[here] * _scale(job))
            yield scan.labels[here][distance <= far[here]]
