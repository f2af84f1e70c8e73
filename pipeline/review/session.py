"""A review at work: one image of a results folder, its cells, what is chosen, what was corrected.

All that the windows do to data they do here; it needs neither Qt nor napari.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.contents import Contents, Entry
from cellseg.pipeline.review.corrected_cells import STATE, CorrectedCells
from cellseg.pipeline.review.label_arrays import Corrected, LabelArrays
from cellseg.pipeline.review.layers import LayerData, layers_of, points_of
from cellseg.pipeline.review.queue import NEEDED, Norms, Queue, doubts
from cellseg.pipeline.tiles import Box

if TYPE_CHECKING:
    from cellseg.pipeline.review.edits import Change, Edit, Editor

__all__ = ["Repaint", "Session"]

ALL_CELLS = 1_000_000
"""Up to so many cells those of all images tell what is usual; beyond, those of the image alone."""
Repaint = tuple[int, int, int, Box]
"""Layer, t, z and window of labels that have changed."""


class Session:
    """One image under review.

    Parameters
    ----------
    contents : Contents
    image : str, optional
        Name of the image; by default the first one.
    who : str, optional
        Whose corrections these are; by default the user of this machine.

    Raises
    ------
    CellsegError
        If there is no such image, or its labels or table are missing.
    """

    def __init__(
        self, contents: Contents, image: str | None = None, who: str | None = None
    ) -> None:
        self.contents, self.who = contents, who
        self.chosen: tuple[int, ...] = ()
        self.choosing: list[Callable[[], None]] = []
        self.changing: list[Callable[[list[Repaint]], None]] = []
        self.opening: list[Callable[[], None]] = []
        self.put = self._put
        self.applying = False
        self._norms: Norms | None = None
        self.open(image if image is not None else contents.entries[0].name)

    @classmethod
    def of(cls, path: Path, image: str | None = None) -> Session:
        """Return the review of a path; see `Contents.read`."""
        return cls(Contents.read(path), image)

    def open(self, image: str) -> None:
        """Take another image."""
        entry = self.contents[image]
        self.entry: Entry = entry
        self.editor: Editor | None = None
        corrected = None
        if self.contents.editable:
            from cellseg.pipeline.review.edits import Editor

            self.editor = Editor(self.contents.folder, entry.name, self.who)
            corrected = Corrected(self.editor)
        self.labels = LabelArrays.open(entry, corrected)
        self.rows = CorrectedCells(self.contents.cells(entry))
        self.queue = Queue(doubts(self.measured, self.norms), self._verdicts())
        self.chosen = ()
        if self.editor is not None:
            touched = (label for edit in self.editor.log for label in edit.labels)
            self.rows.note(touched, self.editor)
        for told in self.opening:
            told()

    @property
    def cells(self) -> pd.DataFrame:
        """The table of the image, as corrected; a row of it stays where it is."""
        return self.rows.table

    @property
    def measured(self) -> pd.DataFrame:
        """The table of the image, as it is on disk."""
        return self.rows.measured

    def reread(self) -> None:
        """Take the image at hand again, as it is on disk now; what is usual is learnt anew."""
        self._norms = None
        self.contents = Contents.read(self.contents.folder)
        self.open(self.entry.name)

    def all_cells(self) -> pd.DataFrame:
        """Return the cells of all images: those of the one at hand as corrected."""
        every = self.contents.cells()
        others = every[every["image"] != self.entry.name].assign(**{STATE: ""})
        return pd.concat([self.cells, others], ignore_index=True)

    def layers(self) -> list[LayerData]:
        """Return the layers of the image, as it is now."""
        return layers_of(self.contents, self.entry, self.labels, self.cells)

    @property
    def norms(self) -> Norms:
        """What is usual on each plate, learnt once."""
        if self._norms is None:
            self._norms = self._learn()
        return self._norms

    def _learn(self) -> Norms:
        several = len(self.contents.entries) > 1
        if several and sum(e.cells for e in self.contents.entries) <= ALL_CELLS:
            try:
                every = self.contents.cells()
                return Norms.of(every[[name for name in NEEDED if name in every]])
            except CellsegError:  # the table of all images is missing: the image's own will do
                pass
        return Norms.of(self.measured)

    def _verdicts(self) -> dict[tuple[str, int], str]:
        if self.editor is None:
            return {}
        found = self.editor.reviewed
        return {(self.entry.name, label): verdict for label, verdict in found.items()}

    # What is chosen.

    def choose(self, labels: Iterable[int], *, more: bool = False) -> None:
        """Choose cells; with `more` beside those that are chosen, where one chosen twice goes."""
        wanted = [int(label) for label in labels]
        if more:
            kept = [label for label in self.chosen if label not in wanted]
            wanted = kept + [label for label in wanted if label not in self.chosen]
        if tuple(wanted) == self.chosen:
            return
        self.chosen = tuple(wanted)
        for told in self.choosing:
            told()

    def row(self, label: int) -> pd.Series | None:
        """Return the row of a cell, as corrected; None if there is no such cell."""
        row = self.rows.place(label)
        return None if row is None else self.cells.iloc[row]

    def places(self) -> NDArray[np.float64]:
        """Return the centres of all `cells`, as their points have them."""
        return points_of(self.cells, self.labels.axes)

    def box(self, label: int) -> tuple[int, int, Box] | None:
        """Return t, z and box of a cell; None if there is no such cell."""
        return self.rows.box(label)

    def label_at(self, t: int, z: int, y: float, x: float) -> int:
        """Return the cell at a pixel, of the topmost label image that has one; 0 for none."""
        *_, height, width = self.labels.shape
        row, column = round(y), round(x)
        if not (0 <= row < height and 0 <= column < width):
            return 0
        box = Box(row, column, row + 1, column + 1)
        for layer in reversed(range(len(self.labels.names))):
            if found := int(self.read(t, z, box, layer)[0, 0]):
                return found
        return 0

    def read(self, t: int, z: int, box: Box, layer: int) -> NDArray[np.uint32]:
        """Return the labels of a window, as corrected."""
        if self.editor is not None:
            return self.editor.labels(t, z, box, layer)
        return self.entry.results.labels.read(t, z, box, layer=layer)

    # What is corrected.

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

    def plane(self, layer: int, t: int, z: int) -> NDArray[np.uint32]:
        """Return a plane (Y, X) of labels that are in memory, to be painted on."""
        array = self.labels.arrays[layer][0]
        lead = [n for axis, n in zip("tz", (t, z), strict=True) if axis in self.labels.axes]
        plane: NDArray[np.uint32] = array[tuple(lead)]
        return plane
