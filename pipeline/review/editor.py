"""Editor: correct the cells of one image; every edit is on disk, in the log, when it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline.change import Change
from cellseg.pipeline.review.edit import Edit, user
from cellseg.pipeline.review.edited_image import EditedImage
from cellseg.pipeline.review.section import Section, Stroke
from cellseg.pipeline.review.split import Point, by_line, by_seeds
from cellseg.pipeline.review.strokes import changes_of, free_layer, kind_of
from cellseg.pipeline.tiles import Box

__all__ = ["Editor"]

Mask = NDArray[np.bool_]


class Editor(EditedImage):
    """The cells of one image of a results folder: the labels on disk, and the edits since.

    Labels on disk stay as they are until `cellseg.pipeline.review.edits.apply`. Where the model
    gives each pixel to one cell, what is painted over a cell takes those pixels from it, and that
    is a part of the edit. Where cells may overlap, a mask that is not free in the cell's label
    image moves the cell to one where it is.

    Parameters
    ----------
    results : Path
        The results folder.
    image : str
        Name of the image.
    who : str, optional
        Whose edits these are; by default the user of this machine.

    Raises
    ------
    CellsegError
        If there are no such results, no such image, or the log is damaged.
    """

    def __init__(self, results: Path, image: str, who: str | None = None) -> None:
        super().__init__(results, image)
        self.who = who or user()

    def delete(self, labels: int | Iterable[int]) -> Edit:
        """Remove cells."""
        return self._erase(labels, "delete")

    def _erase(self, labels: int | Iterable[int], what: str) -> Edit:
        strokes = [Stroke(s) for label in _several(labels) for s in self.there(label)]
        return self._paint(what, strokes)

    def merge(self, labels: Iterable[int]) -> Edit:
        """Make one cell of several; it keeps the first label, and its class.

        Raises
        ------
        CellsegError
            If they are fewer than two, or lie where one cell cannot.
        """
        first, *others = _several(labels)
        if not others:
            raise CellsegError("merge: two cells or more are needed.")
        cells = {label: self.there(label) for label in (first, *others)}
        whole = [section for sections in cells.values() for section in sections]
        self.check_one_cell(first, whole)
        layer = free_layer(self, first, cells[first][0].layer, whole, cells)
        strokes = [Stroke(s) for s in whole if s.layer != layer]
        moved = [s for label in others for s in cells[label]]
        moved += [s for s in cells[first] if s.layer != layer]
        return self._paint("merge", [*strokes, *(Stroke(s.in_layer(layer), first) for s in moved)])

    def split_line(self, label: int, start: Point, stop: Point, t: int, z: int) -> Edit:
        """Cut a cell along a line, which goes on beyond its ends; a 3D cell in all its planes.

        The larger part keeps the label; the other one gets a new one.

        Parameters
        ----------
        label : int
        start, stop : (y, x)
        t, z : int
            A plane that the cell is in.
        """
        return self._split(label, by_line(self.in_plane(label, t, z), start, stop))

    def split_seeds(self, label: int, points: Sequence[Point], t: int, z: int) -> Edit:
        """Cut a cell where parts that grow from seeds meet; see `split.by_seeds`.

        The largest part keeps the label; the others get new ones.
        """
        return self._split(label, by_seeds(self.in_plane(label, t, z), points, z))

    def _split(self, label: int, parts: Sequence[Sequence[Section]]) -> Edit:
        new = self.new_label()
        strokes = [
            Stroke(section, new + number)
            for number, part in enumerate(parts[1:])
            for section in part
        ]
        class_ = self.class_of(label)
        return self._paint("split", strokes, {new + n: class_ for n in range(len(parts) - 1)})

    def redraw(self, label: int, corner: tuple[int, int], mask: Mask, t: int, z: int) -> Edit:
        """Give a cell another mask in a plane.

        Parameters
        ----------
        label : int
        corner : (y0, x0)
            Of the mask's first pixel.
        mask : bool (h, w)
            What lies outside the image is cut off.
        t, z : int

        Raises
        ------
        CellsegError
            If there is no such cell, the mask is empty, or the cell cannot lie in that plane.
        """
        cell = self.there(label)
        own = cell[0].layer
        drawn = _drawn(corner, mask, own, t, z).within(self.plane)
        old = [s for s in cell if (s.t, s.z) == (t, z)]
        whole = [drawn, *(s for s in cell if (s.t, s.z) != (t, z))]
        self.check_one_cell(label, whole)
        layer = free_layer(self, label, own, whole, {label})
        if layer != own:
            strokes = [*map(Stroke, cell), *(Stroke(s.in_layer(layer), label) for s in whole)]
        else:
            strokes = [*map(Stroke, old), Stroke(drawn, label)]
        return self._paint("redraw", strokes)

    def add(
        self, corner: tuple[int, int], mask: Mask, t: int = 0, z: int = 0, class_: int = 1
    ) -> int:
        """Add a cell; see `redraw`. Return its label."""
        drawn = _drawn(corner, mask, 0, t, z).within(self.plane)
        self.check_plane(t, z)
        label, layer = self.new_label(), free_layer(self, 0, 0, [drawn], ())
        self._paint("add", [Stroke(drawn.in_layer(layer), label)], {label: _class(class_)})
        return label

    def change_class(self, labels: int | Iterable[int], class_: int) -> Edit:
        """Say that cells are of another class, from 1 to 255."""
        changes = []
        for label in _several(labels):
            section, before = self.there(label)[0], self.class_of(label)
            changes.append(_without_pixels(label, section, before, _class(class_)))
        if all(change.class_before == change.class_after for change in changes):
            raise CellsegError(f"the class is {class_} already.")
        return self.record(Edit.new(self.who, "class", changes))

    def stroke(
        self, before: NDArray[Any], after: NDArray[Any], box: Box, t: int, z: int, layer: int = 0
    ) -> Edit | None:
        """Take what was painted in a window of a label image, whatever it was.

        Parameters
        ----------
        before, after : integers (h, w)
            Labels of the window; 0 is background. A label that no cell has adds one.
        box : Box
        t, z : int
        layer : int

        Returns
        -------
        Edit or None
            ``add`` where there is a new cell, else ``delete`` where one is gone, else
            ``redraw``; None if nothing is other than before.

        Raises
        ------
        CellsegError
            If `before` is not what the window holds, or a cell comes to lie where it cannot.
        """
        self.check_plane(t, z)
        if not np.array_equal(before, self.labels(t, z, box, layer)):
            raise CellsegError(
                f"{self.image}: what was painted on are not its labels as they are now."
                " Open it again."
            )
        painted = np.unique(after[after != before]).tolist()
        sections = {n: Section(layer, t, z, box, (after == n) & (after != before)) for n in painted}
        for label in painted:
            cell = self.sections(label) if label else []
            if label and any(s.layer != layer for s in cell):
                raise CellsegError(
                    f"label {label} lies in label image {cell[0].layer + 1}, not {layer + 1}."
                    " Paint there, or take a new label."
                )
            if label:
                self.check_one_cell(label, [sections[label], *cell])
        if not painted:
            return None
        changes = changes_of(self, [Stroke(sections[n], n) for n in painted])
        return self.record(Edit.new(self.who, kind_of(changes), changes))

    def undo(self) -> Edit | None:
        """Take back the last edit that counts, whoever made it; None if there is none."""
        self.refresh()
        if not self._log.done:
            return None
        last = self._log.edits[self._log.done[-1]]
        changes = [change.inverse for change in reversed(last.changes)]
        return self.record(Edit.new(self.who, "undo", changes, last.id))

    def redo(self) -> Edit | None:
        """Do again what was undone last; None if nothing was since the last edit."""
        self.refresh()
        if not self._log.undone:
            return None
        last = self._log.edits[self._log.undone[-1]]
        return self.record(Edit.new(self.who, "redo", last.changes, last.id))

    def mark(self, label: int, verdict: str) -> Edit:
        """Note what a reviewer says of a cell: "accept", or "reject", which deletes it."""
        if verdict not in ("accept", "reject"):
            raise CellsegError(f'{verdict}: a cell is marked as "accept" or "reject".')
        if verdict == "reject":
            return self._erase(label, "reject")
        class_ = self.class_of(label)
        change = _without_pixels(label, self.there(label)[0], class_, class_)
        return self.record(Edit.new(self.who, "accept", [change]))

    def _paint(
        self,
        what: str,
        strokes: Sequence[Stroke],
        classes: Mapping[int, int] | None = None,
    ) -> Edit:
        """Carry out strokes, one after the other, as one edit."""
        changes = changes_of(self, strokes, classes)
        if not changes:
            raise CellsegError(f"{what}: no pixel would change.")
        return self.record(Edit.new(self.who, what, changes))


def _drawn(corner: tuple[int, int], mask: Mask, layer: int, t: int, z: int) -> Section:
    y, x = (int(side) for side in corner)
    mask = np.asarray(mask, bool)
    return Section(layer, t, z, Box(y, x, y + mask.shape[0], x + mask.shape[1]), mask)


def _without_pixels(label: int, section: Section, before: int, after: int) -> Change:
    return Change(
        label, section.t, section.z, (0, 0, 0, 0), None, None, before, after, section.layer
    )


def _class(class_: int) -> int:
    if not 0 < class_ < 256:
        raise CellsegError(f"class {class_}: classes go from 1 to 255.")
    return int(class_)


def _several(labels: int | Iterable[int]) -> list[int]:
    """Return labels as a list, each once, in the order given."""
    given = [labels] if isinstance(labels, int | np.integer) else labels
    found = list(dict.fromkeys(int(label) for label in given))
    if not found:
        raise CellsegError("no cell was given.")
    return found
