"""Groups of conflicting choices, and the heaviest choice without a conflict in each."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)
Weight = tuple[int, int]

EXACT = 48
"""Larger groups, which only a segmenter that contradicts itself everywhere makes, are
chosen from greedily, heaviest first."""


def components(nodes: Iterable[Node], edges: Iterable[tuple[Node, Node]]) -> list[list[Node]]:
    """Return the connected groups of an undirected graph.

    Groups come in the order of their first node, nodes within a group in the
    order of `nodes`.
    """
    parent = {node: node for node in nodes}

    def root(node: Node) -> Node:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in edges:
        parent[root(one)] = root(other)
    groups: dict[Node, list[Node]] = {}
    for node in parent:
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def heaviest(weights: Sequence[Weight], edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the heaviest set of nodes no two of which share an edge.

    Parameters
    ----------
    weights : sequence of pairs of int
        Compared by the sum of the first, then by the sum of the second. Of
        sets that tie, the one with the earliest nodes wins.
    edges : pairs of node numbers

    Returns
    -------
    list of int
        Node numbers, ascending. Exact up to `EXACT` nodes.
    """
    near = [0] * len(weights)
    for one, other in edges:
        near[one] |= 1 << other
        near[other] |= 1 << one
    if len(weights) > EXACT:
        return _greedy(weights, near)
    chosen = _exact(weights, near)
    return [node for node in range(len(weights)) if chosen >> node & 1]


def _greedy(weights: Sequence[Weight], near: Sequence[int]) -> list[int]:
    """Take the heaviest node that is still free, again and again."""
    taken, blocked = [], 0
    for node in sorted(range(len(weights)), key=lambda n: (*(-w for w in weights[n]), n)):
        if not blocked >> node & 1:
            taken.append(node)
            blocked |= near[node]
    return sorted(taken)


def _exact(weights: Sequence[Weight], near: Sequence[int]) -> int:
    """Return the best set as bits, by branching on the node with the most conflicts."""
    count = len(weights)

    def value(chosen: int) -> tuple[int, int, int]:
        nodes = [node for node in range(count) if chosen >> node & 1]
        early = sum(1 << (count - 1 - node) for node in nodes)
        return sum(weights[n][0] for n in nodes), sum(weights[n][1] for n in nodes), early

    @cache
    def best(free: int) -> int:
        nodes = [node for node in range(count) if free >> node & 1]
        busiest = max(nodes, key=lambda n: (near[n] & free).bit_count(), default=None)
        if busiest is None or not near[busiest] & free:
            return free
        part = _connected(busiest, free, near)
        if part != free:
            return best(part) | best(free & ~part)
        with_it = 1 << busiest | best(free & ~near[busiest] & ~(1 << busiest))
        return max(with_it, best(free & ~(1 << busiest)), key=value)

    return best((1 << count) - 1)


def _connected(node: int, free: int, near: Sequence[int]) -> int:
    """Return the nodes among `free` that hang together with `node`, as bits."""
    part, front = 0, 1 << node
    while front:
        part |= front
        reached = 0
        for other in range(front.bit_length()):
            if front >> other & 1:
                reached |= near[other]
        front = reached & free & ~part
    return part
