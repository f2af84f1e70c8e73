"""What a worker does: estimate a diameter, look at an image, do a unit of one of its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.models.timing import part
from cellseg.pipeline import worker
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.corrected import TakeEdits, TakeLabels
from cellseg.pipeline.decided import Decided
from cellseg.pipeline.diameter import Estimated, estimate_from
from cellseg.pipeline.finishing import copy_regions, finish, frame
from cellseg.pipeline.interest import Interest
from cellseg.pipeline.job import Job
from cellseg.pipeline.linking import link_image, match_region
from cellseg.pipeline.logs import LOG
from cellseg.pipeline.memory import peak_mb, reset_peak
from cellseg.pipeline.nearby import nearby
from cellseg.pipeline.order import RUN, merged, on_plane, runs
from cellseg.pipeline.overlaps import Overlaps, Shared
from cellseg.pipeline.region import paint_region, share_region
from cellseg.pipeline.rescan import order_scanned, scan_region
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.stitch import HELD, Neighbours, complete, decide
from cellseg.pipeline.table import (
    DECIDED,
    OVERLAPS,
    cell_table,
    cells_of,
    overlaps_of,
)
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.time_left import Spent
from cellseg.pipeline.touched import read_touched, scan_touched
from cellseg.pipeline.tracking import restore_tracks, track_image, with_tracks
from cellseg.pipeline.volume_table import volume_table
from cellseg.pipeline.volumes import Volumes
from cellseg.pipeline.within import belong, decide_within, reach_px


@dataclass(frozen=True, eq=False)
class EstimateDiameter:
    """Task: find out from some of the images how large the cells are."""

    scenes: tuple[Scene, ...]

    def __call__(self) -> Estimated:
        """Return what was found, and where."""
        with part("diameter"):
            return estimate_from(self.scenes)


@dataclass(frozen=True, eq=False)
class Prepare:
    """Task: look at the whole image once."""

    scene: Scene

    def __call__(self) -> Scene:
        """Return the scene, ready for its tiles."""
        with part("look", image=self.scene.name):
            return self.scene.prepare()

    def __str__(self) -> str:
        return f"look at {self.scene.name}"


def segment(job: Job, unit: int) -> int:
    """Find what the window of a tile shows; return how many cells it answers for."""
    grid = job.scene.grid
    plane, position = divmod(unit, len(grid))
    found = job.scene.look(plane, grid.read(position))
    with part("describe"):
        margin = job.rules.margin
        seen = None if found is None else Candidates.of_tile(found, grid, position, margin)
    with part("write"):
        job.work.write_tile(unit, seen)
    return 0 if seen is None else _count_centres(seen, grid.core(position))


def _count_centres(found: Candidates, core: Box) -> int:
    """Return how many cells have their centre in the core of a tile."""
    inside = (found.centres >= (core.y0, core.x0)) & (found.centres < (core.y1, core.x1))
    return int(inside.all(axis=1).sum())


def complete_block(job: Job, unit: int) -> None:
    """Find the cells of a block that no tile saw whole."""
    plane, block = divmod(unit, len(job.blocks))

    def predict(window: Box) -> Instances:
        return job.scene.segment(plane, window)

    found = complete(job.blocks, block, job.rules, job.tile(plane), predict)
    job.work.write_completed(unit, found)


def decide_block(job: Job, unit: int) -> None:
    """Decide the cells of a block."""
    plane, block = divmod(unit, len(job.blocks))
    if job.scene.focus is not None:
        return _decide_within(job, plane, block, job.scene.focus)
    first = plane * len(job.blocks)
    completed = lru_cache(maxsize=HELD)(lambda b: job.work.read_completed(first + b))
    extents = job.work.completed_extents(first, len(job.blocks))
    neighbours = Neighbours(job.blocks, job.tile(plane), completed, extents)
    job.work.write_decided(unit, decide(neighbours, block, job.rules))
    return None


def _decide_within(job: Job, plane: int, block: int, region: Interest) -> None:
    """Decide the cells of a block whose centre lies in the region of interest."""
    first = plane * len(job.scene.grid)

    @lru_cache(maxsize=HELD)
    def load(position: int) -> Candidates:
        # A cell may ask for a tile further off, as may one of another block meanwhile.
        if not job.work.has_tile(first + position):
            segment(job, first + position)
        return job.work.read_tile(first + position)

    def predict(window: Box) -> Instances:
        return job.scene.segment(plane, window)

    decided = decide_within(job.blocks, block, job.rules, load, predict, region)
    job.work.write_decided(plane * len(job.blocks) + block, decided)


def order(job: Job, _unit: int) -> None:
    """Put all cells in the order of their labels, and begin the label images."""
    if job.again:
        return order_scanned(job)
    for stage in ("match", "link", "share", "layer", "paint", "ids", "measure"):
        job.work.restart(stage)
    count = 0
    for number, cells in enumerate(runs(_in_order(job), Cells.none())):
        job.work.write_run(number, cells)
        count = number + 1
    if job.here.labels.key() != job.keys.labels:
        # How many layers there are where cells overlap, `layer` finds out.
        job.start_labels(0 if job.overlapping else 1)
    else:
        _restore_ids(job)
        _restore_overlaps(job)
        if job.scene.tracked:
            restore_tracks(job, count)
    job.work.write_runs(count)
    return None


def link(job: Job, _unit: int) -> None:
    """Link the cells of planes to 3D cells, and follow cells over time."""
    job.work.restart("measure")
    facts: dict[str, Any] = link_image(job) if job.scene.linked else {"runs": 0}
    if job.here.labels.key() == job.keys.labels:
        _restore_ids(job)
    _restore_overlaps(job)
    if job.scene.tracked:
        runs = facts["runs"] if job.scene.linked else job.work.runs or 0
        painted = job.here.labels.key() == job.keys.labels
        (restore_tracks if painted else track_image)(job, runs)
    job.work.write_links(facts)


def _restore_ids(job: Job) -> None:
    """Write the labels of labels that are there, which corrections may have left gaps in."""
    for number, rows in enumerate(job.here.cell_rows(("label",), RUN)):
        job.work.write_ids(number, rows["label"].to_numpy().astype(np.uint32))


def _restore_overlaps(job: Job) -> None:
    """Write how the cells of labels that are there overlap, as their table says."""
    if job.overlapping and job.here.labels.key() == job.keys.labels:
        rows = job.here.cell_rows(OVERLAPS, RUN)
        _write_overlaps(job, map(overlaps_of, rows))


def _write_overlaps(job: Job, parts: Iterator[Overlaps]) -> int:
    """Write how all cells overlap, run by run; return the number of layers."""
    layers = 1
    for number, overlaps in enumerate(runs(parts, Overlaps.none())):
        job.work.write_overlaps(number, overlaps)
        layers = max(layers, int(overlaps.layer.max(initial=0)) + 1)
    return layers


def _in_order(job: Job) -> Iterator[Cells]:
    """Yield the image's cells: as decided, or as measured before by other measurements."""
    if job.here.labels.key() == job.keys.labels:
        for rows in job.here.cell_rows(DECIDED, RUN):
            yield cells_of(job.scene, rows)
        return
    for plane in range(job.scene.planes):
        if job.seamless:
            yield on_plane(_of_one_tile(job, plane), plane)
            continue
        first = plane * len(job.blocks)
        blocks = [job.work.decided(first + block, plane) for block in job.decided_blocks]
        yield from merged([block for block in blocks if block is not None])


