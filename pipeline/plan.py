"""Everything that can be known and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cellseg.models import CellsegError, Segmenter
from cellseg.models.scale import nearest_zoom
from cellseg.models.settings import DetectorSettings
from cellseg.pipeline.assembled import fingerprints
from cellseg.pipeline.config import Config
from cellseg.pipeline.described import check_halo, describe, overlap_of
from cellseg.pipeline.diameter import Diameter, Estimated, given_px
from cellseg.pipeline.export import check_installed, check_known
from cellseg.pipeline.gate_settings import check_columns
from cellseg.pipeline.image import Image, fingerprint
from cellseg.pipeline.inference import settled
from cellseg.pipeline.inside import check_free
from cellseg.pipeline.keys import digest
from cellseg.pipeline.levels import level_for
from cellseg.pipeline.measure import column_types
from cellseg.pipeline.named_model import NamedModel
from cellseg.pipeline.pixel_size import doubts
from cellseg.pipeline.place import Place, arrange
from cellseg.pipeline.plate import Field, disagreements, find
from cellseg.pipeline.region_files import check_found, find_interest
from cellseg.pipeline.results import Results
from cellseg.pipeline.segment import Scene, opened
from cellseg.pipeline.set_aside import SetAside
from cellseg.pipeline.source import Shape
from cellseg.pipeline.table import is_number, schema
from cellseg.pipeline.workflow import Workflow

FORMAT = 6
"""Counts up when the same input and workflow would give other files."""


@dataclass(frozen=True)
class ImageReport:
    """How it went with one image; a line of ``run.json``."""

    name: str
    source: str
    state: Literal["done", "failed"]
    cells: int = 0
    tiles: int = 0
    background_tiles: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    zoom: float | None = None
    level: int | None = None
    pixel_um: tuple[float, float] | None = None
    seams: dict[str, Any] | None = None
    region: dict[str, Any] | None = None
    links: dict[str, int] | None = None
    reason: str | None = None
    traceback: str | None = None
    place: Place | None = None
    shape: Shape | None = None
    channels: tuple[str, ...] = ()
    plate: str | None = None
    well: str | None = None
    site: str | None = None
    quality: dict[str, Any] | None = None
    tiles_set_aside: tuple[SetAside, ...] = ()
    workers: dict[str, int] = field(default_factory=dict)
    """How many units of work each process has done."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> ImageReport:
        """Return what a line of ``run.json`` says, of whatever version."""
        known = {each.name for each in fields(cls)}
        about = {name: value for name, value in document.items() if name in known}
        about["warnings"] = tuple(about.get("warnings", ()))
        aside = (SetAside.read(each) for each in about.get("tiles_set_aside", ()))
        about["tiles_set_aside"] = tuple(aside)
        return cls(**about | {"place": Place.read(document)})


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
    diameter_key : str or None
        Where the diameter of the cells is to be estimated: identifies all that it
        follows from but the images.
    estimated : Estimated or None
        What it came to.
    remarks : tuple of str
        What is odd about the images.
    """

    workflow: Workflow
    results: Results
    scenes: tuple[Scene, ...]
    unreadable: tuple[ImageReport, ...]
    model: dict[str, Any]
    diameter_key: str | None = None
    estimated: Estimated | None = None
    remarks: tuple[str, ...] = ()

    @property
    def undecided(self) -> bool:
        """Whether the diameter of the cells is still to be estimated, and with it the tiles."""
        return self.diameter_key is not None and self.estimated is None

    @property
    def diameter(self) -> Diameter | None:
        """How large the cells are taken to be, if the workflow asks for it."""
        settings, trained_px = self.workflow.model, self.model.get("trained_diameter_px")
        if not isinstance(settings, DetectorSettings) or trained_px is None:
            return None
        if settings.diameter_px is None and settings.diameter_um is None:
            return None
        return Diameter(settings, trained_px, self.scenes, self.estimated)

    def sized(self, estimated: Estimated) -> Plan:
        """Return the plan once the diameter of the cells is estimated."""
        scenes, px = self.scenes, estimated.px
        if px is not None:
            trained_px = self.model["trained_diameter_px"]
            scenes = tuple(_sized(scene, px, trained_px) for scene in scenes)
        return replace(self, scenes=scenes, estimated=estimated)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before it starts."""
        trained, here = self.model.get("normalised_in_training"), self.workflow.normalise
        sizes = self.diameter.warnings if self.diameter else ()
        notes = (*self.remarks, *sizes, *doubts(self.scenes))
        if trained is None or trained["method"] == here.method:
            return notes
        return (
            f'the weights were trained on [normalise] method = "{trained["method"]}",'
            f' here it is "{here.method}"',
            *notes,
        )

    @property
    def region_text(self) -> str:
        """How much is left out where a region of interest is all that counts; else nothing."""
        within = [scene for scene in self.scenes if scene.region is not None]
        if not within or self.undecided:
            return ""
        tiles = sum(scene.planes * len(scene.grid) for scene in within)
        count = f"{len(within)} image{'s' * (len(within) != 1)}"
        looked_at = sum(scene.tiles for scene in within)
        return f"region in {count}: {looked_at} of {tiles} tiles are looked at"

    @property
    def neural(self) -> bool:
        """Whether torch computes, on the configured device."""
        return "sha256" in self.model

    @cached_property
    def tiles(self) -> int:
        """Number of tiles of all images."""
        return sum(scene.tiles for scene in self.scenes)


