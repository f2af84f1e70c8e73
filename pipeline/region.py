"""A region of a plane: the cells that reach into it, what they share there, and their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.job import Job
from cellseg.pipeline.order import RUN
from cellseg.pipeline.overlaps import Overlaps, Shared, shared_in
from cellseg.pipeline.paint import LabelImage, paint
from cellseg.pipeline.pool import overlapping
from cellseg.pipeline.pyramid import shards
from cellseg.pipeline.stitch import HELD
from cellseg.pipeline.tiles import Box


def share_region(job: Job, unit: int) -> None:
    """Find what cells share in a region, of several planes if they are small."""
    found = []
    for plane, region in job.regions_in(unit):
        near = Near.to(job, plane, region)
        # Part by part as it is painted, so that memory does not grow.
        found += [shared_in(near.cells, near.labels, near.load, part) for part in shards(region)]
    job.work.write_shared(unit, Shared.concatenate(found))


def paint_region(job: Job, unit: int) -> None:
    """Paint a region of all layers, of several planes if they are small."""
    for plane, region in job.regions_in(unit):
        near = Near.to(job, plane, region)
        t, z = job.scene.plane(plane)
        for layer in np.unique(near.layer).tolist():
            job.here.labels.paint(t, z, region, near.painter(layer), layer)
    job.work.mark("paint", unit)


@dataclass(frozen=True, eq=False)
class Near:
    """The cells that reach into a region of a plane.

    Parameters
    ----------
    cells : Cells
    labels : int64 (N,)
    layer : uint16 (N,)
        0 for all where that is not decided yet.
    load : callable
        The candidates that `Cells.tile` stands for.
    """

    cells: Cells
    labels: NDArray[np.int64]
    layer: NDArray[np.uint16]
    load: Callable[[int], Candidates]

    @classmethod
    def to(cls, job: Job, plane: int, region: Box) -> Near:
        """Return those near a region."""
        decided = job.overlapping and not job.missing("layer")
        numbers = job.work.runs_near(plane, region)
        runs = [_of_run(job, number, plane, region, decided) for number in numbers]
        nothing = Cells.none(), np.zeros(0, np.int64), np.zeros(0, np.uint16)
        cells, labels, layer = zip(nothing, *runs, strict=True)
        all_labels, all_layers = np.concatenate(labels), np.concatenate(layer)
        return cls(Cells.concatenate(cells), all_labels, all_layers, _masks(job, plane))

    def painter(self, layer: int) -> Callable[[Box], LabelImage]:
        """Return what paints the cells of a layer in a box."""
        own = np.flatnonzero(self.layer == layer)
        cells, labels = self.cells.take(own), self.labels[own]
        return lambda box: paint(cells, labels, self.load, box)


def _of_run(
    job: Job, number: int, plane: int, region: Box, decided: bool
) -> tuple[Cells, NDArray[np.int64], NDArray[np.uint16]]:
    """Return the cells of a run near a region of a plane, their labels and layers."""
    cells = job.work.read_run(number)
    near = np.flatnonzero((cells.plane == plane) & overlapping(cells.boxes, region))
    overlaps = job.work.read_overlaps(number) if decided else Overlaps.none(len(cells))
    return cells.take(near), 1 + number * RUN + near, overlaps.layer[near]


def _masks(job: Job, plane: int) -> Callable[[int], Candidates]:
    """Return the reader of masks of a plane; see `Cells.tile`."""
    tile, first = job.tile(plane), plane * len(job.blocks)
    extra = lru_cache(maxsize=HELD)(lambda block: job.work.read_extra(first + block))
    return lambda number: tile(number) if number >= 0 else extra(-1 - number)
