"""CenterMask: heads and losses against the formulas, cells that overlap, no cap on their number."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from cards import card_of
from torch import Tensor, nn

import reference
from cellseg.models import CellsegError, Instances, load_model
from cellseg.models.center_mask import CenterMask, Heads
from cellseg.models.dataset import target
from cellseg.models.detector import Detector
from cellseg.models.network_settings import CenterMaskNetwork
from cellseg.models.settings import CenterMaskSettings, MaskRCNNSettings
from cellseg.models.weights import save_weights
from learning import overfit

PAPER = CenterMaskNetwork(
    stride=4,
    classes=2,
    head_channels=8,
    shape_px=8,
    saliency_stride=4,
    room=0.0,
    saliency_classes="per_class",
)


def disc(y: float, x: float, a: float, b: float, side: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    inside: np.ndarray = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1
    return inside


THREE = [disc(24, 22, 14, 11), disc(30, 34, 10, 14), disc(40, 27, 11, 9)]
"""Each shares more than a quarter of its area with the others."""


def three_cells() -> tuple[np.ndarray, dict[str, Tensor]]:
    """Return an image (64, 64) of three cells whose light adds, and their target."""
    image = np.sum([0.35 * mask for mask in THREE], axis=0).astype(np.float32)
    return image, target(np.stack([k * m for k, m in enumerate(THREE, 1)]).astype(np.int32))


def iou(found: Instances, truth: np.ndarray) -> float:
    """Return the best IoU of any object found with a true mask."""
    best = 0.0
    for (y0, x0, y1, x1), mask in zip(found.boxes.tolist(), found.masks, strict=True):
        whole = np.zeros(truth.shape, bool)
        whole[y0:y1, x0:x1] = mask
        best = max(best, float((whole & truth).sum() / (whole | truth).sum()))
    return best


def test_it_learns_three_cells_that_overlap() -> None:
    torch.manual_seed(0)
    image, truth = three_cells()
    network = CenterMask(CenterMaskNetwork(head_channels=32)).train()
    overfit(network, image, truth, steps=90, rate=2e-3)
    detector = Detector(
        network, network.backbone.stride, overlap="keep", score=0.5, mask_threshold=0.4
    )
    (found,) = detector.segment([image[None]])
    assert len(found) == 3
    assert min(iou(found, mask) for mask in THREE) > 0.9
    depth = np.zeros((64, 64), int)
    for (y0, x0, y1, x1), mask in zip(found.boxes.tolist(), found.masks, strict=True):
        depth[y0:y1, x0:x1] += mask
    assert depth.max() == 3


@pytest.mark.parametrize("stride", [2, 4])
def test_heads_and_losses_agree_with_the_formulas(stride: int) -> None:
    torch.manual_seed(3)
    settings = PAPER.model_copy(update={"stride": stride})
    heads = Heads(6, 4, settings)
    features, fine = torch.randn(1, 6, 16, 16), torch.randn(1, 4, 32, 32)
    labels = np.zeros((2, 64, 64), np.int32)
    labels[0][disc(20, 20, 9, 12)], labels[1][disc(26, 28, 12, 8)] = 1, 2
    labels[0][disc(50, 44, 7, 7)] = 3
    truth = target(labels, np.array([0, 1, 2, 2], np.uint8))
    with torch.no_grad():
        for value in heads.parameters():
            value.add_(0.1 * torch.randn_like(value))
    losses = heads.losses(fine, features, [truth])
    got = {name: float(value.detach()) for name, value in losses.items()}

    coarse = features[0].double().numpy()
    x = coarse
    if heads.finer is not None:
        x = heads.finer(fine, features)[0].detach().double().numpy()
    named = {k: v.detach().double().numpy() for k, v in heads.named_parameters()}

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(f"{prefix}."): v for k, v in named.items() if k.startswith(prefix)}

    boxes = truth["boxes"].double().numpy()[:, [1, 0, 3, 2]]
    classes = truth["labels"].numpy() - 1
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride
    places = np.rint(centres).astype(int)
    sizes = (boxes[:, 2:] - boxes[:, :2]) / stride
    cells = [
        (int(c), *p, *s) for c, p, s in zip(classes, places.tolist(), sizes.tolist(), strict=True)
    ]
    goal = reference.centre_map(cells, (2, 64 // stride, 64 // stride))
    expected = {
        "loss_centre": reference.focal_loss(reference.head(x, part("centre")), goal),
        "loss_offset": _distance(reference.head(x, part("offset")), places, centres - places),
        "loss_size": 0.1 * _distance(reference.head(x, part("size")), places, sizes),
    }
    saliency = part("masks.saliency")
    maps = reference.head(
        coarse,
        {
            "0.weight": saliency["before.weight"],
            "0.bias": saliency["before.bias"],
            "2.weight": saliency["map.weight"],
            "2.bias": saliency["map.bias"],
        },
    )
    own = part("masks.shapes")
    hidden = np.maximum(reference.convolved(x, own["features.weight"], own["features.bias"]), 0)
    offsets, predicted = reference.head(x, part("offset")), reference.head(x, part("size"))
    masks = []
    for k, (y, column) in enumerate(places.tolist()):
        vector = own["shape.weight"] @ hidden[:, y, column] + own["shape.bias"]
        # Over the predicted box, which is taken to be at most half as large again as the true one.
        centre = stride * (places[k] + np.clip(offsets[:, y, column], -0.5, 0.5))
        half = stride / 2 * np.clip(predicted[:, y, column], sizes[k] / 1.5, sizes[k] * 1.5)
        chances = reference.assembled_pixels(
            vector.reshape(8, 8), maps[classes[k]], 4, (*(centre - half), *(centre + half))
        )
        inside = [truth["masks"][k][place].item() for place in chances]
        entropy = reference.cross_entropy(np.array(list(chances.values())), np.array(inside))
        masks.append(entropy.mean())
    expected["loss_mask"] = float(np.mean(masks))
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-5)

    heads.masks.settings = settings.model_copy(update={"direct_saliency_loss": True})
    union = np.stack([truth["masks"].numpy()[classes == c].max(0) for c in range(2)])[:, ::4, ::4]
    entropy = reference.cross_entropy(reference.sigmoid(maps), union).mean()
    found = heads.losses(fine, features, [truth])["loss_saliency"]
    assert float(found.detach()) == pytest.approx(entropy, rel=1e-5)


def _distance(maps: np.ndarray, places: np.ndarray, truth: np.ndarray) -> float:
    each = [np.abs(maps[:, y, x] - goal).sum() for (y, x), goal in zip(places, truth, strict=True)]
    return float(np.mean(each))


DOTS = CenterMaskNetwork(stride=4, head_channels=8, shape_px=4, saliency_stride=4)


class Dots(nn.Module):
    """A detector of bright pixels of every fourth row and column, with CenterMask's real heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = Heads(1, 1, DOTS)
        with torch.no_grad():
            for value in self.heads.parameters():
                value.zero_()
            values = dict(self.heads.named_parameters())
            values["centre.0.weight"][0, 0, 1, 1] = 1
            values["centre.2.weight"][0, 0] = 12
            values["centre.2.bias"].fill_(-6)
            values["size.2.bias"].fill_(2)
            values["masks.shapes.shape.bias"].fill_(9)
            values["masks.saliency.map.bias"].fill_(9)

    def forward(self, image: Tensor) -> list[dict[str, Tensor | list[Tensor]]]:
        features = image[:, :, ::4, ::4]
        shape = int(image.shape[-2]), int(image.shape[-1])
        return [self.heads.detections(features, features, shape, 0.1)]


