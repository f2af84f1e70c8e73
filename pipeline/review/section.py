"""Section: the pixels of a cell in one plane; and what is painted where, by an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline.tiles import Box

__all__ = ["Section", "Stroke", "joined"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Section:
    """The pixels of a cell in one plane.

    Parameters
    ----------
    layer, t, z : int
    box : Box
    mask : bool (h, w)
        Of the box's shape.
    """

    layer: int
    t: int
    z: int
    box: Box
    mask: Mask

    @property
    def plane(self) -> tuple[int, int, int]:
        """Layer, t and z."""
        return self.layer, self.t, self.z

    def in_layer(self, layer: int) -> Section:
        """Return the same pixels of another label image."""
        return replace(self, layer=layer)

    @property
    def tight(self) -> Section | None:
        """The same without empty rows and columns around; None if it has no pixel."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return None
        y0, y1, x0, x1 = (int(n) for n in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
        box = Box(self.box.y0 + y0, self.box.x0 + x0, self.box.y0 + y1, self.box.x0 + x1)
        return replace(self, box=box, mask=self.mask[y0:y1, x0:x1])

    def within(self, plane: Box) -> Section:
        """Return the part inside a plane.

        Raises
        ------
        CellsegError
            If no pixel is inside.
        """
        shared = self.box.intersect(plane)
        inside = shared and replace(
            self, box=shared, mask=self.mask[shared.within(self.box).slices]
        )
        tight = inside.tight if inside else None
        if tight is None:
            raise CellsegError(
                f"the mask drawn at y = {self.box.y0}, x = {self.box.x0} has no pixel in the image"
                f" of {plane.y1} x {plane.x1} px. Draw inside it, or delete the cell."
            )
        return tight


@dataclass(frozen=True, eq=False)
class Stroke:
    """Pixels that become a label, or background.

    Parameters
    ----------
    section : Section
    label : int
        0 is background.
    """

    section: Section
    label: int = 0


def joined(boxes: Sequence[Box]) -> list[Box]:
    """Return boxes that hold all of some boxes, no two of which share a pixel."""
    left: list[Box] = []
    for box in boxes:
        grown = box
        # Growing may make it meet one that it did not meet before.
        while meets := [other for other in left if other.intersect(grown)]:
            left = [other for other in left if other not in meets]
            grown = Box(
                min(grown.y0, *(other.y0 for other in meets)),
                min(grown.x0, *(other.x0 for other in meets)),
                max(grown.y1, *(other.y1 for other in meets)),
                max(grown.x1, *(other.x1 for other in meets)),
            )
        left.append(grown)
    return left