def plan(
    workflow: Workflow,
    config: Config,
    segmenter: Segmenter | None = None,
    *,
    fresh: bool = False,
) -> Plan:
    """Check everything that can be checked before anything is computed.

    Parameters
    ----------
    workflow, config, segmenter
        See `cellseg.pipeline.run`.
    fresh : bool
        Do not use the diameter that an earlier run has estimated.

    Raises
    ------
    CellsegError
        If inputs are missing, or settings do not fit each other or the images.
    """
    column_types(workflow.measure, ())  # names a group that is not known
    check_known(workflow.output.export, "[output] export")
    check_installed(workflow.output.export, "[output] export")
    if "training" in workflow.output.export:
        raise CellsegError(
            '[output] export: "training" is of corrected cells, and a run has none at its end.'
            " Correct some, then use cellseg export RESULTS --to training."
        )
    if segmenter is None:
        config = settled(config, workflow.model)
    model, own = describe(workflow, config, segmenter)
    channels, trained_px = list(workflow.model.channels), model.get("trained_diameter_px")
    overlap = overlap_of(workflow, segmenter)
    identity = digest(own, workflow.normalise, workflow.tiling, channels, overlap)
    check_halo(workflow, model)
    found = find([Path(entry) for entry in workflow.images], workflow.pattern)
    fields = found.fields
    scenes, unreadable, problems = [], [], []
    opened.cache_clear()  # a file may have changed since an earlier run of this process
    for source, place in zip(fields, arrange(fields, workflow.output), strict=True):
        try:
            image = opened(source)
            _check_place(source.path, place, workflow)
            key = digest(FORMAT, *_state(source), identity, *_placed(source, place))
            image_segmenter = segmenter or NamedModel(workflow.model, config)
            about = image.shape, image.channels, image.voxel, image.remarks
            scene = Scene(
                source, workflow, image_segmenter, key, *about, overlap=overlap, stated_place=place
            )
            _ = scene.inputs, scene.measured
            scene = _at_level(scene, image, trained_px)
            _check_tracking(scene)
            _check_measure(scene)
            if workflow.region.kind is not None:
                region = find_interest(workflow.region, source, *scene.extent)
                scene = replace(scene, region=region)
            if trained_px is not None and (px := given_px(scene)) is not None:
                scene = _sized(scene, px, trained_px)
            scenes.append(scene)
        except CellsegError as error:
            unreadable.append(
                ImageReport(source.name, str(source.path), "failed", reason=str(error))
            )
            problems.append(error)
    if problems and len(problems) == len(fields):
        raise problems[0]
    check_found(workflow.region, [scene.region for scene in scenes])
    check_gates(workflow, (name for scene in scenes for name in scene.measured))
    results = Results(Path(workflow.output.path))
    sizes = disagreements((each.source.plate, each.voxel_um) for each in scenes)
    wells = [(each.source.plate, each.source.well) for each in scenes if each.source.well]
    controls = workflow.controls.remarks((plate, str(well)) for plate, well in wells)
    remarks = (*found.notes, *sizes, *_not_copied(scenes), *controls)
    planned = Plan(workflow, results, tuple(scenes), tuple(unreadable), model, remarks=remarks)
    if trained_px is None or model["diameter_px"] != "auto":
        return planned
    level = [workflow.level] if workflow.level not in ("auto", 0) else []
    key = digest("diameter", own, workflow.normalise, channels, *level)
    known = None if fresh else results.read_diameter(key)
    planned = replace(planned, diameter_key=key)
    return planned if known is None else planned.sized(known)


