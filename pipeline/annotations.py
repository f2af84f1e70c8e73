"""Annotations: what a person drew in one image, as cells, and what of it is none and why."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.pipeline.areas import Area, Mask
from cellseg.pipeline.tiles import Box

Corner = tuple[int, int]
NO_PIXEL = "holds the centre of no pixel of the image"


@dataclass(frozen=True)
class Skipped:
    """Something that gives no cell.

    Parameters
    ----------
    where : str
        The file, the image in it or the shape, as its user would look for it.
    why : str
    """

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True)
class Shape:
    """A shape that is a cell or a part of one.

    Parameters
    ----------
    where : str
        For messages.
    area : Area
    name : str
        What kind of cell it is called; empty where it is not.
    cell : hashable, optional
        Shapes with the same are parts of one cell. None: a cell by itself.
    """

    where: str
    area: Area
    name: str = ""
    cell: Hashable = None


@dataclass(frozen=True)
class Drawn:
    """The cells of an image.

    Parameters
    ----------
    cells : Instances
        In the order in which they were drawn; they may overlap.
    skipped : tuple of Skipped
    """

    cells: Instances
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, eq=False)
class Annotations:
    """What is drawn in one image.

    Parameters
    ----------
    where : str
        The file, for messages.
    file_name : str
        Of the image, as the file has it; the file's own where it names none.
    shape : (H, W) or None
        Of the image in px, where the file says it.
    shapes : tuple of Shape
    skipped : tuple of Skipped
        Shapes that are no areas, or damaged.
    """

    where: str
    file_name: str
    shape: tuple[int, int] | None
    shapes: tuple[Shape, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def reach(self) -> tuple[int, int]:
        """Height and width of the least image that holds all shapes, in px."""
        ends = [(each.area.bounds.y1, each.area.bounds.x1) for each in self.shapes]
        height, width = np.max([(1, 1), *ends], axis=0).tolist()
        return height, width

    def over(self, shape: tuple[int, int]) -> Annotations:
        """Return the same over an image of which the size is known; what the file says counts."""
        return self if self.shape is not None else replace(self, shape=shape)

    def instances(self) -> Instances:
        """Return the cells, where every shape is one.

        Raises
        ------
        CellsegError
            If something would be skipped: it must not go unseen.
        """
        drawn = self.drawn()
        if drawn.skipped:
            more = f" (and {len(drawn.skipped) - 1} more)" if len(drawn.skipped) > 1 else ""
            raise CellsegError(
                f"{drawn.skipped[0]}{more}. Mend it, or leave it out by cellseg import, which"
                " lists what it skips."
            )
        return drawn.cells

    def drawn(self, classes: Sequence[str] = ()) -> Drawn:
        """Return the cells, and what is none.

        Parameters
        ----------
        classes : sequence of str
            Take only shapes that are called one of these; the first is class 1. None: take all,
            as class 1.
        """
        skipped, parts = [*self.skipped], dict[Hashable, list[tuple[Corner, Mask]]]()
        kinds: dict[Hashable, int] = {}
        for number, shape in enumerate(self.shapes):
            if classes and shape.name not in classes:
                name = f"called {shape.name}" if shape.name else "without a name"
                skipped.append(Skipped(shape.where, f"{name}, which is not asked for"))
                continue
            found = self._cut(shape.area)
            if isinstance(found, str):
                skipped.append(Skipped(shape.where, found))
                continue
            key = ("alone", number) if shape.cell is None else ("group", shape.cell)
            parts.setdefault(key, []).append(found)
            kinds.setdefault(key, 1 + [*classes].index(shape.name) if classes else 1)
        cells = [(*united(each), 1.0, kinds[key]) for key, each in parts.items()]
        return Drawn(Instances.stack(cells), tuple(skipped))

    def _cut(self, area: Area) -> tuple[Corner, Mask] | str:
        """Return the part of an area in the image, or why there is none."""
        bounds = area.bounds
        window = bounds.intersect(Box(0, 0, *(self.shape or self.reach)))
        if bounds.y0 >= bounds.y1 or bounds.x0 >= bounds.x1:
            return NO_PIXEL
        if window is None:
            height, width = self.shape or self.reach
            return f"outside the image of {height} x {width} px"
        mask = area.inside(window)
        return ((window.y0, window.x0), mask) if mask.any() else NO_PIXEL


def united(parts: Sequence[tuple[Corner, Mask]]) -> tuple[Corner, Mask]:
    """Return the corner and mask of the union of some masks."""
    if len(parts) == 1:
        return parts[0]
    low = np.min([corner for corner, _ in parts], axis=0)
    high = np.max([np.add(corner, mask.shape) for corner, mask in parts], axis=0)
    whole = np.zeros(tuple(high - low), bool)
    for corner, mask in parts:
        y, x = np.subtract(corner, low)
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] |= mask
    return (int(low[0]), int(low[1])), whole
