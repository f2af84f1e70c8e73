"""Rings and background: the free pixels that are nearest to a cell, and what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import plain
from cellseg.pipeline.measure import measure, patch_of
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.ring import Ring, squared_distance
from synthetic import cells


def crowd(seed: int) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Cells that touch, lie apart and are cut by the image, in two channels."""
    _, labels = cells(seed, shape=(90, 110), count=40, radius=(2, 9))
    random = np.random.default_rng(seed)
    return labels.astype(np.int64), random.integers(0, 4000, (2, 90, 110)).astype(np.uint16)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("gap", "width"), [(0, 1), (1, 5), (4, 8)])
def test_a_ring_is_every_free_pixel_that_no_other_cell_is_nearer_to(
    seed: int, gap: int, width: int
) -> None:
    labels, pixels = crowd(seed)
    ids = np.unique(labels)[1:]
    settings = Measure(ring_gap_px=gap, ring_px=width, background_gap_px=gap, background_px=width)
    patch = patch_of(labels, pixels, ids, ["a", "b"], settings)
    ring = Ring.around(patch, gap, width)
    groups = settings.model_copy(update={"groups": ("ring", "background")})
    found = measure(labels, pixels, ids, ["a", "b"], settings=groups)
    for row, id_ in enumerate(ids):
        mask, own = plain.ring(labels, id_, gap, width), ring.index == row
        assert sorted(zip(ring.y[own], ring.x[own], strict=True)) == list(
            zip(*np.nonzero(mask), strict=True)
        )
        values, inside = pixels[1][mask].astype(float), pixels[1][labels == id_].mean()
        assert found["ring_area_px"][row] == found["background_area_px"][row] == mask.sum()
        expected: dict[str, Any] = {
            "ring_mean_b": np.mean,
            "ring_std_b": np.std,
            "ring_ratio_b": lambda v, inside=inside: inside / v.mean(),
            "background_b": np.median,
            "contrast_b": lambda v, inside=inside: inside - np.median(v),
            "contrast_ratio_b": lambda v, inside=inside: inside / np.median(v),
        }
        for name, expect in expected.items():
            want = expect(values) if len(values) else np.nan
            assert found[name][row] == pytest.approx(want, rel=1e-12, nan_ok=True), name
        assert found["ring_sum_b"][row] == values.sum()


def test_between_two_cells_both_have_the_pixels_half_way() -> None:
    labels = np.zeros((3, 9), np.int64)
    labels[:, 0], labels[:, 8] = 1, 2
    found = around(labels, np.arange(27.0).reshape(1, 3, 9), gap=0, width=9)
    assert found["ring_area_px"].tolist() == [12, 12]  # columns 1 to 4, and 4 to 7


def around(labels: NDArray[Any], pixels: NDArray[Any], gap: int, width: int) -> dict[str, Any]:
    names = [str(number) for number in range(len(pixels))]
    chosen = {"ring_gap_px": gap, "ring_px": width}
    chosen |= {"background_gap_px": gap, "background_px": width}
    settings = Measure.model_validate({"groups": ("ring", "background"), **chosen})
    ids = np.unique(labels[labels > 0])
    return measure(labels, pixels, ids, names, settings=settings)


def test_a_cell_without_a_free_pixel_has_no_ring() -> None:
    labels = np.ones((6, 6), np.int64)
    labels[2, 2] = 2
    found = around(labels, np.ones((1, 6, 6), np.uint8), 0, 3)
    for name in ("ring_area_px", "ring_sum_0", "background_area_px"):
        assert found[name].tolist() == [0, 0]
    for name in ("ring_mean_0", "ring_std_0", "ring_ratio_0", "background_0", "contrast_0"):
        assert np.isnan(found[name]).all(), name


def test_where_there_is_no_light_around_a_cell_there_is_no_ratio() -> None:
    labels = np.zeros((9, 9), np.int64)
    labels[4, 4] = 1
    found = around(labels, 7.0 * (labels > 0)[None], 1, 2)
    assert (found["ring_mean_0"], found["ring_std_0"], found["background_0"]) == (0, 0, 0)
    assert found["contrast_0"] == 7
    assert np.isnan(found["ring_ratio_0"])
    assert np.isnan(found["contrast_ratio_0"])


def test_the_cells_of_other_layers_are_no_part_of_a_ring() -> None:
    labels = np.zeros((12, 20), np.int64)
    labels[4:8, 4:8] = 1
    occupied = labels > 0
    occupied[4:8, 6:12] = True  # a cell of another layer, that lies over the first
    settings = Measure(groups=("ring",), ring_gap_px=0, ring_px=3)
    pixels = np.zeros((1, 12, 20))
    alone = measure(labels, pixels, [1], ["0"], settings=settings)
    found = measure(labels, pixels, [1], ["0"], settings=settings, occupied=occupied)
    assert found["ring_area_px"][0] < alone["ring_area_px"][0]
    both = np.where(occupied & (labels == 0), 2, labels)
    assert found["ring_area_px"][0] == plain.ring(both, 1, 0, 3).sum()


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_distances_are_exact_up_to_the_limit(limit: int) -> None:
    occupied = np.random.default_rng(limit).random((40, 130)) > 0.999
    occupied[20, 100] = True
    y, x = np.nonzero(occupied)
    rows, columns = np.mgrid[:40, :130]
    expected = ((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).min(axis=-1)
    found = squared_distance(occupied, limit)
    near = expected <= limit * limit
    assert np.array_equal(found[near], expected[near])
    assert (found[~near] > limit * limit).all()
    assert (squared_distance(np.zeros((3, 4), bool), limit) > limit * limit).all()
