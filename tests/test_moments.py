"""Moments of Hu and Zernike, and the smallest circle around a cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops_table

import plain
from cellseg.pipeline.circle import enclosing_circle
from cellseg.pipeline.measure import measure, patch_of
from cellseg.pipeline.measure_settings import Measure

SETTINGS = Measure(groups=("moments",))


def shapes(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Cells of any shape, numbered from 1."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random((60, 70)), 2.5)
    labels: np.ndarray[tuple[int, int], np.dtype[np.int64]] = ndimage.label(
        smooth > np.quantile(smooth, 0.6), output=np.int64
    )[0]
    return labels


def test_as_cellprofiler() -> None:
    labels, pixels = plain.picture()
    found = measure(labels, pixels, [1, 2, 3], ["a", "b"], settings=SETTINGS)
    names = [name for name in plain.CELLPROFILER if name.startswith("zernike")]
    assert len(names) == 4
    for name in names:
        np.testing.assert_allclose(found[name], plain.CELLPROFILER[name], atol=1e-8, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_hu_as_scikit_image_and_zernike_as_the_formula(seed: int) -> None:
    labels = shapes(seed)
    ids = np.arange(1, labels.max() + 1)
    found = measure(labels, np.zeros((0, *labels.shape)), ids, [], settings=SETTINGS)
    expected = regionprops_table(labels, properties=["moments_hu"])  # type: ignore[no-untyped-call]
    for n in range(7):
        np.testing.assert_allclose(found[f"hu_{n + 1}"], expected[f"moments_hu-{n}"], atol=1e-12)
    orders = [(n, m) for n in range(10) for m in range(n % 2, n + 1, 2)]
    assert [name for name in found if "zernike" in name] == [f"zernike_{n}_{m}" for n, m in orders]
    for row, id_ in enumerate(ids):
        if (labels == id_).sum() > 1:
            for n, m in orders:
                value = plain.zernike(labels == id_, n, m)
                assert found[f"zernike_{n}_{m}"][row] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_circle_is_the_smallest(seed: int) -> None:
    labels = shapes(seed)
    ids = np.arange(1, labels.max() + 1)
    cy, cx, radius = enclosing_circle(patch_of(labels, np.zeros((0, 60, 70)), ids, [], Measure()))
    for row, id_ in enumerate(ids):
        points = np.argwhere(labels == id_).astype(float)
        if len(points) == 1:
            assert (cy[row], cx[row], radius[row]) == (*points[0], 0)
        else:
            want = plain.smallest_circle(points)
            np.testing.assert_allclose((cy[row], cx[row], radius[row]), want, atol=1e-6)


def test_no_turn_changes_them() -> None:
    labels = shapes(5)
    ids = np.arange(1, labels.max() + 1)
    found, turned = (
        measure(each, np.zeros((0, *each.shape)), ids, [], settings=SETTINGS)
        for each in (labels, np.rot90(labels))
    )
    for name in found:
        if name.startswith(("hu", "zernike")):
            np.testing.assert_allclose(found[name], turned[name], atol=1e-12, err_msg=name)


def test_a_single_pixel_has_no_circle() -> None:
    found = measure(np.array([[0, 1]]), np.zeros((0, 1, 2)), [1], [], settings=SETTINGS)
    assert [found[f"hu_{n}"][0] for n in range(1, 8)] == [0] * 7
    assert np.isnan(found["zernike_0_0"][0])


def test_no_cells_no_circle() -> None:
    patch = patch_of(np.zeros((3, 3), np.int64), np.zeros((0, 3, 3)), [], [], Measure())
    assert [len(each) for each in enclosing_circle(patch)] == [0, 0, 0]
