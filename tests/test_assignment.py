"""The best one-to-one choice, in small groups and large, in any order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.pipeline import assignment
from cellseg.pipeline.assignment import assign

PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(1, 50), max_size=12
)


def best(pairs: dict[tuple[int, int], int]) -> int:
    """The highest sum of any choice, by trying all."""
    return max(
        sum(pairs.get((one, other), 0) for one, other in enumerate(others))
        for others in permutations(range(5))
    )


@pytest.mark.parametrize("largest", [2**20, 0])
@given(pairs=PAIRS, seed=st.integers(0, 99))
def test_no_choice_is_better_and_none_has_a_partner_twice(
    largest: int, pairs: dict[tuple[int, int], int], seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "LARGEST_TABLE", largest)
        ones, others = np.array(list(pairs), np.int64).reshape(-1, 2).T
        gains = np.array(list(pairs.values()), np.float64)
        chosen = assign(ones, others, gains)
        assert len(set(ones[chosen])) == len(set(others[chosen])) == len(chosen)
        assert gains[chosen].sum() == best(pairs)
        order = np.random.default_rng(seed).permutation(len(ones))
        again = order[assign(ones[order], others[order], gains[order])]
        assert set(again.tolist()) == set(chosen.tolist())
