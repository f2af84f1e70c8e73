"""The seam audit: silent about whole cells, loud about those cut, doubled, lost or fused."""

from __future__ import annotations

import json
from functools import cache, reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellseg.pipeline.audit import Audit, Ratio, SeamCounts
from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.tiles import Box, Grid

SIDE, SIZE, HALO = 900, 256, 64
PITCH, RADIUS = 26, 12.5
Labels = NDArray[np.int64]
Cells = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]


def grid(side: int = SIDE, size: int = SIZE, halo: int = HALO) -> Grid:
    return Grid(Box(0, 0, side, side), size, halo)


@cache
def monolayer(seed: int, side: int = SIDE, islands: bool = False) -> Labels:
    """Discs of ~24 px that touch, at random places; all over, or in islands of tissue."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, side, (3 * side * side // PITCH**2, 2))
    if islands:
        middle, reach = random.uniform(0, side, (6, 2)), random.uniform(80, 220, 6)
        away = np.linalg.norm(points[:, None] - middle, axis=2)
        points = points[(away < reach).any(axis=1)]
    tree, free, kept = cKDTree(points), np.ones(len(points), bool), []
    for number, point in enumerate(points):
        if free[number]:
            kept.append(number)
            free[tree.query_ball_point(point, 0.8 * PITCH)] = False
    pixels = np.argwhere(np.ones((side, side), bool))
    away, nearest = cKDTree(points[kept]).query(pixels)
    labels: Labels = np.where(away < RADIUS, nearest + 1, 0).reshape(side, side)
    return labels


def cells_of(labels: Labels) -> Cells:
    """Return what the audit takes of each cell."""
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    ids = np.unique(labels[labels > 0])
    found = measure(labels, np.zeros((0, *labels.shape)), ids, [], settings=Measure(groups=()))
    centres = np.stack([found["y_px"], found["x_px"]], axis=1)
    return centres, found["area_px"], found["straight_edge"], np.isin(ids, edge)


def audit(cells: Cells, tiles: Grid | None = None) -> Audit:
    return SeamCounts.of(tiles or grid(), *cells).finish()


def tile_of_pixels(side: int) -> Labels:
    y, x = np.indices((side, side)) // SIZE
    return np.asarray(100 * y + x, np.int64)


def cut(labels: Labels) -> Labels:
    """Cut each cell in two where a seam runs through it."""
    pieces = np.where(labels > 0, 10_000 * labels + tile_of_pixels(len(labels)), 0)
    return np.unique(pieces, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def on_seams(labels: Labels) -> NDArray[np.bool_]:
    """Return for each cell, in order of ids, whether a seam runs through it."""
    tiles, ids = tile_of_pixels(len(labels)), np.unique(labels)
    first, last = np.full(ids[-1] + 1, 10**6), np.zeros(ids[-1] + 1, np.int64)
    np.minimum.at(first, labels, tiles)
    np.maximum.at(last, labels, tiles)
    return np.asarray((first < last)[ids[ids > 0]])


def pick(cells: Cells, which: NDArray[Any]) -> Cells:
    centres, areas, straight, edge = cells
    return centres[which], areas[which], straight[which], edge[which]


def join(a: Cells, b: Cells) -> Cells:
    one, two, three, four = (np.concatenate(pair) for pair in zip(a, b, strict=True))
    return one, two, three, four


@pytest.mark.parametrize("islands", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_whole_cells_raise_no_alarm(seed: int, islands: bool) -> None:
    found = audit(cells_of(monolayer(seed, islands=islands)))
    for ratio in (found.density, found.size, found.straight_edge):
        assert ratio.ratio == pytest.approx(1, abs=0.25 if islands else 0.12)
        assert ratio.p is not None
        assert ratio.p > 0.01
    assert found.warnings == ()
    assert found.within_px == 32


@pytest.mark.parametrize("islands", [False, True])
def test_cells_cut_at_seams_are_caught(islands: bool) -> None:
    found = audit(cells_of(cut(monolayer(0, islands=islands))))
    assert found.straight_edge.sure > 1.5  # `sure` is 1 unless p < 1e-3
    assert found.size.sure < 0.9
    assert "as if cut" in " ".join(found.warnings)


def test_cells_doubled_at_seams_are_caught() -> None:
    labels = monolayer(0)
    cells = cells_of(labels)
    centres, *rest = pick(cells, on_seams(labels))
    found = audit(join(cells, (centres + 1, *rest)))  # type: ignore[arg-type]
    assert found.density.sure > 1.2
    (warning,) = found.warnings
    assert "as if doubled" in warning
    assert "Raise [tiling] halo" in warning


def test_cells_lost_at_seams_are_caught() -> None:
    labels = monolayer(0)
    found = audit(pick(cells_of(labels), ~on_seams(labels)))
    assert found.density.sure < 0.8
    (warning,) = found.warnings
    assert "as if lost" in warning


def test_cells_all_lost_near_seams_are_caught_too() -> None:
    centres, *_ = cells = cells_of(monolayer(0))
    away = np.abs((centres + 0.5 + SIZE / 2) % SIZE - SIZE / 2).min(axis=1)
    found = audit(pick(cells, away >= 30))
    assert found.on_seam < 20
    assert found.density.sure < 0.2
    assert "as if lost" in found.warnings[0]
    assert found.size == Ratio()


def test_cells_fused_at_seams_are_caught() -> None:
    labels = monolayer(0)
    centres, areas, straight, edge = cells_of(labels)
    found = audit((centres, np.where(on_seams(labels), 2 * areas, areas), straight, edge))
    assert found.size.sure > 1.2
    assert "as if fused" in found.warnings[0]


def random_cells(seed: int, count: int, side: int, islands: bool) -> Cells:
    """Return cells at random places without their pixels; in islands sizes differ too."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, side, (count, 2))
    areas = 450 * random.lognormal(0, 0.35, count)
    if islands:
        middle, reach = random.uniform(0, side, (8, 2)), random.uniform(80, 200, 8)
        away = np.linalg.norm(centres[:, None] - middle, axis=2) < reach
        areas *= random.lognormal(0, 0.4, 8)[away.argmax(axis=1)]
        centres, areas = centres[away.any(axis=1)], areas[away.any(axis=1)]
    straight = random.gamma(16, 0.025, len(areas))
    return centres, areas.astype(np.int64), straight, np.zeros(len(areas), bool)


