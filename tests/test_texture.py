"""Texture: Haralick's features as mahotas and CellProfiler have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import plain
from cellseg.pipeline import texture as module
from cellseg.pipeline.measure import measure, patch_of
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.texture import FEATURES, grey_levels


def settings(scale: int = 3, **chosen: Any) -> Measure:
    return Measure(groups=("texture",), texture_scales_px=(scale,), **chosen)


def grey(labels: NDArray[Any], pixels: NDArray[Any], **chosen: Any) -> list[int]:
    """The levels of one cell of one channel."""
    patch = patch_of(labels, pixels, [1], ["w"], settings(**chosen))
    found: list[int] = grey_levels(patch, 0).tolist()
    return found


def test_as_cellprofiler() -> None:
    labels, pixels = plain.picture()
    found = measure(labels, pixels, [1, 2, 3], ["a", "b"], settings=settings())
    names = [name for name in plain.CELLPROFILER if name.startswith("texture")]
    assert len(names) == 7
    for name in names:
        np.testing.assert_allclose(found[name], plain.CELLPROFILER[name], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("scale", "levels"), [(1, 8), (3, 40), (2, 256)])
def test_every_feature_by_its_formula(scale: int, levels: int) -> None:
    labels, pixels = plain.picture()
    chosen = settings(scale, texture_levels=levels)
    found = measure(labels, pixels[:1], [1, 2, 3], ["w"], settings=chosen)
    patch = patch_of(labels, pixels[:1], [1, 2, 3], ["w"], chosen)
    quantised = np.zeros(labels.shape, np.int64)
    quantised[patch.y, patch.x] = grey_levels(patch, 0)
    for row in range(3):
        expected = plain.haralick(labels == row + 1, quantised, scale)
        for feature, value in zip(FEATURES, expected, strict=True):
            got = found[f"texture_{feature}_{scale}_w"][row]
            assert got == pytest.approx(value, rel=1e-8, abs=1e-9), feature


def test_in_parts_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, pixels = plain.picture()
    whole = measure(labels, pixels, [1, 2, 3], ["a", "b"], settings=settings())
    monkeypatch.setattr(module, "TOGETHER", 1)
    parts = measure(labels, pixels, [1, 2, 3], ["a", "b"], settings=settings())
    for name, values in whole.items():
        np.testing.assert_array_equal(parts[name], values)


@pytest.mark.parametrize(
    ("pixels", "chosen", "levels"),
    [
        (np.array([0, 128, 255], np.uint8), {}, [0, 128, 255]),
        (np.array([0, 257, 65535], np.uint16), {}, [0, 1, 255]),
        (np.array([-1, 0.5, 2], np.float32), {}, [0, 128, 255]),
        (np.array([0, 128, 255], np.uint8), {"texture_levels": 8}, [0, 3, 7]),
        (np.array([10, 20, 30], np.uint16), {"texture_range": "cell"}, [0, 128, 255]),
        (np.array([10, 20, 30], np.uint16), {"texture_range": (0, 20)}, [128, 255, 255]),
        (np.array([7, 7, 7], np.uint16), {"texture_range": "cell"}, [0, 0, 0]),
    ],
)
def test_grey_levels(pixels: NDArray[Any], chosen: dict[str, Any], levels: list[int]) -> None:
    assert grey(np.ones((1, 3), np.int64), pixels[None, None], **chosen) == levels


def test_what_the_image_holds_counts_where_its_channels_became_floats() -> None:
    labels, pixels = plain.picture()
    chosen = settings()
    found = measure(labels, pixels, [1, 2], ["a", "b"], settings=chosen)
    floats = measure(
        labels, pixels.astype(np.float32), [1, 2], ["a", "b"], settings=chosen, tops=(255, 255)
    )
    for name, values in found.items():
        np.testing.assert_array_equal(floats[name], values)


def test_a_constant_cell_and_one_without_pairs() -> None:
    labels = np.zeros((14, 14), np.int64)
    labels[:9, :9], labels[11, 11] = 1, 2
    found = measure(labels, np.full((1, 14, 14), 9, np.uint8), [1, 2], ["w"], settings=settings())
    expected = plain.haralick(labels == 1, np.full((14, 14), 9), 3)
    for feature, value in zip(FEATURES, expected, strict=True):
        first, second = found[f"texture_{feature}_3_w"]
        assert first == pytest.approx(value, abs=1e-12), feature
        assert np.isnan(second)
    dark = measure(labels, np.zeros((1, 14, 14), np.uint8), [1], ["w"], settings=settings())
    assert np.isnan(dark["texture_contrast_3_w"][0])  # 0 does not count


def test_a_range_that_does_not_rise_is_refused() -> None:
    with pytest.raises(ValueError, match="must be below the second"):
        settings(texture_range=(5, 5))
