"""Augmented crops keep image and labels together, whatever is done to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.models.augment import EXACT, augment, crowd, mild, random_crop
from cellseg.models.dataset import Sample, batch
from cellseg.models.light import empty_field, random_light
from cellseg.models.settings import TrainSettings
from synthetic import cells

SETTINGS = TrainSettings(images=("images",), labels=("labels",), crop_px=64, batch=2)


def painted(seed: int, shape: tuple[int, int] = (90, 120)) -> tuple[np.ndarray, np.ndarray]:
    """An image whose grey levels are its labels: what is apart afterwards was torn apart."""
    _, labels = cells(seed, shape=shape, count=12)
    return labels[None].astype(np.float32), labels[None].astype(np.int32)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([32, 64, 160]), st.sampled_from([0.4, 1.0]))
def test_each_crop_shows_its_labels_where_the_image_has_them(
    seed: int, side: int, low: float
) -> None:
    image, labels = painted(seed % 5)
    crop, cut, origin = random_crop(image, labels, side, (low, 2.2), np.random.default_rng(seed))
    assert crop.shape == (1, side, side)
    assert cut.shape == (1, side, side)
    assert crop.dtype == np.float32
    assert origin[0] == 0
    assert cut.max() < len(origin)
    assert set(origin.tolist()) <= set(np.unique(labels).tolist())
    # Grey levels between two cells are mixed where the crop was resampled, but not inside them.
    assert np.mean(np.isclose(crop, origin[cut], atol=0.01)) > 0.6


def test_what_a_crop_shows_beyond_the_image_is_mirrored_as_cells_of_their_own() -> None:
    labels = np.zeros((1, 20, 20), np.int32)
    labels[0, 8:12, 5:9] = 3
    exact = next(seed for seed in range(99) if np.random.default_rng(seed).random() < EXACT)
    crop, cut, origin = random_crop(
        labels.astype(np.float32), labels, 60, (1, 1), np.random.default_rng(exact)
    )
    assert np.array_equal(crop > 0, cut > 0)
    assert cut.max() == 9
    assert origin[1:].tolist() == [3] * 9


def test_pasted_cells_touch_others_and_know_where_they_come_from() -> None:
    image, labels = painted(1)
    touched = 0
    for seed in range(20):
        start = np.arange(labels.max() + 1, dtype=np.int32)
        pasted, crowded, origin = crowd(image, labels, start, np.random.default_rng(seed))
        added = np.setdiff1d(np.unique(crowded), np.unique(labels))
        assert set(origin[added].tolist()) <= set(np.unique(labels).tolist())
        inside = crowded > labels.max()
        # A copy shines as its source does, but for its soft edge.
        assert np.median(np.abs(pasted - origin[crowded])[inside]) < 0.5 if inside.any() else 1
        touched += len(added)
    assert touched > 20


def test_an_image_without_cells_stays_without() -> None:
    nothing = np.zeros((1, 40, 40), np.float32), np.zeros((1, 40, 40), np.int32)
    for seed in range(10):
        _, cut, origin = augment(*nothing, 64, (0.4, 2.2), np.random.default_rng(seed))
        assert not cut.any()
        assert origin.tolist() == [0]


@pytest.mark.parametrize("channels", [1, 3])
def test_light_changes_pixels_and_keeps_them_finite(channels: int) -> None:
    image = np.random.default_rng(0).random((channels, 48, 40), np.float32)
    for seed in range(60):
        changed = random_light(image, np.random.default_rng(seed))
        assert changed.shape == image.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert not np.array_equal(changed, image)


def test_empty_fields_fill_the_scale_as_percentiles_do() -> None:
    for seed in range(30):
        field = empty_field(2, 64, np.random.default_rng(seed))
        assert np.isfinite(field).all()
        assert np.percentile(field, [1, 99.8]) == pytest.approx([0, 1], abs=0.01)


def test_strong_changes_are_rarer_than_mild_ones() -> None:
    random = np.random.default_rng(0)
    drawn = np.abs([mild(random) for _ in range(2000)])
    assert np.median(drawn) == pytest.approx(0.25, abs=0.03)
    assert drawn.max() > 0.9


def test_some_crops_hold_no_cell_by_intention() -> None:
    image, labels = painted(0)
    always = SETTINGS.model_copy(update={"empty": 0.999})
    _, targets = batch([Sample("a", image, labels)], always, 0)
    assert [len(target["boxes"]) for target in targets] == [0, 0]


def test_classes_follow_their_cells_through_every_change() -> None:
    _, labels = painted(2)
    classes = np.zeros(labels.max() + 1, np.uint8)
    classes[1:] = 1 + np.arange(labels.max()) % 3
    # The image says the class, so the crop does too, light aside.
    sample = Sample("a", classes[labels].astype(np.float32), labels, classes)
    for seed in range(12):
        random = np.random.default_rng(seed)
        crop, cut, origin = random_crop(sample.image, sample.labels, 64, (0.7, 1.5), random)
        crop, cut, origin = crowd(crop, cut, origin, random)
        for label in np.unique(cut[cut > 0]):
            assert np.median(crop[cut == label]) == pytest.approx(classes[origin[label]], abs=1)
        exact = crop[cut > 0] == classes[origin][cut[cut > 0]]
        assert exact.mean() > 0.6


def test_images_with_rare_classes_are_drawn_more_often() -> None:
    _, labels = painted(3)
    common = Sample("common", labels.astype(np.float32), labels)
    rare_classes = np.ones(labels.max() + 1, np.uint8)
    rare_classes[1] = 2
    rare = Sample("rare", common.image, common.labels, rare_classes)
    drawn = [
        (targets[0]["labels"] == 2).any().item()
        for step in range(60)
        for targets in [
            batch([common] * 8 + [rare], SETTINGS.model_copy(update={"batch": 1}), step)[1]
        ]
    ]
    assert np.mean(drawn) > 1 / 9