def check_gates(workflow: Workflow, measured: Iterable[str]) -> None:
    """Refuse gates on columns that no table will have of images with the channels given."""
    if not workflow.gates:
        return
    columns = schema(workflow.measure, tuple(dict.fromkeys(measured)))
    check_columns(workflow.gates, {each.name: is_number(each.type) for each in columns})


def _at_level(scene: Scene, image: Image, trained_px: float | None) -> Scene:
    """Return an image at the level of its pyramid that is read, which may be the one it is at.

    That follows from the image and the workflow alone.
    """
    number, px = scene.workflow.level, given_px(scene) if trained_px is not None else None
    if number == "auto":
        number = level_for(image.levels, trained_px / px) if px and trained_px else 0
    if number == 0:
        return scene
    reduced = image.at_level(number)
    factor = image.levels[number - 1].factor
    key = digest(scene.key, "level", number, factor, fingerprint(scene.source.path, number))
    about: dict[str, Any] = {"shape": reduced.shape, "voxel": reduced.voxel, "reduced": factor}
    return replace(scene, key=key, level=number, **about)


def _check_place(path: Path, place: Place, workflow: Workflow) -> None:
    """Refuse an image whose results could not be written where they belong."""
    if place.plate is not None and workflow.output.images == "link":
        from cellseg.pipeline.linked import check_linkable

        check_linkable(path)
    if place.inside is not None:
        check_free(Path(place.inside) / "labels")


def _state(source: Field) -> tuple[Any, Any]:
    """Return what tells one state of an image's files from another, and what names its channels."""
    if not source.parts:
        return fingerprint(source.path), source.channel
    return fingerprints(source.parts), (source.channels, source.numbering)


def _placed(source: Field, place: Place) -> tuple[str, ...]:
    """Return what identifies an image in a plate, where another one may have had its place."""
    if place.plate is None:
        return ()
    return source.name, str(place.group), str(source.path.resolve())


def _not_copied(scenes: Sequence[Scene]) -> list[str]:
    """Say which images are in no plate, though all were to be copied into one."""
    loose = [each.name for each in scenes if not each.place.beside_image]
    if not loose or scenes[0].workflow.output.images != "copy":
        return []
    count = f"{len(loose)} image{'s' * (len(loose) != 1)}"
    return [f'[output] images = "copy": {count} without a well stay out of the plate ({loose[0]})']


def _sized(scene: Scene, px: float, trained_px: float) -> Scene:
    """Return an image with cells of a diameter, seen by the model at about the one it knows."""
    zoom = nearest_zoom(trained_px / px)
    return replace(scene, key=digest(scene.key, px, zoom), diameter_px=px, zoom=zoom)


def _check_tracking(scene: Scene) -> None:
    """Refuse a distance in um where the size of a pixel is not known."""
    if scene.tracked and scene.workflow.track.distance_um is not None and scene.voxel_um is None:
        raise CellsegError(
            f"{scene.name}: [track] distance_um is given, but the size of a pixel is not known."
            " Set pixel_size_um, or give distance_px."
        )


def _check_measure(scene: Scene) -> None:
    """Refuse neighbours at a distance in um where the size of a pixel is not known."""
    measure = scene.workflow.measure
    asked = "neighbours" in measure.groups and measure.neighbour_distance_um is not None
    if asked and scene.voxel_um is None:
        raise CellsegError(
            f"{scene.name}: [measure] neighbour_distance_um is given, but the size of a pixel is"
            " not known. Set pixel_size_um, or give neighbour_distance_px."
        )
