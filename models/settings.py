"""What a user may set of each model and of a training, each key once: unit, default, reason.

Nothing here imports torch, so that a workflow is checked before anything heavy is loaded.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cellseg.models.channel_settings import Input
from cellseg.models.compose_settings import ComposeSettings
from cellseg.models.frozen import Frozen
from cellseg.models.network_settings import (
    CenterMaskFCOSNetwork,
    CenterMaskNetwork,
    Network,
    NetworkSettings,
)

__all__ = [
    "CenterMaskFCOSNetwork",
    "CenterMaskFCOSSettings",
    "CenterMaskNetwork",
    "CenterMaskSettings",
    "ComposeSettings",
    "DetectorSettings",
    "Frozen",
    "MaskRCNNSettings",
    "ModelSettings",
    "NetworkSettings",
    "Percentile",
    "Range",
    "ThresholdSettings",
    "TrainSettings",
    "Unchanged",
]


class ModelSettings(Frozen):
    """`[model]`: what every model shares."""

    name: str = Field(description="Name of the model, one of `cellseg models`.")
    channels: tuple[Input, ...] = Field(
        default=(0,),
        min_length=1,
        description="What the model sees, in its order: each a channel of the image by index or by"
        ' name, or a plane made of channels, as { max = [0, 1] } or { stain = "hematoxylin" }.',
    )


class ThresholdSettings(ModelSettings):
    """`[model] name = "threshold"`: smoothed Otsu and a watershed; needs no weights."""

    name: Literal["threshold"] = "threshold"
    smooth_px: float = Field(
        default=1.5, ge=0, le=50, description="Gaussian sigma before thresholding, in px."
    )
    threshold: Literal["otsu"] | float = Field(
        default="otsu",
        description='"otsu" (decided once per image) or a value on the normalised scale.',
    )
    separation_px: float = Field(
        default=6.0,
        ge=1,
        le=1000,
        description="Least distance between the centres of two touching cells, in px;"
        " about the radius of a small cell.",
    )
    min_area_px: int = Field(
        default=20, ge=1, description="Smaller objects are taken for debris, in px."
    )


class DetectorSettings(ModelSettings):
    """`[model]`: what the networks share, each with its own weights."""

    weights: str = Field(description="A shipped name (`cellseg models`) or a .safetensors file.")
    score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Objects below this score are left out; default: the model's own choice.",
    )
    mask_threshold: float = Field(
        default=0.5, gt=0, lt=1, description="A pixel is in the mask from this probability on."
    )
    min_area_px: int = Field(
        default=10, ge=1, description="Smaller objects are taken for debris, in px."
    )
    diameter_px: Annotated[float, Field(gt=0, le=2000)] | Literal["auto"] | None = Field(
        default=None,
        description='Typical diameter of the cells, in px, or "auto" to estimate it once a run;'
        " the images are resampled to the diameter the model was trained at. Default: as they are.",
    )
    diameter_um: float | None = Field(
        default=None,
        gt=0,
        description="The same in um, for images whose pixel size is known; in place of"
        " diameter_px.",
    )

    @model_validator(mode="after")
    def _one_diameter(self) -> Self:
        if self.diameter_px is not None and self.diameter_um is not None:
            raise ValueError(
                f"diameter_px = {self.diameter_px} and diameter_um = {self.diameter_um} are both"
                " set. Leave one out."
            )
        return self


class MaskRCNNSettings(DetectorSettings):
    """`[model] name = "mask_rcnn"`: Mask R-CNN built for cells."""

    name: Literal["mask_rcnn"] = "mask_rcnn"
    weights: str = Field(
        default="nuclei", description="A shipped name (`cellseg models`) or a .safetensors file."
    )


class CenterMaskSettings(DetectorSettings):
    """`[model] name = "center_mask"`: CenterMask, for cells that overlap."""

    name: Literal["center_mask"] = "center_mask"
    weights: str = Field(
        default="nuclei_overlap",
        description="A shipped name (`cellseg models`) or a .safetensors file.",
    )
    mask_threshold: float = Field(
        default=0.4,
        gt=0,
        lt=1,
        description="A pixel is in the mask from this probability on; 0.4 as published, since it is"
        " the product of two.",
    )


class CenterMaskFCOSSettings(CenterMaskSettings):
    """`[model] name = "center_mask_fcos"`: CenterMask's masks on an FCOS detector."""

    name: Literal["center_mask_fcos"] = "center_mask_fcos"  # type: ignore[assignment]
    weights: str = Field(description="A .safetensors file; none is shipped.")


