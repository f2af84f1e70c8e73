"""Cells that share pixels: whatever the tiles, each comes out whole, and once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cellseg.models import Instances
from cellseg.pipeline.stitch import EXTRA, SEAMS, Rules, Stitched, stitch
from cellseg.pipeline.tiles import Box, Grid
from exact import cut

Segment = Callable[[Box], Instances]
Looks = list[tuple[list[int], bytes]]
RULES = Rules(margin=2, overlap=0.4, window_px=4096, overlapping=True)
FORMS = ("disc", "ellipse", "rectangle")


def run(
    segment: Segment,
    grid: Grid,
    rules: Rules = RULES,
    block_px: int = 8192,
    order: NDArray[np.intp] | None = None,
) -> tuple[Stitched, Instances]:
    """Stitch tiles that are segmented in some order; return the cells with their masks."""
    positions = np.arange(len(grid)) if order is None else order
    tiles = {position: segment(grid.read(position)) for position in positions.tolist()}
    cells = stitch(grid, rules, tiles.__getitem__, segment, block_px)
    found = [
        (cells.extra if tile == EXTRA else tiles[tile]).take([index])
        for tile, index in zip(cells.tile.tolist(), cells.index.tolist(), strict=True)
    ]
    return cells, Instances.concatenate(found)


def looks_of(found: Instances) -> Looks:
    """Return each object's box and pixels, to compare."""
    return [
        (box, mask.tobytes()) for box, mask in zip(found.boxes.tolist(), found.masks, strict=True)
    ]


def distinct(found: Instances) -> Instances:
    """Return the objects no two of which have the same pixels."""
    looks = looks_of(found)
    return found.take([i for i, look in enumerate(looks) if look not in looks[:i]])


def drawn(form: str, shape: tuple[int, int], place: tuple[float, ...]) -> NDArray[np.bool_]:
    y, x = np.ogrid[: shape[0], : shape[1]]
    cy, cx, ry, rx = place
    if form == "rectangle":
        return np.asarray((abs(y - cy) <= ry) & (abs(x - cx) <= rx))
    rx = ry if form == "disc" else rx
    return np.asarray(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)


def piles(seed: int, shape: tuple[int, int], count: int, largest: float) -> Instances:
    """Cells alone and in piles: nested, of one centre, a pixel or two apart, and in chains."""
    random = np.random.default_rng(seed)
    place, found = (0.0, 0.0, 1.0, 1.0), []
    for _ in range(count):
        cy, cx, ry, rx = place
        how = random.choice(["alone", "within", "shifted", "chained"], p=[0.4, 0.2, 0.2, 0.2])
        if how in ("alone", "within"):
            ry, rx = np.exp(random.uniform(0.3, np.log(largest), 2)).tolist()
        if how == "alone":
            cy, cx = random.uniform((0, 0), shape).tolist()
        elif how == "shifted":
            cy, cx = cy + random.integers(-2, 3), cx + random.integers(-2, 3)
        elif how == "chained":
            cy, cx = cy + random.uniform(-1, 1) * ry, cx + random.uniform(-1, 1) * rx
        place = cy, cx, ry, rx
        mask = drawn(random.choice(FORMS), shape, place)
        found.append(((0, 0), mask, random.choice([1.0, random.random()]), 1))
    return distinct(Instances.stack(found))


def depths(found: Instances, shape: tuple[int, int]) -> NDArray[np.intp]:
    """Return how many objects cover each pixel."""
    counts = np.zeros(shape, np.intp)
    for (y0, x0, y1, x1), mask in zip(found.boxes.tolist(), found.masks, strict=True):
        counts[y0:y1, x0:x1] += mask
    return counts


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(10, 100), st.integers(10, 100)),
    count=st.integers(0, 30),
    largest=st.sampled_from([4.0, 10.0, 25.0, 70.0]),
    size=st.integers(14, 64),
    reach=st.floats(0, 1.2),
    margin=st.integers(1, 6),
    block_px=st.sampled_from([1, 60, 8192]),
    depth=st.sampled_from([0, 0.75, 1]),
)
def test_exact_tiles_give_the_untiled_cells(
    seed: int,
    shape: tuple[int, int],
    count: int,
    largest: float,
    size: int,
    reach: float,
    margin: int,
    block_px: int,
    depth: float,
) -> None:
    truth, halo = piles(seed, shape, count, largest), 1 + int(reach * size)
    rules = Rules(margin, 0.4, window_px=4096, depth=int(depth * halo), overlapping=True)
    segment, plane = partial(cut, truth), Box(0, 0, *shape)
    grid = Grid(plane, size, halo)
    order = np.random.default_rng(seed).permutation(len(grid))
    cells, tiled = run(segment, grid, rules, block_px, order)
    _, untiled = run(segment, Grid(plane, max(shape), halo), rules)
    assert sorted(looks_of(untiled)) == sorted(looks_of(truth))
    assert looks_of(tiled) == looks_of(untiled)
    assert np.array_equal(cells.scores, untiled.scores)
    assert np.array_equal(depths(tiled, shape), depths(truth, shape))


