"""The family of Mask R-CNNs: every choice learns, finds, is kept, and does what its name says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cards import card_of
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_pool
from torchvision.ops.poolers import LevelMapper

from cellseg.models import region_proposals, regions
from cellseg.models.backbones import Stage5, stage_channels, twice
from cellseg.models.dataset import target
from cellseg.models.detector import Detector, load
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.roi_pool import CANONICAL_LEVEL, CANONICAL_PX, MultiScaleRoIPool, _level
from cellseg.models.settings import MaskRCNNSettings, NetworkSettings
from cellseg.models.weights import save_weights

SIDE = 64
FEW = 5
"""Regions an image: the C4 form's heads take a second for a hundred."""

FPN: list[dict[str, Any]] = [
    {"stages": 3},
    {"stages": 4, "finest_stride": 4, "in_channels": 3},
    {"roi": "pool"},
    {"roi": "pool", "finest_stride": 4, "classes": 3},
    {"masks": False},
    {"masks": False, "roi": "pool", "classes": 3, "in_channels": 3},
    {"backbone": "resnet34"},
    {"mask_loss": "softmax"},
    {"mask_loss": "softmax", "classes": 3, "in_channels": 3},
    {"mask_loss": "softmax", "mask_classes": "agnostic", "classes": 3},
    {"mask_classes": "agnostic"},
    {"mask_classes": "agnostic", "classes": 3},
    {"classes": 3, "finest_stride": 4},
]
C4: list[dict[str, Any]] = [
    {"form": "c4", "classes": 3, "in_channels": 3},
    {"form": "c4", "roi": "pool", "mask_loss": "softmax", "classes": 3},
    {"form": "c4", "mask_classes": "agnostic", "roi": "pool"},
    {"form": "c4", "masks": False},
]
DEEP: list[dict[str, Any]] = [{"backbone": "resnet50"}, {"backbone": "resnet50", "form": "c4"}]


