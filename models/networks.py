"""Networks by architecture: the settings of one say which."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cellseg.models.center_mask import CenterMask
from cellseg.models.center_mask_fcos import CenterMaskFCOS
from cellseg.models.errors import CellsegError
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.network_settings import Network
from cellseg.models.weights import load_tensors, read_card

NETWORKS: dict[str, type[nn.Module]] = {
    "mask_rcnn": MaskRCNN,
    "center_mask": CenterMask,
    "center_mask_fcos": CenterMaskFCOS,
}
"""All under the contract of torchvision's detectors: see `cellseg.models.mask_rcnn.MaskRCNN`."""


def build(settings: Network) -> nn.Module:
    """Return the network that `settings` describe, with random weights."""
    return NETWORKS[settings.architecture](settings)


def load_network(path: Path) -> nn.Module:
    """Return the network of a weights file, with its weights.

    Raises
    ------
    CellsegError
        If it is no such file, or its tensors do not fit what it says of itself.
    """
    network = build(read_card(path).network)
    try:
        network.load_state_dict(load_tensors(path), assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CellsegError(
            f"{path}: its tensors do not fit its own description ({reason}). Train it again."
        ) from error
    return network


def stride_of(network: nn.Module) -> int:
    """Return the px that a network's images must be multiples of."""
    stride: int = network.get_submodule("backbone").stride  # type: ignore[assignment]
    return stride
