"""Grey levels of cells: percentiles as numpy has them, in any type, and a cell's edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.pipeline.intensity import percentile_name
from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
INTENSITY = Measure(groups=("intensity",), percentiles=(5, 12.5, 25, 75, 99.9))


def levels(dtype: str, seed: int, shape: tuple[int, int]) -> NDArray[Any]:
    """Return any values of a type, many of them equal, 0 and -0 among them."""
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = np.rint(random.normal(0, 3, shape)) / 7 * random.choice([-1, 1], shape)
        return values.astype(kind)
    limits = np.iinfo(kind)
    low, high = random.integers(limits.min, limits.max, 2, endpoint=True)
    chosen = random.integers(min(low, high), max(low, high), 9, endpoint=True)
    return random.choice(chosen, shape).astype(kind)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DTYPES), st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 20))
def test_agrees_with_numpy_in_any_type(dtype: str, seed: int, height: int, width: int) -> None:
    pixels = levels(dtype, seed, (height, width))
    labels = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint32)
    ids = np.unique(labels[labels > 0])
    found = measure(labels, pixels[None], ids, ["c"], settings=INTENSITY)
    for row, label in enumerate(ids):
        mask = labels == label
        values = pixels[mask].astype(np.float64)
        for percent in INTENSITY.percentiles:
            name = f"{percentile_name(percent)}_c"
            assert found[name][row] == np.percentile(values, percent)
        assert found["min_c"][row] == values.min()
        assert found["max_c"][row] == values.max()
        middle = np.median(values)
        close = {"rtol": 1e-12, "atol": 1e-12 * np.abs(values).max()}
        np.testing.assert_allclose(found["median_c"][row], middle, **close)
        deviation = np.median(np.abs(values - middle))
        np.testing.assert_allclose(found["mad_c"][row], deviation, **close)
        np.testing.assert_allclose(found["std_c"][row], values.std(), rtol=1e-9, atol=1e-9)
        edge = pixels[mask & ~ndimage.binary_erosion(mask)].astype(np.float64)
        for what in ("mean", "std", "min", "max", "sum"):
            expected = getattr(edge, what)()
            got = found[f"edge_{what}_c"][row]
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
        weights = values - min(values.min(), 0)
        off = [0.0, 0.0]
        if weights.any():
            off = [(a * weights).sum() / weights.sum() - a.mean() for a in np.nonzero(mask)]
        got = found["mass_displacement_px_c"][row]
        np.testing.assert_allclose(got, np.hypot(*off), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_more_cells_than_fit_into_16_bits(dtype: str) -> None:
    labels = np.arange(1, 2 * 33_000 + 1, dtype=np.uint32).reshape(2, -1)
    pixels = np.random.default_rng(0).integers(0, 60_000, (1, *labels.shape)).astype(dtype)
    found = measure(labels, pixels, labels.ravel(), ["c"], settings=INTENSITY)
    for name in ("median_c", "min_c", "p99p9_c", "sum_c", "edge_max_c"):
        np.testing.assert_array_equal(found[name], pixels.ravel())


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_cell_deviates_by_nothing(value: int) -> None:
    labels = np.ones((9, 13), np.uint32)
    labels[0, :5] = 0
    pixels = np.full((1, 9, 13), value, np.uint16)
    found = measure(labels, pixels, [1], ["c"], settings=INTENSITY, pixel_um=(1, 1))
    nothing = "std", "mad", "mass_displacement_px", "mass_displacement_um", "edge_std"
    assert [found[f"{what}_c"][0] for what in nothing] == [0] * 5
    alike = "min", "max", "median", "mean", "p05", "p99p9", "edge_min", "edge_mean", "edge_max"
    assert [found[f"{what}_c"][0] for what in alike] == [value] * 9


def test_the_mass_lies_where_the_light_is() -> None:
    labels, pixels = np.ones((5, 9), np.uint32), np.zeros((1, 5, 9), np.uint8)
    pixels[0, 2, 8] = 200
    found = measure(labels, pixels, [1], ["c"], settings=INTENSITY, pixel_um=(3, 0.5))
    assert found["mass_displacement_px_c"][0] == 4
    assert found["mass_displacement_um_c"][0] == 2


@pytest.mark.parametrize(
    ("percent", "name"), [(5, "p05"), (50, "p50"), (2.5, "p02p5"), (99.9, "p99p9"), (0.1, "p00p1")]
)
def test_names_of_percentiles(percent: float, name: str) -> None:
    assert percentile_name(percent) == name
