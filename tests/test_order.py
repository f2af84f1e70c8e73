"""Cells of any blocks come out in the one order of their position, in runs of one length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellseg.pipeline.cells import TYPES, Cells
from cellseg.pipeline.order import merged, on_plane, runs


def cells(seed: int, count: int, tall: float) -> Cells:
    """Cells anywhere; many share a row."""
    random = np.random.default_rng(seed)
    arrays = {name: np.zeros((count, *shape), kind) for name, (kind, shape) in TYPES.items()}
    arrays["centres"] = np.rint(random.uniform(0, tall, (count, 2)) * 4) / 4
    arrays["boxes"] = random.integers(0, 3, (count, 4)).astype(np.int32)
    arrays["digests"] = random.permutation(count).astype(np.uint64)
    return Cells(**arrays)


@dataclass(frozen=True)
class Block:
    cells: Cells

    @property
    def low(self) -> float:
        return float(self.cells.centres[0, 0])

    @property
    def high(self) -> float:
        return float(self.cells.centres[-1, 0])

    def between(self, y0: float, y1: float) -> Cells:
        return self.cells.take(slice(*np.searchsorted(self.cells.centres[:, 0], (y0, y1)).tolist()))


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 200),
    tall=st.sampled_from([3.0, 900.0, 6000.0]),
    blocks=st.integers(1, 5),
    length=st.integers(1, 90),
)
def test_runs_are_the_order_of_all_cells_cut_into_pieces(
    seed: int, count: int, tall: float, blocks: int, length: int
) -> None:
    everything = cells(seed, count, tall)
    owner = np.random.default_rng(seed).integers(0, blocks, count)
    parts = [everything.take(owner == block) for block in range(blocks)]
    sorted_parts = [Block(part.take(part.order())) for part in parts if len(part)]
    found = list(runs(merged(sorted_parts), Cells.none(), length))
    expected = everything.take(everything.order())
    assert [len(run) for run in found[:-1]] == [length] * (len(found) - 1)
    assert len(found) == max(-(-count // length), 1)
    assert np.array_equal(Cells.concatenate(found).digests, expected.digests)


def test_planes_come_one_after_the_other() -> None:
    one = on_plane(cells(0, 5, 10.0), 1)
    other = on_plane(cells(1, 4, 10.0), 0)
    both = Cells.concatenate([one, other])
    assert both.take(both.order()).plane.tolist() == [0] * 4 + [1] * 5
