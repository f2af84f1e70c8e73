"""Segment here: what a model finds in a window, and its thresholds moved without the network.

What is looked at once is kept with its probabilities, so that a score, a threshold of masks or
a least area is tried in milliseconds; then the settings are written as a workflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models import MODELS, CellsegError, FitsImage, Instances, Placed, Segmenter
from cellseg.models.layers import to_layers
from cellseg.models.normalise import decide
from cellseg.models.proposals import Proposals, Proposes
from cellseg.models.scale import Zooms, estimate_diameter, nearest_zoom
from cellseg.models.settings import DetectorSettings, ModelSettings
from cellseg.models.weights import find_weights, read_card
from cellseg.pipeline.config import Config
from cellseg.pipeline.files import replace_file
from cellseg.pipeline.inference import settled
from cellseg.pipeline.inputs import Inputs
from cellseg.pipeline.named_model import NamedModel
from cellseg.pipeline.sampling import sample_boxes
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import Workflow

LEAST_SCORE = 0.05
"""Score from which on proposals are kept: below it sliders find nothing new."""
MOST_PX = 2**21
"""Pixels that the network sees at once, about 4 GB: a run has tiles for more."""


@dataclass(frozen=True)
class Cuts:
    """Where proposals are cut; see `cellseg.models.settings.DetectorSettings`.

    Parameters
    ----------
    score, mask_threshold : float
    min_area_px : int
    """

    score: float = 0.0
    mask_threshold: float = 0.5
    min_area_px: int = 10

    @classmethod
    def of(cls, settings: ModelSettings) -> Cuts:
        """Return where a model cuts by its settings, its weights' own choice included."""
        score = getattr(settings, "score", None)
        if score is None and isinstance(settings, DetectorSettings):
            score = read_card(find_weights(settings.weights)).score
        return cls(
            0.0 if score is None else float(score),
            float(getattr(settings, "mask_threshold", 0.5)),
            int(getattr(settings, "min_area_px", 1)),
        )


@dataclass(frozen=True, eq=False)
class View:
    """A plane as a viewer holds it, and the window of it that is shown.

    Parameters
    ----------
    channels : sequence of arrays (H, W)
        Lazy ones will do; only what lies under the window and the samples is read.
    names : tuple of str
        Of the channels.
    window : Box, optional
        Default: all of it.
    """

    channels: Sequence[Any]
    names: tuple[str, ...]
    window: Box | None = None

    @property
    def plane(self) -> Box:
        """All of the plane."""
        height, width = self.channels[0].shape
        return Box(0, 0, height, width)

    @property
    def shown(self) -> Box:
        """The window, cut at the plane.

        Raises
        ------
        CellsegError
            If nothing of the plane is in it.
        """
        found = self.plane.intersect(self.window or self.plane)
        if found is None:
            raise CellsegError("The view shows nothing of the image. Move it over the image.")
        return found

    def read(self, inputs: Inputs, box: Box) -> NDArray[Any]:
        """Return what the model sees of a box (C, h, w), not normalised."""
        read = [np.asarray(self.channels[number][box.slices]) for number in inputs.channels]
        return inputs.see(np.stack(read))


@dataclass(frozen=True, eq=False)
class Look:
    """What a model found in a window, kept so that thresholds move without it.

    Parameters
    ----------
    proposals : Proposals
        In px of the window.
    window : Box
    diameter_px : float or None
        Diameter of the cells that was given or estimated.
    """

    proposals: Proposals
    window: Box
    diameter_px: float | None = None

    def instances(self, cuts: Cuts) -> Instances:
        """Return the cells at some cuts, in px of the window."""
        return self.proposals.cut(cuts.score, cuts.mask_threshold, cuts.min_area_px)

    def labels(self, cuts: Cuts) -> NDArray[np.int32]:
        """Return the cells as label images (L, h, w) of the window, as many as overlap needs."""
        return to_layers(self.instances(cuts), self.window.shape)