def squares(*corners: tuple[int, int, int, int]) -> Instances:
    """Rectangles y0, x0, y1, x1, of score 1."""
    return Instances.stack(
        [((y0, x0), np.ones((y1 - y0, x1 - x0), bool), 1.0, 1) for y0, x0, y1, x1 in corners]
    )


@pytest.mark.parametrize(
    "truth",
    [
        squares((40, 60, 60, 102), (40, 73, 60, 130)),
        squares((40, 60, 60, 103), (40, 61, 60, 104), (40, 62, 60, 105)),
        squares((10, 20, 90, 280), (10, 40, 90, 290), (40, 95, 50, 105)),
        squares(*((40 - k, 90 - k, 50 + k, 110 + k) for k in range(12))),
    ],
    ids=["each whole in one tile", "a pixel apart", "two giants and one on them", "a pile"],
)
@pytest.mark.parametrize("halo", [8, 30])
@pytest.mark.parametrize("window_px", [1, 4096])
def test_cells_that_share_most_of_their_pixels_are_kept(
    truth: Instances, halo: int, window_px: int
) -> None:
    grid = Grid(Box(0, 0, 100, 300), 100, halo)
    rules = Rules(margin=2, overlap=0.4, window_px=window_px, overlapping=True)
    _, found = run(partial(cut, truth), grid, rules)
    assert sorted(looks_of(found)) == sorted(looks_of(truth))


def chain(seed: int, share: float) -> Instances:
    """Chains of three discs of some 20 px; neighbours share a part of the smaller one's width."""
    random = np.random.default_rng(seed)
    found = []
    for cy in range(18, 130, 32):
        cx = 18.0
        for radius in random.uniform(9, 11, 3).tolist():
            found.append(((0, 0), drawn("disc", (150, 110), (cy, cx, radius, radius)), 1.0, 1))
            cx += 2 * radius * (1 - share)
    return Instances.stack(found)


def shaky(truth: Instances, seed: int, window: Box) -> Instances:
    """Each cell moved by up to a pixel, differently in every window."""
    random = np.random.default_rng((seed, window.y0, window.x0, window.y1, window.x1))
    moved = truth.boxes + np.tile(random.integers(-1, 2, (len(truth), 2)), 2).astype(np.int32)
    return cut(Instances(moved, truth.masks, truth.scores, truth.classes), window)


def found_again(truth: Instances, found: Instances, shape: tuple[int, int]) -> int:
    """Return how many true cells have an object of their own of IoU 0.5 or more."""

    def flat(objects: Instances) -> NDArray[np.float64]:
        labels = [objects.take([i]).to_labels(shape).ravel() for i in range(len(objects))]
        return np.array(labels, np.float64)

    one, other = flat(truth), flat(found)
    shared = one @ other.T
    iou = shared / (one.sum(axis=1)[:, None] + other.sum(axis=1) - shared)
    return int((iou[linear_sum_assignment(-iou)] >= 0.5).sum())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(30, 70),
    halo=st.integers(10, 40),
    share=st.sampled_from([0.3, 0.45, 0.6]),
)
def test_jitter_between_tiles_neither_doubles_nor_loses_a_cell(
    seed: int, size: int, halo: int, share: float
) -> None:
    truth = chain(seed, share)
    _, found = run(partial(shaky, truth, seed), Grid(Box(0, 0, 150, 110), size, halo))
    assert len(found) == len(truth)
    assert found_again(truth, found, (150, 110)) == len(truth)


def forgetful(truth: Instances, seed: int, window: Box) -> Instances:
    """Misses a tenth of the cells, others in every window."""
    random = np.random.default_rng((seed, window.y0, window.x0, window.y1, window.x1))
    return cut(truth.take(np.flatnonzero(random.random(len(truth)) > 0.1)), window)


