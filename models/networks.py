"""Networks by architecture: the settings of one say which."""

from __future__ import annotations

from torch import nn

from cellseg.models.center_mask import CenterMask
from cellseg.models.center_mask_fcos import CenterMaskFCOS
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.network_settings import Network

NETWORKS: dict[str, type[nn.Module]] = {
    "mask_rcnn": MaskRCNN,
    "center_mask": CenterMask,
    "center_mask_fcos": CenterMaskFCOS,
}
"""All under the contract of torchvision's detectors: see `cellseg.models.mask_rcnn.MaskRCNN`."""


def build(settings: Network) -> nn.Module:
    """Return the network that `settings` describe, with random weights."""
    return NETWORKS[settings.architecture](settings)


def stride_of(network: nn.Module) -> int:
    """Return the px that a network's images must be multiples of."""
    stride: int = network.get_submodule("backbone").stride  # type: ignore[assignment]
    return stride