class Percentile(Frozen):
    """`[normalise] method = "percentile"`: `low` becomes 0 and `high` becomes 1."""

    method: Literal["percentile"] = "percentile"
    low: float = Field(default=1.0, ge=0, lt=100, description="Percentile that becomes 0.")
    high: float = Field(default=99.8, gt=0, le=100, description="Percentile that becomes 1.")


class Range(Frozen):
    """`[normalise] method = "range"`: the given grey levels become 0 and 1."""

    method: Literal["range"] = "range"
    low: float = Field(description="Grey level that becomes 0.")
    high: float = Field(description="Grey level that becomes 1.")


class Unchanged(Frozen):
    """`[normalise] method = "none"`: the values as they are, as float32."""

    method: Literal["none"] = "none"


class TrainSettings(Frozen):
    """A training: `cellseg train FILE`."""

    images: tuple[str, ...] = Field(
        min_length=1, description="Folders of images; each has its label image under the same name."
    )
    labels: tuple[str, ...] = Field(
        min_length=1, description="Folders of label images, one for each folder of images."
    )
    class_images: tuple[str, ...] = Field(
        default=(),
        description="Folders of class images, one for each folder of images: over each cell the"
        " number of its class, from 1. Default: all cells are of one class.",
    )
    class_names: tuple[str, ...] = Field(
        default=(), description="Names of the classes, from 1 on; kept in the weights."
    )
    validation: str | float = Field(
        default=0.1,
        description="A text file with one image name a line, or the fraction held out at random."
        " Never trained on.",
    )
    output: str = Field(
        default="training/model",
        description="Folder for checkpoint, log and weights; relative to where the command runs.",
    )
    name: str = Field(default="model", description="Name kept in the weights.")
    data_licence: str = Field(default="unstated", description="Licence of the training data.")
    data_source: str = Field(default="unstated", description="Where the training data come from.")
    start: str | None = Field(
        default=None,
        description="Weights to start from, a shipped name or a .safetensors file of a network of"
        " the same shape. Default: random ones.",
    )
    teacher: str | None = Field(
        default=None,
        description="Weights of a larger Mask R-CNN, a shipped name or a .safetensors file, whose"
        " answers the network is to give too, beside the labels. Default: labels alone.",
    )
    teaching: float = Field(
        default=1.0, ge=0, description="Weight of the teacher's losses against the labels'."
    )
    network: Network = NetworkSettings()
    normalise: Annotated[Percentile | Range | Unchanged, Field(discriminator="method")] = (
        Percentile()
    )
    steps: int = Field(default=4000, ge=1, description="Optimiser steps.")
    batch: int = Field(default=4, ge=1, description="Crops a step.")
    crop_px: int = Field(default=256, ge=64, multiple_of=32, description="Side of a crop, in px.")
    rate: float = Field(default=8e-4, gt=0, description="Highest rate of the one-cycle schedule.")
    weight_decay: float = Field(default=0.02, ge=0, description="AdamW's weight decay.")
    average: float = Field(
        default=0.998, ge=0, lt=1, description="Decay a step of the moving average of the weights."
    )
    zoom: tuple[float, float] = Field(
        default=(0.4, 2.2),
        description="Range of the random magnification around 1; strong ones are rarer.",
    )
    empty: float = Field(
        default=0.06,
        ge=0,
        lt=1,
        description="Share of crops that are made-up fields of noise, dust and shading without"
        " cells, which teach to find nothing where there is nothing.",
    )
    composed: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of crops that are composed of the images' own cells, which then overlap;"
        " for models that keep overlap.",
    )
    compose: ComposeSettings = ComposeSettings()
    seed: int = Field(default=0, ge=0, description="Everything random follows from it.")
    validate_every: int = Field(default=500, ge=1, description="Steps between validations.")
    checkpoint_every: int = Field(default=100, ge=1, description="Steps between checkpoints.")
