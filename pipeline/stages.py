"""The stages in order, for all images of a workflow; whatever is complete is not done again."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cellseg.models import Segmenter
from cellseg.pipeline.config import Config
from cellseg.pipeline.execute import Failure, Outcome, execute
from cellseg.pipeline.plan import ImageReport, Keys, Plan, plan
from cellseg.pipeline.results import ImageResults, Results
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.table import schema
from cellseg.pipeline.tasks import Finish, Prepare, SegmentTile, Work
from cellseg.pipeline.workflow import Workflow

VERSIONS = ("cellseg", "numpy", "scikit-image", "torch", "torchvision", "zarr")


@dataclass(frozen=True)
class Progress:
    """One step of a run: a tile or an image is done."""

    image: str
    tiles: int
    all_tiles: int
    report: ImageReport | None = None


@dataclass(frozen=True)
class Result:
    """What a run has written, and where.

    Attributes
    ----------
    folder : Path
        The results folder.
    cells_path : Path
        The table of all cells, ``cells.parquet``.
    cells : int
        Its rows.
    images : tuple of ImageReport
        How it went with each image, in the order of the workflow.
    """

    folder: Path
    cells: int
    images: tuple[ImageReport, ...]

    @property
    def cells_path(self) -> Path:
        """The table of all cells."""
        return Results(self.folder).cells_path

    @property
    def failed(self) -> tuple[ImageReport, ...]:
        """The images that could not be done, each with its reason."""
        return tuple(report for report in self.images if report.state == "failed")

    def image(self, name: str) -> ImageResults:
        """Return where the labels, table and picture of an image lie."""
        return Results(self.folder).image(name)


class Run:
    """A plan being carried out; iterate over `steps`, then ask for `result`."""

    def __init__(self, plan: Plan, config: Config, *, fresh: bool = False) -> None:
        self.plan = plan
        self.config = config
        self.fresh = fresh
        self.started = datetime.datetime.now(datetime.UTC)
        self.reports = {report.name: report for report in plan.unreadable}
        self.waiting: dict[str, set[int]] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        self.tiles_done = 0
        self.tasks: deque[Work] = deque()
        self.cells = 0

    def steps(self) -> Iterator[Progress]:
        """Compute what is not complete yet, image by image; yield after each tile and image."""
        results = self.plan.results
        results.write_workflow(self.plan.workflow.toml())
        self._write_run("running")
        for scene in self.plan.scenes:
            if self.fresh:
                results.image(scene.name).clear()
            if self._complete(scene):
                yield self._report(scene, results.image(scene.name).count_cells())
            else:
                self.tasks.append(Prepare(scene))
        for outcome in execute(self.tasks, self.config):
            name = outcome.task.scene.name
            if name in self.reports:
                continue
            if outcome.failure is not None:
                yield self._fail(outcome.task.scene, outcome.failure)
            elif (step := self._advance(outcome)) is not None:
                yield step
        self._gather()
        self._write_run("done")

    def _complete(self, scene: Scene) -> bool:
        """Whether an earlier run has finished this image."""
        here, keys = self.plan.results.image(scene.name), Keys.of(scene)
        pictured = here.overview_path.is_file() or not scene.workflow.output.overview
        complete = here.labels.key() == keys.labels and here.cells_done(keys.cells) and pictured
        if complete:
            here.labels.rescale(scene.voxel_um)
            self.tiles_done += scene.tiles
            here.clear_tiles()
        return complete

    def _advance(self, outcome: Outcome[Work]) -> Progress | None:
        """Queue what an outcome makes possible."""
        match outcome.task:
            case Prepare():
                self._queue_tiles(outcome.result)
                return None
            case SegmentTile(scene=scene, index=index):
                self.tiles_done += 1
                self._add_seconds(scene.name, {"segment": outcome.result})
                self.waiting[scene.name].discard(index)
                if not self.waiting[scene.name]:
                    self.tasks.appendleft(Finish(scene, self.plan.results))
                return Progress(scene.name, self.tiles_done, self.plan.tiles)
            case Finish(scene=scene):
                cells, seconds = outcome.result
                self._add_seconds(scene.name, seconds)
                return self._report(scene, cells)

    def _queue_tiles(self, scene: Scene) -> None:
        """Queue the tiles of a prepared image that no earlier run has written."""
        here, keys = self.plan.results.image(scene.name), Keys.of(scene)
        every = range(scene.tiles)
        if here.labels.key() == keys.labels and here.stitched_done(keys.labels):
            missing = []
        else:
            here.clear_tiles(but=keys.tiles)
            done = here.tiles_done(keys.tiles)
            missing = [index for index in every if index not in done]
            if missing:
                here.drop_stitched()
        self.tiles_done += len(every) - len(missing)
        self.waiting[scene.name] = set(missing)
        ahead: list[Work] = [SegmentTile(scene, self.plan.results, index) for index in missing]
        self.tasks.extendleft(reversed(ahead or [Finish(scene, self.plan.results)]))

    def _fail(self, scene: Scene, failure: Failure) -> Progress:
        """List an image that cannot be done, and drop what is left of it."""
        left = [task for task in self.tasks if task.scene.name != scene.name]
        self.tasks.clear()
        self.tasks.extend(left)
        self.tiles_done += len(self.waiting.pop(scene.name, range(scene.tiles)))
        reason = " ".join(failure.reason.split())
        return self._settle(scene, "failed", reason=reason, traceback=failure.traceback)

    def _report(self, scene: Scene, cells: int) -> Progress:
        """Note that an image is done."""
        warnings = () if cells else ("no cells were found",)
        return self._settle(scene, "done", cells=cells, warnings=warnings)

    def _settle(self, scene: Scene, state: Literal["done", "failed"], **how: Any) -> Progress:
        """Write down how it went with an image."""
        seconds = {k: round(v, 3) for k, v in self.seconds.get(scene.name, {}).items()}
        source = str(scene.source.path)
        report = ImageReport(scene.name, source, state, tiles=scene.tiles, seconds=seconds, **how)
        self.reports[scene.name] = report
        return Progress(scene.name, self.tiles_done, self.plan.tiles, report)

    def _add_seconds(self, name: str, seconds: dict[str, float]) -> None:
        mine = self.seconds.setdefault(name, {})
        for stage, value in seconds.items():
            mine[stage] = mine.get(stage, 0.0) + value

    @property
    def ordered(self) -> tuple[ImageReport, ...]:
        """The reports so far, unreadable images last."""
        names = [scene.name for scene in self.plan.scenes]
        names += [report.name for report in self.plan.unreadable]
        return tuple(self.reports[name] for name in names if name in self.reports)

    def _gather(self) -> None:
        """Write the table of all images that are done."""
        workflow = self.plan.workflow
        done = [report.name for report in self.ordered if report.state == "done"]
        channels = self.plan.scenes[0].image.channels
        self.cells = self.plan.results.write_cells(
            done, schema(workflow.measure.groups, channels).empty_table(), workflow.output.csv
        )

    def _write_run(self, state: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        neural = "sha256" in self.plan.model
        self.plan.results.write_run(
            {
                "state": state,
                "started": self.started.isoformat(timespec="seconds"),
                "seconds": round((now - self.started).total_seconds(), 3),
                "versions": {name: importlib.metadata.version(name) for name in VERSIONS}
                | {"python": platform.python_version()},
                "machine": {"system": platform.platform(), "processor": platform.machine()},
                "device": self.config.torch_device() if neural else "cpu",
                "config": self.config.model_dump(mode="json"),
                "model": self.plan.model,
                "cells": self.cells,
                "images": [asdict(report) for report in self.ordered],
            }
        )

    def result(self) -> Result:
        """Return what was written; complete once `steps` is exhausted."""
        return Result(self.plan.results.folder, self.cells, self.ordered)


def run(
    workflow: Workflow,
    config: Config | None = None,
    segmenter: Segmenter | None = None,
    *,
    fresh: bool = False,
) -> Result:
    """Run a workflow from images to labels and tables.

    Parameters
    ----------
    workflow : Workflow
        What to compute; `cellseg.pipeline.read_workflow` reads one.
    config : Config, optional
        How this machine computes; by default on its GPU if there is one, in this process.
    segmenter : Segmenter, optional
        Used in place of the workflow's model: any object with ``segment``. With
        several workers it must pickle. Give it an attribute ``key`` that changes
        whenever its results would, and an interrupted run is continued; without
        one, nothing of an earlier run is used.
    fresh : bool
        Forget what earlier runs have computed of these images.

    Returns
    -------
    Result
        Where everything lies; ``failed`` lists images that could not be done.

    Raises
    ------
    CellsegError
        Before anything is computed, if the workflow cannot be run.
    """
    config = config or Config()
    going = Run(plan(workflow, config, segmenter), config, fresh=fresh)
    for _ in going.steps():
        pass
    return going.result()
