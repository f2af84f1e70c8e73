"""The stages that make 3D cells: match sections of neighbouring planes, then link all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.meeting import meeting, shared_pixels
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.interest import centre_pixels
from cellseg.pipeline.job import Job
from cellseg.pipeline.link import Linked, link
from cellseg.pipeline.link_rules import Shares
from cellseg.pipeline.order import RUN, runs
from cellseg.pipeline.overlaps import masks_in
from cellseg.pipeline.paint import overlapping_part
from cellseg.pipeline.pyramid import shards
from cellseg.pipeline.region import Near
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.volume_table import DECIDED_VOLUMES, volumes_of
from cellseg.pipeline.volumes import Volumes, gathered


def match_region(job: Job, unit: int) -> None:
    """Find what cells in a region share with those of the next planes, several if they are small.

    Only in that region: what a pair shares adds up over all of them.
    """
    planes, found = job.regions_in(unit), [_nothing()]
    reach = job.link_rules.reach
    for part in shards(planes[0][1]):
        sections = lru_cache(maxsize=reach + 2)(lambda plane, part=part: _Part.of(job, plane, part))
        for plane, _ in planes:
            found += [_shares(sections(plane), sections(p)) for p in job.partners(plane)]
    job.work.write_matches(unit, _concatenated(found))


@dataclass(frozen=True, eq=False)
class _Part:
    """The sections that reach into a part of a plane, as they are there.

    Parameters
    ----------
    near : Near
        Its labels are the numbers of sections, from 1 on.
    boxes : int32 (N, 4)
        Cut at the part.
    masks : dict
        Those that were asked for.
    """

    near: Near
    boxes: NDArray[np.int32]
    masks: dict[int, NDArray[np.bool_]]

    @classmethod
    def of(cls, job: Job, plane: int, part: Box) -> _Part:
        near = Near.sections(job, plane, part)
        return cls(near, overlapping_part(near.cells.boxes, part), {})

    def load(self, chosen: NDArray[np.integer]) -> None:
        """Read masks that are not there yet."""
        missing = np.array([i for i in chosen.tolist() if i not in self.masks], np.intp)
        self.masks.update(masks_in(self.near.cells, self.boxes, self.near.load, missing))


def _shares(one: _Part, other: _Part) -> Shares:
    """Return what the sections of two planes share in a part of them."""
    count = len(one.boxes)
    boxes = np.concatenate([one.boxes, other.boxes])
    pairs = meeting(boxes)
    pairs = pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count)]
    one.load(np.unique(pairs[:, 0]))
    other.load(np.unique(pairs[:, 1] - count))

    def mask(number: int) -> NDArray[np.bool_]:
        return one.masks[number] if number < count else other.masks[number - count]

    pixels = shared_pixels(boxes, mask, pairs)
    pairs, pixels = pairs[pixels > 0], pixels[pixels > 0]
    numbers = one.near.labels[pairs[:, 0]] - 1, other.near.labels[pairs[:, 1] - count] - 1
    return Shares(*numbers, pixels)


def link_image(job: Job) -> dict[str, Any]:
    """Link the sections of each time point to 3D cells, and put these in order.

    Returns
    -------
    dict
        ``runs``, the number of runs of 3D cells, and what there is to say of them.
    """
    if job.here.labels.key() == job.keys.labels:
        rows = job.here.cell_rows(DECIDED_VOLUMES, RUN)
        count = _write_volumes(job, map(volumes_of, rows))
        return {"runs": count}
    counts = job.work.count_by_plane(job.scene.planes)
    summary = _Summary([], [], {})
    count = _write_volumes(job, _linked(job, counts, summary))
    labels = np.concatenate([np.zeros(0, np.uint32), *summary.labels])
    for number in range(job.work.runs or 0):
        job.work.write_linked(number, labels[number * RUN : (number + 1) * RUN])
    facts = {"sections": int(counts.sum()), "cells": sum(summary.cells), **summary.links}
    return {"runs": count, "cells_by_time": summary.cells, "links": facts}


@dataclass(frozen=True)
class _Summary:
    """What linking came to, time point by time point."""

    labels: list[NDArray[np.uint32]]
    cells: list[int]
    links: dict[str, int]

    def add(self, labels: NDArray[np.uint32], cells: int, linked: Linked) -> None:
        self.labels.append(labels)
        self.cells.append(cells)
        for name in ("short", "pieces", "bridged", "missed"):
            self.links[name] = self.links.get(name, 0) + int(getattr(linked, name))


def _write_volumes(job: Job, parts: Iterator[Volumes]) -> int:
    count = 0
    for number, volumes in enumerate(runs(parts, Volumes.none())):
        job.work.write_volumes(number, volumes)
        count = number + 1
    return count


def _linked(job: Job, counts: NDArray[np.int64], summary: _Summary) -> Iterator[Volumes]:
    """Yield the 3D cells of each time point; note the label of each section."""
    times, _, depth, *_ = job.scene.shape
    starts = np.concatenate([[0], np.cumsum(counts.reshape(times, depth).sum(axis=1))])
    first_label = 1
    for t in range(times):
        first, last = starts[t : t + 2].tolist()
        sections = _sections(job, first, last)
        shares = _matches(job, t, first, last)
        planes = (sections.plane % depth).astype(np.int64)
        linked = link(planes, sections.areas, shares, job.link_rules)
        volumes, places = _in_region(job, *gathered(sections, depth, linked.cell))
        labels = np.where(places >= 0, places + first_label, 0).astype(np.uint32)
        summary.add(labels, len(volumes), linked)
        first_label += len(volumes)
        yield volumes


def _in_region(
    job: Job, volumes: Volumes, places: NDArray[np.int64]
) -> tuple[Volumes, NDArray[np.int64]]:
    """Return the 3D cells whose centre lies in the region of interest, and where sections belong.

    Parameters
    ----------
    job : Job
    volumes : Volumes
    places : int64 (N,)
        Number of the 3D cell that each section belongs to, -1 for none.
    """
    region = job.scene.region
    if region is None:
        return volumes, places
    inside = region.numbers_at(centre_pixels(volumes.centres[:, 1:])) > 0
    renumbered = np.append(np.where(inside, np.cumsum(inside) - 1, -1), -1)
    return volumes.take(np.flatnonzero(inside)), renumbered[places]


def _sections(job: Job, first: int, last: int) -> Cells:
    """Return the cells of all planes with the numbers from `first` to before `last`."""
    parts = []
    for number in range(first // RUN, -(-last // RUN)):
        start = number * RUN
        parts.append(job.work.read_run(number).take(slice(max(first - start, 0), last - start)))
    return Cells.concatenate(parts)


def _matches(job: Job, t: int, first: int, last: int) -> Shares:
    """Return what the sections of a time point share, numbered from its first one."""
    depth, regions = job.scene.shape[2], len(job.regions)
    start, stop = t * depth // job.together, -(-(t + 1) * depth // job.together)
    found = [_nothing()]
    for unit in range(start * regions, stop * regions):
        shares = job.work.read_matches(unit)
        found.append(shares.take((shares.ones >= first) & (shares.others < last)))
    there = _concatenated(found)
    return Shares(there.ones - first, there.others - first, there.pixels)


def _nothing() -> Shares:
    return Shares(*(np.zeros(0, np.int64) for _ in range(3)))


def _concatenated(parts: list[Shares]) -> Shares:
    columns: list[Any] = [[getattr(p, n) for p in parts] for n in ("ones", "others", "pixels")]
    return Shares(*map(np.concatenate, columns))
