"""Areas that a person drew, on the grid of pixels: a pixel is inside if its centre is.

Polygons are `cellseg.pipeline.polygons.Feature`; here are the others, and what all have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.tiles import Box

Mask = NDArray[np.bool_]


class Area(Protocol):
    """What says which pixels lie inside."""

    @property
    def bounds(self) -> Box:
        """A box of pixels around all that are inside, wherever the image ends."""
        ...

    def inside(self, window: Box) -> Mask:
        """Return which pixels of a window are inside, bool (h, w)."""
        ...


@dataclass(frozen=True)
class Ellipse:
    """An ellipse with upright axes.

    Parameters
    ----------
    y, x : float
        Its centre, in px from the image's upper left corner: the first pixel's centre is 0.5, 0.5.
    along_y, along_x : float
        Half its height and width, in px.
    """

    y: float
    x: float
    along_y: float
    along_x: float

    @property
    def bounds(self) -> Box:
        """A box of pixels around all that are inside."""
        low = np.floor((self.y - self.along_y, self.x - self.along_x)).astype(int)
        high = np.ceil((self.y + self.along_y, self.x + self.along_x)).astype(int)
        return Box(*low.tolist(), *high.tolist())

    def inside(self, window: Box) -> Mask:
        """Return which pixels of a window are inside, bool (h, w)."""
        y = (np.arange(window.y0, window.y1) + 0.5 - self.y) / max(self.along_y, 1e-9)
        x = (np.arange(window.x0, window.x1) + 0.5 - self.x) / max(self.along_x, 1e-9)
        return np.asarray(y[:, None] ** 2 + x**2 <= 1)


@dataclass(frozen=True, eq=False)
class Stencil:
    """A mask of its own pixels.

    Parameters
    ----------
    corner : (y, x)
        Of its first pixel in the image.
    mask : bool (h, w)
    """

    corner: tuple[int, int]
    mask: Mask

    @property
    def bounds(self) -> Box:
        """The box of the mask."""
        (y, x), (height, width) = self.corner, self.mask.shape
        return Box(y, x, y + height, x + width)

    def inside(self, window: Box) -> Mask:
        """Return which pixels of a window are inside, bool (h, w)."""
        found = np.zeros(window.shape, bool)
        if (both := window.intersect(self.bounds)) is not None:
            here = both.within(self.bounds)
            found[both.within(window).slices] = self.mask[here.slices]
        return found
