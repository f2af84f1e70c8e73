"""Nearby: where the cells of an image lie, from the files of a job, a few runs at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, floor
from typing import Any

import numpy as np

from cellseg.pipeline.job import Job
from cellseg.pipeline.patch import Floats, Near
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import depth_px

HELD = 64
"""Runs whose centres are held, at 1.5 MB each."""


def nearby(job: Job) -> Callable[[int], Near]:
    """Return what gives the centres of a plane's cells; of volumes, of a time point's 3D cells.

    Those that are kept: with a region of interest the others are no cells.
    """
    return _in_volumes(job) if job.scene.linked else _on_planes(job)


def _on_planes(job: Job) -> Callable[[int], Near]:
    """Return what gives the centres of a plane's cells."""

    @lru_cache(maxsize=HELD)
    def run(number: int) -> tuple[Any, Floats]:
        cells = job.work.read_run(number)
        # Labels that were corrected need not go by position.
        order = np.lexsort((cells.centres[:, 0], cells.plane))
        return cells.plane[order], cells.centres[order]

    def of(plane: int) -> Near:
        def near(y0: float, y1: float) -> Floats:
            band = Box(floor(max(y0, 0)), 0, ceil(max(y1, 0)) + 1, job.scene.grid.plane.x1)
            parts = [np.zeros((0, 2))]
            for number in job.work.runs_near(plane, band):
                planes, centres = run(number)
                first, last = np.searchsorted(planes, (plane, plane + 1))
                low, high = first + np.searchsorted(centres[first:last, 0], (y0, y1))
                parts.append(centres[low:high])
            return np.concatenate(parts)

        return near

    return of


def _in_volumes(job: Job) -> Callable[[int], Near]:
    """Return what gives the centres of a time point's 3D cells, their planes counted in px."""
    thick = depth_px(job.scene.voxel_um)

    @lru_cache(maxsize=HELD)
    def run(number: int) -> tuple[Any, Floats]:
        volumes = job.work.read_volumes(number)
        return volumes.t, volumes.centres * (thick, 1, 1)

    def of(t: int) -> Near:
        def near(y0: float, y1: float) -> Floats:
            parts = [np.zeros((0, 3))]
            for number in range(job.work.linked_runs or 0):
                times, centres = run(number)
                y = centres[:, 1]
                parts.append(centres[(times == t) & (y >= y0) & (y < y1)])
            return np.concatenate(parts)

        return near

    return of
