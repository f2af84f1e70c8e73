"""Overlaps: which cells share pixels, how many, and the layer that each is painted in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellseg.models.layers import layers_of
from cellseg.models.meeting import meeting, shared_pixels, spread
from cellseg.pipeline.candidate import Candidates, Mask
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.paint import overlapping_part
from cellseg.pipeline.pool import overlapping
from cellseg.pipeline.tiles import Box


@dataclass(frozen=True, eq=False)
class Shared:
    """What cells share in one part of a plane.

    Parameters
    ----------
    pairs : int64 (P, 2)
        Labels of two cells that share a pixel there, the lower one first.
    labels : int64 (M,)
        Cells that share a pixel there with any other.
    covered : int64 (M,)
        Their pixels there that others cover too; one under three cells counts once for each.
    """

    pairs: NDArray[np.int64]
    labels: NDArray[np.int64]
    covered: NDArray[np.int64]

    @classmethod
    def concatenate(cls, parts: Iterable[Shared]) -> Self:
        """Return what is shared in all parts; a pair or a cell may be named again."""
        nothing = np.zeros(0, np.int64)
        given = [Shared(np.zeros((0, 2), np.int64), nothing, nothing), *parts]
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in given]) for name in names))

    def among(self, first: int, last: int) -> Shared:
        """Return what labels from `first` to before `last` share; only these share with them."""
        paired = (self.pairs[:, 0] >= first) & (self.pairs[:, 0] < last)
        named = (self.labels >= first) & (self.labels < last)
        return Shared(self.pairs[paired], self.labels[named], self.covered[named])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fields as arrays to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `to_arrays` stored."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How cells overlap, in the order of their labels.

    Parameters
    ----------
    layer : uint16 (N,)
        The label image that each lies in, from 0.
    covered : int64 (N,)
        Pixels of each that others cover too.
    counts : int64 (N,)
        How many others share a pixel with it.
    others : uint32 (the sum of counts,)
        Their labels, ascending for each cell.
    """

    layer: NDArray[np.uint16]
    covered: NDArray[np.int64]
    counts: NDArray[np.int64]
    others: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.layer)

    @classmethod
    def none(cls, count: int = 0) -> Self:
        """Return cells of which none shares a pixel."""
        nothing = np.zeros(count, np.int64)
        return cls(np.zeros(count, np.uint16), nothing, nothing, np.zeros(0, np.uint32))

    @classmethod
    def of(cls, first: int, count: int, shared: Shared) -> Self:
        """Spread cells over layers, as few as can be, and add up what they share.

        Parameters
        ----------
        first, count : int
            Their labels: `count` of them from `first` on.
        shared : Shared
            All that they share, in any order.
        """
        pairs = np.unique(shared.pairs, axis=0) - first
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        covered = np.zeros(count, np.int64)
        np.add.at(covered, shared.labels - first, shared.covered)
        return cls(
            layers_of(count, pairs),
            covered,
            np.bincount(both[:, 0], minlength=count).astype(np.int64),
            (both[:, 1] + first).astype(np.uint32),
        )

    @staticmethod
    def concatenate(parts: Sequence[Overlaps]) -> Overlaps:
        """Return the cells of all parts, in order."""
        names = [field.name for field in fields(Overlaps)]
        parts = [Overlaps.none(), *parts]
        return Overlaps(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    def take(self, chosen: slice | NDArray[np.intp]) -> Overlaps:
        """Return the chosen cells."""
        cells = np.arange(len(self))[chosen]
        starts = np.cumsum(self.counts) - self.counts
        owner, number = spread(self.counts[cells])
        others = self.others[starts[cells][owner] + number]
        return Overlaps(self.layer[cells], self.covered[cells], self.counts[cells], others)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fields as arrays to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `to_arrays` stored."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def shared_in(
    cells: Cells,
    labels: NDArray[np.int64],
    load: Callable[[int], Candidates],
    region: Box,
) -> Shared:
    """Return what cells share in one region of a plane.

    Parameters
    ----------
    cells, labels, load, region
        See `cellseg.pipeline.paint.paint`; the masks may share pixels.
    """
    touched = np.flatnonzero(overlapping(cells.boxes, region))
    cells, labels = cells.take(touched), labels[touched]
    boxes = overlapping_part(cells.boxes, region)
    pairs = meeting(boxes)
    masks = masks_in(cells, boxes, load, np.unique(pairs))
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    _tell_apart(boxes, masks, pairs[same])
    pairs = pairs[~same]
    pairs = pairs[shared_pixels(boxes, masks.__getitem__, pairs) > 0]
    sharing = np.unique(pairs)
    covered = _covered(boxes, masks, sharing, region)
    return Shared(np.sort(labels[pairs], axis=1), labels[sharing], covered)


def _tell_apart(
    boxes: NDArray[np.int32], masks: dict[int, Mask], pairs: NDArray[np.integer]
) -> None:
    """Leave each pixel that pieces of one cell share to the first of them."""
    for one, other in pairs.tolist():
        first, second = Box(*boxes[one].tolist()), Box(*boxes[other].tolist())
        both = first.intersect(second)
        assert both is not None  # noqa: S101 - they meet
        mask = masks[other].copy()
        mask[both.within(second).slices] &= ~masks[one][both.within(first).slices]
        masks[other] = mask


def masks_in(
    cells: Cells,
    boxes: NDArray[np.int32],
    load: Callable[[int], Candidates],
    chosen: NDArray[np.integer],
) -> dict[int, Mask]:
    """Return the part of each chosen cell's mask that lies in its box of `boxes`.

    Parameters
    ----------
    cells, load
        See `cellseg.pipeline.paint.paint`.
    boxes : int32 (N, 4)
        Each a part of the cell's own.
    chosen : integers (M,)
    """
    masks = {}
    # Tile by tile, so that each tile's file is read once.
    chosen = chosen[np.argsort(cells.tile[chosen], kind="stable")]
    own = boxes[chosen] - np.tile(cells.boxes[chosen, :2], 2)
    columns = chosen, cells.tile[chosen], cells.index[chosen], *own.T
    for cell, tile, index, y0, x0, y1, x1 in zip(*(c.tolist() for c in columns), strict=True):
        masks[cell] = load(tile).mask(index)[y0:y1, x0:x1]
    return masks


def _covered(
    boxes: NDArray[np.int32], masks: Mapping[int, Mask], chosen: NDArray[np.integer], region: Box
) -> NDArray[np.int64]:
    """Return how many pixels of each chosen mask others cover too, int64 (M,)."""
    depth = np.zeros(region.shape, np.uint16)
    places = []
    for y0, x0, y1, x1 in (boxes[chosen] - np.tile((region.y0, region.x0), 2)).tolist():
        places.append((slice(y0, y1), slice(x0, x1)))
    for cell, place in zip(chosen.tolist(), places, strict=True):
        depth[place] += masks[cell]
    shared = depth > 1
    inside = zip(chosen.tolist(), places, strict=True)
    counts = [np.count_nonzero(masks[cell] & shared[place]) for cell, place in inside]
    return np.array(counts, np.int64)
