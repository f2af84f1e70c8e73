"""What is open in a review: one image of a results folder, its cells, and what is chosen.

It needs neither Qt nor napari. What is done to the cells is in `session`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.contents import Contents, Entry
from cellseg.pipeline.review.corrected_cells import STATE, CorrectedCells
from cellseg.pipeline.review.differing import with_differences
from cellseg.pipeline.review.doubts import doubts
from cellseg.pipeline.review.label_arrays import Corrected, LabelArrays
from cellseg.pipeline.review.layers import LayerData, layers_of, points_of
from cellseg.pipeline.review.norms import Norms
from cellseg.pipeline.review.queue import Key, Order, Queue
from cellseg.pipeline.review.ranking import norms_of, queue_of
from cellseg.pipeline.review.settled import settled
from cellseg.pipeline.tiles import Box

if TYPE_CHECKING:
    from cellseg.pipeline.review.edits import Editor

__all__ = ["Opened", "Scope"]

Scope = Literal["this image"] | Order
"""What the queue runs over: the image at hand, or all of them in one of two orders."""


class Opened:
    """One image of a results folder, opened.

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
        self.choosing: list[Callable[[], None]] = []
        self.opening: list[Callable[[], None]] = []
        self.scope: Scope = "this image"
        self._norms: Norms | None = None
        self.open(image if image is not None else contents.entries[0].name)

    @classmethod
    def of(cls, path: Path, image: str | None = None) -> Self:
        """Return the review of a path; see `Contents.read`."""
        return cls(Contents.read(path), image)

    def open(self, image: str) -> None:
        """Take another image; where it cannot be opened, the one before stays.

        Raises
        ------
        CellsegError
            If there is no such image, or its labels or table are missing.
        """
        entry, editor, corrected = self.contents[image], None, None
        if self.contents.editable:
            from cellseg.pipeline.review.edits import Editor

            editor = Editor(self.contents.folder, entry.name, self.who)
            corrected = Corrected(editor)
        labels = LabelArrays.open(entry, corrected)
        rows = CorrectedCells(self.contents.cells(entry), entry.name)
        self.entry: Entry = entry
        self.editor: Editor | None = editor
        self.labels, self.rows = labels, rows
        self.chosen: tuple[int, ...] = ()
        if editor is not None:
            touched = (label for edit in editor.log for label in edit.labels)
            rows.note(touched, editor)
        if self.scope == "this image":
            self.queue = self._own_queue()
        self.queue.enter(image)
        for told in self.opening:
            told()

    def reread(self) -> None:
        """Take the image at hand again, as it is on disk now; what is usual is learnt anew."""
        self._norms = None
        self.contents = Contents.read(self.contents.folder)
        if self.scope != "this image":
            self.queue = queue_of(self.contents, self.scope, self.norms)
        self.open(self.entry.name)

    def range_over(self, scope: Scope) -> None:
        """Let the queue run over the image at hand, or over all.

        Raises
        ------
        CellsegError
            If the table of all cells or a log is missing or damaged; the queue stays as it was.
        """
        if scope == "this image":
            queue = self._own_queue()
        else:
            queue = queue_of(self.contents, scope, self.norms)
            queue.enter(self.entry.name)
        self.queue, self.scope = queue, scope

    def _own_queue(self) -> Queue:
        """Return the queue of the image at hand."""
        cells = self.measured
        if self.contents.editable:
            cells = with_differences(cells, self.contents.folder)
        return Queue(doubts(cells, self.norms), self._verdicts())

    def _verdicts(self) -> dict[Key, str]:
        """Return what was said of the cells of the image at hand."""
        edits = () if self.editor is None else self.editor.surviving
        return {(self.entry.name, label): verdict for label, verdict in settled(edits).items()}

    @property
    def norms(self) -> Norms:
        """What is usual on each plate, learnt once."""
        if self._norms is None:
            self._norms = self._learn()
        return self._norms

    def _learn(self) -> Norms:
        if len(self.contents.entries) > 1:
            try:
                return norms_of(self.contents)
            except CellsegError:  # the table of all images is missing: the image's own will do
                pass
        return Norms.of(self.measured)

    # Its cells.

    @property
    def cells(self) -> pd.DataFrame:
        """The table of the image, as corrected; a row of it stays where it is."""
        return self.rows.table

    @property
    def measured(self) -> pd.DataFrame:
        """The table of the image, as it is on disk."""
        return self.rows.measured

    def all_cells(self) -> pd.DataFrame:
        """Return the cells of all images: those of the one at hand as corrected."""
        every = self.contents.cells()
        others = every[every["image"] != self.entry.name].assign(**{STATE: ""})
        return pd.concat([self.cells, others], ignore_index=True)

    def layers(self) -> list[LayerData]:
        """Return the layers of the image, as it is now."""
        return layers_of(self.contents, self.entry, self.labels, self.cells)

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

    def plane(self, layer: int, t: int, z: int) -> NDArray[np.uint32]:
        """Return a plane (Y, X) of labels that are in memory, to be painted on."""
        array = self.labels.arrays[layer][0]
        lead = [n for axis, n in zip("tz", (t, z), strict=True) if axis in self.labels.axes]
        plane: NDArray[np.uint32] = array[tuple(lead)]
        return plane
