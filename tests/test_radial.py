"""Radial distribution: as CellProfiler's, in round, bent and torn cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import plain
from cellseg.pipeline.depth import BEYOND, squared_depth
from cellseg.pipeline.measure import measure, patch_of
from cellseg.pipeline.measure_settings import Measure

WHAT = ("fraction", "mean", "cv")


def settings(bins: int = 4) -> Measure:
    return Measure(groups=("radial",), radial_bins=bins)


def test_as_cellprofiler() -> None:
    labels, pixels = plain.picture()
    found = measure(labels, pixels, [1, 2, 3], ["a", "b"], settings=settings())
    for name in ("radial_fraction_1_a", "radial_mean_3_a", "radial_cv_4_a"):
        np.testing.assert_allclose(found[name], plain.CELLPROFILER[name], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bins", [1, 4, 7])
def test_cells_of_any_shape(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.random((50, 60)), 1 + seed)
    labels = np.searchsorted(np.quantile(smooth, [0.2, 0.5, 0.8]), smooth)  # of several pieces
    grey = random.integers(1, 999, (1, 50, 60)).astype(np.uint16)
    found = measure(labels, grey, [1, 2, 3], ["w"], settings=settings(bins))
    for row, id_ in enumerate((1, 2, 3)):
        expected = plain.radial(labels == id_, grey[0].astype(float), bins)
        for what, values in zip(WHAT, expected, strict=True):
            for ring, value in enumerate(values):
                name = f"radial_{what}_{ring + 1}_w"
                assert found[name][row] == pytest.approx(value, rel=1e-9), name


def test_depth_is_to_the_outside_of_the_cell_but_not_of_the_image() -> None:
    labels = np.zeros((30, 40), np.int64)
    labels[:12, 5:20], labels[12:30, 5:20], labels[:, 20:] = 1, 2, 3
    patch = patch_of(labels, np.zeros((0, 30, 40)), [1, 2, 3], [], Measure())
    depth = squared_depth(patch)
    for row, id_ in enumerate((1, 2, 3)):
        expected = ndimage.distance_transform_edt(labels == id_)[labels == id_] ** 2
        np.testing.assert_allclose(depth[patch.index == row], expected)
    # In a window that ends before the image does, the outside is another matter.
    inner = patch_of(
        labels[:12, 5:20], np.zeros((0, 12, 15)), [1], [], Measure(), None, (0, 5), extent=(30, 40)
    )
    assert np.array_equal(squared_depth(inner), depth[patch.index == 0])


def test_a_cell_as_large_as_the_image_is_all_centre() -> None:
    found = measure(np.ones((5, 6), np.int64), np.ones((1, 5, 6)), [1], ["w"], settings=settings())
    assert found["radial_fraction_1_w"][0] == 1
    assert [found[f"radial_{what}_4_w"][0] for what in WHAT] == [0, 0, 0]
    patch = patch_of(np.ones((5, 6), np.int64), np.ones((1, 5, 6)), [1], ["w"], Measure())
    assert (squared_depth(patch) == BEYOND).all()


def test_a_single_pixel_and_a_dark_cell() -> None:
    labels = np.zeros((9, 9), np.int64)
    labels[1, 1], labels[4:8, 4:8] = 1, 2
    found = measure(labels, 3.0 * (labels == 1)[None], [1, 2], ["w"], settings=settings())
    assert [found[f"radial_{what}_1_w"][0] for what in WHAT] == [1, pytest.approx(1), 0]
    for ring in range(1, 5):
        assert np.isnan(found[f"radial_fraction_{ring}_w"][1])
        assert np.isnan(found[f"radial_mean_{ring}_w"][1])
