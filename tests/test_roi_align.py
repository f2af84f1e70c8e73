"""The fast RoIAlign gives torchvision's numbers, and gradients where they are asked for."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from cellseg.models.roi_align import AT_ONCE, RoIAlign

SHAPE = (128, 192)
LEVELS = {"fine": 2, "0": 4, "1": 8}


def features(strides: dict[str, int]) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(1, 5, SHAPE[0] // s, SHAPE[1] // s, generator=made).to(
            memory_format=torch.channels_last
        )
        for name, s in strides.items()
    }


def regions(count: int) -> torch.Tensor:
    """Boxes of all sizes, some beyond the image, some of hardly a pixel."""
    made = torch.Generator().manual_seed(1)
    centre = torch.rand(count, 2, generator=made) * torch.tensor([SHAPE[1], SHAPE[0]])
    half = 0.2 + 60 * torch.rand(count, 2, generator=made) ** 3
    return torch.cat([centre - half, centre + half], 1)


@pytest.mark.parametrize(("size", "samples"), [(7, 2), (14, 1)])
@pytest.mark.parametrize("names", [["fine", "0", "1"], ["0"]])
@pytest.mark.parametrize("count", [0, 1, AT_ONCE + 3])
def test_numbers_are_those_of_torchvision(
    size: int, samples: int, names: list[str], count: int
) -> None:
    levels, boxes = features(LEVELS), [regions(count)]
    scale = {"sampling_ratio": samples, "canonical_scale": 32, "canonical_level": 2}
    with torch.inference_mode():
        got = RoIAlign(names, size, **scale)(levels, boxes, [SHAPE])
        expected = MultiScaleRoIAlign(names, size, **scale)(levels, boxes, [SHAPE])
    assert got.shape == (count, 5, size, size)
    assert torch.allclose(got, expected, atol=1e-4)


def test_what_is_learned_from_goes_through_torchvision() -> None:
    levels = {name: level.requires_grad_() for name, level in features(LEVELS).items()}
    align = RoIAlign(list(LEVELS), 7, 2, canonical_scale=32, canonical_level=2)
    align(levels, [regions(20)], [SHAPE]).sum().backward()
    assert all(level.grad is not None and level.grad.any() for level in levels.values())