@pytest.mark.parametrize("islands", [False, True])
def test_p_values_are_those_of_chance(islands: bool) -> None:
    # Of 200 p-values 2 are below 0.01 on average; chance makes it 7 or more once in 230 times.
    found = [audit(random_cells(seed, 1500, SIDE, islands)) for seed in range(200)]
    for name in ("density", "size", "straight_edge"):
        ps = np.array([getattr(each, name).p for each in found], float)
        assert np.count_nonzero(ps < 0.01) <= 6, name
        assert np.count_nonzero(ps < 0.1) == pytest.approx(20, abs=14), name
        ratios = [getattr(each, name).ratio for each in found]
        assert np.mean(ratios) == pytest.approx(1, abs=0.03), name
    assert sum(bool(each.warnings) for each in found) <= 1


@given(st.integers(0, 5), st.lists(st.integers(0, 400), max_size=6), st.randoms())
def test_parts_in_any_split_and_order_add_up_to_the_same(
    seed: int, splits: list[int], random: Any
) -> None:
    cells = random_cells(seed, 400, SIDE, False)
    cells[3][::7] = True
    shuffled = list(range(400))
    random.shuffle(shuffled)
    parts = np.split(np.array(shuffled, np.intp), sorted(splits))
    total = reduce(add, [SeamCounts.of(grid(), *pick(cells, part)) for part in parts])
    whole = SeamCounts.of(grid(), *cells)
    for name, values in whole.to_arrays().items():
        assert values.dtype == total.to_arrays()[name].dtype
        np.testing.assert_array_equal(total.to_arrays()[name], values)
    assert total.finish() == whole.finish()


def test_counts_are_stored_and_read_and_small() -> None:
    counts = SeamCounts.of(grid(100_000, 4096), *random_cells(0, 5000, 100_000, False))
    arrays = counts.to_arrays()
    assert sum(values.nbytes for values in arrays.values()) < 33_000
    assert SeamCounts.from_arrays(arrays).finish() == counts.finish()


def test_counts_on_different_tiles_do_not_add_up() -> None:
    cells = random_cells(0, 10, SIDE, False)
    with pytest.raises(ValueError, match="different tiles"):
        SeamCounts.of(grid(), *cells) + SeamCounts.of(grid(size=128), *cells)


@pytest.mark.parametrize(
    ("name", "tiles", "count", "says"),
    [
        ("no cells", grid(), 0, "seams: none with cells near them"),
        ("one tile", grid(200), 500, "seams: none with cells near them"),
        ("tiles too small", grid(300, 31, 4), 500, "seams: none with cells near them"),
        ("the last row too low", grid(SIZE + 60), 500, "seams: none with cells near them"),
        ("few cells", grid(), 50, "seams: too few cells near seams to judge"),
    ],
)
def test_what_cannot_be_judged_says_so(name: str, tiles: Grid, count: int, says: str) -> None:
    side = tiles.plane.shape[0]
    found = audit(random_cells(0, count, side, False), tiles)
    assert found.density == found.size == found.straight_edge == Ratio()
    assert found.text.startswith(says)
    assert found.warnings == ()
    assert found.document["density"] == {"ratio": None, "p": None}


