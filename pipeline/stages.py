"""The stages in order, for all images of a workflow; whatever is complete is not done again."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any, Literal

from cellseg.models import CellsegError, Segmenter
from cellseg.models.timing import part, record
from cellseg.pipeline.claims import clear_claims
from cellseg.pipeline.config import Config
from cellseg.pipeline.corrected import TakeEdits, TakeLabels
from cellseg.pipeline.diameter import Estimated
from cellseg.pipeline.execute import Failure, Outcome, started
from cellseg.pipeline.export import EXPORTERS, Export, Exported
from cellseg.pipeline.gather import Gathered, gather
from cellseg.pipeline.job import Job
from cellseg.pipeline.lock import Claim, claim
from cellseg.pipeline.logs import LogFiles
from cellseg.pipeline.plan import ImageReport, Plan, plan
from cellseg.pipeline.profile import Profile
from cellseg.pipeline.profile_table import ProfileTable
from cellseg.pipeline.report import try_report
from cellseg.pipeline.result import Progress, Result
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.set_aside import MOST, SetAside, summary
from cellseg.pipeline.shard_records import ShardState, clear_records, read_shards
from cellseg.pipeline.status import Heartbeat
from cellseg.pipeline.tasks import EstimateDiameter, Prepare, Unit, Work
from cellseg.pipeline.time_left import Spent, TimeLeft
from cellseg.pipeline.workflow import Workflow
from cellseg.pipeline.written_plate import plates_of, retire

VERSIONS = ("cellseg", "numpy", "scikit-image", "torch", "torchvision", "zarr")


class Run:
    """A plan being carried out; iterate over `steps`, then ask for `result`.

    `plan` is another one after the first step where that says how large the cells are. Where
    `profile` is asked for, a trace is written, and there is a `profile_table` in the end.
    """

    what = "cellseg run"
    """What others are told that is at work here."""

    def __init__(
        self, plan: Plan, config: Config, *, fresh: bool = False, profile: bool = False
    ) -> None:
        self.plan = plan
        self.config = config
        self.fresh = fresh
        self.started = datetime.datetime.now(datetime.UTC)
        self.reports = {report.name: report for report in plan.unreadable}
        self.waiting: dict[str, set[int]] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        self.memory_mb: dict[str, dict[str, float]] = {}
        self.workers: dict[str, Counter[str]] = {}
        self.left = TimeLeft()
        self.aside: dict[str, list[SetAside]] = {}
        self.log_files = LogFiles(plan.results.logs_folder, config.log, profile)
        self.profile: Profile | None = None
        self.profile_table: ProfileTable | None = None
        self.tiles_done = 0
        self.tasks: deque[Work] = deque()
        self.plates = plates_of(plan.scenes, plan.results.folder)
        self.gathered = Gathered()
        self.heartbeat = Heartbeat(plan.results, len(plan.scenes) + len(plan.unreadable))
        self.exports: list[Exported] = []
        self.shards: list[dict[str, Any]] = []

    def steps(self, held: Claim | None = None) -> Iterator[Progress]:
        """Compute what is not complete yet, image by image; yield after each tile and image.

        Parameters
        ----------
        held : Claim, optional
            That the caller holds to the results; by default it is taken here.

        Raises
        ------
        CellsegError
            If somebody else is at work in the results, or the diameter of the cells is to be
            estimated and cannot be.
        Stopped
            If that was asked, see `cellseg.pipeline.stopping`; the same run goes on from there.
        """
        folder = self.plan.results.folder
        folder.mkdir(parents=True, exist_ok=True)
        with nullcontext(held) if held is not None else claim(folder, self.what) as mine:
            self.log_files.open()
            self.profile = Profile(self.plan.results) if self.log_files.profile else None
            try:
                for step in self._carry_out():
                    yield step
                    mine.check()
            finally:
                self.log_files.close()
                record(False)
                if self.profile is not None:
                    self.profile_table = self.profile.close(self.reports)

    def _carry_out(self) -> Iterator[Progress]:
        """Compute what is not complete yet, then gather it."""
        self._recall(read_shards(self.plan.results.folder))
        self.plan.results.clear_progress()
        self.plan.results.write_workflow(self.plan.workflow.toml())
        self._write_run("running")
        for step in self._steps():
            step = replace(step, seconds_left=self.left.seconds())
            self.heartbeat.beat(step, self.reports.values())
            yield step
        with part("gather"):
            self._gather()
        self._write_run("done")
        for form in dict.fromkeys(self.plan.workflow.output.export):
            yield from self._export(form)
            self._write_run("done")
        with part("report"):
            self._write_report()
        self.plan.results.clear_progress()
        self._forget_shards()

    def _recall(self, shards: Sequence[ShardState]) -> None:
        """Take over what shards that have ended say of the images that they did."""
        self.shards = [shard.document for shard in shards]
        for line in (line for shard in shards for line in shard.lines):
            self._sum_up(line["name"], line["seconds"], line["memory_mb"])

    def _forget_shards(self) -> None:
        """Remove what shards have left beside their results."""
        clear_records(self.plan.results.folder)
        clear_claims(self.plan.results.folder)

    def _steps(self) -> Iterator[Progress]:
        """Compute what is not complete yet."""
        if self.plan.undecided:
            self.tasks.append(EstimateDiameter(self.plan.scenes))
        else:
            yield from self._queue_images()
        if not self.tasks:
            return
        known = None if self.plan.undecided else self.plan.tiles
        with started(self.config, self.log_files, neural=self.plan.neural, tiles=known) as engine:
            self.heartbeat.dashboard = engine.dashboard
            for outcome in engine.outcomes(self.tasks):
                yield from self._follow(outcome)

    def _queue_images(self) -> Iterator[Progress]:
        """Queue the images that no earlier run has finished."""
        results = self.plan.results
        done = set() if self.fresh else {s.name for s in self.plan.scenes if self._is_done(s)}
        self.left.expect(scene for scene in self.plan.scenes if scene.name not in done)
        self._start_plates(done)
        for scene in self.plan.scenes:
            if self.fresh:
                results.at(scene.place).clear()
            if scene.name in done:
                self._pass_over(scene)
                yield self._report(scene)
            else:
                self.tasks.append(Prepare(scene))

    def _follow(self, outcome: Outcome[Work]) -> Iterator[Progress]:
        """Settle what an outcome decides, and queue what it makes possible."""
        task, failure = outcome.task, outcome.failure
        if self.profile is not None:
            self.profile.add(outcome.where, outcome.noted)
        if isinstance(task, Unit) and failure is None:
            self.workers.setdefault(task.scene.name, Counter())[outcome.where] += 1
        if isinstance(task, EstimateDiameter):
            yield self._decide(outcome.result, failure)
            yield from self._queue_images()
        elif task.scene.name in self.reports:
            return
        elif failure is not None:
            yield self._set_aside(task, failure)
        elif (step := self._advance(task, outcome.result, outcome.where)) is not None:
            yield step

    def _decide(self, estimated: Estimated, failure: Failure | None) -> Progress:
        """Go on with the diameter that was estimated, for this run and later ones."""
        if failure is not None:
            raise CellsegError(
                f'[model] diameter_px = "auto": {" ".join(failure.reason.split())}'
                " Mend that, or give diameter_px a number."
            )
        key = self.plan.diameter_key
        assert key is not None  # noqa: S101 - the plan was undecided
        self.plan.results.write_diameter(key, estimated)
        self.plan = self.plan.sized(estimated)
        self._write_run("running")
        return Progress("", 0, self.plan.tiles)

    def _start_plates(self, done: set[str]) -> None:
        """Have the plates in the results list what earlier runs have finished, nothing else."""
        retire(self.plan.results.folder, self.plates.keys())
        for place, written in self.plates.items():
            mine = [scene for scene in self.plan.scenes if scene.place.plate == place]
            written.start(str(scene.place.group) for scene in mine if scene.name in done)

    def _job(self, scene: Scene) -> Job:
        """Return an image on its way."""
        return Job(scene, self.plan.results)

    def _is_done(self, scene: Scene) -> bool:
        """Whether an earlier run has finished this image."""
        return self._job(scene).complete()

    def _pass_over(self, scene: Scene) -> None:
        """Leave an image as an earlier run has finished it."""
        job = self._job(scene)
        job.here.labels.rescale(scene.labels_voxel_um)
        self.tiles_done += scene.tiles
        job.work.clear()
        job.here.sweep()

    def _advance(
        self, task: Prepare | TakeEdits | TakeLabels | Unit, result: Any, where: str
    ) -> Progress | None:
        """Queue what the result of a task makes possible."""
        if isinstance(task, Prepare | TakeEdits | TakeLabels):
            self._set_out(self._job(result))
            return None
        job, name = task.job, task.scene.name
        self._add_spent(name, result, where)
        if self.profile is not None:
            self.profile.note(task.scene, result)
        self.tiles_done += "segment" in result
        self.waiting[name].discard(task.number)
        if "finish" in result:
            return self._report(task.scene)
        if not self.waiting[name] and name in self.aside:
            return self._give_up(task.scene)
        if not self.waiting[name]:
            self._go_on(job, *result)
        return Progress(name, self.tiles_done, self.plan.tiles, task.stages[0])

    def _set_out(self, job: Job) -> None:
        """Queue the first units of an image that no earlier run has done."""
        job.work.clear_others()
        self.routes[job.scene.name] = route = job.route()
        missing = job.missing("segment") if "segment" in route else []
        self.tiles_done += job.scene.tiles - len(missing)
        self.left.set_out(job, route, len(missing))
        self._go_on(job)

    def _go_on(self, job: Job, *done: str) -> None:
        """Queue what is missing of an image's next stage, ahead of other images."""
        name = job.scene.name
        route = self.routes[name] = tuple(s for s in self.routes[name] if s not in done)
        for number, stage in enumerate(route):
            if missing := job.missing(stage):
                self.waiting[name] = set(missing)
                rest = route[number:]
                self.tasks.extendleft(Unit(job, rest, unit) for unit in reversed(missing))
                return

    def _set_aside(self, task: Work, failure: Failure) -> Progress:
        """List a tile that cannot be done, and go on with the others; else its image."""
        assert not isinstance(task, EstimateDiameter)  # noqa: S101 - it ends the run
        if not isinstance(task, Unit) or not task.lacks_tile:
            return self._fail(task.scene, failure)
        scene, waiting = task.scene, self.waiting[task.scene.name]
        aside = self.aside.setdefault(scene.name, [])
        aside.append(SetAside.of(task.job, task.number, failure))
        waiting.discard(task.number)
        self.tiles_done += 1
        if not waiting or len(aside) == MOST:
            return self._give_up(scene)
        return Progress(scene.name, self.tiles_done, self.plan.tiles, task.stages[0])

    def _give_up(self, scene: Scene) -> Progress:
        """List an image some of whose tiles cannot be done."""
        aside = sorted(self.aside[scene.name], key=lambda each: (each.t, each.z, each.y, each.x))
        self.aside[scene.name] = aside
        return self._fail(scene, summary(aside, scene.tiles))

    def _fail(self, scene: Scene, failure: Failure) -> Progress:
        """List an image that cannot be done, and drop what is left of it."""
        left = [
            task
            for task in self.tasks
            if isinstance(task, EstimateDiameter) or task.scene.name != scene.name
        ]
        self.tasks.clear()
        self.tasks.extend(left)
        route, left_over = self.routes.get(scene.name, ()), self.waiting.pop(scene.name, ())
        if not route:
            self.tiles_done += scene.tiles
        elif route[0] == "segment":
            self.tiles_done += len(left_over)
        reason = " ".join(failure.reason.split())
        aside = tuple(self.aside.get(scene.name, ()))
        how = {"traceback": failure.traceback, "tiles_set_aside": aside}
        return self._settle(scene, "failed", reason=reason, **how)

    def _report(self, scene: Scene) -> Progress:
        """Note that an image is done."""
        here = self.plan.results.at(scene.place)
        self._list_in_plate(scene)
        cells, facts = here.count_cells(), here.facts()
        where = "" if scene.region is None else " in the region"
        warnings = (*scene.source.notes, *(() if cells else (f"no cells were found{where}",)))
        return self._settle(
            scene,
            "done",
            cells=cells,
            warnings=(*warnings, *facts["warnings"]),
            background_tiles=facts["background_tiles"],
            seams=facts["seams"],
            region=facts.get("region"),
            links=facts.get("links"),
            quality=facts.get("quality"),
        )

    def _list_in_plate(self, scene: Scene) -> None:
        """Have the plate in the results list an image."""
        if scene.place.plate is not None:
            self.plates[scene.place.plate].add(str(scene.place.group))

    def _settle(self, scene: Scene, state: Literal["done", "failed"], **how: Any) -> Progress:
        """Write down how it went with an image."""
        seconds = {k: round(v, 3) for k, v in self.seconds.get(scene.name, {}).items()}
        source = str(scene.source.path)
        how |= {"tiles": scene.tiles, "seconds": seconds, "zoom": scene.zoom}
        how |= {"level": scene.level, "pixel_um": scene.voxel_um and scene.voxel_um[1:]}
        how |= {"place": scene.place, "shape": scene.shape, "channels": scene.measured}
        how |= {name: getattr(scene.source, name) for name in ("plate", "well", "site")}
        how["workers"] = dict(self.workers.get(scene.name, {}))
        how["memory_mb"] = {k: round(v) for k, v in self.memory_mb.get(scene.name, {}).items()}
        report = ImageReport(scene.name, source, state, **how)
        self.reports[scene.name] = report
        self.left.drop(scene.name)
        return Progress(scene.name, self.tiles_done, self.plan.tiles, report=report)

    def _add_spent(self, name: str, spent: dict[str, Spent], where: str) -> None:
        for stage, own in spent.items():
            self.left.note(name, stage, own, where)
        seconds = {stage: own.seconds for stage, own in spent.items()}
        known = {k: own.memory_mb for k, own in spent.items() if own.memory_mb is not None}
        self._sum_up(name, seconds, known)

    def _sum_up(self, name: str, spent: dict[str, float], memory_mb: dict[str, float]) -> None:
        """Note what stages of an image have taken: seconds, and the most memory in MB."""
        seconds, memory = self.seconds.setdefault(name, {}), self.memory_mb.setdefault(name, {})
        for stage, own in spent.items():
            seconds[stage] = seconds.get(stage, 0.0) + own
        for stage, most in memory_mb.items():
            memory[stage] = max(memory.get(stage, 0.0), most)

    @property
    def ordered(self) -> tuple[ImageReport, ...]:
        """The reports so far, unreadable images last."""
        names = [scene.name for scene in self.plan.scenes]
        names += [report.name for report in self.plan.unreadable]
        return tuple(self.reports[name] for name in names if name in self.reports)

    @property
    def cells(self) -> int:
        """Rows of the table, once it is gathered."""
        return self.gathered.cells

    def _gather(self) -> None:
        """Write the tables of all images that are done."""
        self.gathered = gather(self.plan.results, self.plan.workflow, self.ordered)

    def _write_report(self) -> None:
        """Write the page about the run, of what lies in its folder by now."""
        if not self.plan.workflow.output.report:
            self.plan.results.drop_report()  # that of an earlier run shows what is no longer so
        elif (problem := try_report(self.plan.results.folder)) is not None:
            self.plan = replace(self.plan, remarks=(*self.plan.remarks, problem))
            self._write_run("done")

    def _export(self, form: str) -> Iterator[Progress]:
        """Write the cells for another program; what goes wrong costs nothing of the run."""
        started, folder = time.monotonic(), self.plan.results.folder
        output, reason = folder / EXPORTERS[form].output, None
        try:
            with part("export", form=form):
                for name in Export(folder, form).steps():
                    yield Progress(name, self.tiles_done, self.plan.tiles, f"export {form}")
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
        seconds = round(time.monotonic() - started, 3)
        self.exports.append(Exported(form, str(output), seconds, reason))

    def _write_run(self, state: str) -> None:
        self.plan.results.write_run(self._document(state))

    @property
    def _device(self) -> str:
        """Where the network computes, as far as this process knows; workers say more."""
        local = self.config.engine == "local"
        return self.config.torch_device() if local else self.config.device

    def _document(self, state: str) -> dict[str, Any]:
        """Return ``run.json``."""
        now = datetime.datetime.now(datetime.UTC)
        diameter = self.plan.diameter
        model = self.plan.model | ({"diameter": diameter.document} if diameter else {})
        return {
            "state": state,
            "planned": len(self.plan.scenes) + len(self.plan.unreadable),
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round((now - self.started).total_seconds(), 3),
            "versions": {name: importlib.metadata.version(name) for name in VERSIONS}
            | {"python": platform.python_version()},
            "machine": {"system": platform.platform(), "processor": platform.machine()},
            "device": self._device if self.plan.neural else "cpu",
            "config": self.config.model_dump(mode="json"),
            "model": model,
            "warnings": (*self.plan.notes, *self.gathered.warnings),
            "cells": self.cells,
            "gates": self.gathered.gates,
            "images": [asdict(report) for report in self.ordered],
            "exports": [asdict(export) for export in self.exports],
            "shards": self.shards,
        }

    def result(self) -> Result:
        """Return what was written; complete once `steps` is exhausted."""
        notes = (*self.plan.notes, *self.gathered.warnings)
        about = self.ordered, notes, tuple(self.exports)
        return Result(self.plan.results.folder, self.cells, *about)


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
        one, nothing of an earlier run is used. With an attribute ``overlap = "keep"`` its
        cells may overlap, and every one is written whole.
    fresh : bool
        Forget what earlier runs have computed of these images, an estimated diameter too.

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
    going = Run(plan(workflow, config, segmenter, fresh=fresh), config, fresh=fresh)
    for _ in going.steps():
        pass
    return going.result()