def test_5000_cells_in_a_tile_are_5000_instances() -> None:
    image = np.zeros((1, 1024, 1024), np.float32)
    places = [(y, x) for y in range(8, 1016, 12) for x in range(8, 1016, 12)][:5000]
    image[0, *np.array(places).T] = 1
    detector = Detector(Dots(), 4, overlap="keep", score=0.5, mask_threshold=0.4, min_area_px=1)
    (found,) = detector.segment([image])
    assert len(found) == 5000
    centres = (found.boxes[:, :2] + found.boxes[:, 2:] - 1) / 2
    assert {tuple(each) for each in centres.tolist()} == {(float(y), float(x)) for y, x in places}


def test_an_image_without_cells_gives_finite_losses_and_no_instances() -> None:
    network = CenterMask(PAPER).train()
    losses = network(torch.zeros(1, 1, 64, 64), [target(np.zeros((1, 64, 64), np.int32))])
    assert all(torch.isfinite(value) for value in losses.values())
    assert float(losses["loss_mask"].detach()) == 0
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    detector = Detector(network, 32, overlap="keep", score=0.99)
    assert len(detector.segment([np.zeros((1, 40, 50), np.float32)])[0]) == 0


def test_a_branch_may_be_left_out_but_not_both() -> None:
    for changes in ({"local_shape": False}, {"saliency": False}):
        settings = CenterMaskNetwork.model_validate(PAPER.model_dump() | changes)
        network = CenterMask(settings).train()
        image, truth = three_cells()
        losses = network(torch.from_numpy(image)[None, None], [truth])
        assert losses["loss_mask"] > 0
        found = network.eval()(torch.from_numpy(image)[None, None])[0]
        assert len(found["masks"]) == len(found["boxes"])
    with pytest.raises(ValueError, match="both false"):
        CenterMaskNetwork(local_shape=False, saliency=False)


