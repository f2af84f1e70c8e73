"""Cells that overlap reach the detector whole, whatever layer they lie in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.models.augment import augment, random_crop, random_turn
from cellseg.models.dataset import Sample, draw_weights, target
from cellseg.models.settings import TrainSettings

SETTINGS = TrainSettings(images=("images",), labels=("labels",), crop_px=64, batch=2)


def crossed(shape: tuple[int, int] = (90, 120)) -> tuple[np.ndarray, np.ndarray]:
    """An image of two layers: rows of bars, and columns of bars across them."""
    y, x = np.indices(shape)
    rows = np.where((y % 16 < 6) & (x % 40 < 36), 1 + 2 * (y // 16 * 10 + x // 40), 0)
    columns = np.where((x % 20 < 7) & (y % 30 < 26), 2 + 2 * (x // 20 * 10 + y // 30), 0)
    labels = np.stack([rows, columns]).astype(np.int32)
    return (labels > 0).sum(axis=0, dtype=np.float32)[None], labels


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([32, 64, 160]))
def test_all_layers_are_cut_alike_and_their_labels_stay_apart(seed: int, side: int) -> None:
    image, labels = crossed()
    one = np.random.default_rng(seed)
    _, cut, origin = random_crop(image, labels, side, (0.4, 2.2), one)
    assert not set(cut[0][cut[0] > 0].tolist()) & set(cut[1][cut[1] > 0].tolist())
    assert sorted(np.unique(np.append(cut, 0)).tolist()) == list(range(len(origin)))
    for layer, own in zip(cut, labels, strict=True):
        random = np.random.default_rng(seed)
        _, alone, from_alone = random_crop(image, own[None], side, (0.4, 2.2), random)
        assert np.array_equal(origin[layer], from_alone[alone[0]])
        # Mirror images of a cell are as many, whether there are other layers or not.
        assert len(np.unique(layer)) == len(np.unique(alone))


def test_nothing_is_pasted_where_cells_may_overlap() -> None:
    image, labels = crossed()
    for seed in range(30):
        _, changed, origin = augment(image, labels, 64, (0.4, 2.2), np.random.default_rng(seed))
        random = np.random.default_rng(seed)
        crop, cut, expected = random_crop(image, labels, 64, (0.4, 2.2), random)
        assert np.array_equal(changed, random_turn(crop, cut, random)[1])
        assert np.array_equal(origin, expected)


def test_targets_are_whole_where_cells_share_pixels_and_in_the_order_of_labels() -> None:
    labels = np.zeros((2, 10, 12), np.int32)
    labels[1, 2:8, 2:6] = 1
    labels[0, 4:6, 1:11] = 2
    labels[1, 0:3, 8:12] = 4
    labels[0, 9, 0] = 3
    classes = np.array([0, 3, 1, 1, 2], np.uint8)
    goal = target(labels, classes)
    assert goal["labels"].tolist() == [3, 1, 2]
    assert goal["masks"].sum(dim=(1, 2)).tolist() == [24, 20, 12]
    assert goal["masks"][:2].sum(dim=0).max() == 2
    assert goal["boxes"][1].tolist() == [0.5, 3.5, 10.5, 5.5]


def test_an_image_without_cells_is_a_target_of_none() -> None:
    goal = target(np.zeros((2, 8, 9), np.int32))
    assert {key: tuple(value.shape) for key, value in goal.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, 8, 9),
    }


def test_layers_do_not_make_an_image_larger() -> None:
    image, labels = crossed()
    flat = Sample("flat", image, np.maximum(*labels)[None])
    assert draw_weights([Sample("deep", image, labels), flat]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("shape", [(90, 120), (1, 90, 119)])
def test_labels_must_be_layers_over_the_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are no layers"):
        Sample("a", crossed()[0], np.zeros(shape, np.int32))
