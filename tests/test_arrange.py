"""Places: overlap counted as pixels are, distances that meet a share, nothing half done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.models.arrange import Arrangement, Placed, beside, overlap, visible

SIDE = 40


def cell(seed: int) -> Placed:
    """A random mask at a random place, perhaps in part or wholly beyond the crop."""
    random = np.random.default_rng(seed)
    mask = random.random(tuple(random.integers(1, 15, 2))) < 0.6
    y, x = random.integers(-20, SIDE + 5, 2).tolist()
    return Placed(y, x, mask, int(mask.sum()))


def disc(y: int, x: int, radius: int) -> Placed:
    line = np.arange(-radius - 2, radius + 3)
    mask = line[:, None] ** 2 + line**2 <= radius**2
    return Placed(y - radius - 2, x - radius - 2, mask, int(mask.sum()))


def drawn(placed: Placed) -> np.ndarray:
    """The cell on a canvas with room for all of it."""
    canvas = np.zeros((SIDE + 60, SIDE + 60), bool)
    y, x = placed.y0 + 30, placed.x0 + 30
    canvas[y : y + placed.mask.shape[0], x : x + placed.mask.shape[1]] = placed.mask
    return canvas


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_overlap_is_what_both_drawn_share(one: int, other: int) -> None:
    assert overlap(cell(one), cell(other)) == (drawn(cell(one)) & drawn(cell(other))).sum()


@given(st.integers(0, 10_000))
def test_visible_is_what_the_crop_shows(seed: int) -> None:
    placed, crop = cell(seed), np.zeros((SIDE, SIDE), bool)
    window, part = visible(placed, SIDE)
    crop[window] = placed.mask[part]
    assert np.array_equal(crop, drawn(placed)[30 : 30 + SIDE, 30 : 30 + SIDE])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("radius", [9, 14])
def test_a_cell_beside_another_shares_what_it_should(share: float, radius: int) -> None:
    neighbour = disc(20, 20, 12)
    for seed in range(20):
        mask = disc(0, 0, radius).mask
        placed = beside(mask, neighbour, share, np.random.default_rng(seed))
        smaller = min(neighbour.area, placed.area)
        # A step of a pixel changes the share by about the width of the cell over its area.
        assert overlap(placed, neighbour) / smaller == pytest.approx(share, abs=0.05)


def test_a_cell_that_would_be_hidden_or_hide_another_changes_nothing() -> None:
    scene = Arrangement(SIDE, covered=0.5)
    assert scene.add(disc(20, 20, 6))
    before = scene.depth.copy()
    assert not scene.add(disc(20, 22, 4))
    assert not scene.add(disc(20, 20, 14))
    assert np.array_equal(scene.depth, before)
    assert len(scene.placed) == 1
    assert scene.add(disc(20, 30, 6))
    assert scene.depth.max() == 2


def test_what_lies_beyond_the_crop_does_not_count_as_seen() -> None:
    # Three quarters of the cell are free, but the crop shows the covered one only.
    scene = Arrangement(SIDE, covered=0.6)
    assert scene.add(disc(20, 2, 6))
    assert not scene.add(disc(20, -3, 6))
    assert scene.add(disc(32, -3, 6))


def test_a_fourth_cell_over_three_finds_no_place() -> None:
    scene = Arrangement(SIDE, covered=1.0)
    assert [scene.add(disc(20, x, 8)) for x in (18, 20, 22, 20)] == [True, True, True, False]
