"""Sections to 3D cells: exact planes give exact volumes, and one bad plane changes none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.pipeline.link import Linked, link
from cellseg.pipeline.link_rules import LinkRules, Shares, expected_overlap
from sections import Volume, ellipsoids, sections, shares_of

SHAPE = (20, 40, 44)


def linked(volume: Volume, step: float | None = None, **rules: int) -> tuple[Volume, Linked]:
    """Link the labels of each plane; return the volume of 3D cells, from 1 on, and the counts."""
    numbers, planes, areas = sections(volume)
    how = LinkRules(len(volume), step, **rules)
    found = link(planes, areas, shares_of(numbers, how.reach), how)
    cells = np.concatenate([[0], found.cell + 1])
    return cells[numbers], found


def same(one: Volume, other: Volume) -> bool:
    """Whether two label volumes are the same up to the numbers of the labels."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    alike = ((pairs == 0).all(axis=0) | (pairs != 0).all(axis=0)).all()
    return bool(alike) and all(len(np.unique(side)) == pairs.shape[1] for side in pairs)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    gap=st.integers(0, 2),
    touching=st.booleans(),
    step=st.sampled_from([None, 1.0, 3.0]),
)
def test_exact_planes_give_exact_volumes(
    seed: int, gap: int, touching: bool, step: float | None
) -> None:
    truth = ellipsoids(seed, SHAPE, 30, apart=gap + 1, touching=touching)
    found, how = linked(truth, step, gap=gap, least_planes=1)
    assert same(found, truth)
    assert (how.short, how.bridged, how.missed) == (0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), turn=st.integers(0, 99))
def test_the_order_of_what_is_shared_changes_nothing(seed: int, turn: int) -> None:
    random = np.random.default_rng(seed)
    numbers, planes, areas = sections(random.integers(0, 4, (6, 5, 5)))
    shares, rules = shares_of(numbers, 2), LinkRules(6)
    expected = link(planes, areas, shares, rules)
    order = np.random.default_rng(turn).permutation(len(shares))
    # In parts, as regions give them.
    half = shares.pixels // 2
    parts = [Shares(shares.ones, shares.others, part) for part in (half, shares.pixels - half)]
    names = ("ones", "others", "pixels")
    cut = Shares(*(np.concatenate([getattr(p, n)[order] for p in parts]) for n in names))
    assert np.array_equal(link(planes, areas, cut, rules).cell, expected.cell)


def column(*sides: tuple[int, int] | None, planes: int = 0) -> NDArray[np.int64]:
    """One cell in a strip of 40 px: from and to in each plane."""
    volume = np.zeros((planes or len(sides), 4, 40), np.int64)
    for plane, side in zip(volume, sides, strict=False):
        if side:
            plane[:, slice(*side)] = 1
    return volume


def test_two_cells_that_one_plane_shows_as_one_stay_two() -> None:
    left, right = column(*[(2, 12)] * 7), column(*[(12, 20)] * 7)
    planes = left + 2 * right
    planes[3] = left[3] + right[3]
    found, how = linked(planes, gap=0)
    truth = left + 2 * right
    truth[3] = planes[3]
    assert same(found, truth)
    assert (how.bridged, how.pieces, how.short) == (1, 0, 0)


def test_a_fused_plane_between_sections_of_changing_size_swaps_no_cells() -> None:
    # The fused one is most like the left cell below, and most like the right one above.
    left = column(*[(2, 14)] * 3, (2, 14), *[(3, 12)] * 3)
    right = column(*[(14, 23)] * 3, (14, 24), *[(13, 24)] * 3)
    planes = left + 2 * right
    planes[3] = planes[3] > 0
    found, how = linked(planes, gap=0)
    for side in (left, right):
        own = found[side * (np.arange(7) != 3)[:, None, None] > 0]
        assert len(np.unique(own)) == 1
    assert len(np.unique(found)) == 3
    assert how.bridged == 2


