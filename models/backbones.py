"""Backbones: from an image to a pyramid of features, finest first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import resnet18, resnet34
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from cellseg.models.settings import NetworkSettings

RESNETS: dict[str, Callable[..., nn.Module]] = {"resnet18": resnet18, "resnet34": resnet34}
STAGE_CHANNELS = (64, 128, 256, 512)


class ResNetFPN(nn.Module):
    """A residual network (He et al., CVPR 2016) under a feature pyramid (Lin et al., CVPR 2017).

    Maps float (B, C, H, W), H and W multiples of `stride`, to an ordered dict
    of levels: strides 4, 8, ... for each stage used, then one coarser level
    by subsampling, each of `settings.pyramid_channels` channels.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        resnet = RESNETS[settings.backbone](weights=None)
        self.stem = nn.Sequential(
            nn.Conv2d(settings.in_channels, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList(
            getattr(resnet, f"layer{stage + 1}") for stage in range(settings.stages)
        )
        self.pyramid = FeaturePyramidNetwork(
            list(STAGE_CHANNELS[: settings.stages]),
            settings.pyramid_channels,
            LastLevelMaxPool(),
        )
        self.out_channels = settings.pyramid_channels
        self.stride = 4 * 2**settings.stages
        first = self.stem[0]
        assert isinstance(first, nn.Conv2d)  # noqa: S101 - for the type checker
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the pyramid levels of `image`, keys "0", "1", ... and "pool"."""
        features: OrderedDict[str, Tensor] = OrderedDict()
        x = self.stem(image)
        for level, stage in enumerate(self.stages):
            x = stage(x)
            features[str(level)] = x
        levels: dict[str, Tensor] = self.pyramid(features)
        return levels
