"""Layers: objects that overlap, spread over as few label images as they need."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from cellseg.models.instances import Instances
from cellseg.models.meeting import meeting, shared_pixels

STEPS = 2_000
"""Choices tried for one group of overlapping objects to save a layer; then the best so far stays.
Groups of a dozen are always settled before."""


def layers_of(count: int, pairs: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Return a layer for each object, such that those of no pair share one.

    Groups that hang together are settled one by one, by branch and bound over
    the order of DSATUR (Brélaz, "New methods to color the vertices of a
    graph", Communications of the ACM 1979): with the fewest layers possible
    for small groups and for those without odd rings, and otherwise with few.
    In each group the layer with the most objects comes first.

    Parameters
    ----------
    count : int
        Number of objects.
    pairs : integers (P, 2)
        Those that share a pixel; the order of rows and columns does not matter.

    Returns
    -------
    uint16 (count,)
        From 0 on; objects in no pair are in layer 0.
    """
    layers = np.zeros(count, np.uint16)
    near: dict[int, set[int]] = {}
    for one, other in pairs.tolist():
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    seen: set[int] = set()
    for start in sorted(near):
        if start in seen:
            continue
        group, edge = {start}, [start]
        while edge:
            new = near[edge.pop()] - group
            group |= new
            edge += new
        seen |= group
        members = sorted(group)
        layers[members] = _largest_first(_Group({i: near[i] for i in members}).layers())
    return layers


def _largest_first(layers: list[int]) -> list[int]:
    """Return layers renumbered by the number of their objects, then by their first one."""
    names = sorted(set(layers), key=lambda layer: (-layers.count(layer), layers.index(layer)))
    place = {name: number for number, name in enumerate(names)}
    return [place[layer] for layer in layers]


class _Group:
    """Objects that hang together, each with its neighbours, and the layers found for them."""

    def __init__(self, near: dict[int, set[int]]) -> None:
        self.near = near
        self.order = sorted(near)
        self.steps = 0

    def layers(self) -> list[int]:
        """Return a layer for each object, in their order."""
        best, least = self._greedy(), self._clique()
        while (used := max(best.values()) + 1) > least:
            fewer = self._with(used - 1)
            if fewer is None:
                break
            best = fewer
        return [best[i] for i in self.order]

    def _clique(self) -> int:
        """Return the size of a large set of objects each of which overlaps all others.

        Fewer layers than that cannot do: mostly it is as many as are needed, and
        nothing has to be tried.
        """
        largest = 1
        for i in self.order:
            left, size = self.near[i], 1
            while left:
                left = left & self.near[max(left, key=lambda j: len(left & self.near[j]))]
                size += 1
            largest = max(largest, size)
        return largest

    def _greedy(self) -> dict[int, int]:
        """Give each object, the most constrained one first, the first layer that is free."""
        chosen: dict[int, int] = {}
        taken: dict[int, set[int]] = {i: set() for i in self.order}
        waiting = [(0, -len(self.near[i]), i) for i in self.order]
        heapify(waiting)
        while waiting:
            number, _, i = heappop(waiting)
            if i in chosen or -number < len(taken[i]):
                continue
            chosen[i] = next(layer for layer in range(len(self.order)) if layer not in taken[i])
            for j in self.near[i]:
                if j not in chosen and chosen[i] not in taken[j]:
                    taken[j].add(chosen[i])
                    heappush(waiting, (-len(taken[j]), -len(self.near[j]), j))
        return chosen

    def _with(self, allowed: int) -> dict[int, int] | None:
        """Return layers below `allowed`, or None if there are none or too many to try."""
        chosen: dict[int, int] = {}
        # The stack of choices: an object, and the layers left to try for it.
        choices: list[tuple[int, list[int]]] = []
        while len(chosen) < len(self.order):
            i = max(self._free(chosen), key=lambda node: self._urgency(node, chosen))
            used = {chosen[j] for j in self.near[i] if j in chosen}
            highest = min(allowed, max(chosen.values(), default=-1) + 2)
            choices.append((i, [layer for layer in range(highest)[::-1] if layer not in used]))
            while choices and not choices[-1][1]:
                chosen.pop(choices.pop()[0], None)
            self.steps += 1
            if not choices or self.steps * len(self.order) > STEPS * 12:
                return None
            node, left = choices[-1]
            chosen[node] = left.pop()
        return chosen

    def _free(self, chosen: dict[int, int]) -> Sequence[int]:
        return [i for i in self.order if i not in chosen]

    def _urgency(self, node: int, chosen: dict[int, int]) -> tuple[int, int, int]:
        around = {chosen[j] for j in self.near[node] if j in chosen}
        return len(around), len(self.near[node]), -node


def overlapping_pairs(instances: Instances) -> NDArray[np.intp]:
    """Return the pairs of objects that share a pixel, intp (P, 2), i < j in each row."""
    pairs = meeting(instances.boxes)
    shared = shared_pixels(instances.boxes, instances.masks.__getitem__, pairs)
    return pairs[shared > 0]


def to_layers(instances: Instances, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Draw objects as labels 1..N on as few label images as they need.

    Parameters
    ----------
    instances : Instances
        Inside a plane of `shape`; they may overlap.
    shape : (H, W)

    Returns
    -------
    int32 (L, H, W)
        Each label lies whole in one layer; L is at least 1.
    """
    layers = layers_of(len(instances), overlapping_pairs(instances))
    drawn = np.zeros((int(layers.max(initial=0)) + 1, *shape), np.int32)
    for index, (layer, box) in enumerate(zip(layers, instances.boxes.tolist(), strict=True)):
        y0, x0, y1, x1 = box
        drawn[layer, y0:y1, x0:x1][instances.masks[index]] = index + 1
    return drawn


def from_layers(layers: NDArray[np.integer]) -> Instances:
    """Cut label images (L, H, W) into one instance a label, in the order of labels; scores 1.

    A label that lies in several layers is one object.
    """
    if len(layers) == 1:
        return Instances.from_labels(layers[0])
    found: dict[int, list[tuple[int, int, NDArray[np.bool_]]]] = {}
    for layer in layers:
        values = np.unique(layer[layer > 0])
        cells = Instances.from_labels(layer)
        for value, box, mask in zip(
            values.tolist(), cells.boxes.tolist(), cells.masks, strict=True
        ):
            found.setdefault(value, []).append((box[0], box[1], mask))
    return Instances.stack([(*_united(parts), 1.0, 1) for _, parts in sorted(found.items())])


def _united(
    parts: list[tuple[int, int, NDArray[np.bool_]]],
) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """Return the corner and mask of the union of some masks, each with its corner."""
    y0, x0 = min(y for y, _, _ in parts), min(x for _, x, _ in parts)
    y1 = max(y + mask.shape[0] for y, _, mask in parts)
    x1 = max(x + mask.shape[1] for _, x, mask in parts)
    whole = np.zeros((y1 - y0, x1 - x0), bool)
    for y, x, mask in parts:
        whole[y - y0 : y - y0 + mask.shape[0], x - x0 : x - x0 + mask.shape[1]] |= mask
    return (y0, x0), whole
