"""The stages in order, for all images of a workflow; whatever is complete is not done again."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import pickle
import platform
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellseg.models import MODELS, CellsegError, Instances, Segmenter
from cellseg.models.settings import MaskRCNNSettings
from cellseg.pipeline.config import Config
from cellseg.pipeline.execute import Failure, Outcome, execute
from cellseg.pipeline.image import fingerprint
from cellseg.pipeline.measure import MEASUREMENTS
from cellseg.pipeline.overview import overview
from cellseg.pipeline.paint import paint
from cellseg.pipeline.plate import discover
from cellseg.pipeline.results import ImageResults, Results
from cellseg.pipeline.segment import NamedModel, Scene, opened
from cellseg.pipeline.stitch import Rules, Stitched, stitch
from cellseg.pipeline.table import cell_table, schema
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import Workflow

FORMAT = 1
"""Counts up when the same input and workflow would give other files."""
TILES_HELD = 24
VERSIONS = ("cellseg", "numpy", "scikit-image", "torch", "torchvision", "zarr")


@dataclass(frozen=True)
class ImageReport:
    """How it went with one image; a line of ``run.json``."""

    name: str
    source: str
    state: Literal["done", "failed"]
    cells: int = 0
    tiles: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Plan:
    """All that is known before anything is computed.

    Parameters
    ----------
    workflow : Workflow
    results : Results
    scenes : tuple of Scene
        The images that can be read.
    unreadable : tuple of ImageReport
        The others, each with the reason.
    model : dict
        What ``run.json`` says of the model.
    """

    workflow: Workflow
    results: Results
    scenes: tuple[Scene, ...]
    unreadable: tuple[ImageReport, ...]
    model: dict[str, Any]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before it starts."""
        trained, here = self.model.get("normalised_in_training"), self.workflow.normalise
        if trained is None or trained["method"] == here.method:
            return ()
        return (
            f'the weights were trained on [normalise] method = "{trained["method"]}",'
            f' here it is "{here.method}"',
        )

    @property
    def tiles(self) -> int:
        """Number of tiles of all images."""
        return sum(scene.planes * len(scene.grid) for scene in self.scenes)


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


def plan(workflow: Workflow, config: Config, segmenter: Segmenter | None = None) -> Plan:
    """Check everything that can be checked before anything is computed.

    Raises
    ------
    CellsegError
        If inputs are missing, or settings do not fit each other or the images.
    """
    for group in workflow.measure.groups:
        if group not in MEASUREMENTS:
            known = ", ".join(MEASUREMENTS)
            raise CellsegError(f'[measure] groups: "{group}" is not known. Known: {known}.')
    model, identity = _describe(workflow, config, segmenter)
    _check_halo(workflow, model)
    if segmenter is None and MODELS[workflow.model.name].neural:
        config.torch_device()
    fields = discover([Path(entry) for entry in workflow.images], workflow.pattern)
    scenes, unreadable, problems = [], [], []
    opened.cache_clear()  # a file may have changed since an earlier run of this process
    for source in fields:
        try:
            key = _digest(FORMAT, fingerprint(source.path), source.channel, identity)
            image_segmenter = segmenter or NamedModel(workflow.model, config)
            scene = Scene(source, workflow, image_segmenter, key)
            _ = opened(source), scene.model_channels
            scenes.append(scene)
        except CellsegError as error:
            unreadable.append(
                ImageReport(source.name, str(source.path), "failed", reason=str(error))
            )
            problems.append(error)
    if problems and len(problems) == len(fields):
        raise problems[0]
    return Plan(
        workflow, Results(Path(workflow.output.path)), tuple(scenes), tuple(unreadable), model
    )


def _describe(
    workflow: Workflow, config: Config, segmenter: Segmenter | None
) -> tuple[dict[str, Any], str]:
    """Return what is known of the model, and what identifies the instances it will find."""
    if segmenter is not None:
        # Nothing tells whether an object is the one of an earlier run, unless it says so.
        own_key = getattr(segmenter, "key", None) or uuid.uuid4().hex
        model: dict[str, Any] = {"name": type(segmenter).__qualname__, "key": str(own_key)}
        if config.workers > 1:
            _check_pickles(segmenter)
    else:
        model = workflow.model.model_dump(mode="json")
        if isinstance(workflow.model, MaskRCNNSettings):
            from cellseg.models.weights import check_fit, find_weights, read_card
            from cellseg.models.weights import fingerprint as weights_fingerprint

            path = find_weights(workflow.model.weights)
            card = read_card(path)
            check_fit(workflow.model, card, path)
            model |= {"sha256": weights_fingerprint(path), "diameter_px": card.diameter_px}
            # Which device computes moves a mask by a pixel at most once in a while; this, often.
            model |= {"precision": config.precision}
            model |= {"normalised_in_training": card.normalise.model_dump(mode="json")}
    # Of a segmenter from Python its key alone counts: the class may be renamed or wrapped.
    own = {"key": model["key"]} if segmenter is not None else model
    decided = [own, *(getattr(workflow, part) for part in ("normalise", "tiling"))]
    return model, _digest(*decided, list(workflow.model.channels))


def _check_pickles(segmenter: Segmenter) -> None:
    """Refuse, for several workers, a segmenter that cannot be sent to them."""
    try:
        pickle.dumps(segmenter)
    except Exception as error:
        raise CellsegError(
            f"segmenter {type(segmenter).__qualname__} cannot be sent to workers ({error})."
            " Define its class at the top of a module, or set workers to 1."
        ) from error


