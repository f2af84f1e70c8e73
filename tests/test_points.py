"""Cells as points: targets, losses and peaks against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import reference
from cellseg.models.points import (
    Points,
    centre_loss,
    centre_target,
    convolved_at,
    peaks,
    radius,
    regression_loss,
)

side = st.floats(0.5, 80)


def target(
    boxes: list[tuple[float, float, float, float]], labels: list[int]
) -> dict[str, torch.Tensor]:
    """Return a target of boxes y0, x0, y1, x1, in pixel-centre coordinates."""
    made = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]
    return {"boxes": made, "labels": torch.tensor(labels, dtype=torch.int64)}


@given(side, side)
def test_radius_keeps_the_overlap_and_no_larger_one_does(height: float, width: float) -> None:
    found = float(radius(torch.tensor([[height, width]], dtype=torch.float64))[0])
    assert found == reference.gaussian_radius(height, width)


def test_positions_and_offsets_give_back_the_centres() -> None:
    random = np.random.default_rng(1)
    low = random.uniform(0, 90, (40, 2))
    boxes = np.concatenate([low, low + random.uniform(3, 30, (40, 2))], 1)
    points = Points.of(
        [
            target(boxes[:25].tolist(), [1] * 25),
            target([], []),
            target(boxes[25:].tolist(), [2] * 15),
        ],
        (32, 32),
        4,
    )
    assert points.image.tolist() == [0] * 25 + [2] * 15
    assert points.classes.tolist() == [0] * 25 + [1] * 15
    position = torch.stack([points.y, points.x], 1)
    inside = (boxes[:, :2] + boxes[:, 2:]) / 2 < 124
    again = (4 * (position + points.offsets)).numpy()
    np.testing.assert_allclose(again, (boxes[:, :2] + boxes[:, 2:]) / 2, atol=1e-4)
    assert (points.offsets.abs().numpy()[inside] <= 0.5 + 1e-6).all()
    np.testing.assert_allclose(4 * points.sizes.numpy(), boxes[:, 2:] - boxes[:, :2], atol=1e-4)


def test_target_and_loss_agree_with_the_formulas() -> None:
    random = np.random.default_rng(2)
    low = random.uniform(0, 60, (7, 2))
    boxes = np.concatenate([low, low + random.uniform(4, 30, (7, 2))], 1)
    classes = random.integers(1, 3, 7).tolist()
    points = Points.of([target(boxes.tolist(), classes)], (20, 20), 4)
    made = centre_target(points, (1, 2, 20, 20))
    cells = [
        (int(points.classes[k]), int(points.y[k]), int(points.x[k]), *points.sizes[k].tolist())
        for k in range(7)
    ]
    expected = reference.centre_map(cells, (2, 20, 20))
    np.testing.assert_allclose(made[0].numpy(), expected, atol=1e-6)
    logits = random.normal(0, 3, (1, 2, 20, 20))
    got = centre_loss(torch.tensor(logits, dtype=torch.float32), made)
    assert float(got) == pytest.approx(reference.focal_loss(logits[0], expected), rel=1e-5)


def test_regression_is_the_mean_distance_of_the_cells() -> None:
    found, truth = np.random.default_rng(3).normal(0, 2, (2, 9, 2))
    expected = np.mean([np.abs(a - b).sum() for a, b in zip(found, truth, strict=True)])
    got = regression_loss(torch.tensor(found), torch.tensor(truth))
    assert float(got) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_a_convolution_at_some_positions_is_that_of_the_whole(seed: int, count: int) -> None:
    torch.manual_seed(seed)
    convolution = nn.Conv2d(3, 5, 3, padding=1)
    features = torch.randn(2, 3, 6, 7)
    image, y, x = (torch.randint(0, size, (count,)) for size in (2, 6, 7))
    got = convolved_at(convolution, features, image, y, x)
    torch.testing.assert_close(got, convolution(features)[image, :, y, x], atol=1e-5, rtol=1e-5)


def test_without_cells_the_losses_are_finite() -> None:
    points = Points.of([target([], [])], (8, 8), 4)
    logits = torch.zeros(1, 1, 8, 8)
    assert float(regression_loss(points.offsets, points.sizes)) == 0
    expected = reference.focal_loss(np.zeros((1, 8, 8)), np.zeros((1, 8, 8)))
    assert float(centre_loss(logits, centre_target(points, (1, 1, 8, 8)))) == pytest.approx(
        expected
    )


def test_peaks_are_the_highest_of_nine_and_none_is_left_out_for_number() -> None:
    logits = torch.full((2, 300, 300), -9.0)
    logits[0, ::3, ::3] = 1.0
    logits[1, 7, 7], logits[1, 7, 8], logits[1, 50, 50] = 2.0, 1.9, -4.0
    scores, classes, y, x = peaks(logits, 0.1)
    assert (classes == 0).sum() == 10_000
    assert (y[classes == 1].tolist(), x[classes == 1].tolist()) == ([7], [7])
    assert float(scores[classes == 1][0]) == pytest.approx(reference.sigmoid(np.array(2.0)))


@pytest.mark.parametrize("stride", [2, 4])
def test_boxes_to_learn_masks_over_follow_the_prediction_but_not_far(stride: int) -> None:
    boxes = [(3.0, 5.0, 23.0, 45.0), (40.0, 40.0, 52.0, 48.0)]
    points = Points.of([target(boxes, [1, 1])], (64 // stride, 64 // stride), stride)
    exact = points.boxes_near(points.offsets, points.sizes)
    torch.testing.assert_close(exact, points.boxes)
    near = points.boxes_near(points.offsets, points.sizes * 1.2)
    torch.testing.assert_close(near[:, 2:] - near[:, :2], stride * points.sizes * 1.2)
    for far in (0.0, 100.0):
        found = points.boxes_near(points.offsets + far, points.sizes * far)
        grown = (found[:, 2:] - found[:, :2]) / stride / points.sizes
        torch.testing.assert_close(grown, torch.full_like(grown, 1.5 if far else 1 / 1.5))
        moved = found[:, :2] + found[:, 2:] - points.boxes[:, :2] - points.boxes[:, 2:]
        assert (moved.abs() / 2 / stride <= 1).all()
