"""Correlation of channels: as CellProfiler's, and what is defined where one is constant."""

from __future__ import annotations

import numpy as np
import pytest

import plain
from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure

WHAT = ("pearson", "slope", "manders_1", "manders_2", "overlap", "overlap_k1", "overlap_k2")


def settings(threshold: float = 0.15) -> Measure:
    return Measure(groups=("correlation",), manders_threshold=threshold)


def test_as_cellprofiler() -> None:
    labels, pixels = plain.picture()
    found = measure(labels, pixels, [1, 2, 3], ["a", "b"], settings=settings(0.4))
    for what in WHAT:
        name = f"{what}_a_b"
        np.testing.assert_allclose(found[name], plain.CELLPROFILER[name], atol=1e-9, err_msg=name)


@pytest.mark.parametrize("threshold", [0, 0.15, 0.5])
def test_every_pair_of_channels(threshold: float) -> None:
    labels, _ = plain.picture()
    pixels = np.random.default_rng(3).integers(1, 60_000, (3, *labels.shape)).astype(np.uint16)
    found = measure(labels, pixels, [2, 3], ["a", "b", "c"], settings=settings(threshold))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        for row, id_ in enumerate((2, 3)):
            values = [pixels[each][labels == id_].astype(float) for each in (a, b)]
            expected = plain.correlation(values[0], values[1], threshold)
            for what, value in zip(WHAT, expected, strict=True):
                name = f"{what}_{'abc'[a]}_{'abc'[b]}"
                assert found[name][row] == pytest.approx(value, rel=1e-9), name


def test_a_constant_channel_has_no_correlation() -> None:
    labels, pixels = plain.picture()
    for constant in (np.float32(0.1), np.float32(0)):
        both = np.stack([pixels[0].astype(np.float32), np.full(labels.shape, constant)])
        found = measure(labels, both, [1, 2], ["a", "b"], settings=settings())
        assert np.isnan(found["pearson_a_b"]).all()
        assert (found["slope_a_b"] == 0).all()
        assert (found["manders_1_a_b"] == 1).all()  # every pixel is as bright as the brightest
        dark = constant == 0
        assert (np.isnan(found["manders_2_a_b"]) == dark).all()
        assert (np.isnan(found["overlap_a_b"]) == dark).all()
        other = measure(labels, both[::-1], [1, 2], ["a", "b"], settings=settings())
        assert np.isnan(other["slope_a_b"]).all()


def test_where_no_pixel_is_bright_in_both_nothing_goes_together() -> None:
    pixels = np.array([[[9, 0, 0]], [[0, 0, 9]]], np.uint8)
    found = measure(np.ones((1, 3), np.int64), pixels, [1], ["a", "b"], settings=settings())
    for what in WHAT[2:]:
        assert found[f"{what}_a_b"][0] == 0
    assert found["pearson_a_b"][0] == pytest.approx(-0.5)


def test_equal_channels_go_together() -> None:
    labels, pixels = plain.picture()
    found = measure(labels, pixels[[0, 0]], [1, 2, 3], ["a", "b"], settings=settings())
    for what in WHAT:
        np.testing.assert_allclose(found[f"{what}_a_b"], 1, rtol=1e-12)
    assert measure(labels, pixels[:1], [1], ["a"], settings=settings()).keys() == (
        measure(labels, pixels[:1], [1], ["a"], settings=Measure(groups=())).keys()
    )
