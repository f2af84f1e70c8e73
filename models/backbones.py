"""Backbones: from an image to levels of features, finest first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torchvision.models import ResNet, resnet18, resnet34, resnet50, resnet101
from torchvision.models.resnet import BasicBlock
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from cellseg.models.network_settings import CenterMaskFCOSNetwork, NetworkSettings

RESNETS: dict[str, Callable[..., nn.Module]] = {
    "resnet10": partial(ResNet, BasicBlock, [1, 1, 1, 1]),
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
}
"""By name. `resnet10` has one block a stage and is the fastest; no weights of it are published."""
STEM_CHANNELS = 64
C4_STAGES = 3


def stage_channels(backbone: str, width: int = STEM_CHANNELS) -> tuple[int, ...]:
    """Return the channels after each of the four stages of a residual network."""
    expansion = 1 if backbone in ("resnet10", "resnet18", "resnet34") else 4
    return tuple(width * 2**stage * expansion for stage in range(4))


def stem(in_channels: int, width: int = STEM_CHANNELS) -> nn.Sequential:
    """Return the first layers of a residual network, to `width` channels at stride 2."""
    convolution = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def stages(backbone: str, first: int, last: int, width: int = STEM_CHANNELS) -> nn.ModuleList:
    """Return stages `first` to `last` (exclusive, from 0) of a residual network.

    `width` channels in the first stage, where 64 are published; each next one has
    twice as many.
    """
    resnet = RESNETS[backbone]()
    chosen = nn.ModuleList(getattr(resnet, f"layer{stage + 1}") for stage in range(first, last))
    if width != STEM_CHANNELS:
        _rescale(chosen, width / STEM_CHANNELS)
    return chosen


def _rescale(layers: nn.Module, factor: float) -> None:
    """Make all layers in `layers` narrower or wider, with random weights of their own."""
    for parent in list(layers.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(round(layer.num_features * factor)))
            elif isinstance(layer, nn.Conv2d):
                setattr(parent, name, _like(layer, factor))


def _like(layer: nn.Conv2d, factor: float) -> nn.Conv2d:
    """Return a convolution as `layer`, with `factor` times its channels."""
    other = nn.Conv2d(
        round(layer.in_channels * factor),
        round(layer.out_channels * factor),
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
    nn.init.kaiming_normal_(other.weight, mode="fan_out", nonlinearity="relu")
    return other


class ResNetFPN(nn.Module):
    """A residual network (He et al., CVPR 2016) under a feature pyramid (Lin et al., CVPR 2017).

    Maps float (B, C, H, W), H and W multiples of `stride`, to an ordered dict
    of levels of `settings.pyramid_channels` channels: "0", "1", ... at strides
    4, 8, ... for each stage used, "pool" one coarser by subsampling, and, where
    `settings.finest_stride` is 2, "fine" before them.

    The fine level is no part of the published pyramid. A nucleus of 6 px is
    one and a half positions of stride 4 across: regions are cut from stride 2
    instead, from the stem's features on top of the pyramid's. Nothing is
    convolved at that size, which would cost more than the whole rest.
    """

    def __init__(self, settings: NetworkSettings | CenterMaskFCOSNetwork) -> None:
        super().__init__()
        width = settings.pyramid_channels
        narrow = settings.width if isinstance(settings, NetworkSettings) else STEM_CHANNELS
        self.stem = stem(settings.in_channels, narrow)
        self.shrink = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = stages(settings.backbone, 0, settings.stages, narrow)
        channels = stage_channels(settings.backbone, narrow)[: settings.stages]
        self.pyramid = FeaturePyramidNetwork(list(channels), width, LastLevelMaxPool())
        self.fine = nn.Conv2d(narrow, width, 1) if settings.finest_stride == 2 else None
        self.out_channels = width
        self.stride = 4 * 2**settings.stages
        self.proposing = [str(level) for level in range(settings.stages)] + ["pool"]
        self.pooled = self.proposing[:-1]
        if self.fine is not None:
            self.pooled = ["fine", *self.pooled]
            nn.init.kaiming_uniform_(self.fine.weight, a=1)
            nn.init.zeros_(self.fine.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the levels of `image` by name."""
        features: OrderedDict[str, Tensor] = OrderedDict()
        first = self.stem(image)
        x = self.shrink(first)
        for level, stage in enumerate(self.stages):
            x = stage(x)
            features[str(level)] = x
        levels: dict[str, Tensor] = self.pyramid(features)
        if self.fine is None:
            return levels
        return {"fine": twice(levels["0"]) + self.fine(first), **levels}


def twice(level: Tensor) -> Tensor:
    """Return a level (B, C, h, w) at half its stride, position k at position 2 k.

    A strided convolution with odd kernel and padding reads around pixel
    k x stride, so position k of one level lies at 2 k of the next finer one;
    the usual resizing would put it at 2 k + 0.5.
    """
    height, width = level.shape[-2:]
    size = (2 * height - 1, 2 * width - 1)
    resized = interpolate(level, size=size, mode="bilinear", align_corners=True)
    return pad(resized, (0, 1, 0, 1), mode="replicate")


class ResNetC4(nn.Module):
    """A residual network to its fourth stage, conv4, without a pyramid.

    He et al., "Mask R-CNN", ICCV 2017, section 3 and figure 4, left: one level
    "0" at stride 16; the fifth stage is the head's (`Stage5`).
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.stem = stem(settings.in_channels, settings.width)
        self.shrink = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = stages(settings.backbone, 0, C4_STAGES, settings.width)
        self.out_channels = stage_channels(settings.backbone, settings.width)[C4_STAGES - 1]
        self.stride = 16
        self.proposing = self.pooled = ["0"]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the level at stride 16."""
        x = self.shrink(self.stem(image))
        for stage in self.stages:
            x = stage(x)
        return {"0": x}


class Stage5(nn.Module):
    """The fifth stage of a residual network at the size of its input: (N, C, 7, 7) to (N, D, 7, 7).

    Its stride is 1, as figure 4 of the Mask R-CNN paper has it.
    """

    def __init__(self, backbone: str, width: int = STEM_CHANNELS) -> None:
        super().__init__()
        (self.layers,) = stages(backbone, C4_STAGES, C4_STAGES + 1, width)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                layer.stride = (1, 1)
        self.out_channels = stage_channels(backbone, width)[C4_STAGES]

    def forward(self, regions: Tensor) -> Tensor:
        """Return the features of each region."""
        features: Tensor = self.layers(regions)
        return features


BACKBONES: dict[str, Callable[[NetworkSettings], ResNetFPN | ResNetC4]] = {
    "fpn": ResNetFPN,
    "c4": ResNetC4,
}
