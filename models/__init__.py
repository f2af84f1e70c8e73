"""From pixels to instances: the models, and the one method that the pipeline asks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.loading import quick
from cellseg.models.settings import (
    CenterMaskFCOSSettings,
    CenterMaskSettings,
    MaskRCNNSettings,
    ModelSettings,
    ThresholdSettings,
)

__all__ = [
    "MODELS",
    "CellsegError",
    "FitsImage",
    "Instances",
    "Model",
    "Overlap",
    "Placed",
    "Segmenter",
    "load_model",
]


Overlap = Literal["resolve", "keep"]
"""What is done where two cells claim a pixel."""


class Segmenter(Protocol):
    """Anything that finds objects in planes; all that the pipeline asks of a model.

    One whose objects overlap says so by an attribute ``overlap`` of ``"keep"``:
    without it, the pipeline lets no two cells share a pixel.
    """

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        """Return the objects of each plane.

        Parameters
        ----------
        planes : sequence of float32 (C, H, W)
            Normalised pixels, shapes may differ. Finite.

        Returns
        -------
        list of Instances
            One per plane, boxes in px of that plane.
        """
        ...


@runtime_checkable
class FitsImage(Protocol):
    """A model that decides something once per image, never per tile (a threshold, say)."""

    def fit_image(self, sample: Sequence[NDArray[np.float32]]) -> Segmenter:
        """Return the segmenter for one image, given normalised samples (C, h, w) of it."""
        ...


@runtime_checkable
class Placed(Protocol):
    """A model to which it matters where in the image a window lies, and that is told."""

    def segment_at(
        self, planes: Sequence[NDArray[np.float32]], corners: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Return the objects of each plane, a window of an image whose first pixel is at y, x."""
        ...


@dataclass(frozen=True)
class Model:
    """An entry of `MODELS`: its settings, and its loader as ``module:function``, imported late.

    The loader takes the settings, the torch device and the precision, and
    returns a `Segmenter`.
    """

    settings: type[ModelSettings]
    loader: str
    summary: str
    overlap: Overlap = "resolve"
    """What becomes of a pixel that two cells claim: one of them gets it, or both ``keep`` it."""
    neural: bool = True
    """Whether it computes with torch, on the configured device."""
    openvino: bool = False
    """Whether OpenVINO can compute it; then its loader takes the inference, too."""
    masks_apart: bool = False
    """Whether its masks can be computed in coarser arithmetic than what decides on cells."""
    bytes_per_px: int = 2000
    """Peak memory for each pixel that a tile reads, measured on the CPU; for `--dry-run`."""


MODELS: dict[str, Model] = {
    "threshold": Model(
        ThresholdSettings,
        "cellseg.models.threshold:load",
        "smoothed Otsu and a distance watershed; no weights, a check of everything else",
        neural=False,
        bytes_per_px=150,
    ),
    "mask_rcnn": Model(
        MaskRCNNSettings,
        "cellseg.models.detector:load",
        "Mask R-CNN built for cells; separates touching cells",
        openvino=True,
        masks_apart=True,
        bytes_per_px=1000,
    ),
    "center_mask": Model(
        CenterMaskSettings,
        "cellseg.models.detector:load",
        "CenterMask, cells as points; keeps cells whole where they overlap",
        overlap="keep",
        bytes_per_px=800,
    ),
    "center_mask_fcos": Model(
        CenterMaskFCOSSettings,
        "cellseg.models.detector:load",
        "CenterMask on an FCOS detector; for weights of your own",
        overlap="keep",
    ),
}


def load_model(
    settings: ModelSettings,
    device: str = "cpu",
    precision: str = "float32",
    inference: str = "torch",
) -> Segmenter:
    """Return the model that `settings` names, ready to segment.

    Parameters
    ----------
    settings : ModelSettings
        One of the settings classes in `MODELS`.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        ``float32`` or ``bfloat16``; ``mixed``: masks alone in bfloat16, for the models that
        `MODELS` says it of, and float32 for others.
    inference : str
        What computes the network: ``torch``, or on the CPU ``openvino``, for the models that
        `MODELS` says it of.

    Raises
    ------
    CellsegError
        If the weights are missing or do not fit, or OpenVINO is not there.
    """
    model = MODELS[settings.name]
    module, function = model.loader.split(":")
    with quick():
        load: Callable[..., Segmenter] = getattr(import_module(module), function)
    if inference == "torch":
        return load(settings, device, precision)
    if device != "cpu" or not model.openvino:
        raise CellsegError(
            f'inference = "{inference}" is for {" or ".join(_by_openvino())} on the CPU, not for'
            f' {settings.name} on {device}. Set inference = "torch" or "auto".'
        )
    return load(settings, device, precision, inference)


def _by_openvino() -> list[str]:
    return [name for name, model in MODELS.items() if model.openvino]
