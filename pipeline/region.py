"""A region of a plane: the cells that reach into it, what they share there, and their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.job import Job
from cellseg.pipeline.order import RUN
from cellseg.pipeline.overlaps import Shared, shared_in
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
        """Return those near a region, with their labels; of volumes without those left out."""
        near = cls.sections(job, plane, region)
        if job.scene.linked:
            labels = _linked(job, near.labels)
            kept = np.flatnonzero(labels)
            near = replace(near, cells=near.cells.take(kept), labels=labels[kept])
        if job.overlapping and not job.missing("layer"):
            return replace(near, layer=_layers(job, near.labels))
        return replace(near, layer=np.zeros(len(near.labels), np.uint16))

    @classmethod
    def sections(cls, job: Job, plane: int, region: Box) -> Near:
        """Return those near a region, each labelled by its place among all cells of all planes."""
        cells, labels = [Cells.none()], [np.zeros(0, np.int64)]
        for number in job.work.runs_near(plane, region):
            run = job.work.read_run(number)
            near = np.flatnonzero((run.plane == plane) & overlapping(run.boxes, region))
            cells.append(run.take(near))
            labels.append(1 + number * RUN + near)
        all_cells, all_labels = Cells.concatenate(cells), np.concatenate(labels)
        return cls(all_cells, all_labels, np.zeros(len(all_labels), np.uint16), _masks(job, plane))

    def painter(self, layer: int) -> Callable[[Box], LabelImage]:
        """Return what paints the cells of a layer in a box."""
        own = np.flatnonzero(self.layer == layer)
        cells, labels = self.cells.take(own), self.labels[own]
        return lambda box: paint(cells, labels, self.load, box)


def _linked(job: Job, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels of the 3D cells of some sections, given by their place from 1 on."""
    labels = np.zeros(len(numbers), np.int64)
    run, place = np.divmod(numbers - 1, RUN)
    for number in np.unique(run).tolist():
        own = run == number
        labels[own] = job.work.read_linked(number)[place[own]]
    return labels


def _layers(job: Job, labels: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the layer of each of some labels."""
    layers = np.zeros(len(labels), np.uint16)
    run, place = np.divmod(labels - 1, RUN)
    for number in np.unique(run).tolist():
        own = run == number
        layers[own] = job.work.read_overlaps(number).layer[place[own]]
    return layers


def _masks(job: Job, plane: int) -> Callable[[int], Candidates]:
    """Return the reader of masks of a plane; see `Cells.tile`."""
    tile, first = job.tile(plane), plane * len(job.blocks)
    extra = lru_cache(maxsize=HELD)(lambda block: job.work.read_extra(first + block))
    return lambda number: tile(number) if number >= 0 else extra(-1 - number)
