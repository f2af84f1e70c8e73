"""Which boxes stay, and which anchors are proposed: as torchvision has it, in less time."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import nms

from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.network_settings import NetworkSettings
from cellseg.models.nms import suppressed
from cellseg.models.region_proposals import LEAST_OBJECTNESS, PROPOSALS_OVERLAP

SIZE = (160, 224)


def by_torchvision(boxes: Tensor, scores: Tensor, groups: Tensor, most: float) -> Tensor:
    kept = [
        here[nms(boxes[here], scores[here], most)]
        for here in (torch.nonzero(groups == group)[:, 0] for group in range(3))
    ]
    every = torch.cat([*kept, torch.zeros(0, dtype=torch.int64)])
    return every[scores[every].argsort(descending=True, stable=True)]


@given(
    seed=st.integers(0, 2**16),
    count=st.integers(0, 400),
    side=st.sampled_from([20.0, 60.0, 400.0]),
    most=st.sampled_from([0.25, 0.5, 0.6, 0.7, 0.95]),
)
def test_the_boxes_that_stay_are_torchvisions(
    seed: int, count: int, side: float, most: float
) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(-5, side, (count, 2))
    sides = np.exp(random.uniform(0, 4, (count, 2)))
    boxes = torch.from_numpy(np.hstack([corners, corners + sides]).astype(np.float32))
    # No two alike, or which of them stays is left to torchvision's sort.
    scores = torch.from_numpy(random.permutation(count).astype(np.float32))
    groups = torch.from_numpy(random.integers(0, 3, count))
    expected = by_torchvision(boxes, scores, groups, most)
    assert suppressed(boxes, scores, groups, most).tolist() == expected.tolist()


def test_of_equal_boxes_the_first_stays() -> None:
    boxes = torch.tensor([[1.0, 1, 5, 5]] * 3)
    same = torch.zeros(3)
    assert suppressed(boxes, same, same.long(), 0.5).tolist() == [0]
    assert suppressed(boxes, same, torch.tensor([0, 1, 0]), 0.5).tolist() == [0, 1]


def test_boxes_without_area_suppress_nothing() -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 2, 2]])
    assert sorted(suppressed(boxes, torch.arange(3.0), torch.zeros(3).long(), 0.5).tolist()) == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("form", ["fpn", "c4"])
def test_proposals_are_torchvisions(form: Literal["fpn", "c4"]) -> None:
    """The same boxes as of all anchors moved, sorted and compared."""
    torch.manual_seed(3)
    network = MaskRCNN(NetworkSettings(form=form, width=8, pyramid_channels=8)).eval()
    torch.nn.init.normal_(network.rpn.head.bbox_pred.weight, std=0.3)
    torch.nn.init.normal_(network.rpn.head.cls_logits.weight, std=2)
    images = torch.rand(1, 1, *SIZE)
    rpn = network.rpn
    rpn.score_thresh, rpn.nms_thresh = LEAST_OBJECTNESS, PROPOSALS_OVERLAP["evaluation"]
    rpn._pre_nms_top_n["testing"] = rpn._post_nms_top_n["testing"] = 1000
    with torch.inference_mode():
        levels = network.backbone(images)
        proposing = {name: levels[name] for name in network.backbone.proposing}
        (expected,), _ = RegionProposalNetwork.forward(rpn, ImageList(images, [SIZE]), proposing)
        found = rpn.propose(*network.dense(images).of(0), SIZE)
    assert len(expected) > 50
    assert found.shape == expected.shape
    # As probabilities many are equal, and in any order.
    ours, theirs = (each[np.lexsort(each.round().numpy().T)] for each in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-3)
