"""Outlines are valid polygons that cover the very pixels of their masks."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg.pipeline import outline
from cellseg.pipeline.outline import outlines
from cellseg.pipeline.polygons import Feature, edges_of
from cellseg.pipeline.tiles import Box

MASKS = arrays(bool, st.tuples(st.integers(0, 7), st.integers(0, 7)))
CLOSED_IN_A_CORNER = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], bool)
"""Its one hole and what is around it meet in a corner."""


def shape_of(parts: list[list[np.ndarray]]) -> shapely.MultiPolygon:
    return shapely.MultiPolygon([(rings[0], rings[1:]) for rings in parts])


@given(st.lists(st.tuples(MASKS, st.integers(0, 9), st.integers(0, 9)), max_size=4))
@example([(CLOSED_IN_A_CORNER, 3, 2), (~CLOSED_IN_A_CORNER, 0, 0)])
def test_any_masks_come_back_from_their_outlines(
    found: list[tuple[np.ndarray, int, int]],
) -> None:
    masks, origins = [mask for mask, *_ in found], [corner for _, *corner in found]
    traced = outlines(np.array(origins, np.int64).reshape(-1, 2), masks)
    polygons = list(traced.polygons())
    assert len(polygons) == len(masks)
    for mask, (y, x), parts in zip(masks, origins, polygons, strict=True):
        shape = shape_of(parts)
        assert shape.is_valid
        assert all(shapely.Polygon(rings[0], rings[1:]).is_valid for rings in parts)
        assert shape.area == mask.sum()
        feature = Feature("", tuple(edges_of([r[:, ::-1].astype(float) for r in p]) for p in parts))
        whole = np.zeros((20, 20), bool)
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        inside = feature.inside(Box(0, 0, 20, 20)) if parts else np.zeros((20, 20), bool)
        assert np.array_equal(inside, whole)


@pytest.mark.parametrize(
    ("rows", "rings"),
    [
        (["##", "##"], [[4]]),
        (["###", "#.#", "###"], [[4, 4]]),
        # Two parts, as they share a corner only.
        (["#.", ".#"], [[4], [4]]),
        # One part with a hole that meets its edge in a corner.
        (["###", "#.#", ".##"], [[6, 4]]),
        # Two holes that meet in a corner.
        (["####", "#.##", "##.#", "####"], [[4, 4, 4]]),
    ],
)
def test_rings_are_those_one_would_draw(rows: list[str], rings: list[list[int]]) -> None:
    mask = np.array([[sign == "#" for sign in row] for row in rows])
    (parts,) = outlines(np.zeros((1, 2), int), [mask]).polygons()
    assert sorted([len(ring) for ring in part] for part in parts) == sorted(rings)


def test_rings_around_run_one_way_and_holes_the_other() -> None:
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    (((ring, hole),),) = outlines(np.array([[10, 20]]), [mask]).polygons()
    assert ring.tolist() == [[20, 10], [25, 10], [25, 15], [20, 15]]
    assert hole.tolist() == [[22, 12], [22, 13], [23, 13], [23, 12]]
    assert shapely.LinearRing(ring).is_ccw
    assert not shapely.LinearRing(hole).is_ccw


def test_it_does_not_matter_how_many_are_traced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [*[np.eye(size, dtype=bool) for size in range(6)], CLOSED_IN_A_CORNER]
    origins = np.arange(14).reshape(7, 2)
    whole = outlines(origins, masks)
    monkeypatch.setattr(outline, "TOGETHER", 5)
    split = outlines(origins, masks)
    for name in ("corners", "ends", "parts", "owners"):
        assert np.array_equal(getattr(whole, name), getattr(split, name))
    assert whole.masks == split.masks == 7
