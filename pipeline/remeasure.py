"""Measure the cells of a results folder again, as its label images show them now.

Other measurements, channels, gates or sizes of a pixel, or labels that a person corrected:
nothing is segmented, and neither the model nor its weights are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellseg.models import CellsegError, Instances
from cellseg.models.errors import nearest
from cellseg.pipeline.config import Config
from cellseg.pipeline.corrected import TakeEdits, TakeLabels
from cellseg.pipeline.corrections import Corrections
from cellseg.pipeline.execute import Failure
from cellseg.pipeline.gates import gate_warnings
from cellseg.pipeline.job import Job
from cellseg.pipeline.masks import MaskSource, find_masks
from cellseg.pipeline.place import Place
from cellseg.pipeline.plan import ImageReport, Plan, check_gates
from cellseg.pipeline.plate import Field, find
from cellseg.pipeline.region_files import find_interest
from cellseg.pipeline.result import Progress
from cellseg.pipeline.results import Results
from cellseg.pipeline.segment import Scene, opened
from cellseg.pipeline.stages import Run
from cellseg.pipeline.workflow import Workflow, read_workflow

CHANGEABLE = ("measure", "gates", "controls", "output", "pixel_size_um")
"""Keys of a workflow that say nothing of which cells there are."""
FIXED = ("output.path", "output.images", "output.labels")


class Unasked:
    """The segmenter of a run that segments nothing."""

    key = "unasked"

    def segment(self, planes: Sequence[Any]) -> list[Instances]:
        """Refuse."""
        raise AssertionError(f"asked to segment {len(planes)} planes")


class RunAgain(Run):
    """A run over the labels that an earlier one has written; see `Run`.

    Parameters
    ----------
    folder : Path
        The results of that run.
    config : Config
    overrides : sequence of str
        ``table.key=value`` each, of `CHANGEABLE`.
    corrected : Path, optional
        Label images of the images' names that take the place of those in the results.
    images : collection of str, optional
        Names of those to measure; by default all.
    corrections : mapping of str to Corrections, optional
        What the logs of images say; carried out on their labels first.

    Raises
    ------
    CellsegError
        If it is no results folder, its inputs are gone, or an override would give other cells.
    """

    what = "measuring again"

    def __init__(
        self,
        folder: Path,
        config: Config,
        overrides: Sequence[str] = (),
        corrected: Path | None = None,
        images: Collection[str] | None = None,
        corrections: Mapping[str, Corrections] | None = None,
    ) -> None:
        document = Results(folder).read_run()
        workflow = _workflow(folder, overrides)
        self.before = document
        self.kept = {line["name"]: ImageReport.read(line) for line in document["images"]}
        done = {name: report for name, report in self.kept.items() if report.state == "done"}
        if not done:
            raise CellsegError(f"{folder}: none of its images is done. Run the workflow first.")
        self.corrected = _corrected(corrected, done)
        self.corrections = dict(corrections or {})
        self.in_part: set[str] = set()
        if images is not None:
            done = {name: report for name, report in done.items() if name in images}
        scenes, self.lost = _scenes(folder, workflow, done)
        check_gates(workflow, _measured(scenes, self.kept))
        unread = tuple(report for report in self.kept.values() if report.state != "done")
        model = {k: v for k, v in document.get("model", {}).items() if k != "trained_diameter_px"}
        on_cpu = config.model_copy(update={"device": "cpu"})
        super().__init__(Plan(workflow, Results(folder), scenes, unread, model), on_cpu)

    def _job(self, scene: Scene) -> Job:
        corrections = self.corrections.get(scene.name)
        in_part = scene.name in self.in_part
        return Job(scene, self.plan.results, again=True, corrections=corrections, in_part=in_part)

    def _carry_out(self) -> Iterator[Progress]:
        """Measure and gather, if the results still are what was read of them."""
        folder = self.plan.results.folder
        if self.plan.results.read_run() != self.before:
            raise CellsegError(
                f"{folder}: another process has changed these results meanwhile. Do it again."
            )
        yield from super()._carry_out()

    def _queue_images(self) -> Iterator[Progress]:
        """Queue the images that are not measured so already."""
        for name, reason in self.lost.items():
            yield self._keep(name, reason)
        for scene in self.plan.scenes:
            job = self._job(scene)
            if (source := self.corrected.get(scene.name)) is not None:
                self.tasks.append(TakeLabels(job, source))
            elif job.corrections is not None and job.corrections.pending:
                if job.rows_stand:  # before the labels change
                    self.in_part.add(scene.name)
                self.tasks.append(TakeEdits(job))
            elif job.complete():
                yield self._report(scene)
            else:
                self._set_out(job)

    def _list_in_plate(self, scene: Scene) -> None:
        """Leave the plate as it is: it lists all of them."""

    def _fail(self, scene: Scene, failure: Failure) -> Progress:
        """Keep what was known of an image that cannot be measured again."""
        super()._fail(scene, failure)
        return self._keep(scene.name, " ".join(failure.reason.split()))

    def _keep(self, name: str, reason: str) -> Progress:
        old = self.kept[name]
        said = f"not measured again, its rows are as before: {reason}"
        report = replace(old, warnings=(said, *old.warnings), reason=reason)
        self.reports[name] = report
        return Progress(name, self.tiles_done, self.plan.tiles, report=report)

    def _settle(self, scene: Scene, state: Any, **how: Any) -> Progress:
        """Write down how it went, beside what the run before has said."""
        step = super()._settle(scene, state, **how)
        old, new = self.kept[scene.name], self.reports[scene.name]
        seconds, memory = {**old.seconds, **new.seconds}, {**old.memory_mb, **new.memory_mb}
        report = replace(new, seconds=seconds, memory_mb=memory, tiles=old.tiles)
        self.reports[scene.name] = report
        return replace(step, report=report)

    @property
    def ordered(self) -> tuple[ImageReport, ...]:
        """The reports, in the order of the run before."""
        return tuple(self.reports.get(name, old) for name, old in self.kept.items())

    @property
    def unmeasured(self) -> tuple[ImageReport, ...]:
        """The images whose rows are those of the run before, each with the reason."""
        return tuple(r for r in self.ordered if r.state == "done" and r.reason is not None)

    def _document(self, state: str) -> dict[str, Any]:
        """Return ``run.json``: what the run before has said, and what was done since."""
        new = super()._document(state)
        kept = {name: self.before[name] for name in self.before if name not in NEW}
        about = {name: new[name] for name in ("started", "seconds", "versions", "config")}
        outdated = gate_warnings(self.before.get("gates", {}))
        said = [each for each in self.before.get("warnings", ()) if each not in outdated]
        kept["warnings"] = [*said, *self.gathered.warnings]
        return {**new, **kept, "measured": about}


NEW = ("state", "cells", "images", "gates", "measured")
"""Keys of ``run.json`` that measuring again writes anew."""


def _workflow(folder: Path, overrides: Sequence[str]) -> Workflow:
    """Return the workflow of a results folder with some keys changed."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.split(".")[0] not in CHANGEABLE or key in FIXED:
            raise CellsegError(
                f"--set {override}: {key} says which cells there are or where they go, and"
                f" cellseg measure changes only {', '.join(CHANGEABLE)}."
                f"{nearest(key.split('.')[0], CHANGEABLE)} Use cellseg run."
            )
    return read_workflow(folder / "workflow.toml", overrides, output=folder)


