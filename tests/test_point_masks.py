"""Masks from points: assembly and loss against the formulas, and what boxes at borders do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from cellseg.models.network_settings import CenterMaskNetwork
from cellseg.models.point_masks import (
    Saliency,
    Shapes,
    assembled,
    assembled_loss,
    pixels_of,
    saliency_logits,
    shape_logits,
)

edge = st.floats(-12, 40, allow_nan=False)


def parameters(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.named_parameters()}


@given(edge, edge, edge, edge)
def test_pixels_are_those_whose_centres_lie_in_the_box(
    y0: float, x0: float, height: float, width: float
) -> None:
    box = torch.tensor([[y0, x0, y0 + abs(height), x0 + abs(width)]])
    pixels = pixels_of(box, (24, 30))
    low, high = box[0, :2].tolist(), box[0, 2:].tolist()
    inside = {
        (y, x)
        for y in range(24)
        for x in range(30)
        if low[0] <= y <= high[0] and low[1] <= x <= high[1]
    }
    assert set(zip(pixels.y.tolist(), pixels.x.tolist(), strict=True)) == inside
    assert int(pixels.counts[0]) == len(inside)


@pytest.mark.parametrize("side", [16, 32])
def test_assembly_is_the_resized_shape_times_the_saliency(side: int) -> None:
    random = np.random.default_rng(side)
    saliency = random.normal(0, 2, (2, 40, 50))
    shapes = random.normal(0, 2, (3, side, side))
    boxes = [(3, 4, 20, 15), (0, 0, 40, 50), (30, 45, 33, 50)]
    maps = torch.tensor([0, 1, 1])
    # A box of pixels a to b (half open) reaches from a - 0.5 to b - 0.5.
    edges = torch.tensor(boxes, dtype=torch.float32) - 0.5
    pixels = pixels_of(edges, (40, 50))
    shape = shape_logits(torch.tensor(shapes, dtype=torch.float32), edges, pixels)
    global_ = saliency_logits(torch.tensor(saliency, dtype=torch.float32), maps, 1, pixels)
    parts = torch.split(assembled(shape, global_), pixels.counts.tolist())
    for part, box, map_, own in zip(parts, boxes, maps.tolist(), shapes, strict=True):
        expected = reference.assembled(own, saliency[map_], box)
        np.testing.assert_allclose(part.numpy(), expected.ravel(), atol=1e-5)
    truth = random.integers(0, 2, len(pixels.y)).astype(float)
    loss = assembled_loss(shape, global_, torch.tensor(truth, dtype=torch.float32))
    chance = np.concatenate(
        [
            reference.assembled(own, saliency[m], box).ravel()
            for own, m, box in zip(shapes, maps.tolist(), boxes, strict=True)
        ]
    )
    np.testing.assert_allclose(
        loss.numpy(), reference.cross_entropy(chance, truth), rtol=1e-4, atol=1e-5
    )


def test_one_branch_alone_is_its_sigmoid() -> None:
    logits = torch.linspace(-5, 5, 11)
    truth = (torch.arange(11) % 2).float()
    np.testing.assert_allclose(
        assembled(logits, None).numpy(), reference.sigmoid(logits.numpy()), atol=1e-6
    )
    expected = reference.cross_entropy(reference.sigmoid(logits.double().numpy()), truth.numpy())
    for shape, saliency in ((logits, None), (None, logits)):
        found = assembled_loss(shape, saliency, truth)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_loss_is_finite_and_has_a_gradient_however_sure_the_branches_are() -> None:
    sure = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    other = torch.tensor([200.0, 200.0, -200.0, -200.0])
    for truth in (torch.zeros(4), torch.ones(4)):
        loss = assembled_loss(sure, other, truth)
        assert torch.isfinite(loss).all()
        (gradient,) = torch.autograd.grad(loss.sum(), sure)
        assert torch.isfinite(gradient).all()


def test_saliency_between_positions_is_bilinear() -> None:
    ramp = torch.arange(8.0)[None, :, None] * 10 + torch.arange(8.0)[None, None]
    box = torch.tensor([[2.0, 1.0, 9.0, 6.0]])
    pixels = pixels_of(box, (16, 16))
    found = saliency_logits(ramp, torch.zeros(1, dtype=torch.int64), 2, pixels)
    torch.testing.assert_close(found, pixels.y / 2 * 10 + pixels.x / 2)


def test_shape_branch_agrees_with_the_formulas_where_it_is_asked() -> None:
    torch.manual_seed(0)
    branch = Shapes(5, CenterMaskNetwork(shape_px=4, head_channels=8))
    features = torch.randn(2, 5, 7, 6)
    image, y, x = torch.tensor([0, 1, 1]), torch.tensor([0, 3, 6]), torch.tensor([5, 2, 0])
    got = branch(features, image, y, x).detach().numpy()
    own = parameters(branch)
    for k in range(3):
        hidden = reference.convolved(
            features[image[k]].double().numpy(), own["features.weight"], own["features.bias"]
        )
        vector = np.maximum(hidden, 0)[:, y[k], x[k]]
        expected = (own["shape.weight"] @ vector + own["shape.bias"]).reshape(4, 4)
        np.testing.assert_allclose(got[k], expected, atol=1e-5)


def test_saliency_branch_of_the_paper_agrees_with_the_formulas() -> None:
    torch.manual_seed(1)
    settings = CenterMaskNetwork(
        classes=3, saliency_classes="per_class", saliency_stride=4, head_channels=8
    )
    branch = Saliency(5, 4, settings)
    features = torch.randn(1, 5, 6, 7)
    got = branch(torch.zeros(1, 4, 12, 14), features)[0].detach().numpy()
    own = parameters(branch)
    named = {
        f"{layer}.{kind}": own[f"{name}.{kind}"]
        for layer, name in (("0", "before"), ("2", "map"))
        for kind in ("weight", "bias")
    }
    np.testing.assert_allclose(got, reference.head(features[0].double().numpy(), named), atol=1e-5)
    assert got.shape == (3, 6, 7)