def _of_one_tile(job: Job, plane: int) -> Cells:
    """Return the cells of a plane that is one tile, in order."""
    region = job.scene.focus
    if not job.scene.looked_at:
        return Cells.none()
    found = job.work.read_tile(plane)
    cells = Decided.uncontested(found, 0, np.ones(len(found), bool)).cells
    if region is not None:
        reach = reach_px(job.scene.grid)
        cells = cells.take(belong(cells, lambda _, index: found.mask(index), region, reach))
    return cells.take(cells.order())


def layer(job: Job, _unit: int) -> None:
    """Give every cell a layer in which it meets no other, and begin the label images."""
    job.work.restart("paint")
    job.start_labels(_write_overlaps(job, _overlaps(job)))
    job.work.mark("layer", 0)


def _overlaps(job: Job) -> Iterator[Overlaps]:
    """Yield how the cells of each plane overlap, of a few planes at a time if they are small."""
    if job.scene.linked:
        yield from _overlaps_by_time(job)
        return
    counts, first = job.work.count_by_plane(job.scene.planes), 1
    for start in range(0, job.scene.planes, job.together):
        count = int(counts[start : start + job.together].sum())
        unit = len(job.regions) * (start // job.together)
        units = range(unit, unit + len(job.regions))
        yield Overlaps.of(first, count, Shared.concatenate(map(job.work.read_shared, units)))
        first += count


def _overlaps_by_time(job: Job) -> Iterator[Overlaps]:
    """Yield how the 3D cells of each time point overlap."""
    depth, first = job.scene.shape[2], 1
    for t, count in enumerate(job.work.links["cells_by_time"]):
        start, stop = t * depth // job.together, -(-(t + 1) * depth // job.together)
        units = range(start * len(job.regions), stop * len(job.regions))
        shared = Shared.concatenate(map(job.work.read_shared, units))
        yield Overlaps.of(first, count, shared.among(first, first + count))
        first += count


def measure_run(job: Job, unit: int) -> None:
    """Measure the cells of a run, or those that edits have touched."""
    linked = job.scene.linked
    cells = job.work.read_volumes(unit) if linked else job.work.read_run(unit)
    ids = _ids(job, unit, cells)
    if job.in_part:
        rows = _measured_in_part(job, unit, cells, ids)
    else:
        rows = _measured(job, unit, cells, ids, slice(None))
    if job.scene.tracked:
        rows = with_tracks(rows, job.work.read_tracks(unit))
    job.work.write_rows(unit, rows)


def _measured(
    job: Job,
    unit: int,
    cells: Cells | Volumes,
    ids: NDArray[np.uint32],
    chosen: slice | NDArray[np.intp],
) -> pa.Table:
    """Return the rows of some cells of a run, measured."""
    labels = job.here.labels.painted(job.keys.labels)
    known = job.overlapping or job.again
    overlaps = job.work.read_overlaps(unit) if known else Overlaps.none(len(cells))
    some, about = cells.take(chosen), (overlaps.take(chosen), ids[chosen], labels, nearby(job))
    if isinstance(some, Volumes):
        return volume_table(job.scene, some, *about)
    return cell_table(job.scene, some, *about)


def _measured_in_part(
    job: Job, unit: int, cells: Cells | Volumes, ids: NDArray[np.uint32]
) -> pa.Table:
    """Return the rows of a run: of cells to measure again new ones, of others those there are."""
    again = np.isin(ids, read_touched(job).again)
    new = _measured(job, unit, cells, ids, np.flatnonzero(again))
    first, last = (int(ids[0]), int(ids[-1]) + 1) if len(ids) else (0, 0)
    before = job.here.rows_of(first, last, new.column_names)
    kept = before.filter(pa.array(np.isin(before["label"].to_numpy(), ids[~again])))
    return pa.concat_tables([kept.cast(new.schema), new]).sort_by("label")


def _ids(job: Job, unit: int, cells: Cells | Volumes) -> NDArray[np.uint32]:
    """Return the labels of the cells of a run."""
    if (known := job.work.read_ids(unit)) is not None:
        return known
    first = 1 + unit * RUN
    return np.arange(first, first + len(cells), dtype=np.uint32)


STAGES: dict[str, Callable[[Job, int], int | None]] = {
    "segment": segment,
    "scan": scan_region,
    "touched": scan_touched,
    "complete": complete_block,
    "decide": decide_block,
    "order": order,
    "match": match_region,
    "link": link,
    "share": share_region,
    "layer": layer,
    "paint": paint_region,
    "measure": measure_run,
    "frame": frame,
    "copy": copy_regions,
    "finish": finish,
}
"""What is done in a unit of each stage of a job."""


def _core_seconds() -> float:
    """Return what cores have worked: for this thread, where others have tiles in hand too."""
    return time.thread_time() if worker.tiles() > 1 else time.process_time()


@dataclass(frozen=True, eq=False)
class Unit:
    """Task: one unit of a stage, and what follows on it alone.

    Parameters
    ----------
    job : Job
    stages : tuple of str
        The stage, and those that follow on it.
    number : int
        The unit of the first one.
    """

    job: Job
    stages: tuple[str, ...]
    number: int

    @property
    def scene(self) -> Scene:
        """The image."""
        return self.job.scene

    @property
    def lacks_tile(self) -> bool:
        """Whether it is to segment a tile, and has not."""
        return self.stages[0] == "segment" and not self.job.work.has_tile(self.number)

    def __str__(self) -> str:
        return f"{self.stages[0]} {self.number} of {self.scene.name}"

    def __call__(self) -> dict[str, Spent]:
        """Return what each stage that it was part of has cost.

        Where a stage is this one unit, and so is the next, that is done too: of
        a small image all in one go.
        """
        spent: dict[str, Spent] = {}
        for stage in self.stages:
            if spent and (self.job.units(stage) > 1 or self.job.missing(stage) != [0]):
                break
            reset_peak()
            start, busy = time.perf_counter(), _core_seconds()
            number = 0 if spent else self.number
            with part(stage, image=self.scene.name, unit=number):
                cells = STAGES[stage](self.job, number) or 0
            seconds, units = time.perf_counter() - start, max(self.job.units(stage), 1)
            spent[stage] = Spent(seconds, peak_mb(), _core_seconds() - busy, units, cells)
            LOG.debug("%s %d of %s, %.3f s", stage, number, self.scene.name, seconds)
            if units > 1:
                break
        return spent


Work = EstimateDiameter | Prepare | TakeEdits | TakeLabels | Unit