def look(view: View, workflow: Workflow, config: Config | None = None) -> Look:
    """Run the model of a workflow on a window.

    Grey levels are normalised by samples of the whole plane, as in a run of an image with one
    plane, and not by the window.

    Parameters
    ----------
    view : View
    workflow : Workflow
        Its model, its channels and its normalisation count.
    config : Config, optional
        How this machine computes.

    Raises
    ------
    CellsegError
        If the window is too large, a channel or weights are missing, or the diameter is in um.
    """
    inputs = Inputs.of(workflow.model.channels, view.names, "the view")
    window = view.shown
    sample = [view.read(inputs, box) for box in sample_boxes(*view.plane.shape)]
    normalisation = decide(workflow.normalise, sample)
    plane = normalisation.apply(view.read(inputs, window))
    if not np.isfinite(plane).all():
        raise CellsegError("The view shows NaN or infinite pixels. Replace them in the image.")
    lenient = _lenient(workflow.model)
    model: Segmenter = NamedModel(lenient, settled(config or Config(), lenient)).loaded()
    model, diameter = _sized(model, workflow.model, plane)
    if isinstance(model, FitsImage):
        model = model.fit_image([normalisation.apply(part) for part in sample])
    return Look(_proposals(model, plane, window), window, diameter)


def _lenient(settings: ModelSettings) -> ModelSettings:
    """Return a model's settings that leave nothing out that sliders may bring back."""
    least = {"min_area_px": 1, "score": LEAST_SCORE}
    known = {key: value for key, value in least.items() if key in type(settings).model_fields}
    return settings.model_copy(update=known)


def _sized(
    model: Segmenter, settings: ModelSettings, plane: NDArray[np.float32]
) -> tuple[Segmenter, float | None]:
    """Return a model at the magnification that its settings ask for, and the diameter."""
    if not isinstance(settings, DetectorSettings) or not isinstance(model, Zooms):
        _check_size(plane, 1)
        return model, None
    if settings.diameter_um is not None:
        raise CellsegError("[model] diameter_um is for runs; give diameter_px here.")
    diameter: float | None
    if settings.diameter_px == "auto":
        found = estimate_diameter(model, [plane])
        diameter = None if found is None else round(found, 1)
    else:
        diameter = settings.diameter_px
    zoom = 1.0 if diameter is None else nearest_zoom(model.diameter_px / diameter)
    _check_size(plane, zoom)
    return model.at_zoom(zoom), diameter


def _check_size(plane: NDArray[np.float32], zoom: float) -> None:
    if plane[0].size * zoom**2 > MOST_PX:
        height, width = plane.shape[1:]
        side = int((MOST_PX**0.5) / zoom)
        raise CellsegError(
            f"The view is {height} x {width} px, more than the model can look at together."
            f" Zoom in to about {side} x {side} px, or run the workflow."
        )


def _proposals(model: Segmenter, plane: NDArray[np.float32], window: Box) -> Proposals:
    """Return what a model proposes, whether it knows probabilities or not."""
    corner = (window.y0, window.x0)
    if isinstance(model, Proposes):
        return model.proposals(plane, corner)
    planes = [plane]
    found = (
        model.segment_at(planes, [corner]) if isinstance(model, Placed) else model.segment(planes)
    )
    return Proposals.certain(found[0], window.shape)


def chosen(workflow: Workflow, cuts: Cuts) -> Workflow:
    """Return a workflow whose model cuts where the sliders are; what it has no key for is left."""
    known = type(workflow.model).model_fields
    values = {"score": cuts.score, "mask_threshold": cuts.mask_threshold}
    update = {**values, "min_area_px": cuts.min_area_px}
    model = workflow.model.model_copy(update={k: v for k, v in update.items() if k in known})
    return workflow.model_copy(update={"model": model})


def write_workflow(path: Path, workflow: Workflow) -> None:
    """Write a workflow; `read_workflow` reads it back as equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda partial: partial.write_text(workflow.toml(), encoding="utf-8"))


def shipped_weights(model: str) -> list[str]:
    """Return the names of the shipped weights of a model, its default first; none if it has none.

    Parameters
    ----------
    model : str
        One of `cellseg.models.MODELS`.
    """
    from cellseg.models.weights import shipped

    settings = MODELS[model].settings
    if "weights" not in settings.model_fields:
        return []
    return [name for name, path in shipped().items() if read_card(path).architecture == model]