def test_tiles_miss_fewer_cells_than_one_window_and_none_is_misshapen() -> None:
    tiled = untiled = 0
    plane = Box(0, 0, 150, 150)
    for seed in range(12):
        truth = piles(seed, plane.shape, 60, 12)
        segment = partial(forgetful, truth, seed)
        _, found = run(segment, Grid(plane, 40, 27))
        assert all(look in looks_of(truth) for look in looks_of(found))
        assert distinct(found) is not found
        assert len(distinct(found)) == len(found)
        tiled += len(truth) - len(found)
        untiled += len(truth) - len(segment(plane))
    assert tiled < untiled


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(20, 60), halo=st.integers(5, 30))
def test_blocks_agree_at_their_borders_whatever_the_segmenter_does(
    seed: int, size: int, halo: int
) -> None:
    truth = piles(seed, (90, 90), 30, 25)

    def unreliable(window: Box) -> Instances:
        seen = shaky(truth, seed, window)
        random = np.random.default_rng((seed, *seen.boxes.ravel()[:8].tolist()))
        fused = [
            Instances.concatenate([seen.take([i]), seen.take([i - 1])]) for i in range(1, len(seen))
        ]
        return Instances.concatenate(
            [
                Instances.stack([((0, 0), depths(pair, (91, 91)) > 0, 0.9, 1)])
                if random.random() < 0.1
                else pair.take([0])
                for pair in fused
                if random.random() > 0.1
            ]
        )

    grid = Grid(Box(0, 0, 90, 90), size, halo)
    rules = Rules(margin=2, overlap=0.4, window_px=70, depth=halo // 2, overlapping=True)
    whole, expected = run(unreliable, grid, rules)
    for block_px in (1, 2 * size):
        cells, found = run(unreliable, grid, rules, block_px)
        assert looks_of(found) == looks_of(expected)
        assert np.array_equal(cells.seam, whole.seam)
        assert np.array_equal(cells.scores, whole.scores)


def in_a_row(*tiles: Instances) -> Instances:
    """Stitch tiles of 100 px, and 40 around them, that stand side by side."""
    grid = Grid(Box(0, 0, 100, 100 * len(tiles)), 100, 40)
    cells = stitch(grid, RULES, tiles.__getitem__, lambda _: Instances.empty())
    found = [
        (cells.extra if tile == EXTRA else tiles[tile]).take([index])
        for tile, index in zip(cells.tile.tolist(), cells.index.tolist(), strict=True)
    ]
    return Instances.concatenate(found)


@pytest.mark.parametrize("shared", [0, 5, 10])
def test_one_cell_fused_of_two_and_the_two_are_not_kept_together(shared: int) -> None:
    one, other = (40, 80, 60, 100 + shared // 2), (40, 100 - (shared + 1) // 2, 60, 120)
    fused, apart = squares((40, 80, 60, 120)), squares(one, other)
    for found in (in_a_row(fused, apart), in_a_row(apart, fused)):
        assert sorted(looks_of(found)) in (looks_of(fused), sorted(looks_of(apart)))


def test_views_of_one_cell_are_one_cell_though_another_lies_over_it() -> None:
    left = squares((40, 85, 60, 105), (40, 92, 60, 112))
    right = squares((40, 86, 60, 106), (40, 93, 60, 113))
    assert len(in_a_row(left, right)) == 2


def test_a_cell_that_one_tile_missed_is_kept_though_the_other_found_one_over_it() -> None:
    left = squares((40, 85, 60, 105), (40, 92, 60, 112))
    assert looks_of(in_a_row(left, left.take([1]))) == looks_of(left)


def test_a_large_cell_is_predicted_again_without_those_that_lie_over_it() -> None:
    giant = (20, 30, 80, 270)
    small = [(30, x, 40, x + 10) for x in range(40, 260, 12)]
    truth = squares(giant, *small)
    cells, found = run(partial(cut, truth), Grid(Box(0, 0, 100, 300), 100, 20))
    assert sorted(looks_of(found)) == sorted(looks_of(truth))
    seam = dict(zip(map(tuple, cells.boxes.tolist()), cells.seam.tolist(), strict=True))
    assert SEAMS[seam[giant]] == "resolved"
    assert len(cells.extra) == 1
