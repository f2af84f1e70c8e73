"""The threshold model: the cells that are there, the same in every window, none in nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import FitsImage, Instances, load_model
from cellseg.models.settings import ThresholdSettings
from cellseg.models.threshold import Threshold, load, otsu
from synthetic import cells

SETTINGS = ThresholdSettings(smooth_px=1.0, separation_px=5.0)


def plane(image: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (image[None].astype(np.float32) - np.float32(200)) / np.float32(4000)


def model(settings: ThresholdSettings = SETTINGS) -> Threshold:
    return load(settings, "cpu", "float32")


def found_of(truth: NDArray[np.uint32], found: Instances) -> int:
    """Count the cells of `truth` that an object covers at an IoU over 0.5."""
    labels = found.to_labels((truth.shape[0], truth.shape[1]))
    both = np.zeros((int(truth.max()) + 1, len(found) + 1))
    np.add.at(both, (truth.ravel(), labels.ravel()), 1)
    union = both.sum(1)[:, None] + both.sum(0)[None] - both
    return int((both[1:, 1:] / union[1:, 1:] > 0.5).sum())


def disc(radius: float, shape: tuple[int, int] = (64, 64), at: float = 32) -> NDArray[np.float32]:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return ((y - at) ** 2 + (x - at) ** 2 <= radius**2).astype(np.float32)[None]


def test_synthetic_cells_are_seeded_connected_and_partly_touching() -> None:
    image, labels = cells(3, (200, 220), 40)
    again, same = cells(3, (200, 220), 40)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, same)
    assert image.shape == labels.shape == (200, 220)
    assert f"{image.dtype} {labels.dtype}" == "uint16 uint32"
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert labels.max() > 20
    assert all(ndimage.label(labels == label)[1] == 1 for label in range(1, labels.max() + 1))
    assert ndimage.label(labels > 0)[1] < labels.max()


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_cells_and_little_else(seed: int) -> None:
    image, truth = cells(seed, (256, 256), 30, radius=(8, 11))
    pixels = plane(image)
    found = model().fit_image([pixels]).segment([pixels])[0]
    right = found_of(truth, found)
    assert right >= 0.9 * truth.max()
    assert len(found) <= 1.1 * truth.max()
    assert 0 < found.scores.min() <= found.scores.max() <= 1


def test_two_touching_discs_are_two_cells_and_each_keeps_its_half() -> None:
    pixels = np.maximum(disc(10, at=24), disc(10, at=37))
    left, right = model().segment([pixels])[0].areas()
    assert left == pytest.approx(right, rel=0.05)


@pytest.mark.parametrize("height", [8, 9, 20, 21])
def test_a_plateau_of_the_distance_is_one_cell(height: int) -> None:
    pixels = np.zeros((1, 60, 120), np.float32)
    pixels[:, 20 : 20 + height, 20:90] = 1
    assert len(model().segment([pixels])[0]) == 1


def test_a_small_cell_beside_a_large_one_is_kept() -> None:
    pixels = disc(20)
    pixels[0, 32:38, 54:60] = 1
    found = model(ThresholdSettings(smooth_px=0, separation_px=20)).segment([pixels])[0]
    assert len(found) == 2


def test_holes_are_filled_and_debris_is_left_out() -> None:
    pixels = disc(12) - disc(3)
    pixels[0, 2:5, 2:5] = 1
    found = model(ThresholdSettings(smooth_px=0, min_area_px=10)).segment([pixels])[0]
    assert len(found) == 1
    assert found.masks[0].sum() == disc(12).sum()


def test_a_cell_is_the_same_in_every_window_that_holds_it_and_the_halo() -> None:
    image, _ = cells(5, (400, 400), 120, radius=(6, 10))
    pixels = plane(image)
    fitted = model().fit_image([pixels])
    whole = cells_by_place(fitted.segment([pixels])[0], 0, 0)
    compared = 0
    for y0, x0 in [(0, 0), (60, 45), (101, 37), (180, 171)]:
        window = pixels[:, y0 : y0 + 220, x0 : x0 + 220]
        for box, mask in cells_by_place(fitted.segment([window])[0], y0, x0).items():
            if min(box[0] - y0, box[1] - x0, y0 + 220 - box[2], x0 + 220 - box[3]) >= 40:
                assert whole[box] == mask
                compared += 1
    assert compared > 30


def cells_by_place(found: Instances, dy: int, dx: int) -> dict[tuple[int, ...], bytes]:
    boxes = found.shifted(dy, dx).boxes.tolist()
    return {tuple(box): mask.tobytes() for box, mask in zip(boxes, found.masks, strict=True)}


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 64, 64), np.float32),
        np.full((2, 64, 64), 7.3, np.float32),
        np.full((1, 64, 64), 1000, np.float32) + NOISE.normal(0, 1e-4, (64, 64)).astype(np.float32),
        NOISE.normal(0, 1, (1, 128, 128)).astype(np.float32),
        NOISE.poisson(3, (1, 128, 128)).astype(np.float32),
        np.zeros((1, 0, 5), np.float32),
        np.zeros((1, 1, 1), np.float32),
    ],
    ids=["zero", "constant", "nearly constant", "noise", "photon noise", "no pixel", "one pixel"],
)
def test_nothing_is_found_where_nothing_is(pixels: NDArray[np.float32]) -> None:
    assert otsu([pixels]) == float("inf") or pixels.std() > 0.5
    assert len(model().fit_image([pixels]).segment([pixels])[0]) == 0


def test_an_empty_sample_finds_nothing() -> None:
    assert len(model().fit_image([]).segment([disc(10)])[0]) == 0


def test_the_threshold_is_that_of_the_image_and_never_of_the_window() -> None:
    bright, dim = disc(10), 0.05 * disc(10)
    fitted = model().fit_image([bright, dim, 0 * dim])
    assert 0.05 < (fitted.level or 0) < 1
    assert [len(found) for found in fitted.segment([bright, dim])] == [1, 0]
    assert len(model().segment([dim])[0]) == 1


def test_a_given_threshold_is_kept() -> None:
    given = model(ThresholdSettings(threshold=0.02))
    assert given.fit_image([disc(10)]).level == 0.02
    assert len(given.segment([0.05 * disc(10)])[0]) == 1


def test_the_channels_count_as_their_mean() -> None:
    pair = np.concatenate([disc(10, at=20), disc(10, at=44)])
    mean = pair.mean(axis=0, keepdims=True)
    fitted = model().fit_image([pair])
    assert fitted.level == model().fit_image([mean]).level
    assert len(fitted.segment([pair])[0]) == len(fitted.segment([mean])[0]) == 2


@pytest.mark.parametrize("offset", [0.0, -5.0, 200.0])
def test_otsu_parts_two_kinds_midway_between_their_roots(offset: float) -> None:
    sample = [np.array([0.0, 0.04, 0.0]) + offset, np.array([[1.0, 0.64]]) + offset]
    assert otsu(sample) == pytest.approx(0.25 + offset, abs=0.001)


def test_it_is_the_model_that_the_registry_loads() -> None:
    loaded = load_model(SETTINGS)
    assert isinstance(loaded, Threshold)
    assert isinstance(loaded, FitsImage)


def test_a_large_tile_takes_no_longer_than_expected() -> None:
    image, _ = cells(1, (288, 288), 130, radius=(4, 8))
    pixels = np.tile(plane(image), (1, 4, 4))
    start = time.process_time()
    found = model().fit_image([pixels]).segment([pixels])[0]
    assert len(found) > 1200
    assert time.process_time() - start < 5
