"""Marks over the cells: frames around those that are chosen, and what a tool is about to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.tiles import Box

__all__ = ["Marks"]

MOST = 200
"""Of more chosen cells no frames are drawn."""
CHOSEN, TOOL = "#ffe14d", "#ff4d6d"
WIDTH_PX = 0.7
SEED_PX = 1.5
"""Half the length of the strokes of the cross that stands for a seed."""
Point = tuple[float, float]
Strokes = NDArray[np.float64]
"""(N, 2, 2): of each stroke where it starts, and how far it goes, as y and x."""


class Marks:
    """A layer of strokes: drawn anew in a few milliseconds, which one of shapes is not.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    shape : (height, width)
        Of the image, in px. What reaches beyond makes napari slice all layers anew.
    placed : dict
        Settings that put the layer onto the labels.
    """

    def __init__(self, viewer: Any, shape: tuple[int, int], placed: dict[str, Any]) -> None:
        self.shape = shape
        self.layer = viewer.add_vectors(
            np.zeros((0, 2, 2)),
            name="chosen",
            edge_color=CHOSEN,
            edge_width=WIDTH_PX,
            vector_style="line",
            opacity=1.0,
            **placed,
        )

    def draw(
        self, boxes: Iterable[Box], line: Sequence[Point] = (), seeds: Sequence[Point] = ()
    ) -> None:
        """Draw frames around boxes, and a tool's line or seeds."""
        frames = [self._frame(box) for box in boxes][: MOST + 1]
        if len(frames) > MOST:
            frames = []
        tool = [*([_line(*line)] if line else []), *(_cross(*seed) for seed in seeds)]
        with self.layer.events.thumbnail.blocker():  # it draws the whole list of layers anew
            self.layer.data = np.concatenate([np.zeros((0, 2, 2)), *frames, *tool])
        counts = [sum(map(len, each)) for each in (frames, tool)]
        if counts[1] or self.coloured:
            self.layer.edge_color = [CHOSEN] * counts[0] + [TOOL] * counts[1] or CHOSEN
        self.coloured = counts[1] > 0

    coloured = False
    """Whether a tool's strokes are drawn, in their own colour."""

    def _frame(self, box: Box) -> Strokes:
        height, width = self.shape
        y0, x0 = max(box.y0 - 2.5, 0), max(box.x0 - 2.5, 0)
        y1, x1 = min(box.y1 + 1.5, height - 1), min(box.x1 + 1.5, width - 1)
        corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]], float)
        return np.stack([corners, np.roll(corners, -1, axis=0) - corners], axis=1)


def _line(start: Point, stop: Point) -> Strokes:
    return np.array([[start, np.subtract(stop, start)]], float)


def _cross(y: float, x: float) -> Strokes:
    length = 2 * SEED_PX
    return np.array([[[y - SEED_PX, x], [length, 0]], [[y, x - SEED_PX], [0, length]]], float)