def test_weights_say_what_they_are_and_load_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = CenterMaskNetwork(head_channels=8, shape_px=8)
    network = CenterMask(settings).eval()
    path = tmp_path / "tiny.safetensors"
    card = card_of(settings, name="tiny", diameter_px=20, score=0.05, data_licence="CC0")
    save_weights(path, network.state_dict(), card)
    image = np.random.default_rng(0).random((1, 70, 90), np.float32)
    again = load_model(CenterMaskSettings(weights=str(path), mask_threshold=0.1, score=0.0))
    (found,) = again.segment([image])
    assert len(found) > 0
    for box in found.boxes:
        assert (box >= 0).all()
        assert (box[2:] <= (70, 90)).all()
    with pytest.raises(CellsegError, match=r"holds a center_mask.*Set \[model\] name"):
        load_model(MaskRCNNSettings(weights=str(path)))


@pytest.mark.parametrize("stride", [2, 4])
def test_two_centres_are_told_apart_from_two_positions_on(stride: Literal[2, 4]) -> None:
    heads = Heads(4, 4, CenterMaskNetwork(stride=stride, head_channels=8, shape_px=4)).eval()
    logits = torch.full((1, 1, 64 // stride, 64 // stride), -9.0)
    logits[0, 0, 5, [5, 7]] = 3.0
    heads.centre = nn.Sequential(Constant(logits))
    found = heads.detections(torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 16, 16), (64, 64), 0.5)
    boxes = found["boxes"]
    assert isinstance(boxes, Tensor)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    expected = torch.tensor([[5.0, 5.0], [7.0, 5.0]]) * stride
    torch.testing.assert_close(centres, expected, atol=0.3 * stride, rtol=0)


class Constant(nn.Module):
    """Gives the same maps whatever it is shown."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, _: Tensor) -> Tensor:
        return self.maps


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_for_any_threads_and_batch(threads: int) -> None:
    torch.manual_seed(0)
    detector = Detector(
        CenterMask(CenterMaskNetwork(head_channels=16, shape_px=8)).eval(),
        32,
        overlap="keep",
        score=0.1,
        mask_threshold=0.2,
        min_area_px=1,
    )
    planes = [np.random.default_rng(k).random((1, 96, 128), np.float32) for k in range(2)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = detector.segment(planes[:1])[0]
        torch.set_num_threads(threads)
        found = detector.segment(planes[::-1])[1]
    finally:
        torch.set_num_threads(before)
    assert len(expected) > 0
    for name, value in expected.to_arrays().items():
        assert np.array_equal(found.to_arrays()[name], value), name
