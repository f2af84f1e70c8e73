"""Granularity: CellProfiler's spectrum, that follows from a cell's surroundings alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import plain
from cellseg.pipeline.granularity import granularity_reach
from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure
from synthetic import cells


def settings(**chosen: int) -> Measure:
    whole = {f"granularity_{name}": value for name, value in chosen.items()}
    return Measure.model_validate({"groups": ("granularity",), **whole})


def test_as_cellprofiler() -> None:
    labels, pixels = plain.picture()
    found = measure(labels, pixels, [1, 2, 3], ["a", "b"], settings=settings())
    for name in ("granularity_1_a", "granularity_3_a"):
        np.testing.assert_allclose(found[name], plain.CELLPROFILER[name], atol=1e-8)


@pytest.mark.parametrize(
    ("shape", "step", "coarse", "radius"),
    [((203, 250), 4, 4, 3), ((90, 121), 2, 3, 4), ((60, 64), 1, 1, 5)],
)
def test_as_the_plain_spectrum(shape: tuple[int, int], step: int, coarse: int, radius: int) -> None:
    _, labels = cells(3, shape=shape, count=20, radius=(3, 9))
    random = np.random.default_rng(0)
    grey = ndimage.gaussian_filter(random.random(shape), 2) * 9000 + 300 * (labels > 0)
    ids = np.arange(1, labels.max() + 1)
    about = {"step_px": step, "background_step": coarse, "background_radius": radius}
    chosen = settings(length=6, growth=4096, **about)
    found = measure(labels, grey[None], ids, ["w"], settings=chosen)
    expected = plain.granularity(labels.astype(int), grey, step, coarse, radius, 6)
    for size in range(6):
        got = found[f"granularity_{size + 1}_w"]
        np.testing.assert_allclose(got, expected[size], atol=1e-9)


def test_it_follows_from_the_surroundings_within_reach() -> None:
    chosen = settings(length=2, growth=3, step_px=2, background_step=2, background_radius=2)
    reach = granularity_reach(chosen)
    assert reach == 2 * (2 * (2 * 2 + 3) + 2 + 3 + 3)
    random = np.random.default_rng(1)
    shape = 2 * reach + 80, 2 * reach + 90
    grey = ndimage.gaussian_filter(random.random(shape), 1.5)[None]
    labels = np.zeros(shape, np.int64)
    labels[reach + 30 : reach + 45, reach + 33 : reach + 41] = 5
    whole = measure(labels, grey, [5], ["w"], settings=chosen)
    for y, x in ((30, 33), (29, 32), (27, 30), (1, 2)):
        part = (slice(y, 2 * reach + 45), slice(x, 2 * reach + 41))
        about: dict[str, Any] = {"origin": (y, x), "extent": shape, "settings": chosen}
        found = measure(labels[part], grey[:, *part], [5], ["w"], **about)
        for name, values in whole.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_in_a_tiny_image_there_is_no_spectrum() -> None:
    found = measure(np.ones((7, 9), np.int64), np.ones((1, 7, 9)), [1], ["w"], settings=settings())
    assert np.isnan(found["granularity_1_w"][0])
    dark = measure(np.ones((9, 9), np.int64), np.zeros((1, 9, 9)), [1], ["w"], settings=settings())
    assert np.isnan(dark["granularity_1_w"][0])
