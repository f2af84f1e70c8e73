"""Hourglass backbones: shapes, stacks, and that a place looks the same in every window."""

from __future__ import annotations

import pytest
import torch

from cellseg.models.hourglass import SHAPES, Hourglass


def test_small_one_gives_strides_two_and_four() -> None:
    fine, features = Hourglass("hourglass_small", 2).eval()(torch.randn(2, 2, 64, 96))
    assert fine.shape == (2, 32, 32, 48)
    assert [one.shape for one in features] == [(2, 64, 16, 24)]


def test_published_one_has_two_stacks_and_its_size() -> None:
    with torch.device("meta"):
        network = Hourglass("hourglass_104", 3)
        fine, features = network(torch.randn(1, 3, 256, 128))
    assert fine.shape == (1, 128, 128, 64)
    # In training both hourglasses learn; later only the last one is asked.
    assert [one.shape for one in features] == [(1, 256, 64, 32)] * 2
    assert len(network.eval()(torch.randn(1, 3, 128, 128, device="meta"))[1]) == 1
    parameters = sum(value.numel() for value in network.parameters())
    assert 180e6 < parameters < 195e6


@pytest.mark.parametrize("name", SHAPES)
def test_stride_is_that_of_the_deepest_level(name: str) -> None:
    with torch.device("meta"):
        network = Hourglass(name, 1)
        with pytest.raises(RuntimeError):
            network(torch.randn(1, 1, network.stride + 4, network.stride))


def test_a_window_moved_by_the_stride_shows_the_same_features() -> None:
    torch.manual_seed(0)
    network = Hourglass("hourglass_small", 1).eval()
    image = torch.randn(1, 1, 640, 64)
    with torch.inference_mode():
        whole = network(image)[1][-1]
        part = network(image[:, :, network.stride :])[1][-1]
    shift = network.stride // 4
    middle = slice(60, 90)
    torch.testing.assert_close(
        whole[:, :, shift:][:, :, middle], part[:, :, middle], atol=1e-4, rtol=1e-4
    )
