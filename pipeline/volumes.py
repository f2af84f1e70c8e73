"""Volumes: 3D cells as arrays without pixels, in the order of their position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.cells import Cells

TYPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "t": (np.int32, ()),
    "boxes": (np.int32, (6,)),
    "centres": (np.float64, (3,)),
    "sizes": (np.int64, ()),
    "scores": (np.float32, ()),
    "classes": (np.uint8, ()),
    "seam": (np.uint8, ()),
}


@dataclass(frozen=True, eq=False)
class Volumes:
    """3D cells.

    Parameters
    ----------
    t : int32 (N,)
    boxes : int32 (N, 6)
        Half open z0, y0, x0, z1, y1, x1, in planes and px.
    centres : float64 (N, 3)
        Mean z, y, x of the voxels.
    sizes : int64 (N,)
        Voxels.
    scores : float32 (N,)
        Mean over the voxels of what their sections were found with.
    classes : uint8 (N,)
        That of most voxels, of equals the lowest.
    seam : uint8 (N,)
        The highest code into `SEAMS` of any section.
    """

    t: NDArray[np.int32]
    boxes: NDArray[np.int32]
    centres: NDArray[np.float64]
    sizes: NDArray[np.int64]
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    seam: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def none(cls) -> Self:
        """Return no cells."""
        return cls(**{name: np.zeros((0, *shape), kind) for name, (kind, shape) in TYPES.items()})

    @staticmethod
    def concatenate(parts: Sequence[Volumes]) -> Volumes:
        """Return the cells of all parts, in order."""
        parts = [Volumes.none(), *parts]
        return Volumes(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in TYPES})

    def take(self, chosen: NDArray[Any] | slice) -> Volumes:
        """Return the chosen cells."""
        return Volumes(**{name: getattr(self, name)[chosen] for name in TYPES})

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fields as arrays to store."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `to_arrays` stored."""
        return cls(**{name: arrays[name] for name in TYPES})


def gathered(
    sections: Cells, depth: int, cell: NDArray[np.int64]
) -> tuple[Volumes, NDArray[np.int64]]:
    """Put the sections of one time point together.

    Parameters
    ----------
    sections : Cells
        In order.
    depth : int
        Planes of a volume.
    cell : int64 (S,)
        What sections of one 3D cell have in common; -1 for those left out.

    Returns
    -------
    Volumes, int64 (S,)
        The 3D cells by their centres' z, y and x, and the place among them of each
        section's, -1 for those left out.
    """
    kept = np.flatnonzero(cell >= 0)
    sections = sections.take(kept)
    first, owner = np.unique(cell[kept], return_inverse=True)
    count, areas = len(first), sections.areas
    z = (sections.plane % depth).astype(np.int64)
    # Sums of whole numbers, so that a centre is the same whatever the sections.
    sums = np.rint(sections.centres * areas[:, None]).astype(np.int64)
    totals = np.zeros((count, 4), np.int64)
    np.add.at(totals, owner, np.column_stack([z * areas, sums, areas]))
    centres = totals[:, :3] / totals[:, 3:]
    scores = np.bincount(owner, sections.scores.astype(np.float64) * areas, minlength=count)
    seam = np.zeros(count, np.uint8)
    np.maximum.at(seam, owner, sections.seam)
    found = Volumes(
        t=np.full(count, sections.plane[0] // depth if count else 0, np.int32),
        boxes=_boxes(z, sections.boxes, owner, count),
        centres=centres,
        sizes=totals[:, 3],
        scores=(scores / totals[:, 3]).astype(np.float32),
        classes=_most_common(sections.classes, areas, owner, count),
        seam=seam,
    )
    order = np.lexsort(centres.T[::-1])
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    places = np.full(len(cell), -1)
    places[kept] = place[owner]
    return found.take(order), places


def _boxes(
    z: NDArray[np.int64], boxes: NDArray[np.int32], owner: NDArray[np.intp], count: int
) -> NDArray[np.int32]:
    """Return the box around the sections of each cell, int32 (N, 6)."""
    far = np.iinfo(np.int32).max
    low, high = np.full((count, 3), far, np.int32), np.zeros((count, 3), np.int32)
    np.minimum.at(low, owner, np.column_stack([z, boxes[:, :2]]).astype(np.int32))
    np.maximum.at(high, owner, np.column_stack([z + 1, boxes[:, 2:]]).astype(np.int32))
    return np.concatenate([low, high], axis=1)


def _most_common(
    classes: NDArray[np.uint8], areas: NDArray[np.int64], owner: NDArray[np.intp], count: int
) -> NDArray[np.uint8]:
    """Return the class of most voxels of each cell, uint8 (N,)."""
    kinds, kind = np.unique(classes, return_inverse=True)
    voxels = np.zeros((count, max(len(kinds), 1)), np.int64)
    np.add.at(voxels, (owner, kind), areas)
    common: NDArray[np.uint8] = kinds[voxels.argmax(axis=1)] if len(kinds) else classes[:0]
    return common