def named(changes: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items())


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a network look at a few regions only."""
    monkeypatch.setattr(region_proposals, "FEWEST_ALLOWED", FEW)
    monkeypatch.setattr(region_proposals, "PIXELS_A_PROPOSAL", SIDE * SIDE)


def tiny(**changes: Any) -> MaskRCNN:
    given = {"stages": 2, "pyramid_channels": 8, "box_features": 16, "mask_channels": 8} | changes
    torch.manual_seed(0)
    network = MaskRCNN(NetworkSettings(**given))
    network.rpn._post_nms_top_n["training"] = 50
    network.roi_heads.detections_per_img = FEW
    network.roi_heads.fg_bg_sampler.batch_size_per_image = FEW
    return network


def goal(classes: int, objects: bool = True) -> dict[str, Tensor]:
    labels = np.zeros((SIDE, SIDE), np.int32)
    if objects:
        labels[4:12, 5:14], labels[20:56, 16:40], labels[40:60, 46:62] = 1, 2, 3
    return target(labels[None], np.minimum(np.arange(4), classes).astype(np.uint8))


@pytest.mark.parametrize("changes", FPN + C4, ids=named)
def test_every_choice_learns_and_finds(changes: dict[str, Any]) -> None:
    network = tiny(**changes).train()
    settings = network.roi_heads.settings
    images = torch.rand(2, settings.in_channels, SIDE, SIDE)
    for objects in (True, False):
        # The second image is empty; then both are.
        targets = [goal(settings.classes, objects), goal(settings.classes, False)]
        losses = network(images, targets)
        assert isinstance(losses, dict)
        assert ("loss_mask" in losses) == settings.masks
        network.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(total)
        for name, value in network.named_parameters():
            assert value.grad is not None, name
            assert torch.isfinite(value.grad).all(), name
            assert value.grad.any() or not objects, name
    assert all(torch.isfinite(value).all() for value in network.buffers())
    check_finds(network)


@pytest.mark.parametrize("changes", DEEP, ids=named)
def test_bottleneck_networks_find(changes: dict[str, Any]) -> None:
    check_finds(tiny(**changes))


def check_finds(network: MaskRCNN) -> None:
    """Check what a network finds, and that `Detector` makes instances of it."""
    settings = network.roi_heads.settings
    raw: list[dict[str, Tensor]] = []
    network.register_forward_hook(lambda module, given, found: raw.extend(found))
    detector = Detector(network, network.backbone.stride, score=0.0, min_area_px=1)
    plane = np.random.default_rng(0).random((settings.in_channels, 50, 61), np.float32)
    (instances,) = detector.segment([plane])
    (found,) = raw
    count = len(found["boxes"])
    assert 0 < count <= FEW
    assert found["boxes"].shape == (count, 4)
    assert found["scores"].shape == found["labels"].shape == (count,)
    assert ((found["labels"] >= 1) & (found["labels"] <= settings.classes)).all()
    side = {"fpn": 28, "c4": 14}[settings.form] if settings.masks else 1
    assert found["masks"].shape == (count, 1, side, side)
    assert ((found["masks"] >= 0) & (found["masks"] <= 1)).all()
    assert len(instances) <= count
    assert (instances.boxes >= 0).all()
    assert (instances.boxes[:, 2:] <= plane.shape[1:]).all()
    if not settings.masks:
        assert len(instances)


def test_an_image_with_nothing_in_it_has_no_masks() -> None:
    network = tiny(classes=3, mask_loss="softmax").eval()
    network.set_least_score(1.0)
    (found,) = network(torch.rand(1, 1, SIDE, SIDE))
    assert found["masks"].shape == (0, 1, 28, 28)


def test_evaluation_finds_whether_or_not_it_is_given_the_truth() -> None:
    network = tiny().eval()
    image = torch.rand(1, 1, SIDE, SIDE)
    (found,), (again,) = network(image), network(image, [goal(1)])
    assert torch.equal(found["masks"], again["masks"])


@pytest.mark.parametrize(
    "changes",
    [
        {"finest_stride": 4, "mask_classes": "agnostic", "classes": 3},
        {"masks": False, "roi": "pool"},
        {"form": "c4", "mask_loss": "softmax", "roi": "pool", "classes": 3, "in_channels": 3},
    ],
    ids=named,
)
def test_weights_load_again_by_their_card(changes: dict[str, Any], tmp_path: Path) -> None:
    network = tiny(**changes).eval()
    settings = network.roi_heads.settings
    path = tmp_path / "tiny.safetensors"
    card = card_of(settings, name="tiny", score=0.0)
    save_weights(path, network.state_dict(), card)
    chosen = MaskRCNNSettings(weights=str(path), channels=tuple(range(settings.in_channels)))
    again = load(chosen, "cpu", "float32").network
    assert isinstance(again, MaskRCNN)
    assert again.roi_heads.settings == settings
    again.roi_heads.detections_per_img = FEW
    # Matrices are kept as float16.
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim > 1:
            value.copy_(value.half())
    image = torch.rand(1, settings.in_channels, SIDE, SIDE)
    with torch.inference_mode():
        (found,), (other,) = network(image), again(image)
    assert all(torch.allclose(found[key], other[key], atol=1e-4) for key in found)


@pytest.mark.parametrize("changes", [{}, {"roi": "pool"}, {"masks": False}], ids=named)
def test_bfloat16_leaves_boxes_and_scores_in_float32(changes: dict[str, Any]) -> None:
    network = tiny(**changes).eval()
    image = torch.rand(1, 1, SIDE, 640)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        (found,) = network(image)
        proposing = network.rpn.head([torch.zeros(1, 8, 4, 4)])
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert [side[0].dtype for side in proposing] == [torch.float32] * 2
    # At 512 px and above, bfloat16 knows every fourth pixel only.
    anchors = network.rpn.anchor_generator(
        ImageList(image, [(SIDE, 640)]),
        [torch.zeros(1, 8, SIDE // stride, 640 // stride).bfloat16() for stride in (4, 8, 16)],
    )
    assert anchors[0].dtype == torch.float32
    assert (anchors[0][anchors[0] > 512] % 4 == 1).any()


def plain_roi_pool(level: NDArray[np.float32], box: list[float], stride: int) -> NDArray[Any]:
    """RoIPool of one box (x0, y0, x1, y1) from a level (C, H, W), as its paper describes it."""
    x0, y0, x1, y1 = (math.floor(side / stride + 0.5) for side in box)
    pooled = np.zeros((len(level), 7, 7), np.float32)
    for row in range(7):
        for column in range(7):
            spans = [
                slice(start + at * length // 7, start - (-(at + 1) * length // 7))
                for start, at, length in ((y0, row, y1 - y0 + 1), (x0, column, x1 - x0 + 1))
            ]
            pooled[:, row, column] = level[:, *spans].max(axis=(1, 2))
    return pooled


def features(levels: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {str(i): torch.randn(2, 3, SIDE >> i + 1, 2 * SIDE >> i + 1) for i in range(levels)}


def test_roi_pool_cuts_each_box_from_the_level_of_its_size() -> None:
    levels = features(3)
    boxes = [
        torch.tensor([[3.2, 5.9, 20.1, 17.4], [8.7, 3.1, 115.9, 58.2]]),
        torch.tensor([[40.4, 2.8, 77.6, 43.3]]),
    ]
    pooled = MultiScaleRoIPool(list(levels), 7)(levels, boxes, [(SIDE, 2 * SIDE)] * 2)
    for index, (image, box, level) in enumerate(
        [(0, boxes[0][0], 0), (0, boxes[0][1], 2), (1, boxes[1][0], 1)]
    ):
        expected = plain_roi_pool(levels[str(level)][image].numpy(), box.tolist(), 2 << level)
        assert np.array_equal(pooled[index].numpy(), expected)


def test_roi_pool_from_one_level_is_torchvisions() -> None:
    levels = features(1)
    boxes = [torch.rand(9, 4) * 30 + torch.tensor([0.0, 0, 30, 30]) for _ in range(2)]
    pooled = MultiScaleRoIPool(["0"], 7)(levels, boxes, [(SIDE, 2 * SIDE)] * 2)
    assert torch.equal(pooled, roi_pool(levels["0"], boxes, 7, 0.5))


@pytest.mark.parametrize("finest", [2, 4, 16])
def test_boxes_go_to_the_levels_of_torchvisions_roi_align(finest: int) -> None:
    strides = [finest, 2 * finest, 4 * finest]
    corner = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 100
    size = torch.exp(torch.rand(2000, 2) * 7)
    size[:7] = torch.tensor([[0.0], [16], [32], [64], [128], [31.999], [64.001]])
    boxes = torch.cat([corner.floor(), corner.floor() + size], 1)
    first = int(math.log2(finest))
    mapper = LevelMapper(first, first + 2, CANONICAL_PX, CANONICAL_LEVEL)
    assert torch.equal(_level(boxes, strides), mapper([boxes]))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_a_level_made_finer_has_position_k_at_2k(shape: tuple[int, int]) -> None:
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    finer = twice((3 * y - 5 * x)[None, None])[0, 0]
    # The last row and column lie beyond the last position, whose value they repeat.
    rows, columns = (torch.arange(2.0 * n).clamp(max=2 * n - 2) / 2 for n in shape)
    assert torch.allclose(finer, 3 * rows[:, None] - 5 * columns, atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_fifth_stage_keeps_the_size(backbone: str) -> None:
    channels = stage_channels(backbone)
    found = Stage5(backbone)(torch.rand(2, channels[2], 7, 7))
    assert found.shape == (2, channels[3], 7, 7)


LOGITS = torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))
TRUTH = torch.rand(6, 5, 5, generator=torch.Generator().manual_seed(1))
KINDS = torch.tensor([1, 2, 3, 1, 2, 3])


def test_a_softmax_of_two_channels_is_a_sigmoid_of_their_difference() -> None:
    heads = tiny(mask_loss="softmax").roi_heads
    logits, ones = LOGITS[:, :2], torch.ones(6, dtype=torch.int64)
    difference = logits[:, 1] - logits[:, 0]
    expected = binary_cross_entropy_with_logits(difference, TRUTH)
    assert torch.isclose(heads._mask_loss(logits, TRUTH, ones), expected)
    probability = heads._of_class(logits.softmax(1), ones)
    assert torch.allclose(probability, difference.sigmoid(), atol=1e-6)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_only_masks_of_a_softmax_compete_with_those_of_other_classes(loss: str) -> None:
    heads = tiny(mask_loss=loss, classes=3).roi_heads
    first = int(loss == "softmax")
    logits = LOGITS[:, 1 - first :]
    other, own = logits.clone(), logits.clone()
    other[torch.arange(6), KINDS % 3 + first] += 1
    own[torch.arange(6), KINDS - 1 + first] += 1
    before = heads._mask_loss(logits, TRUTH, KINDS)
    assert torch.equal(heads._mask_loss(other, TRUTH, KINDS), before) == (loss == "sigmoid")
    assert not torch.equal(heads._mask_loss(own, TRUTH, KINDS), before)


@pytest.mark.parametrize(("loss", "channels"), [("sigmoid", 1), ("softmax", 2)])
def test_agnostic_masks_know_no_class(loss: str, channels: int) -> None:
    heads = tiny(mask_loss=loss, mask_classes="agnostic", classes=3).roi_heads
    found = heads.mask_predictor(torch.rand(2, 8, 14, 14))
    assert found.shape == (2, channels, 28, 28)
    logits = LOGITS[:, :channels]
    losses = {float(heads._mask_loss(logits, TRUTH, kinds)) for kinds in (KINDS, KINDS.flip(0))}
    assert len(losses) == 1


@pytest.mark.parametrize("changes", [{}, {"roi": "pool"}, {"classes": 3}], ids=named)
def test_regions_are_answered_in_their_order_however_few_are_seen_at_a_time(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    heads = tiny(**changes).eval().roi_heads
    made = torch.Generator().manual_seed(0)
    features = {
        name: torch.randn(2, 8, 128 // stride, 128 // stride, generator=made)
        for name, stride in (("fine", 2), ("0", 4), ("1", 8))
    }
    # Of all sizes, so from all levels; and none in the second image.
    corner = 60 * torch.rand(40, 2, generator=made)
    side = 4 + 60 * torch.rand(40, 2, generator=made) ** 3
    boxes = [torch.cat([corner, corner + side], 1), torch.zeros(0, 4)]

    def answers(at_once: int, boxes: list[Tensor]) -> list[Tensor]:
        monkeypatch.setattr(regions, "IN_CACHE", at_once)
        with torch.inference_mode():
            shapes = [(128, 128)] * len(boxes)
            return [
                *heads._classify(features, boxes, shapes),
                heads._mask_logits(features, boxes, shapes),
            ]

    together = answers(2**30, boxes)
    assert [len(each) for each in together] == [40, 40, 40]
    for got, expected in zip(answers(1, boxes), together, strict=True):
        assert torch.allclose(got, expected, atol=1e-5)
    alone = [answers(1, [boxes[0][n : n + 1]]) for n in range(40)]
    for got, expected in zip(map(torch.cat, zip(*alone, strict=True)), together, strict=True):
        assert torch.allclose(got, expected, atol=1e-5)
