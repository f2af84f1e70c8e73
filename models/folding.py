"""Layers of networks in use in other words: the same results in fewer or cheaper steps."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, relu


def folded(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with the normalisation after it, in float64.

    Parameters
    ----------
    layer : nn.Conv2d
    norm : nn.BatchNorm2d or None
        In evaluation: by what it has learned of the mean and variance.
    """
    weight, bias = layer.weight.detach().double(), _bias(layer)
    if norm is None:
        return weight, bias.double()
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = (bias.double() - norm.running_mean.double()) * scale + norm.bias.detach().double()
    return weight * scale[:, None, None, None], bias


class Quarters(nn.Module):
    """A transposed 2 x 2 convolution of stride 2, a ReLU and a 1 x 1 convolution, in that order.

    Each position becomes four, which stay channels of the one until the end: both are then
    1 x 1 convolutions, in which torch is three times as fast on a CPU as in the transposed one.

    Parameters
    ----------
    doubling : nn.ConvTranspose2d
    last : nn.Conv2d
    """

    def __init__(self, doubling: nn.ConvTranspose2d, last: nn.Conv2d) -> None:
        super().__init__()
        inputs, width = doubling.weight.shape[:2]
        outputs = len(last.weight)
        self.first = nn.Conv2d(inputs, 4 * width, 1)
        self.last = nn.Conv2d(4 * width, 4 * outputs, 1)
        first = doubling.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)
        # As `pixel_shuffle` takes them: the four positions of an output side by side.
        each = torch.block_diag(  # type: ignore[no-untyped-call]
            *[last.weight.detach()[:, :, 0, 0]] * 4
        )
        second = each.view(4, outputs, 4 * width).transpose(0, 1).flatten(0, 1)
        _set(self.first, first, _bias(doubling).repeat(4))
        _set(self.last, second, _bias(last).repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, 2 H, 2 W) of (N, C, H, W)."""
        return pixel_shuffle(self.last(relu(self.first(x), inplace=True)), 2)


def _set(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give a 1 x 1 convolution its weight (D, C) and bias."""
    layer.weight = nn.Parameter(weight[:, :, None, None].contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)


def _bias(layer: nn.ConvTranspose2d | nn.Conv2d) -> Tensor:
    """Return the bias of a layer, zeros where it has none."""
    channels = layer.out_channels
    return torch.zeros(channels) if layer.bias is None else layer.bias.detach()


def simplified(network: nn.Module) -> nn.Module:
    """Return a copy of a network for use that computes the same, to rounding, in fewer steps.

    Each normalisation is folded into the convolution that stands before it in the same module, as
    in all networks of `cellseg.models.networks`: a pass over all features less. Mask heads
    end in `Quarters`.
    """
    copied = deepcopy(network)
    for parent in list(copied.modules()):
        for (_, layer), (after, norm) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                weight, bias = folded(layer, norm)
                layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
                layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)
                setattr(parent, after, nn.Identity())
        if isinstance(parent, nn.Sequential):
            _end_in_quarters(parent)
    return copied


def _like(layer: nn.Module, other: nn.Module) -> bool:
    """Return whether two layers differ in their channels and weights alone."""
    keys = ("kernel_size", "stride", "padding", "output_padding", "dilation", "groups")
    return all(getattr(layer, key) == getattr(other, key) for key in keys)


def _end_in_quarters(layers: nn.Sequential) -> None:
    """Put `Quarters` in place of the three layers that it stands for, where `layers` end so."""
    if len(layers) < 3:
        return
    doubling, between, last = list(layers)[-3:]
    if (
        isinstance(doubling, nn.ConvTranspose2d)
        and isinstance(between, nn.ReLU)
        and isinstance(last, nn.Conv2d)
        and _like(doubling, nn.ConvTranspose2d(1, 1, 2, stride=2))
        and _like(last, nn.Conv2d(1, 1, 1))
    ):
        del layers[-2:]
        layers[-1] = Quarters(doubling, last)
