"""What networks look like, each key once: the `[network]` table of a training, kept in weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cellseg.models.frozen import Frozen


class NetworkSettings(Frozen):
    """`[network]` of a training: the shape of a Mask R-CNN, kept in its weights file."""

    architecture: Literal["mask_rcnn"] = "mask_rcnn"
    form: Literal["fpn", "c4"] = Field(
        default="fpn",
        description='"fpn": a feature pyramid; "c4": one level at stride 16, as in the first'
        " Mask R-CNN, slower and coarser.",
    )
    backbone: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101"] = Field(
        default="resnet18",
        description="Residual network (He et al. 2016) under the pyramid; resnet10 has one block a"
        " stage, the fastest.",
    )
    width: int = Field(
        default=64,
        ge=8,
        multiple_of=8,
        description="Channels of the stem and the first residual stage; each further stage has"
        " twice as many. 64 as published; what is narrower is faster.",
    )
    stages: int = Field(
        default=3,
        ge=2,
        le=4,
        description="Residual stages under a pyramid: 3 ends at stride 16, enough for cells up to"
        " 200 px across, and leaves out the stage with three quarters of the parameters.",
    )
    finest_stride: Literal[2, 4] = Field(
        default=2,
        description="Stride of the finest level that regions are cut from, in px; 2 for cells"
        " from 5 px on, 4 as in the published pyramid.",
    )
    in_channels: int = Field(default=1, ge=1, le=16, description="Channels the network sees.")
    classes: int = Field(default=1, ge=1, le=255, description="Kinds of object.")
    roi: Literal["align", "pool"] = Field(
        default="align", description="RoIAlign, or the coarser RoIPool, to cut out regions."
    )
    masks: bool = Field(
        default=True, description="false: boxes only, a Faster R-CNN; its masks fill their boxes."
    )
    mask_classes: Literal["per_class", "agnostic"] = Field(
        default="per_class", description="One mask a class, or one for all classes."
    )
    mask_loss: Literal["sigmoid", "softmax"] = Field(
        default="sigmoid",
        description="Masks of classes that do not compete, or that share each pixel.",
    )
    pyramid_channels: int = Field(default=96, ge=8, description="Width of the feature pyramid.")
    box_features: int = Field(default=256, ge=8, description="Width of the box head.")
    box_samples: int = Field(
        default=7, ge=2, le=14, description="Positions across a region that the box head sees."
    )
    box_looks: int = Field(
        default=2,
        ge=1,
        le=4,
        description="Points across each of these positions that are averaged; 1 for cells of few"
        " pixels, for which more of them read the same pixels again.",
    )
    mask_channels: int = Field(default=64, ge=8, description="Width of the mask head.")
    mask_convolutions: int = Field(
        default=4, ge=1, le=8, description="Layers of the mask head on a pyramid; 4 as published."
    )
    anchors_px: tuple[float, ...] = Field(
        default=(6.0, 13.0, 28.0, 64.0),
        min_length=1,
        description="Smallest anchor of each pyramid level from stride 4 on, in px; a second"
        " one, the square root of 2 larger, stands beside each.",
    )


class MaskBranches(Frozen):
    """The two mask branches of CenterMask, which any detector can carry.

    Wang et al., "CenterMask: single shot instance segmentation with point
    representation", CVPR 2020: the local shape tells instances apart, the global
    saliency tells, pixel by pixel, what belongs to any.
    """

    in_channels: int = Field(default=1, ge=1, le=16, description="Channels the network sees.")
    classes: int = Field(default=1, ge=1, le=255, description="Kinds of object.")
    local_shape: bool = Field(
        default=True, description="The local shape; without it masks are saliency in a box."
    )
    shape_px: int = Field(
        default=32, ge=2, le=128, description="Side S of a local shape, whatever the cell's size."
    )
    saliency: bool = Field(
        default=True, description="The global saliency; without it masks are local shapes alone."
    )
    saliency_classes: Literal["agnostic", "per_class"] = Field(
        default="agnostic", description="One saliency map for all classes, or one a class."
    )
    direct_saliency_loss: bool = Field(
        default=False,
        description="Teach the saliency map all cells' pixels too, beside their masks; published"
        " for the map of each class.",
    )
    saliency_stride: Literal[2, 4] = Field(
        default=2,
        description="Px between the positions of the saliency map: 2 for cells from 5 px on, 4 as"
        " published.",
    )
    room: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="How far masks may go beyond the box on each side, in sizes of the box, and"
        " 1 px more, or a box a little too small would cut the cell straight. 0 as published.",
    )
    head_channels: int = Field(default=64, ge=8, description="Width of the heads; 256 published.")

    @model_validator(mode="after")
    def _some_branch(self) -> MaskBranches:
        if not (self.local_shape or self.saliency):
            raise ValueError("local_shape and saliency are both false: no masks would be left.")
        return self


class CenterMaskNetwork(MaskBranches):
    """`[network] architecture = "center_mask"`: CenterMask (Wang et al., CVPR 2020)."""

    architecture: Literal["center_mask"] = "center_mask"
    stride: Literal[2, 4] = Field(
        default=2,
        description="Px between the positions of centres: a peak is at most every other one. 2 for"
        " cells that share most of their area, 4 as published.",
    )
    backbone: Literal["hourglass_small", "hourglass_104", "dla_34"] = Field(
        default="hourglass_small",
        description='"hourglass_small" for CPUs and cells up to 200 px; the two published ones are'
        ' "hourglass_104" and "dla_34".',
    )


class CenterMaskFCOSNetwork(MaskBranches):
    """`[network] architecture = "center_mask_fcos"`: CenterMask's mask branches on FCOS."""

    architecture: Literal["center_mask_fcos"] = "center_mask_fcos"
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = Field(
        default="resnet18", description="Residual network (He et al. 2016) under the pyramid."
    )
    stages: int = Field(
        default=3, ge=2, le=4, description="Residual stages under the pyramid; 3 end at stride 16."
    )
    pyramid_channels: int = Field(
        default=96, ge=8, multiple_of=8, description="Width of the feature pyramid."
    )
    convolutions: int = Field(
        default=2, ge=1, le=8, description="Layers of each of FCOS's two towers; 4 published."
    )

    @property
    def finest_stride(self) -> int:
        """Stride of the pyramid's finest level: the saliency's."""
        return self.saliency_stride


def _architecture(value: Any) -> str:
    """Return which network a table describes; those of before there was a choice do not say."""
    if isinstance(value, Mapping):
        return str(value.get("architecture", "mask_rcnn"))
    return str(getattr(value, "architecture", "mask_rcnn"))


Network = Annotated[
    Annotated[NetworkSettings, Tag("mask_rcnn")]
    | Annotated[CenterMaskNetwork, Tag("center_mask")]
    | Annotated[CenterMaskFCOSNetwork, Tag("center_mask_fcos")],
    Discriminator(_architecture),
]
"""Any of the networks, told apart by their `architecture`."""
NETWORKS: dict[str, type[Frozen]] = {
    "mask_rcnn": NetworkSettings,
    "center_mask": CenterMaskNetwork,
    "center_mask_fcos": CenterMaskFCOSNetwork,
}
