"""CenterMask on FCOS: it learns cells that overlap, and no window's contents change another's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellseg.models.center_mask_fcos import CenterMaskFCOS
from cellseg.models.dataset import target
from cellseg.models.detector import Detector
from cellseg.models.network_settings import CenterMaskFCOSNetwork
from learning import overfit

SMALL = CenterMaskFCOSNetwork(
    stages=2, pyramid_channels=32, convolutions=1, head_channels=16, shape_px=16
)


def rectangles(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Return layers (N, 64, 64), one a cell."""
    layers = np.zeros((len(boxes), 64, 64), np.int32)
    for k, (y0, x0, y1, x1) in enumerate(boxes):
        layers[k, y0:y1, x0:x1] = k + 1
    return layers


def test_it_learns_two_cells_that_overlap() -> None:
    torch.manual_seed(0)
    layers = rectangles((10, 8, 36, 30), (22, 20, 50, 46))
    image = (0.4 * (layers > 0).sum(0)).astype(np.float32)
    network = CenterMaskFCOS(SMALL).train()
    overfit(network, image, target(layers), steps=80, rate=3e-3)
    detector = Detector(
        network, network.backbone.stride, overlap="keep", score=0.5, mask_threshold=0.4
    )
    (found,) = detector.segment([image[None]])
    assert len(found) == 2
    overlaps = []
    for true in layers > 0:
        for (y0, x0, y1, x1), mask in zip(found.boxes.tolist(), found.masks, strict=True):
            whole = np.zeros(true.shape, bool)
            whole[y0:y1, x0:x1] = mask
            overlaps.append((whole & true).sum() / (whole | true).sum())
    assert sum(overlap > 0.8 for overlap in overlaps) == 2


def test_without_cells_the_losses_are_finite() -> None:
    torch.manual_seed(0)
    network = CenterMaskFCOS(SMALL).train()
    losses = network(torch.randn(1, 1, 64, 64), [target(np.zeros((1, 64, 64), np.int32))])
    assert all(torch.isfinite(value) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]


def test_what_is_far_away_changes_nothing() -> None:
    torch.manual_seed(0)
    network = CenterMaskFCOS(SMALL).eval()
    image = torch.rand(1, 1, 64, 512)
    other = image.clone()
    other[..., 384:] = 5.0
    with torch.inference_mode():
        levels = [list(network.backbone(one).values())[1:] for one in (image, other)]
        one, two = (network.towers(level[:1])["cls_logits"] for level in levels)
    near = 40  # Columns of stride 4, far from what differs.
    shape = (1, 16, 128, 1)
    torch.testing.assert_close(one.reshape(shape)[:, :, :near], two.reshape(shape)[:, :, :near])
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("branch", ["local_shape", "saliency"])
def test_one_branch_is_enough(branch: str) -> None:
    settings = CenterMaskFCOSNetwork.model_validate(SMALL.model_dump() | {branch: False})
    network = CenterMaskFCOS(settings).train()
    losses = network(torch.rand(1, 1, 64, 64), [target(rectangles((10, 10, 40, 40)))])
    assert losses["loss_mask"] > 0
    network.set_least_score(0.001)
    found = network.eval()(torch.rand(1, 1, 64, 64))[0]
    assert len(found["masks"]) == len(found["boxes"]) > 0