def _measured(scenes: Sequence[Scene], kept: Mapping[str, ImageReport]) -> Iterator[str]:
    """Yield the channels of the images to measure, and of those whose rows stay as they are."""
    again = {scene.name for scene in scenes}
    for scene in scenes:
        yield from scene.measured
    for report in kept.values():
        if report.name not in again:
            yield from report.channels


def _corrected(path: Path | None, done: Mapping[str, ImageReport]) -> dict[str, MaskSource]:
    """Return the corrected labels of each image that has some."""
    if path is None:
        return {}
    found = find_masks(path)
    unknown = sorted(set(found) - set(done))
    if unknown:
        raise CellsegError(
            f"{path}: {unknown[0]} is not the name of an image that is done."
            f"{nearest(unknown[0], done)} Label images are called as the images are."
        )
    return found


def _scenes(
    folder: Path, workflow: Workflow, done: Mapping[str, ImageReport]
) -> tuple[tuple[Scene, ...], dict[str, str]]:
    """Return the images that can be measured again, and why the others cannot."""
    lost = dict.fromkeys(done, "its image is no longer found where the workflow looks for it.")
    opened.cache_clear()
    scenes = []
    try:
        fields = find([Path(entry) for entry in workflow.images], workflow.pattern).fields
    except CellsegError as error:
        raise CellsegError(f"{error} Measuring needs the images.") from None
    for source in fields:
        if source.name not in lost:
            continue
        try:
            scene = _scene(source, workflow, done[source.name])
            if not Results(folder).at(scene.place).labels.layers:
                lost[source.name] = "its labels are missing. Run the workflow again."
                continue
            scenes.append(scene)
            del lost[source.name]
        except CellsegError as error:
            lost[source.name] = str(error)
    return tuple(scenes), lost


def scenes_of(folder: Path) -> tuple[tuple[Scene, ...], dict[str, str]]:
    """Return the images of a results folder as its run has seen them, and why some are lost.

    Raises
    ------
    CellsegError
        If it is no results folder, or its inputs are gone.
    """
    reports = [ImageReport.read(line) for line in Results(folder).read_run()["images"]]
    done = {report.name: report for report in reports if report.state == "done"}
    return _scenes(folder, _workflow(folder, ()), done)


def _scene(source: Field, workflow: Workflow, report: ImageReport) -> Scene:
    """Return an image as the run before has seen it."""
    image = opened(source)
    place = report.place or Place.of_image(source.name)
    about = image.shape, image.channels, image.voxel, image.remarks
    scene = Scene(
        source, workflow, Unasked(), "again", *about, stated_place=place, zoom=report.zoom or 1.0
    )
    if report.level:
        reduced = image.at_level(report.level)
        factor = image.levels[report.level - 1].factor
        shape: dict[str, Any] = {"shape": reduced.shape, "voxel": reduced.voxel, "reduced": factor}
        scene = replace(scene, level=report.level, **shape)
    _ = scene.inputs
    if workflow.region.kind is not None:
        scene = replace(scene, region=find_interest(workflow.region, source, *scene.extent))
    return scene