PLACES = [
    ("on, across the seam", (255.0, 100), (1, 0)),
    ("on, just beyond it", (256.0, 100), (1, 0)),
    ("on, 32 px away", (223.5, 100), (1, 0)),
    ("interior, 33 px away", (222.5, 100), (0, 1)),
    ("interior, on the other side", (287.5, 100), (0, 1)),
    ("interior, 64 px away", (191.5, 100), (0, 1)),
    ("neither", (190.5, 100), (0, 0)),
    ("neither, on the other side", (319.5, 100), (0, 0)),
    ("a vertical seam", (100, 500.0), (1, 0)),
    ("at a crossing", (256, 256), (0, 0)),
    ("on one seam, less than 64 px from another", (256, 192.5), (0, 0)),
    ("on one seam, 64 px from another", (256, 191.4), (1, 0)),
    ("the last seam, 56 px from the edge", (768, 100), (0, 0)),
]


@pytest.mark.parametrize(("name", "centre", "expected"), PLACES, ids=[p[0] for p in PLACES])
def test_each_place_counts_for_one_strip_at_most(
    name: str, centre: tuple[float, float], expected: tuple[int, int]
) -> None:
    # A mean area of 800 px is a diameter of 32 px, so 32 px is the distance.
    tiles = grid(768 + 56)
    one = (np.array([centre], float), np.array([800]), np.ones(1), np.zeros(1, bool))
    found = audit(one, tiles)
    assert found.within_px == 32
    assert (found.on_seam, found.interior) == expected


@pytest.mark.parametrize(
    ("diameter", "within"), [(4, 4), (5, 8), (20, 32), (60, 64), (90, 128), (500, 128)]
)
def test_the_strips_are_as_wide_as_the_cells(diameter: int, within: int) -> None:
    area = np.full(9, int(diameter**2 * np.pi / 4))
    cells = (np.zeros((9, 2)), area, np.ones(9), np.zeros(9, bool))
    assert audit(cells, grid(5000, 1024)).within_px == within


def test_a_halo_that_is_too_small_does_not_silence_the_audit() -> None:
    cells = cells_of(cut(monolayer(0)))
    assert audit(cells, grid(halo=2)) == audit(cells, grid(halo=64))


def test_cells_at_the_edge_of_the_image_count_but_are_not_measured() -> None:
    centres, areas, straight, edge = random_cells(0, 3000, SIDE, False)
    edge = centres[:, 0] < 300
    odd = (centres, np.where(edge, 9, areas), np.where(edge, 9.0, straight), edge)
    found, without = audit(odd), audit(pick(odd, ~edge))
    assert found.on_seam > without.on_seam
    assert (found.size, found.straight_edge) == (without.size, without.straight_edge)


def test_many_planes_of_the_same_cells_prove_no_more_than_one() -> None:
    one = SeamCounts.of(grid(), *random_cells(3, 1500, SIDE, False))
    many = reduce(add, [one] * 50).finish()
    for name in ("density", "size", "straight_edge"):
        assert getattr(many, name).p == pytest.approx(getattr(one.finish(), name).p)


def test_the_document_is_json_in_four_digits_and_the_text_one_line() -> None:
    found = Audit(Ratio(1.012345, 0.6212345), Ratio(0.99, 3e-17), Ratio(), 412, 400, 32)
    assert json.loads(json.dumps(found.document)) == {
        "density": {"ratio": 1.012, "p": 0.6212},
        "size": {"ratio": 0.99, "p": 3e-17},
        "straight_edge": {"ratio": None, "p": None},
        "on_seam": 412,
        "interior": 400,
        "within_px": 32,
    }
    assert found.text == (
        "seams: density 1.01 (p 0.62), size 0.99 (p < 0.0001), straight edges unknown,"
        " 412 cells on seams"
    )


@pytest.mark.parametrize(
    ("ratio", "p", "density", "straight"),
    [
        (1.2, 1e-4, 1, 1),
        (0.8, 1e-4, 1, 0),
        (1.2, 0.01, 0, 0),
        (1.09, 1e-9, 0, 0),
        (0.91, 1e-9, 0, 0),
    ],
)
def test_warnings_are_for_what_is_off_by_a_tenth_and_certain(
    ratio: float, p: float, density: int, straight: int
) -> None:
    off = Ratio(ratio, p)
    assert len(Audit(density=off).warnings) == len(Audit(size=off).warnings) == density
    assert len(Audit(straight_edge=off).warnings) == straight
    assert all("\n" not in warning for warning in Audit(off, off, off).warnings)
