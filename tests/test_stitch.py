"""The promise: whatever the tiles, the cells are those of the untiled image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import Instances
from cellseg.pipeline.stitch import EXTRA, SEAMS, Rules, Stitched, stitch
from cellseg.pipeline.tiles import Box, Grid

Labels = NDArray[np.int32]
RULES = Rules(margin=2, overlap=0.4, window_px=4096)
Segment = Callable[[Box, NDArray[np.int32]], Instances]


def exact(window: Box, labels: Labels) -> Instances:
    """A segmenter that is exact inside its window."""
    return Instances.from_labels(labels[window.slices]).shifted(window.y0, window.x0)


def run(
    labels: Labels,
    size: int,
    halo: int,
    segment: Segment = exact,
    rules: Rules = RULES,
    block_px: int = 8192,
) -> tuple[Stitched, Labels]:
    """Stitch tiles of an image, and paint the result by hand."""
    grid = Grid(Box(0, 0, *labels.shape), size, halo)
    tiles = {i: segment(grid.read(i), labels) for i in range(len(grid))}
    cells = stitch(grid, rules, tiles.__getitem__, lambda w: segment(w, labels), block_px)
    painted = np.zeros_like(labels)
    for label, (tile, index) in enumerate(zip(cells.tile, cells.index, strict=True), 1):
        source = cells.extra if tile == EXTRA else tiles[int(tile)]
        y0, x0, y1, x1 = source.boxes[index].tolist()
        assert (y0, x0, y1, x1) == tuple(cells.boxes[label - 1])
        view = painted[y0:y1, x0:x1]
        assert not view[source.masks[index]].any(), "two cells share a pixel"
        view[source.masks[index]] = label
    return cells, painted


def blobs(seed: int, shape: tuple[int, int], count: int, largest: float) -> Labels:
    """Connected random objects of any size and form, touching and nested in rings."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    y, x = np.indices(shape)
    for label in range(1, count + 1):
        cy, cx = random.uniform(0, shape[0]), random.uniform(0, shape[1])
        ry, rx = np.exp(random.uniform(-0.5, np.log(largest), 2))
        distance = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
        mask = distance <= 1
        if random.random() < 0.3:
            mask &= distance > 0.3
        labels[mask & ((labels == 0) | (random.random() < 0.5))] = label
    return connected(labels)


def connected(labels: Labels) -> Labels:
    """Give each piece of a label its own, as an exact segmenter cannot know of the other."""
    result = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        pieces, _ = ndimage.label(labels == value, np.ones((3, 3)))
        result[pieces > 0] = pieces[pieces > 0] + result.max()
    return result


@settings(max_examples=1000, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    count=st.integers(0, 40),
    largest=st.sampled_from([2.0, 8.0, 30.0, 120.0]),
    size=st.integers(12, 64),
    reach=st.floats(0, 1.5),
    margin=st.integers(1, 6),
    window=st.sampled_from([1, 48, 4096]),
    block_px=st.sampled_from([1, 60, 8192]),
    depth=st.sampled_from([0, 0.75, 1]),
)
def test_exact_tiles_give_the_untiled_labels(
    seed: int,
    shape: tuple[int, int],
    count: int,
    largest: float,
    size: int,
    reach: float,
    margin: int,
    window: int,
    block_px: int,
    depth: float,
) -> None:
    labels = blobs(seed, shape, count, largest)
    halo = 1 + int(reach * size)
    rules = Rules(margin, overlap=0.4, window_px=window, depth=int(depth * halo))
    cells, tiled = run(labels, size, halo, rules=rules, block_px=block_px)
    untiled_cells, untiled = run(labels, max(shape), halo, rules=rules)
    assert len(untiled_cells) == len(np.unique(labels[labels > 0]))
    assert np.array_equal(untiled > 0, labels > 0)
    assert np.array_equal(tiled, untiled)
    assert np.array_equal(cells.centres, untiled_cells.centres)


