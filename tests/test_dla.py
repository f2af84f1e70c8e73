"""DLA-34: its published size, and features of all depths at stride 4."""

from __future__ import annotations

import torch

from cellseg.models.dla import DLA34


def test_trees_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = DLA34(3)
    encoder = network.base, network.start, network.fine, network.trees
    parameters = sum(value.numel() for part in encoder for value in part.parameters())
    # Table 1 of the paper: 15.8 million, with a classifier of 512 x 1000 + 1000.
    assert round((parameters + 513_000) / 1e6, 1) == 15.7


def test_features_lie_at_strides_two_and_four() -> None:
    network = DLA34(1).eval()
    with torch.inference_mode():
        fine, features = network(torch.randn(2, 1, 64, 32))
    assert fine.shape == (2, 32, 32, 16)
    assert [one.shape for one in features] == [(2, 64, 16, 8)]


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = DLA34(1)
    _, (features,) = network(torch.randn(2, 1, 64, 64))
    features.square().mean().backward()
    silent = [name for name, value in network.named_parameters() if value.grad is None]
    # The coarsest level's own features are used only merged with finer ones.
    assert silent == []
