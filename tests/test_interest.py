"""A region is asked for pixel by pixel or window by window, and gives the same answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.pipeline.interest import Interest, Outlines, centre_pixels, state_of
from cellseg.pipeline.polygons import Feature, rectangle
from cellseg.pipeline.region_report import region_facts, region_notes
from cellseg.pipeline.tiles import Box, Grid

PLANE = Box(0, 0, 700, 900)


def rectangles(seed: int, count: int) -> list[list[float]]:
    """Boxes of any place and size, over each other and beyond the plane."""
    random = np.random.default_rng(seed)
    corners = random.uniform(-100, 1000, (count, 2))
    sides = np.concatenate([corners, corners + random.uniform(1, 400, (count, 2))], axis=1)
    return [[float(side) for side in box] for box in sides]


def named(boxes: list[list[float]]) -> Outlines:
    return Outlines(tuple(Feature(f"{k % 3}", (rectangle(*box),)) for k, box in enumerate(boxes)))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 12),
    step=st.integers(1, 9),
    corner=st.tuples(st.integers(0, 690), st.integers(0, 890)),
)
def test_the_first_feature_counts_in_whatever_window(
    seed: int, count: int, step: int, corner: tuple[int, int]
) -> None:
    boxes = rectangles(seed, count)
    area, expected = named(boxes), np.zeros(PLANE.shape, int)
    y, x = np.indices(PLANE.shape) + 0.5
    for number, (y0, x0, y1, x1) in reversed(list(enumerate(boxes, 1))):
        expected[(y >= y0) & (y < y1) & (x >= x0) & (x < x1)] = number
    window = Box(*corner, 700, 900)
    assert np.array_equal(area.numbers(window, step), expected[window.slices][::step, ::step])


def geojson(folder: Path, boxes: list[list[float]]) -> Interest:
    path = folder / "r.geojson"
    features = []
    for k, (y0, x0, y1, x1) in enumerate(boxes):
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append(
            {"type": "Feature", "geometry": geometry, "properties": {"name": str(k % 3)}}
        )
    path.write_text(json.dumps(features))
    return Interest(PLANE, "geojson", None, path, (), state_of(path, "geojson"))


def test_points_are_told_as_pixels_are(tmp_path: Path) -> None:
    interest = geojson(tmp_path, rectangles(3, 9))
    drawn = interest.area().numbers(PLANE)
    points = np.random.default_rng(0).integers(0, PLANE.shape, (2000, 2))
    assert np.array_equal(interest.numbers_at(points), drawn[points[:, 0], points[:, 1]])
    names = interest.names_at(points.astype(np.float64) + 0.49)
    assert names == interest.names_at(points.astype(np.float64) - 0.5)
    numbers = drawn[points[:, 0], points[:, 1]].tolist()
    assert names == [str((n - 1) % 3) if n else None for n in numbers]
    assert interest.numbers_at(np.zeros((0, 2), np.int64)).tolist() == []


def test_the_pixel_of_a_centre_is_the_one_around_it() -> None:
    centres = np.array([[0.0, 0.49], [0.5, 1.5], [2.49, -0.5]])
    assert centre_pixels(centres).tolist() == [[0, 0], [1, 2], [2, 0]]


@pytest.mark.parametrize("size", [64, 333, 5000])
def test_the_survey_counts_every_pixel_once_whatever_the_tiles(tmp_path: Path, size: int) -> None:
    interest = geojson(tmp_path, rectangles(5, 6))
    drawn = interest.area().numbers(PLANE)
    grid = Grid(PLANE, size, 8)
    survey = interest.survey(grid)
    assert survey.pixels == {n: int((drawn == n).sum()) for n in np.unique(drawn[drawn > 0])}
    for position in range(len(grid)):
        core = grid.core(position)
        inside = drawn[core.slices] > 0
        assert (position in survey.parts) == inside.any()
        if position in survey.parts:
            part = survey.parts[position]
            assert part.intersect(core) == part
            assert inside.sum() == (drawn[part.slices] > 0).sum()
    tiles = set(survey.tiles(20))
    near = {p for p in range(len(grid)) for part in survey.parts.values()
            if grid.read(p).intersect(part.grow(20, PLANE))}  # fmt: skip
    assert tiles == near


def test_what_lies_outside_is_told(tmp_path: Path) -> None:
    boxes = [[0, 0, 10, 10], [-5, 0, 3, 30], [800, 0, 810, 10], [0, 950, 5, 960]]
    interest = geojson(tmp_path, [[float(v) for v in box] for box in boxes])
    survey = interest.survey(Grid(PLANE, 512, 64))
    assert region_notes(interest, survey) == (
        "region: 2 of 4 parts lie outside: 2, 0",
        "region: 1 of 4 parts reach beyond the image's edge",
    )
    facts = region_facts(interest, survey, (1.0, 0.5, 0.5), ())
    assert facts["area_px"] == 100 + 60
    assert facts["area_um2"] == 40
    assert facts["parts"]["0"] == {"area_px": 100, "area_um2": 25, "cells": 0}
    assert region_facts(interest, survey, None, ())["area_um2"] is None
    none = Interest(PLANE, "none")
    assert region_notes(none, none.survey(Grid(PLANE, 512, 64))) == (
        'region: none for this image, and [region] missing = "none"',
    )
    thin = Interest(PLANE, "box", (10.6, 10.6, 11.4, 400.0))
    assert region_notes(thin, thin.survey(Grid(PLANE, 512, 64))) == (
        "region: it holds no pixel of the image",
    )


def test_a_region_of_the_full_resolution_lies_over_a_level_of_it(tmp_path: Path) -> None:
    boxes = [[100.0, 40.0, 300.0, 200.0], [250.0, 100.0, 500.0, 640.0]]
    whole = geojson(tmp_path, boxes)
    level, factor = Box(0, 0, 175, 300), (4.0, 3.0)
    reduced = replace(whole, plane=level, reduced=factor)
    y, x = np.indices(level.shape)
    middles = np.stack([(y + 0.5) * 4, (x + 0.5) * 3], axis=-1).reshape(-1, 2).astype(np.int64)
    expected = whole.numbers_at(middles).reshape(level.shape)
    assert np.array_equal(reduced.area().numbers(level), expected)
    assert reduced.identity != whole.identity
