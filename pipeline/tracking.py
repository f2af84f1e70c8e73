"""The stage that follows the cells of an image over time, planes or volumes."""

from __future__ import annotations

from math import pi

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.job import Job
from cellseg.pipeline.link_rules import Shares
from cellseg.pipeline.order import RUN
from cellseg.pipeline.table import FIRST
from cellseg.pipeline.track import TrackRules, Tracks, follow


def track_image(job: Job, runs: int) -> None:
    """Follow all cells of an image; of linked planes, the 3D cells.

    Parameters
    ----------
    runs : int
        Number of runs of cells.
    """
    times, centres, sizes, seen = _cells(job, runs)
    rules = _rules(job, seen)
    found = follow(times, centres, sizes, _shares(job, times), rules)
    for number in range(runs):
        own = slice(number * RUN, (number + 1) * RUN)
        job.work.write_tracks(number, Tracks(found.track[own], found.parent[own]))


def restore_tracks(job: Job, runs: int) -> None:
    """Write the tracks of labels that are there, as their table says."""
    rows = job.here.cell_rows(("track", "parent"), RUN)
    for number, table in zip(range(runs), rows, strict=False):
        track, parent = (table[n].fill_null(0).to_numpy() for n in ("track", "parent"))
        job.work.write_tracks(number, Tracks(track.astype(np.uint32), parent.astype(np.uint32)))


def with_tracks(rows: pa.Table, tracks: Tracks) -> pa.Table:
    """Return rows with their tracks filled in."""
    for name, values in (("track", tracks.track), ("parent", tracks.parent)):
        column = pa.array(values, FIRST[name], mask=values == 0)
        rows = rows.set_column(
            rows.schema.get_field_index(name), pa.field(name, FIRST[name]), column
        )
    return rows


def _cells(
    job: Job, runs: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return time, centre in px along x, size, and diameter in px along x of each cell."""
    scene = job.scene
    _, y, x = scene.voxel_um or (1.0, 1.0, 1.0)
    scale = np.array([scene.step_px * (y / x) ** 0.5 if scene.step_px else 1.0, y / x, 1.0])
    times, centres, sizes = [np.zeros(0, np.int64)], [np.zeros((0, 3))], [np.zeros(0, np.int64)]
    for number in range(runs):
        if scene.linked:
            volumes = job.work.read_volumes(number)
            places, areas, t = volumes.centres, volumes.sizes, volumes.t
        else:
            cells = job.work.read_run(number)
            t, plane = np.divmod(cells.plane, scene.shape[2])
            # Planes that are not linked are far apart: a cell stays in its own.
            far = plane * (scale[0] + max(scene.shape)) * 1e3
            places, areas = np.column_stack([far / scale[0], cells.centres]), cells.areas
        times.append(t.astype(np.int64))
        centres.append(places * scale)
        sizes.append(areas)
    size = np.concatenate(sizes)
    if scene.linked:
        seen = np.cbrt(size * (scale.prod() * 6 / pi))
    else:
        seen = np.sqrt(size * (scale[1:].prod() * 4 / pi))
    return np.concatenate(times), np.concatenate(centres), size, seen


def _rules(job: Job, seen: NDArray[np.float64]) -> TrackRules:
    settings, scene = job.scene.workflow.track, job.scene
    distance = settings.distance_px
    if settings.distance_um is not None and scene.voxel_um is not None:
        distance = settings.distance_um / scene.voxel_um[2]
    if distance is None:
        distance = float(np.median(seen)) if len(seen) else 1.0
    return TrackRules(distance, settings.gap, settings.divisions)


def _shares(job: Job, times: NDArray[np.int64]) -> Shares:
    """Return what cells share with those of the next time point, by the order of their labels."""
    labels = np.arange(1, len(times) + 1)
    if job.scene.linked:
        parts = [job.work.read_linked(number) for number in range(job.work.runs or 0)]
        labels = np.concatenate([np.zeros(0, np.uint32), *parts]).astype(np.int64)
    found = [(np.zeros(0, np.int64),) * 3]
    for unit in range(job.units("match")):
        shares = job.work.read_matches(unit)
        one, other = labels[shares.ones] - 1, labels[shares.others] - 1
        kept = (one >= 0) & (other >= 0)
        kept[kept] = times[one[kept]] < times[other[kept]]
        found.append((one[kept], other[kept], shares.pixels[kept]))
    ones, others, pixels = (np.concatenate(column) for column in zip(*found, strict=True))
    return Shares(ones, others, pixels)
