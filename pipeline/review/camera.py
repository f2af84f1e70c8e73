"""Where a viewer looks, in px of the labels, and how it is made to look at a cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cellseg.pipeline.review.session import Session
from cellseg.pipeline.tiles import Box

__all__ = ["Camera"]

ROOM = 5.0
"""How many times a cell, or a usual one if that is larger, fits into the canvas."""
CANVAS_PX = 600
"""Side of the canvas of a viewer without a window."""


class Camera:
    """The camera of a viewer over a session.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session
    """

    def __init__(self, viewer: Any, session: Session) -> None:
        self.viewer, self.session = viewer, session
        self.like: Any = None
        """A label layer of the image at hand: where its px lie."""

    @property
    def camera(self) -> Any:
        """The viewer's own camera."""
        return self.viewer.scene.camera

    @property
    def plane(self) -> tuple[int, int]:
        """The t and z in view."""
        axes = self.session.labels.axes
        step = self.viewer.dims.current_step[-len(axes) :]
        return self.session.labels.plane(step)

    @property
    def centre(self) -> tuple[float, float]:
        """Y and x of the middle of the view."""
        return self.in_px(self.camera.center[-2:])

    @property
    def size(self) -> tuple[float, float]:
        """Height and width of the view."""
        height, width = getattr(self.viewer, "_canvas_size", (CANVAS_PX, CANVAS_PX))
        sy, sx = self.like.scale[-2:]
        return height / self.camera.zoom / sy, width / self.camera.zoom / sx

    def in_px(self, world: Iterable[float]) -> tuple[float, float]:
        """Return y and x of a place in the world."""
        y, x = np.asarray(list(world)[-2:], float)
        (sy, sx), (ty, tx) = self.like.scale[-2:], self.like.translate[-2:]
        return (y - ty) / sy, (x - tx) / sx

    def around(self, side: int) -> Box | None:
        """Return the box of a side around the middle of the view, cut at the image.

        None if nothing of the image is in it.
        """
        y, x = (round(place) for place in self.centre)
        half, (*_, height, width) = side // 2, self.session.labels.shape
        return Box(y - half, x - half, y + half, x + half).intersect(Box(0, 0, height, width))

    def look_at(self, label: int) -> None:
        """Centre the view on a cell, at a magnification that shows what is around it."""
        found = self.session.box(label)
        if found is None:
            return
        t, z, box = found
        self._go_to_plane(t, z)
        scale, shift = self.like.scale[-2:], self.like.translate[-2:]
        centre = np.array([box.y0 + box.y1 - 1, box.x0 + box.x1 - 1]) / 2 * scale + shift
        side = max(*box.shape, self.session.rows.typical_px)
        canvas = getattr(self.viewer, "_canvas_size", (CANVAS_PX, CANVAS_PX))
        self.camera.center = (*self.camera.center[:-2], *centre)
        self.camera.zoom = float(min(canvas) / (ROOM * side * max(scale)))

    def _go_to_plane(self, t: int, z: int) -> None:
        axes = self.session.labels.axes
        for axis, place in (("t", t), ("z", z)):
            if axis in axes:
                number = axes.index(axis)
                world = place * self.like.scale[number] + self.like.translate[number]
                self.viewer.dims.set_point(number, world)
