"""The choice in a group of conflicts is the best there is, and does not depend on order."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.pipeline.choose import EXACT, components, heaviest

weights = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.data(), weights)
def test_heaviest_is_the_best_of_all_sets(
    data: st.DataObject, weights: list[tuple[int, int]]
) -> None:
    pairs = list(combinations(range(len(weights)), 2))
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    allowed = [
        chosen
        for size in range(len(weights) + 1)
        for chosen in combinations(range(len(weights)), size)
        if not any(one in chosen and other in chosen for one, other in edges)
    ]

    def value(chosen: tuple[int, ...]) -> tuple[int, int]:
        return sum(weights[i][0] for i in chosen), sum(weights[i][1] for i in chosen)

    found = heaviest(weights, edges)
    assert tuple(found) in allowed
    assert value(tuple(found)) == max(value(chosen) for chosen in allowed)
    assert found == heaviest(weights, [(b, a) for a, b in reversed(edges)])


def test_ties_go_to_the_earlier_node() -> None:
    assert heaviest([(1, 1), (1, 1), (1, 1)], [(0, 1), (1, 2), (0, 2)]) == [0]


def test_two_good_halves_win_over_one_fused_cell() -> None:
    assert heaviest([(9, 0), (8, 0), (10, 0)], [(0, 2), (1, 2)]) == [0, 1]


def test_a_group_too_large_for_the_exact_choice_is_still_free_of_conflicts() -> None:
    count = 3 * EXACT
    edges = [(i, i + 1) for i in range(count - 1)]
    found = heaviest([(i % 7, 0) for i in range(count)], edges)
    assert found
    assert all(b - a > 1 for a, b in pairwise(found))


def test_a_long_chain_of_conflicts_is_decided_exactly_and_at_once() -> None:
    count = EXACT
    weights = [(1 + (i * 7) % 5, 0) for i in range(count)]
    edges = [(i, i + 1) for i in range(count - 1)]
    best = [0, weights[0][0]]
    for weight, _ in weights[1:]:
        best.append(max(best[-1], best[-2] + weight))
    assert sum(weights[i][0] for i in heaviest(weights, edges)) == best[-1]


def test_components_keep_the_order_of_the_nodes() -> None:
    assert components("abcdef", [("c", "a"), ("f", "b")]) == [["a", "c"], ["b", "f"], ["d"], ["e"]]