def overlapping(seed: int, shape: tuple[int, int], count: int, largest: float) -> Instances:
    """Ellipses that share pixels, up to 2 `largest` px across, no two alike."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    found = []
    for _ in range(count):
        (cy, cx), (ry, rx) = random.uniform(0, shape), random.uniform(1, largest, 2)
        mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        found.append(((0, 0), mask, random.random(), 1))
    stacked = Instances.stack(found)
    looks = [
        (tuple(box), mask.tobytes()) for box, mask in zip(stacked.boxes, stacked.masks, strict=True)
    ]
    return stacked.take([i for i, look in enumerate(looks) if look not in looks[:i]])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(20, 120), st.integers(20, 120)),
    count=st.integers(0, 30),
    size=st.integers(24, 64),
    block_px=st.sampled_from([1, 8192]),
    depth=st.sampled_from([0, 3, 4]),
)
def test_cells_that_overlap_come_out_whole_and_once(
    seed: int, shape: tuple[int, int], count: int, size: int, block_px: int, depth: int
) -> None:
    truth, margin, largest = overlapping(seed, shape, count, 10), 2, 10

    def seen(window: Box) -> Instances:
        cut = []
        for (y0, x0, y1, x1), mask, score in zip(
            truth.boxes.tolist(), truth.masks, truth.scores.tolist(), strict=True
        ):
            inside = Box(y0, x0, y1, x1).intersect(window)
            if inside is not None:
                part = mask[inside.within(Box(y0, x0, y1, x1)).slices]
                cut.append(((inside.y0, inside.x0), part, score, 1))
        return Instances.stack(cut)

    grid = Grid(Box(0, 0, *shape), size, 2 * largest + 1 + margin)
    rules = Rules(margin, overlap=0.4, window_px=4096, depth=depth * grid.halo // 4)
    cells = stitch(grid, rules, lambda position: seen(grid.read(position)), seen, block_px)
    found = [
        (tuple(source.boxes[i].tolist()), source.masks[i].tobytes())
        for source, i in (
            (cells.extra if tile == EXTRA else seen(grid.read(tile)), index)
            for tile, index in zip(cells.tile.tolist(), cells.index.tolist(), strict=True)
        )
    ]
    expected = zip(truth.boxes.tolist(), truth.masks, strict=True)
    assert sorted(found) == sorted((tuple(box), mask.tobytes()) for box, mask in expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(24, 70), halo=st.integers(14, 30))
def test_cells_missed_by_a_tile_are_never_misshapen_and_fewer_than_untiled(
    seed: int, size: int, halo: int
) -> None:
    truth = discs(seed)
    random = np.random.default_rng(seed)

    def forgetful(window: Box, labels: Labels) -> Instances:
        found = exact(window, labels)
        return found.take(np.flatnonzero(random.random(len(found)) > 0.05))

    _, painted = run(truth, size, halo, forgetful)
    shapes = {mask.tobytes() for mask in Instances.from_labels(truth).masks}
    assert all(mask.tobytes() in shapes for mask in Instances.from_labels(painted).masks)


def test_tiles_miss_fewer_cells_than_one_window_does() -> None:
    tiled = untiled = 0
    for seed in range(12):
        truth = discs(seed)
        random = np.random.default_rng(seed)

        def forgetful(
            window: Box, labels: Labels, random: np.random.Generator = random
        ) -> Instances:
            found = exact(window, labels)
            return found.take(np.flatnonzero(random.random(len(found)) > 0.05))

        tiled += truth.max() - len(run(truth, 40, 16, forgetful)[0])
        untiled += truth.max() - len(run(truth, 1000, 16, forgetful)[0])
    assert tiled < untiled


def test_fused_neighbours_come_apart_where_another_tile_saw_them_apart() -> None:
    tiled = untiled = 0
    for seed in range(8):
        truth = discs(seed)
        random = np.random.default_rng(seed)

        def fusing(window: Box, labels: Labels, random: np.random.Generator = random) -> Instances:
            return exact(window, fuse(labels, random))

        tiled += count_fused(run(truth, 40, 24, fusing)[1], truth)
        untiled += count_fused(run(truth, 1000, 24, fusing)[1], truth)
    assert untiled > 0
    assert tiled <= untiled


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(24, 70), halo=st.integers(16, 30))
def test_masks_that_jitter_between_tiles_neither_double_nor_lose_a_cell(
    seed: int, size: int, halo: int
) -> None:
    truth = discs(seed)
    random = np.random.default_rng(seed)

    def shaky(window: Box, labels: Labels) -> Instances:
        found = exact(window, labels)
        shape = (window.y1 - window.y0, window.x1 - window.x0)
        moved = []
        for box, mask in zip(found.boxes.tolist(), found.masks, strict=True):
            dy, dx = random.integers(-1, 2, 2)
            y, x = box[0] - window.y0 + dy, box[1] - window.x0 + dx
            canvas = np.zeros(np.add(shape, 4), bool)
            canvas[y + 2 : y + 2 + mask.shape[0], x + 2 : x + 2 + mask.shape[1]] = mask
            moved.append(((window.y0, window.x0), canvas[2:-2, 2:-2], 1.0, 1))
        return Instances.stack(moved).disjoint()

    cells, painted = run(truth, size, halo, shaky)
    found = [set(np.unique(truth[painted == k])) - {0} for k in range(1, len(cells) + 1)]
    best = [
        int(np.bincount(truth[painted == k], minlength=truth.max() + 1)[1:].argmax()) + 1
        for k in range(1, len(cells) + 1)
    ]
    assert all(found)
    assert sorted(best) == list(range(1, truth.max() + 1))


def unreliable(seed: int) -> Segment:
    """A segmenter that misses, fuses and moves objects, differently in every window."""

    def segment(window: Box, labels: Labels) -> Instances:
        random = np.random.default_rng([seed, window.y0, window.x0, window.y1, window.x1])
        found = exact(window, fuse(labels, random))
        moved = [
            ((int(box[0]) + int(random.integers(-2, 3)), int(box[1])), mask, random.random(), 1)
            for box, mask in zip(found.boxes, found.masks, strict=True)
            if random.random() > 0.1
        ]
        cut = Instances.stack(moved).disjoint()
        return Instances.stack(
            [
                ((max(y0, window.y0), x0), mask[max(window.y0 - y0, 0) : window.y1 - y0], score, 1)
                for (y0, x0, _, _), mask, score in zip(
                    cut.boxes.tolist(), cut.masks, cut.scores.tolist(), strict=True
                )
            ]
        )

    return segment


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(16, 70),
    halo=st.integers(5, 40),
    window=st.sampled_from([1, 60, 4096]),
)
def test_blocks_agree_at_their_borders_whatever_the_segmenter_does(
    seed: int, size: int, halo: int, window: int
) -> None:
    truth = discs(seed)[:80, :80]
    rules = Rules(margin=2, overlap=0.4, window_px=window, depth=halo // 2)
    whole, expected = run(truth, size, halo, unreliable(seed), rules)
    for block_px in (1, 2 * size):
        cells, painted = run(truth, size, halo, unreliable(seed), rules, block_px)
        assert np.array_equal(painted, expected)
        assert np.array_equal(cells.seam, whole.seam)
        assert np.array_equal(cells.scores, whole.scores)
        assert np.array_equal(cells.centres, whole.centres)


def test_seam_says_what_became_of_a_cell() -> None:
    labels = np.zeros((100, 200), np.int32)
    labels[40:50, 20:30] = 1  # far inside the first tile
    labels[40:50, 95:105] = 2  # across the border, whole in both windows
    labels[60:70, 40:160] = 3  # larger than the halo: predicted again
    labels[0:10, 5:15] = 4  # cut by the image
    by_label = {}
    for window_px, expected in ((4096, "resolved"), (60, "joined")):
        rules = Rules(margin=2, overlap=0.4, window_px=window_px)
        cells, painted = run(labels, 100, 20, rules=rules)
        seams = {int(painted[y, x]): SEAMS[cells.seam[painted[y, x] - 1]]
                 for y, x in ((45, 25), (45, 100), (65, 100), (5, 10))}  # fmt: skip
        by_label = {int(labels[painted == k][0]): seam for k, seam in seams.items()}
        assert by_label == {1: "interior", 2: "resolved", 3: expected, 4: "cut_by_image"}


def test_a_large_cell_that_the_second_look_misses_is_joined_not_dropped() -> None:
    labels = np.zeros((60, 200), np.int32)
    labels[20:40, 20:180] = 1
    grid = Grid(Box(0, 0, 60, 200), 50, 10)
    cells = stitch(grid, RULES, lambda i: exact(grid.read(i), labels), lambda _: Instances.empty())
    assert [SEAMS[code] for code in cells.seam] == ["joined"]
    assert cells.boxes.tolist() == [[20, 20, 40, 180]]
    assert cells.extra.masks[0].all()


def test_a_plane_without_cells_gives_none() -> None:
    cells, painted = run(np.zeros((50, 70), np.int32), 20, 5)
    assert len(cells) == 0
    assert not painted.any()


def discs(seed: int) -> Labels:
    """Crowded discs 11 to 13 px across, many touching, none smaller."""
    random = np.random.default_rng(seed)
    labels = np.zeros((150, 150), np.int32)
    y, x = np.indices(labels.shape)
    count = 0
    for cy in range(7, 150, 13):
        for cx in range(7, 150, 13):
            radius = random.uniform(5.5, 6.4)
            mask = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
            if random.random() < 0.8 and mask.any():
                count += 1
                labels[mask & (labels == 0)] = count
    return labels


def fuse(labels: Labels, random: np.random.Generator) -> Labels:
    """Give some cells the label of a right-hand neighbour that touches or nearly does."""
    fused = labels.copy()
    for value in np.unique(labels[labels > 0]):
        if random.random() < 0.1:
            y, x = (axis.mean() for axis in np.nonzero(labels == value))
            beside = labels[int(y), min(int(x) + 13, labels.shape[1] - 1)]
            if beside:
                fused[fused == value] = beside
    return fused


def count_fused(painted: Labels, truth: Labels) -> int:
    """Return how many labels cover most of two true cells."""
    areas = np.bincount(truth.ravel())
    total = 0
    for k in range(1, painted.max() + 1):
        inside = np.bincount(truth[painted == k], minlength=len(areas))
        total += int((inside[1:] > 0.5 * areas[1:]).sum() > 1)
    return total


def seen(*objects: tuple[int, int, int, int, float]) -> Instances:
    """Rectangles y0, x0, y1, x1 with their scores."""
    return Instances.stack(
        [((y0, x0), np.ones((y1 - y0, x1 - x0), bool), s, 1) for y0, x0, y1, x1, s in objects]
    )


def boxes_of(tiles: list[Instances], size: int, halo: int, depth: int = 0) -> list[list[int]]:
    """Stitch tiles in a row of planes 100 px high; return the boxes of the cells."""
    grid = Grid(Box(0, 0, min(size, 100), size * len(tiles)), size, halo)
    rules = Rules(margin=2, overlap=0.4, window_px=4096, depth=depth)
    cells = stitch(grid, rules, tiles.__getitem__, lambda _: Instances.empty())
    boxes: list[list[int]] = cells.boxes.tolist()
    return boxes


def test_of_outlines_that_are_alike_the_deepest_wins_whatever_its_score() -> None:
    left, right = seen((40, 85, 60, 105, 0.90)), seen((40, 84, 60, 105, 0.99))
    assert boxes_of([left, right], 100, 40) == [[40, 85, 60, 105]]


def test_two_halves_do_not_outweigh_a_whole_that_is_surer() -> None:
    whole = seen((40, 85, 60, 115, 0.80))
    halves = seen((40, 85, 60, 100, 0.75), (40, 100, 60, 115, 0.75))
    assert boxes_of([whole, halves], 100, 40) == [[40, 85, 60, 115]]


def test_two_cells_outweigh_one_that_covers_both_and_is_no_surer() -> None:
    fused = seen((40, 85, 60, 115, 0.9))
    apart = seen((40, 85, 60, 100, 0.9), (40, 100, 60, 115, 0.9))
    assert boxes_of([fused, apart], 100, 40) == [[40, 85, 60, 100], [40, 100, 60, 115]]


@pytest.mark.parametrize(("depth", "kept"), [(0, 1), (30, 0)])
def test_what_two_tiles_see_at_their_edges_counts_only_if_it_lies_deep(
    depth: int, kept: int
) -> None:
    phantom = seen((10, 44, 18, 52, 0.6))
    found = boxes_of([phantom, Instances.empty(), phantom], 40, 40, depth)
    assert found == [[10, 44, 18, 52]] * kept
