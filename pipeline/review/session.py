"""A review at work: what is done to the cells of the image that is open, and who is told of it.

All that the windows do to data they do here; it needs neither Qt nor napari.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.contents import Contents
from cellseg.pipeline.review.label_arrays import Corrected, LabelArrays
from cellseg.pipeline.review.opened import Opened
from cellseg.pipeline.tiles import Box

if TYPE_CHECKING:
    from cellseg.pipeline.review.edits import Change, Edit, Editor

__all__ = ["Repaint", "Session"]

Repaint = tuple[int, int, int, Box]
"""Layer, t, z and window of labels that have changed."""


class Session(Opened):
    """One image under review: see `cellseg.pipeline.review.opened.Opened`."""

    def __init__(
        self, contents: Contents, image: str | None = None, who: str | None = None
    ) -> None:
        self.changing: list[Callable[[list[Repaint]], None]] = []
        self.put = self._put
        self.applying = False
        super().__init__(contents, image, who)

    @property
    def writable(self) -> Editor:
        """The editor; a CellsegError where corrections cannot be kept."""
        if self.editor is None:
            raise CellsegError(
                f"{self.contents.folder}: a plate without its results folder can be looked at only."
                " Open the results folder that it came from to correct cells."
            )
        if self.applying:
            raise CellsegError("corrections are being applied. Wait until that is done.")
        return self.editor

    def delete(self, labels: Iterable[int] | None = None) -> None:
        """Remove cells, by default those that are chosen."""
        self._take(self.writable.delete(self._wanted(labels)))

    def merge(self, labels: Iterable[int] | None = None) -> None:
        """Make one cell of several, by default of those chosen; it keeps the first label."""
        wanted = self._wanted(labels)
        self._take(self.writable.merge(wanted))
        self.choose(wanted[:1])

    def split_line(
        self, start: tuple[float, float], stop: tuple[float, float], t: int, z: int
    ) -> None:
        """Cut the cell that a line (y, x in px) crosses: the one chosen, else the most crossed.

        Raises
        ------
        CellsegError
            If it crosses none.
        """
        crossed = self._crossed(start, stop, t, z)
        if not crossed:
            raise CellsegError("the line crosses no cell. Draw it from side to side of one.")
        label = next((each for each in self.chosen if each in crossed), crossed[0])
        self._take(self.writable.split_line(label, start, stop, t, z))

    def split_seeds(self, points: list[tuple[float, float]], t: int, z: int) -> None:
        """Cut the cell under the first of some seeds where parts that grow from them meet."""
        label = self.label_at(t, z, *points[0]) if points else 0
        if not label:
            raise CellsegError(
                "put the first seed on the cell to split, and another one beside it."
            )
        self._take(self.writable.split_seeds(label, points, t, z))

    def change_class(self, class_: int, labels: Iterable[int] | None = None) -> None:
        """Say that cells are of another class, by default those that are chosen."""
        self._take(self.writable.change_class(self._wanted(labels), class_))

    def stroke(self, before: NDArray[Any], after: NDArray[Any], where: Repaint) -> None:
        """Keep what a brush has painted in a window; see `Editor.stroke`."""
        layer, t, z, box = where
        self._take(self.writable.stroke(before, after, box, t, z, layer))

    def new_label(self) -> int:
        """Return a label that no cell has or had."""
        return self.writable.new_label()

    def undo(self) -> None:
        """Take back the last correction."""
        self._take(self.writable.undo())

    def redo(self) -> None:
        """Do again what was taken back."""
        self._take(self.writable.redo())

    def mark(self, verdict: str, label: int | None = None) -> None:
        """Accept a cell, or reject and so delete it; by default the first one that is chosen."""
        wanted = self._wanted(None)[0] if label is None else label
        self._take(self.writable.mark(wanted, verdict))

    def apply(self) -> Generator[str, None, str | None]:
        """Apply the corrections of this image to labels and table; yield what is being done.

        The session itself stays as it was; `reread` takes what came of it.

        Returns
        -------
        str or None
            Why the rows are as before, where the image could not be measured again.
        """
        from cellseg.pipeline.config import Config
        from cellseg.pipeline.review.edits import ApplyEdits

        folder, name = self.contents.folder, self.entry.name
        going = ApplyEdits(folder, Config(device="cpu"), images=[name])
        self.applying = True
        try:
            for step in going.steps():
                yield f"applying: {step.stage}"
        finally:
            self.applying = False
        return next((report.reason for report in going.unmeasured if report.name == name), None)

    def _wanted(self, labels: Iterable[int] | None) -> list[int]:
        wanted = list(self.chosen) if labels is None else [int(label) for label in labels]
        wanted = [label for label in wanted if self.rows.place(label) is not None]
        if not wanted:
            raise CellsegError("no cell is chosen. Click on one first.")
        return wanted

    def _crossed(
        self, start: tuple[float, float], stop: tuple[float, float], t: int, z: int
    ) -> list[int]:
        """Return the cells under a line, the longest crossed first."""
        length = int(np.ceil(np.hypot(stop[0] - start[0], stop[1] - start[1]))) + 1
        y = np.rint(np.linspace(start[0], stop[0], 2 * length)).astype(int)
        x = np.rint(np.linspace(start[1], stop[1], 2 * length)).astype(int)
        *_, height, width = self.labels.shape
        inside = (y >= 0) & (x >= 0) & (y < height) & (x < width)
        y, x = y[inside], x[inside]
        if not len(y):
            return []
        box = Box(int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1)
        layers = range(len(self.labels.names))
        drawn = [self.read(t, z, box, layer)[y - box.y0, x - box.x0] for layer in layers]
        labels, counts = np.unique(np.concatenate(drawn), return_counts=True)
        return [int(n) for n in labels[np.argsort(-counts, kind="stable")] if n]

    def _take(self, edit: Edit | None) -> None:
        """Show an edit that is in the log."""
        if edit is None:
            return
        repaints = [self._repaint(change) for change in edit.changes if change.drawn]
        self.rows.note(edit.labels, self.writable)
        verdicts = self._verdicts()
        for label in edit.labels:
            key = self.entry.name, label
            self.queue.mark(key, verdicts.get(key))
        for told in self.changing:
            told(repaints)

    def _repaint(self, change: Change) -> Repaint:
        """Bring what is in memory up to date; return what to show again."""
        if change.layer >= len(self.labels.names):
            self.labels = LabelArrays.open(self.entry, Corrected(self.writable))
        where = change.layer, change.t, change.z, change.region
        if self.labels.in_memory:
            self.put(where, self.read(change.t, change.z, change.region, change.layer))
        return where

    def _put(self, where: Repaint, labels: NDArray[np.uint32]) -> None:
        """Write labels into those that are in memory."""
        layer, t, z, box = where
        self.plane(layer, t, z)[box.slices] = labels
