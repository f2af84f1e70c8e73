"""What cells share is what their pixels say, whatever the regions it was counted in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.models import Instances
from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.decided import Decided
from cellseg.pipeline.order import runs
from cellseg.pipeline.overlaps import Overlaps, Shared, shared_in
from cellseg.pipeline.tiles import Box, Grid
from synthetic import discs

SHAPE = (70, 90)
PLANE = Box(0, 0, *SHAPE)


def shared_by(cells: Instances, region: int, first: int) -> Shared:
    """Count what cells share in square regions of some size."""
    seen = Candidates.of_tile(cells, Grid(PLANE, 1000, 0), 0, 0)
    kept = Decided.uncontested(seen, 0, np.ones(len(cells), bool)).cells
    labels, grid = first + np.arange(len(cells)), Grid(PLANE, region, 0)
    parts = [
        shared_in(kept, labels, lambda _: seen, grid.core(position))
        for position in reversed(range(len(grid)))
    ]
    return Shared.concatenate(parts)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 40),
    region=st.sampled_from([13, 40, 200]),
    first=st.sampled_from([1, 70_000]),
)
def test_overlaps_are_what_the_pixels_say(seed: int, count: int, region: int, first: int) -> None:
    cells = discs(seed, SHAPE, count, (2, 12))
    found = Overlaps.of(first, len(cells), shared_by(cells, region, first))
    masks = np.zeros((len(cells), *SHAPE), bool)
    for mask, box, own in zip(masks, cells.boxes.tolist(), cells.masks, strict=True):
        mask[Box(*box).slices] = own
    depth = masks.sum(axis=0)
    assert found.covered.tolist() == [np.count_nonzero(mask & (depth > 1)) for mask in masks]
    meets = np.array([[(one & other).any() for other in masks] for one in masks], bool)
    meets = meets.reshape(len(masks), len(masks)) & ~np.eye(len(masks), dtype=bool)
    assert found.counts.tolist() == meets.sum(axis=1).tolist()
    assert found.others.tolist() == (np.nonzero(meets)[1] + first).tolist()
    assert not (meets & (found.layer[:, None] == found.layer)).any()


@given(
    counts=st.lists(st.integers(0, 4), max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    length=st.integers(1, 12),
)
def test_cut_and_put_together_they_are_the_same(
    counts: list[int], cuts: list[int], length: int
) -> None:
    number = np.array(counts, np.int64)
    others = np.arange(number.sum(), dtype=np.uint32)
    whole = Overlaps(number.astype(np.uint16), 10 * number, number, others)
    places = sorted({0, len(counts), *(min(cut, len(counts)) for cut in cuts)})
    parts = [whole.take(slice(a, b)) for a, b in pairwise(places)]
    found = list(runs(iter(parts), Overlaps.none(), length))
    assert [len(run) for run in found[:-1]] == [length] * (len(found) - 1)
    put_together = Overlaps.concatenate(found).to_arrays()
    for name, array in whole.to_arrays().items():
        assert np.array_equal(array, put_together[name])
        assert array.dtype == put_together[name].dtype


def test_a_pixel_under_three_cells_counts_once_for_each() -> None:
    square = np.ones((10, 10), bool)
    places = [(10, 10), (10, 15), (15, 10), (40, 40)]
    cells = Instances.stack([(corner, square, 1.0, 1) for corner in places])
    found = Overlaps.of(1, 4, shared_by(cells, 200, 1))
    assert found.covered.tolist() == [75, 50, 50, 0]
    assert found.counts.tolist() == [2, 2, 2, 0]
    assert found.others.tolist() == [2, 3, 1, 3, 1, 2]
    assert sorted(found.layer[:3].tolist()) == [0, 1, 2]
    assert found.layer[3] == 0


@pytest.mark.parametrize("part", [slice(2, 2), slice(3, 1), slice(None), slice(1, None)])
def test_parts_without_cells_are_empty(part: slice) -> None:
    whole = Overlaps.of(1, 4, Shared.concatenate([]))
    assert len(whole.take(part)) == len(range(4)[part])
    assert len(whole.take(part).others) == 0
