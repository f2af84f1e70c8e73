"""The label images of a review: in memory where they are small, else read where one looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import open_image
from cellseg.pipeline.labels import LabelStore, layer_name
from cellseg.pipeline.paint import LabelImage
from cellseg.pipeline.review.contents import Entry
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import Voxel

if TYPE_CHECKING:
    from cellseg.pipeline.review.edits import Editor

__all__ = ["Corrected", "LabelArrays", "LabelLevel"]

IN_MEMORY = 2**26
"""Pixels of all layers together up to which they are kept in memory, and painted on directly."""


class Corrected:
    """What corrections make of labels: an editor, and the windows that it has touched.

    Windows that edits taken back or applied have touched are looked at too, which costs little.

    Parameters
    ----------
    editor : Editor
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._seen = 0
        self._windows = np.zeros((0, 7), np.int64)

    def windows(self, layer: int, t: int, z: int, box: Box) -> list[Box]:
        """Return the touched windows of a plane that reach into a box."""
        self._look()
        y0, x0, y1, x1 = self._windows[:, 3:].T
        near = (self._windows[:, :3] == (layer, t, z)).all(axis=1)
        near &= (y0 < box.y1) & (y1 > box.y0) & (x0 < box.x1) & (x1 > box.x0)
        return [Box(*row[3:]) for row in self._windows[near].tolist()]

    def _look(self) -> None:
        """Take in what was done since."""
        new = self.editor.log[self._seen :]
        if new:
            rows = [(c.layer, c.t, c.z, *c.box) for edit in new for c in edit.changes]
            found = np.array(rows, np.int64).reshape(-1, 7)
            self._windows = np.concatenate([self._windows, found])
            self._seen += len(new)


@dataclass(frozen=True)
class LabelLevel:
    """A level of a label image, as arrays are indexed: what napari reads as it shows it.

    Parameters
    ----------
    store : LabelStore
    layer, level : int
    full : (T, Z, Y, X)
        Shape of the level.
    axes : str
        Those of t, z, y and x that it has.
    corrected : Corrected or None
    """

    store: LabelStore
    layer: int
    level: int
    full: tuple[int, int, int, int]
    axes: str
    corrected: Corrected | None = None
    dtype = np.dtype(np.uint32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""
        named = zip("tzyx", self.full, strict=True)
        return tuple(length for axis, length in named if axis in self.axes)

    @property
    def ndim(self) -> int:
        """Number of its axes."""
        return len(self.axes)

    @property
    def size(self) -> int:
        """Number of its pixels."""
        return int(np.prod(self.full))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)

    def __getitem__(self, key: Any) -> NDArray[np.uint32]:
        """Read the smallest window around what is asked."""
        keys = key if isinstance(key, tuple) else (key,)
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        named = dict(zip(self.axes, keys, strict=True))
        whole = [named.get(axis, 0) for axis in "tzyx"]
        asked = [np.atleast_1d(np.arange(n)[k]) for k, n in zip(whole, self.full, strict=True)]
        shape = [len(each) for each in asked]
        found = np.zeros(shape, np.uint32)
        if found.size:
            y, x = asked[2], asked[3]
            box = Box(int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1)
            for i, t in enumerate(asked[0].tolist()):
                for j, z in enumerate(asked[1].tolist()):
                    plane = self.read(t, z, box)
                    found[i, j] = plane[np.ix_(y - box.y0, x - box.x0)]
        single = [np.ndim(np.arange(n)[k]) == 0 for k, n in zip(whole, self.full, strict=True)]
        return found[tuple(0 if one else slice(None) for one in single)]

    def read(self, t: int, z: int, box: Box) -> LabelImage:
        """Return the labels in a box of a plane, with the corrections."""
        if self.layer < self.store.layers:
            drawn = self.store.read(t, z, box, self.level, self.layer)
        else:  # only corrections need this one
            drawn = np.zeros(box.shape, np.uint32)
        if self.corrected is None:
            return drawn
        step = 2**self.level
        wide = Box(box.y0 * step, box.x0 * step, box.y1 * step, box.x1 * step)
        drawn = drawn.copy()
        for window in self.corrected.windows(self.layer, t, z, wide):
            part = _covered(window, step, box)
            if part is None:
                continue
            *_, height, width = self.full
            full = Box(
                part.y0 * step,
                part.x0 * step,
                min(part.y1 * step, height * step),
                min(part.x1 * step, width * step),
            )
            edited = self.corrected.editor.labels(t, z, full, self.layer)[::step, ::step]
            y, x = part.y0 - box.y0, part.x0 - box.x0
            drawn[y : y + edited.shape[0], x : x + edited.shape[1]] = edited
        return drawn


def _covered(window: Box, step: int, box: Box) -> Box | None:
    """Return the px of a level that lie in a window of the full resolution and in a box."""
    y0, x0 = max(-(-window.y0 // step), box.y0), max(-(-window.x0 // step), box.x0)
    y1, x1 = min(-(-window.y1 // step), box.y1), min(-(-window.x1 // step), box.x1)
    return Box(y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None


@dataclass(frozen=True)
class LabelArrays:
    """The label images of one image.

    Parameters
    ----------
    names : list of str
    arrays : list of list of array
        The levels of each, finest first; one array each, in memory, where they are small.
    shape : (T, Z, Y, X)
    axes : tuple of str
        Those of t, z, y and x that the arrays have.
    voxel : (z, y, x) or None
        Size of a voxel in um.
    in_memory : bool
    """

    names: list[str]
    arrays: list[list[Any]]
    shape: tuple[int, int, int, int]
    axes: tuple[str, ...]
    voxel: Voxel | None
    in_memory: bool

    @classmethod
    def open(cls, entry: Entry, corrected: Corrected | None = None) -> LabelArrays:
        """Open the labels of an image, with the corrections of an corrected.

        Raises
        ------
        CellsegError
            If they are missing or damaged.
        """
        store = entry.results.labels
        if not store.layers:
            raise CellsegError(f"{store.path}: its labels are missing. Run the workflow again.")
        image = open_image(store.layer_paths[0])
        shapes = [image.shape, *(level.stored.shape for level in image.levels)]
        full = [(shape[0], *shape[2:]) for shape in shapes]
        axes = "".join(a for a, n in zip("tzyx", full[0], strict=True) if a in "yx" or n > 1)
        layers = store.layers if corrected is None else max(store.layers, corrected.editor.layers)
        small = int(np.prod(full[0])) * layers <= IN_MEMORY
        found = cls([], [], full[0], tuple(axes), image.voxel, small)
        for k in range(layers):
            levels = [
                LabelLevel(store, k, n, shape, axes, corrected) for n, shape in enumerate(full)
            ]
            found.names.append(layer_name(k))
            found.arrays.append([np.asarray(levels[0])] if small else list(levels))
        return found

    def plane(self, values: Sequence[Any]) -> tuple[int, int]:
        """Return t and z of a place along the axes that are shown."""
        named = dict(zip(self.axes, values, strict=True))
        return int(named.get("t", 0)), int(named.get("z", 0))