def _check_halo(workflow: Workflow, model: dict[str, Any]) -> None:
    """Refuse a halo that does not hold the cells the model was trained on."""
    tiling, diameter = workflow.tiling, model.get("diameter_px")
    if diameter and tiling.halo < diameter + tiling.margin:
        raise CellsegError(
            f"[tiling] halo = {tiling.halo} is less than the cells the model was trained on"
            f" ({diameter:.0f} px across) and the margin ({tiling.margin} px)."
            f" Set halo to {int(np.ceil(diameter)) + tiling.margin} or more:"
            " the largest cell and the margin."
        )


def _digest(*parts: Any) -> str:
    """Return 16 hexadecimal digits that identify `parts`."""

    def plain(value: Any) -> Any:
        return value.model_dump(mode="json")

    text = json.dumps(parts, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Keys:
    """What identifies the outcome of each stage for one image."""

    tiles: str
    labels: str
    cells: str

    @classmethod
    def of(cls, scene: Scene) -> Keys:
        """Derive each stage's key from the one before."""
        workflow = scene.workflow
        labels = _digest(scene.key, workflow.stitch)
        source = scene.source
        named = source.name, source.well, source.site, scene.image.channels
        cells = _digest(labels, workflow.measure, scene.voxel_um, *named)
        return cls(scene.key, labels, cells)


@dataclass(frozen=True, eq=False)
class Prepare:
    """Task: look at the whole image once."""

    scene: Scene

    def __call__(self) -> Scene:
        """Return the scene, ready for its tiles."""
        return self.scene.prepare()


@dataclass(frozen=True, eq=False)
class SegmentTile:
    """Task: find the instances of one tile, and write them."""

    scene: Scene
    results: Results
    index: int

    def __call__(self) -> float:
        """Return the seconds it took."""
        start = time.perf_counter()
        plane, position = divmod(self.index, len(self.scene.grid))
        found = self.scene.segment(plane, self.scene.grid.read(position))
        here = self.results.image(self.scene.name)
        here.write_tile(Keys.of(self.scene).tiles, self.index, found)
        return time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Finish:
    """Task: from the tiles of an image to its labels, table and picture."""

    scene: Scene
    results: Results

    def __call__(self) -> tuple[int, dict[str, float]]:
        """Return the number of cells, and the seconds of each stage that was computed."""
        scene, here, keys = self.scene, self.results.image(self.scene.name), Keys.of(self.scene)
        seconds: dict[str, float] = {}

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            result = work()
            seconds[stage] = time.perf_counter() - start
            return result

        planes = here.read_stitched(keys.labels)
        if planes is None:
            planes = timed("stitch", lambda: _stitch(scene, here, keys))
            here.write_stitched(keys.labels, planes)
        if here.labels.key() != keys.labels:
            timed("paint", lambda: _paint(scene, here, keys, planes))
        here.labels.rescale(scene.voxel_um)
        if not here.cells_done(keys.cells):
            table = timed("measure", lambda: cell_table(scene, planes, here.labels))
            here.overview_path.unlink(missing_ok=True)
            here.write_cells(keys.cells, table)
        if scene.workflow.output.overview and not here.overview_path.is_file():
            picture = timed("overview", lambda: overview(scene, here.labels))
            here.write_overview(picture)
        here.clear_tiles()
        return here.count_cells(), seconds


def _loader(scene: Scene, here: ImageResults, keys: Keys, plane: int) -> Callable[[int], Instances]:
    """Return the reader of one plane's tiles; it holds the last few."""
    first = plane * len(scene.grid)

    @lru_cache(maxsize=TILES_HELD)
    def load(position: int) -> Instances:
        return here.read_tile(keys.tiles, first + position)

    return load


def _stitch(scene: Scene, here: ImageResults, keys: Keys) -> list[Stitched]:
    settings = scene.workflow.stitch
    tiling = scene.workflow.tiling
    window_px = settings.window_px or tiling.size + 2 * tiling.halo
    rules = Rules(tiling.margin, settings.overlap, window_px)

    def one(plane: int) -> Stitched:
        def predict(window: Box) -> Instances:
            return scene.segment(plane, window)

        return stitch(scene.grid, rules, _loader(scene, here, keys, plane), predict)

    return [one(plane) for plane in range(scene.planes)]


def _paint(scene: Scene, here: ImageResults, keys: Keys, planes: list[Stitched]) -> None:
    times, _, depth, height, width = scene.image.pixels.shape
    firsts = 1 + np.cumsum([0, *(len(cells) for cells in planes)])

    @lru_cache(maxsize=1)
    def loader(plane: int) -> Callable[[int], Instances]:
        return _loader(scene, here, keys, plane)

    def region(t: int, z: int, box: Box) -> Any:
        plane = t * depth + z
        return paint(planes[plane], loader(plane), box, int(firsts[plane]))

    here.labels.write(keys.labels, (times, depth, height, width), scene.voxel_um, region)


Work = Prepare | SegmentTile | Finish


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
            self.tiles_done += scene.planes * len(scene.grid)
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
        every = range(scene.planes * len(scene.grid))
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
        every = range(scene.planes * len(scene.grid))
        self.tiles_done += len(self.waiting.pop(scene.name, every))
        report = ImageReport(
            scene.name,
            str(scene.source.path),
            "failed",
            tiles=scene.planes * len(scene.grid),
            seconds=self.seconds.get(scene.name, {}),
            reason=" ".join(failure.reason.split()),
            traceback=failure.traceback,
        )
        self.reports[scene.name] = report
        return Progress(scene.name, self.tiles_done, self.plan.tiles, report)

    def _report(self, scene: Scene, cells: int) -> Progress:
        """Note that an image is done."""
        report = ImageReport(
            scene.name,
            str(scene.source.path),
            "done",
            cells=cells,
            tiles=scene.planes * len(scene.grid),
            seconds={k: round(v, 3) for k, v in self.seconds.get(scene.name, {}).items()},
            warnings=() if cells else ("no cells were found",),
        )
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