@pytest.mark.parametrize("at", [3, 11, 10])
def test_a_cell_that_one_plane_shows_in_two_pieces_stays_one(at: int) -> None:
    truth = column(*[(1, 21)] * 5)
    planes = truth.copy()
    planes[2, :, at:] *= 2
    found, how = linked(planes)
    assert same(found, truth)
    assert how.pieces in (1, 2)


def test_a_cell_missed_in_a_plane_is_one_if_a_gap_is_allowed() -> None:
    planes = column(*[(1, 21)] * 3, None, *[(2, 22)] * 3)
    found, how = linked(planes, gap=1)
    assert len(np.unique(found)) == 2
    assert how.missed == 1
    assert len(np.unique(linked(planes, gap=0)[0])) == 3


def test_two_cells_above_each_other_that_narrow_stay_two() -> None:
    planes = column((1, 21), (1, 21), (6, 16), None, (6, 16), (1, 21), (1, 21))
    assert len(np.unique(linked(planes, gap=1)[0])) == 3


def test_a_cell_with_a_waist_is_two_but_a_tip_belongs_to_its_cell() -> None:
    small, large, tip = (18, 21), (2, 38), (19, 20)
    blob = column(large, large, small, small, small)
    assert len(np.unique(linked(blob)[0])) == 3
    pointed = column((2, 38), (6, 34), (12, 28), tip)
    assert len(np.unique(linked(pointed)[0])) == 2
    # One plane that shows too much does not break what goes on behind it.
    bump = column(small, small, large, small, small)
    found, _ = linked(bump, gap=1)
    assert len(np.unique(found[[0, 1, 3, 4]])) == 2


def test_touching_cells_are_not_joined_where_one_ends() -> None:
    # The left one ends where the right one reaches over its place.
    left = column(*[(2, 12)] * 3, planes=7)
    right = column(*[(12, 22)] * 3, *[(5, 22)] * 4)
    truth = left + 2 * right
    assert same(linked(truth)[0], truth)


def test_what_one_plane_shows_is_left_out_and_counted_but_not_at_the_ends() -> None:
    inner = column(None, None, (2, 9), None, None)
    found, how = linked(inner)
    assert (found.max(), how.short) == (0, 1)
    assert linked(inner, least_planes=1)[0].max() == 1
    for at in (0, 4):
        planes = column(planes=5)
        planes[at, :, 2:9] = 1
        found, how = linked(planes)
        assert (found.max(), how.short) == (1, 0)


def test_a_cell_needs_the_overlap_that_its_distance_leads_one_to_expect() -> None:
    # Two sections of 10 px, 6 apart: of cells far thinner than the step that is one cell.
    planes = column(*[(2, 12)] * 3, *[(8, 18)] * 3)
    assert len(np.unique(linked(planes, step=1.0)[0])) == 3
    assert len(np.unique(linked(planes, step=6.0)[0])) == 2
    assert expected_overlap(np.array([0.0, 1.0, 2.0])).tolist() == [1, 0, 0]


def test_nothing_is_linked_where_nothing_is() -> None:
    found, how = linked(np.zeros((3, 4, 4), np.int64))
    assert (found.max(), how.short) == (0, 0)


@pytest.mark.parametrize("fused", [True, False])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_one_bad_plane_neither_breaks_nor_fuses_a_cell(fused: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = ellipsoids(seed, SHAPE, 60, apart=3, touching=True)
    planes, bad = truth.astype(np.int64), int(random.integers(2, 18))
    if fused:  # what touches is one
        planes[bad] = ndimage.label(planes[bad])[0]
    else:  # all is cut in two
        planes[bad, :, random.integers(0, 44) :] += 1000
        planes[bad] *= truth[bad] > 0
    found, _ = linked(planes, gap=0, least_planes=1)
    others = np.arange(20) != bad
    for label in set(np.unique(truth[bad - 1])) & set(np.unique(truth[bad + 1])) - {0}:
        below, above = (truth[bad + side] == label for side in (-1, 1))
        if np.count_nonzero(below & above) < 0.5 * np.count_nonzero(below | above):
            continue  # no witness: the planes around differ too
        own = np.unique(found[others][truth[others] == label])
        assert len(own) == 1
        assert np.array_equal(found[others] == own[0], truth[others] == label)
