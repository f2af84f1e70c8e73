"""Networks in use: normalisations folded away, masks in coarser arithmetic, the same cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cellseg.models.detector import Detector
from cellseg.models.folding import Quarters, simplified
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.regions import mask_layers
from cellseg.models.settings import NetworkSettings


def network() -> MaskRCNN:
    """Return a small one whose normalisations have met some images."""
    torch.manual_seed(0)
    settings = NetworkSettings(
        stages=2, width=16, pyramid_channels=16, box_features=16, mask_channels=8
    )
    made = MaskRCNN(settings)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.get_buffer("running_mean"), std=0.2)
            nn.init.uniform_(layer.get_buffer("running_var"), 0.5, 2)
    return made.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def test_a_network_simplified_computes_the_same_and_leaves_the_other_as_it_was() -> None:
    made = network()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    folded = simplified(made)
    assert norms(made) > 5
    assert norms(folded) == 0
    image = torch.rand(1, 1, 96, 64)
    with torch.inference_mode():
        one, other = made.dense(image), folded.dense(image)  # type: ignore[operator]
    for name, level in one.levels.items():
        assert torch.allclose(level, other.levels[name], atol=1e-4), name
    for here, there in zip(one.objectness, other.objectness, strict=True):
        assert torch.allclose(here, there, atol=1e-4)
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize("outputs", [1, 3])
def test_quarters_are_the_transposed_convolution_that_they_stand_for(outputs: int) -> None:
    torch.manual_seed(0)
    layers = mask_layers(6, 8, 1, outputs)
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d):
            nn.init.normal_(layer.get_parameter("bias"))
    inner = simplified(nn.Sequential(layers)).get_submodule("0")
    assert [type(layer) for layer in inner.children()] == [nn.Conv2d, nn.ReLU, Quarters]
    regions = torch.rand(5, 6, 7, 7)
    with torch.inference_mode():
        assert torch.allclose(inner(regions), layers(regions), atol=1e-5)


@pytest.mark.parametrize(
    "last",
    [nn.Conv2d(4, 2, 3), nn.Conv2d(4, 2, 1, stride=2), nn.Conv2d(4, 2, 1, padding=1), nn.ReLU()],
)
def test_what_only_looks_like_the_end_of_a_mask_head_stays(last: nn.Module) -> None:
    layers = nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.ReLU(), last)
    assert [type(layer) for layer in simplified(layers).children()] == [
        nn.ConvTranspose2d,
        nn.ReLU,
        type(last),
    ]


@pytest.mark.parametrize("side", [64, 160])
def test_coarser_masks_are_of_the_same_cells(side: int) -> None:
    made, planes = network(), [np.random.default_rng(1).random((1, side, side), np.float32)]
    given = {"score": 0.0, "min_area_px": 1}
    exact, mixed = (
        Detector(made, made.backbone.stride, precision=precision, **given)  # type: ignore[arg-type]
        for precision in ("float32", "mixed")
    )
    one, other = exact.ask(planes[0]), mixed.ask(planes[0])
    assert len(one.boxes) > 20
    assert np.array_equal(one.boxes, other.boxes)
    assert np.array_equal(one.scores, other.scores)
    apart = [np.abs(a - b).max() for a, b in zip(one.masks, other.masks, strict=True)]
    assert 0 < max(apart) < 0.1
