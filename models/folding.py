"""Batch normalisation as part of the convolution before it, for networks in use."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def folded(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with the normalisation after it, in float64.

    Parameters
    ----------
    layer : nn.Conv2d
    norm : nn.BatchNorm2d or None
        In evaluation: by what it has learned of the mean and variance.
    """
    weight = layer.weight.detach().double()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    if norm is None:
        return weight, bias.double()
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = (bias.double() - norm.running_mean.double()) * scale + norm.bias.detach().double()
    return weight * scale[:, None, None, None], bias


def without_norms(network: nn.Module) -> nn.Module:
    """Return a copy of a network that computes the same, to rounding, without normalisations.

    Each is folded into the convolution that stands before it in the same module, as in
    all networks of `cellseg.models.networks`; a pass over all features less.
    """
    copied = deepcopy(network)
    for parent in copied.modules():
        children = list(parent.named_children())
        for (_, layer), (after, norm) in pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                weight, bias = folded(layer, norm)
                layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
                layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=False)
                setattr(parent, after, nn.Identity())
    return copied
