"""What a plan says of the model, and what of it identifies the instances that it will find."""

from __future__ import annotations

import pickle
import uuid
from typing import Any, cast, get_args

import numpy as np

from cellseg.models import MODELS, CellsegError, Overlap, Segmenter
from cellseg.models.settings import DetectorSettings
from cellseg.pipeline.config import Config
from cellseg.pipeline.workflow import Workflow


def describe(
    workflow: Workflow, config: Config, segmenter: Segmenter | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is known of the model, and what of it identifies the instances it will find."""
    if segmenter is not None:
        # Nothing tells whether an object is the one of an earlier run, unless it says so.
        own_key = getattr(segmenter, "key", None) or uuid.uuid4().hex
        model: dict[str, Any] = {"name": type(segmenter).__qualname__, "key": str(own_key)}
        if config.engine != "local" or config.workers > 1:
            _check_pickles(segmenter)
    else:
        model = workflow.model.model_dump(mode="json")
        if isinstance(workflow.model, DetectorSettings):
            from cellseg.models.weights import check_fit, find_weights, read_card
            from cellseg.models.weights import fingerprint as weights_fingerprint

            path = find_weights(workflow.model.weights)
            card = read_card(path)
            check_fit(workflow.model, card, path)
            model |= {"sha256": weights_fingerprint(path), "trained_diameter_px": card.diameter_px}
            model |= {"classes": list(card.classes)}
            # Which device computes moves a mask by a pixel at most once in a while; these, often.
            model |= {"inference": config.inference, "precision": config.precision}
            model |= {"normalised_in_training": card.normalise.model_dump(mode="json")}
    # Of a segmenter from Python its key alone counts: the class may be renamed or wrapped.
    if segmenter is not None:
        return model, {"key": model["key"]}
    # However it was given, the diameter counts as it is in each image's px: see `_sized`.
    return model, {k: v for k, v in model.items() if k not in ("diameter_px", "diameter_um")}


def overlap_of(workflow: Workflow, segmenter: Segmenter | None) -> Overlap:
    """Return what is done where two cells claim a pixel: the model says so."""
    if segmenter is None:
        return MODELS[workflow.model.name].overlap
    overlap = getattr(segmenter, "overlap", "resolve")
    if overlap not in get_args(Overlap):
        raise CellsegError(
            f"segmenter {type(segmenter).__qualname__}: overlap is {overlap!r}; it must be"
            " 'resolve' (a pixel goes to one cell, as without it) or 'keep' (cells may overlap)."
        )
    return cast(Overlap, overlap)


def _check_pickles(segmenter: Segmenter) -> None:
    """Refuse, for several workers, a segmenter that cannot be sent to them."""
    try:
        pickle.dumps(segmenter)
    except Exception as error:
        raise CellsegError(
            f"segmenter {type(segmenter).__qualname__} cannot be sent to workers ({error})."
            " Define its class at the top of a module, or set workers to 1."
        ) from error


def check_halo(workflow: Workflow, model: dict[str, Any]) -> None:
    """Refuse a halo that does not hold the cells the model was trained on."""
    tiling, diameter = workflow.tiling, model.get("trained_diameter_px")
    if diameter and tiling.halo < diameter + tiling.margin:
        raise CellsegError(
            f"[tiling] halo = {tiling.halo} is less than the cells the model was trained on"
            f" ({diameter:.0f} px across) and the margin ({tiling.margin} px)."
            f" Set halo to {int(np.ceil(diameter)) + tiling.margin} or more:"
            " the largest cell and the margin."
        )
