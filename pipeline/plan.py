"""Everything that can be known and checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
import pickle
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellseg.models import MODELS, CellsegError, Segmenter
from cellseg.models.settings import MaskRCNNSettings
from cellseg.pipeline.config import Config
from cellseg.pipeline.image import fingerprint
from cellseg.pipeline.measure import column_types
from cellseg.pipeline.plate import discover
from cellseg.pipeline.results import Results
from cellseg.pipeline.segment import NamedModel, Scene, opened
from cellseg.pipeline.workflow import Workflow

FORMAT = 1
"""Counts up when the same input and workflow would give other files."""


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
        return sum(scene.tiles for scene in self.scenes)


def plan(workflow: Workflow, config: Config, segmenter: Segmenter | None = None) -> Plan:
    """Check everything that can be checked before anything is computed.

    Raises
    ------
    CellsegError
        If inputs are missing, or settings do not fit each other or the images.
    """
    column_types(workflow.measure.groups, ())  # names a group that is not known
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
