"""Layers: overlapping objects apart, in as few label images as they need."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellseg.models.instances import Instances
from cellseg.models.layers import from_layers, layers_of, overlapping_pairs, to_layers

pairs_of_six = st.sets(st.sampled_from(list(combinations(range(6), 2))))


def needed(pairs: set[tuple[int, int]]) -> int:
    """Return the least number of layers for six objects, by trying everything."""
    for number in range(1, 7):
        for layers in product(range(number), repeat=6):
            if all(layers[i] != layers[j] for i, j in pairs):
                return number
    raise AssertionError


@given(pairs_of_six)
def test_no_pair_shares_a_layer_and_no_layer_is_wasted(pairs: set[tuple[int, int]]) -> None:
    layers = layers_of(6, np.array(sorted(pairs), np.intp).reshape(-1, 2))
    assert all(layers[i] != layers[j] for i, j in pairs)
    assert layers.max() + 1 == needed(pairs)


def test_order_of_pairs_does_not_matter() -> None:
    pairs = np.random.default_rng(3).integers(0, 40, (60, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    mixed = np.random.default_rng(4).permutation(pairs)[:, ::-1]
    assert (layers_of(40, pairs) == layers_of(40, mixed)).all()


def test_a_chain_of_20000_needs_two_layers() -> None:
    chain = np.stack([np.arange(19_999), np.arange(1, 20_000)], axis=1)
    layers = layers_of(20_000, chain)
    assert (layers[1:] != layers[:-1]).all()
    assert layers.max() == 1


def test_a_large_tangle_comes_to_an_end() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(0, 40, (1500, 2))
    near = np.hypot(*(points[:, None] - points[None]).T) < 1.6
    pairs = np.argwhere(np.triu(near, 1))
    layers = layers_of(1500, pairs)
    assert (layers[pairs[:, 0]] != layers[pairs[:, 1]]).all()


def test_what_lies_alone_lies_in_the_first_layer() -> None:
    assert layers_of(3, np.zeros((0, 2), np.intp)).tolist() == [0, 0, 0]
    # The larger part of a group comes first.
    assert layers_of(4, np.array([[0, 1], [0, 2]])).tolist() == [1, 0, 0, 0]


masks = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.integers(1, 8)),
    max_size=9,
)


@given(masks)
def test_layers_give_back_every_pixel_of_every_object(
    rectangles: list[tuple[int, int, int, int]],
) -> None:
    made = Instances.stack([((y, x), np.ones((h, w), bool), 1.0, 1) for y, x, h, w in rectangles])
    layers = to_layers(made, (20, 20))
    again = from_layers(layers)
    assert (again.boxes == made.boxes).all()
    assert all((a == b).all() for a, b in zip(again.masks, made.masks, strict=True))
    depth = sum((layer > 0).astype(int) for layer in layers)
    count = np.zeros((20, 20), int)
    for y, x, h, w in rectangles:
        count[y : y + h, x : x + w] += 1
    assert (depth == count).all()
    assert len(layers) >= max(count.max(), 1)
    apart = {tuple(pair) for pair in overlapping_pairs(made).tolist()}
    assert all(i < j for i, j in apart)


def test_a_label_in_two_layers_is_one_object() -> None:
    layers = np.zeros((2, 4, 4), np.int32)
    layers[0, 0, :2], layers[1, 1, 1:] = 5, 5
    (found,) = from_layers(layers).masks
    assert found.tolist() == [[True, True, False, False], [False, True, True, True]]
