"""Scan: what label images hold, region by region: of each label its place, pixels and overlaps.

Sums of whole numbers, smallest and largest: parts of an image merge in any split and order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.overlaps import Shared
from cellseg.pipeline.tiles import Box

LAYER, T, Z, Y, X = range(5)
"""Columns of `Scan.low` and `Scan.high`."""
TYPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "labels": (np.int64, ()),
    "sizes": (np.int64, ()),
    "sums": (np.int64, (3,)),
    "low": (np.int32, (5,)),
    "high": (np.int32, (5,)),
    "pairs": (np.int64, (2,)),
    "sharing": (np.int64, ()),
    "covered": (np.int64, ()),
}


@dataclass(frozen=True, eq=False)
class Scan:
    """What some label images hold.

    Parameters
    ----------
    labels : int64 (N,)
        Ascending, each once.
    sizes : int64 (N,)
        Pixels of each, of all planes.
    sums : int64 (N, 3)
        Their z, y and x, added up.
    low, high : int32 (N, 5)
        First, and one after the last, layer, t, z, y and x.
    pairs : int64 (P, 2)
        Labels that share a pixel, the lower first; a pair may be named again.
    sharing, covered : int64 (M,)
        Labels that share pixels with others, and how many; a label may be named again.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sums: NDArray[np.int64]
    low: NDArray[np.int32]
    high: NDArray[np.int32]
    pairs: NDArray[np.int64]
    sharing: NDArray[np.int64]
    covered: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def none(cls) -> Self:
        """Return nothing."""
        return cls(**{name: np.zeros((0, *shape), kind) for name, (kind, shape) in TYPES.items()})

    @classmethod
    def of(cls, layers: Sequence[NDArray[np.integer]], window: Box, t: int, z: int) -> Scan:
        """Scan a window of a plane.

        Parameters
        ----------
        layers : sequence of integers (h, w)
            The label images; 0 is background.
        window : Box
        t, z : int
        """
        found = [_scan_layer(layer, number, window, t, z) for number, layer in enumerate(layers)]
        shared = _shared(layers) if len(layers) > 1 else {}
        return cls.merged([*found, cls(**{**vars(cls.none()), **shared})])

    @classmethod
    def merged(cls, parts: Iterable[Scan]) -> Scan:
        """Return what all parts hold together."""
        given = [cls.none(), *parts]
        every = {name: np.concatenate([getattr(part, name) for part in given]) for name in TYPES}
        labels, owner = np.unique(every["labels"], return_inverse=True)
        count, far = len(labels), np.iinfo(np.int32).max
        sizes, sums = np.zeros(count, np.int64), np.zeros((count, 3), np.int64)
        low, high = np.full((count, 5), far, np.int32), np.zeros((count, 5), np.int32)
        np.add.at(sizes, owner, every["sizes"])
        np.add.at(sums, owner, every["sums"])
        np.minimum.at(low, owner, every["low"])
        np.maximum.at(high, owner, every["high"])
        pairs = np.unique(every["pairs"], axis=0)
        return cls(labels, sizes, sums, low, high, pairs, every["sharing"], every["covered"])

    def between(self, first: int, last: int) -> Scan:
        """Return what concerns labels from `first` to before `last`; a pair by either of them."""
        here = slice(*np.searchsorted(self.labels, (first, last)).tolist())
        own = {name: getattr(self, name)[here] for name in ("labels", "sizes", "sums")}
        paired = ((self.pairs >= first) & (self.pairs < last)).any(axis=1)
        named = (self.sharing >= first) & (self.sharing < last)
        return Scan(
            **own,
            low=self.low[here],
            high=self.high[here],
            pairs=self.pairs[paired],
            sharing=self.sharing[named],
            covered=self.covered[named],
        )

    def among(self, wanted: NDArray[np.int64]) -> Scan:
        """Return what concerns some labels, ascending; a pair by either of them."""
        chosen, named = np.isin(self.labels, wanted), np.isin(self.sharing, wanted)
        return Scan(
            **{name: getattr(self, name)[chosen] for name in ("labels", "sizes", "sums")},
            low=self.low[chosen],
            high=self.high[chosen],
            pairs=self.pairs[np.isin(self.pairs, wanted).any(axis=1)],
            sharing=self.sharing[named],
            covered=self.covered[named],
        )

    @property
    def centres(self) -> NDArray[np.float64]:
        """Mean z, y and x of each, float64 (N, 3)."""
        centres: NDArray[np.float64] = self.sums / self.sizes[:, None]
        return centres

    @property
    def shared(self) -> Shared:
        """What the labels share."""
        return Shared(self.pairs, self.sharing, self.covered)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fields as arrays to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `to_arrays` stored."""
        return cls(**{name: arrays[name] for name in TYPES})


def _scan_layer(layer: NDArray[np.integer], number: int, window: Box, t: int, z: int) -> Scan:
    """Return what one label image holds in a window of a plane."""
    y, x = layer.nonzero()
    labels, owner = np.unique(layer[y, x].astype(np.int64), return_inverse=True)
    count = len(labels)
    y, x = y + window.y0, x + window.x0
    sizes = np.bincount(owner, minlength=count)
    # Sums of whole numbers below 2**53: exact in floats too.
    sums = [z * sizes, *(np.bincount(owner, axis, count).astype(np.int64) for axis in (y, x))]
    low, high = np.empty((count, 5), np.int32), np.empty((count, 5), np.int32)
    low[:, :3], high[:, :3] = (number, t, z), (number + 1, t + 1, z + 1)
    for column, axis in ((Y, y), (X, x)):
        low[:, column] = np.iinfo(np.int32).max
        high[:, column] = 0
        np.minimum.at(low[:, column], owner, axis.astype(np.int32))
        np.maximum.at(high[:, column], owner, axis.astype(np.int32) + 1)
    none = Scan.none()
    return Scan(
        labels, sizes, np.stack(sums, axis=1), low, high, none.pairs, none.sharing, none.covered
    )


def _shared(layers: Sequence[NDArray[np.integer]]) -> dict[str, NDArray[np.int64]]:
    """Return the `pairs`, `sharing` and `covered` of a window."""
    depth = np.sum([layer > 0 for layer in layers], axis=0)
    there = np.stack([layer[depth > 1] for layer in layers]).astype(np.int64)
    pairs = [np.zeros((0, 2), np.int64)]
    for one in range(len(layers)):
        for other in range(one + 1, len(layers)):
            both = (there[one] > 0) & (there[other] > 0)
            pair = np.sort(np.stack([there[one][both], there[other][both]], axis=1), axis=1)
            pairs.append(np.unique(pair, axis=0))
    sharing, covered = np.unique(there[there > 0], return_counts=True)
    return {"pairs": np.concatenate(pairs), "sharing": sharing, "covered": covered}
