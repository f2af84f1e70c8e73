"""Cells: what was decided, as arrays without pixels, in the order of their position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

TYPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plane": (np.int32, ()),
    "tile": (np.int32, ()),
    "index": (np.int32, ()),
    "boxes": (np.int32, (4,)),
    "centres": (np.float64, (2,)),
    "areas": (np.int64, ()),
    "scores": (np.float32, ()),
    "classes": (np.uint8, ()),
    "seam": (np.uint8, ()),
    "digests": (np.uint64, ()),
}


@dataclass(frozen=True, eq=False)
class Cells:
    """Decided cells; masks lie in the files of tiles and blocks.

    Parameters
    ----------
    plane : int32 (N,)
    tile, index : int32 (N,)
        Where the mask lies: position of the tile and index among its candidates;
        a tile below 0 means block ``-1 - tile`` and the index among its own masks.
    boxes : int32 (N, 4), centres : float64 (N, 2)
        Of the final masks, in px of the plane.
    areas : int64 (N,)
        Pixels of the final masks.
    scores : float32 (N,), classes : uint8 (N,)
    seam : uint8 (N,)
        Codes into `SEAMS`.
    digests : uint64 (N,)
        Of the final masks: the last word on the order of two cells.
    """

    plane: NDArray[np.int32]
    tile: NDArray[np.int32]
    index: NDArray[np.int32]
    boxes: NDArray[np.int32]
    centres: NDArray[np.float64]
    areas: NDArray[np.int64]
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    seam: NDArray[np.uint8]
    digests: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.tile)

    @classmethod
    def none(cls) -> Self:
        """Return no cells."""
        return cls(**{name: np.zeros((0, *shape), kind) for name, (kind, shape) in TYPES.items()})

    @staticmethod
    def concatenate(parts: Sequence[Cells]) -> Cells:
        """Return the cells of all parts, in order."""
        parts = [Cells.none(), *parts]
        return Cells(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in TYPES})

    def take(self, chosen: NDArray[Any] | slice) -> Cells:
        """Return the chosen cells."""
        return Cells(**{name: getattr(self, name)[chosen] for name in TYPES})

    def order(self) -> NDArray[np.intp]:
        """Return the order of position: plane, then y and x of the centre; intp (N,).

        Ties of these are decided by box and digest, so they are left only
        between equal masks in one place.
        """
        keys = (self.digests, *self.boxes.T[::-1], *self.centres.T[::-1], self.plane)
        return np.lexsort(keys)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fields as arrays to store."""
        return {field.name: getattr(self, field.name) for field in fields(Cells)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Cells:
        """Return what `to_arrays` stored."""
        return Cells(**{name: arrays[name] for name in TYPES})
