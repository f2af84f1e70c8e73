"""The cells of one image as they are: the labels on disk, and the edits of its log since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.models import MODELS, CellsegError
from cellseg.pipeline.change import MOST
from cellseg.pipeline.overlay import Overlay
from cellseg.pipeline.review.edit import Edit
from cellseg.pipeline.review.edit_log import EditLog, Header, read_log
from cellseg.pipeline.review.known import TableRows, image_results
from cellseg.pipeline.review.section import Section
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import read_workflow

__all__ = ["EditedImage"]

Labels = NDArray[np.uint32]


class EditedImage:
    """The cells of one image of a results folder: the labels on disk, and the edits since.

    Parameters
    ----------
    results : Path
        The results folder.
    image : str
        Name of the image.

    Raises
    ------
    CellsegError
        If there are no such results, no such image, or the log is damaged.
    """

    def __init__(self, results: Path, image: str) -> None:
        self.image = image
        self.here = image_results(Path(results), image)
        self.store = self.here.labels
        key = self.store.key()
        if key is None:
            raise CellsegError(f"{image}: its labels are missing. Run the workflow again.")
        self.header = Header(image, key)
        workflow = read_workflow(Path(results) / "workflow.toml", output=Path(results))
        self.shape = self.store.shape
        self.plane = Box(0, 0, *self.shape[2:])
        self.linked = self.shape[1] > 1 and workflow.link.z
        self.overlapping = self.store.layers > 1 or MODELS[workflow.model.name].overlap == "keep"
        self._rows = TableRows(self.here)
        self._highest = self._rows.highest
        self._load()

    def _load(self) -> None:
        """Read the log."""
        self._seen = _size(self.here.edits_path)
        log = read_log(self.here.edits_path)
        # Of labels of another run: kept under another name, once there is something to say here.
        self._stale = log is not None and log.header != self.header
        log = None if self._stale else log
        self._log = log or EditLog(self.header)
        self._overlay = Overlay(c for edit in self._log.pending for c in edit.changes)
        every = (c.label for edit in self._log.edits for c in edit.changes)
        self._highest = max(self._highest, max(every, default=0))

    @property
    def edit_log(self) -> EditLog:
        """The log, with what of it is applied and what can be done again."""
        self.refresh()
        return self._log

    @property
    def log(self) -> list[Edit]:
        """All edits, undone ones too, in order."""
        self.refresh()
        return list(self._log.edits)

    @property
    def surviving(self) -> list[Edit]:
        """The edits that count: neither undone nor undo or redo themselves."""
        self.refresh()
        return self._log.surviving

    @property
    def pending(self) -> int:
        """Number of edits that labels and table on disk do not show yet."""
        self.refresh()
        return sum(edit.effective for edit in self._log.pending)

    @property
    def reviewed(self) -> dict[int, str]:
        """Of each cell that was accepted or rejected, which of both."""
        marks = (edit for edit in self.surviving if edit.what in ("accept", "reject"))
        return {label: edit.what for edit in marks for label in edit.labels}

    @property
    def layers(self) -> int:
        """Number of label images, with those that edits need."""
        return max(self.store.layers, self._overlay.layers)

    def labels(self, t: int, z: int, box: Box, layer: int = 0) -> Labels:
        """Return the labels in a box of a plane, edits included.

        Parameters
        ----------
        t, z : int
        box : Box
            Cut at the plane.
        layer : int

        Returns
        -------
        uint32 (h, w)
        """
        self.refresh()
        box = box.intersect(self.plane) or Box(0, 0, 0, 0)
        if layer < self.store.layers and min(box.shape) > 0:
            labels = np.array(self.store.read(t, z, box, layer=layer), np.uint32)
        else:
            labels = np.zeros(box.shape, np.uint32)
        self._overlay.carry_out((layer, t, z), labels, box)
        return labels

    def sections(self, label: int) -> list[Section]:
        """Return the pixels of a cell, plane by plane; none where there is no such cell."""
        self.refresh()
        places: set[tuple[int, int, int]] = set()
        boxes = []
        if (row := self._rows.find(label)) is not None:
            places |= {(row.layer, row.t, z) for z in row.planes}
            boxes.append(row.box)
        for change in self._overlay.of(label):
            if change.drawn:
                places.add(change.plane)
                boxes.append(change.region)
        found = []
        for layer, t, z in sorted(places):
            box = _around(boxes)
            mask = self.labels(t, z, box, layer) == label
            if (section := Section(layer, t, z, box, mask).tight) is not None:
                found.append(section)
        return found

    def class_of(self, label: int) -> int:
        """Return the class of a cell, edits included; 1 where nothing is known of it."""
        for change in reversed(self._overlay.of(label)):
            known = change.class_after or change.class_before
            if known is not None:
                return known
        row = self._rows.find(label)
        return 1 if row is None else row.class_

    def new_label(self) -> int:
        """Return a label that no cell has or had."""
        self.refresh()
        if self._highest >= MOST:
            raise CellsegError(f"{self.image}: there are no labels left above {MOST}.")
        return self._highest + 1

    def refresh(self) -> None:
        """Read the log again if another program has written to it."""
        if _size(self.here.edits_path) != self._seen:
            self._load()

    def record(self, edit: Edit) -> Edit:
        """Append an edit to the log on disk, then count it; return it."""
        self.refresh()
        if self._stale:
            self.here.retire_edits()
            self._stale = False
        if not self._log.size:
            self._log.size = self.here.append_edits(self.header.line())
        line = edit.line()
        size = self._log.size + len(line.encode()) + 1
        self._log.size = self._seen = self.here.append_edits(line)
        if self._log.size != size:
            # Another program was quicker by a moment.
            self._load()
            return edit
        self._log.add(edit)
        self._overlay.add(edit.changes)
        self._highest = max(self._highest, *edit.labels, 0)
        return edit

    def there(self, label: int) -> list[Section]:
        """Return the sections of a cell that there is.

        Raises
        ------
        CellsegError
            If there is none.
        """
        self.refresh()
        cell = self.sections(label)
        if not cell:
            raise CellsegError(f"{self.image}: label {label} is not there.")
        return cell

    def in_plane(self, label: int, t: int, z: int) -> list[Section]:
        """Return the sections of a cell that has pixels in a plane."""
        cell = self.there(label)
        if not any((s.t, s.z) == (t, z) for s in cell):
            raise CellsegError(f"{self.image}: label {label} has no pixel in t = {t}, z = {z}.")
        return cell

    def check_plane(self, t: int, z: int) -> None:
        """Refuse a plane that there is not."""
        self.refresh()
        times, depth = self.shape[:2]
        if not (0 <= t < times and 0 <= z < depth):
            raise CellsegError(
                f"{self.image}: t = {t}, z = {z} is no plane of it; it has {times} time points and"
                f" {depth} planes."
            )

    def check_one_cell(self, label: int, sections: Sequence[Section]) -> None:
        """Refuse a cell in several time points, or in planes that are not linked."""
        for section in sections:
            self.check_plane(section.t, section.z)
        times, planes = ({getattr(s, axis) for s in sections} for axis in ("t", "z"))
        if len(times) > 1:
            raise CellsegError(
                f"{self.image}: label {label} would lie in time points {min(times)} and"
                f" {max(times)}; a cell has a label of its own in each."
            )
        if len(planes) > 1 and not self.linked:
            raise CellsegError(
                f"{self.image}: label {label} would lie in planes {min(planes)} and {max(planes)},"
                " which are not linked ([link] z); a cell has a label of its own in each."
            )


def _around(boxes: Sequence[Box]) -> Box:
    sides = np.array([(box.y0, box.x0, box.y1, box.x1) for box in boxes])
    low, high = sides[:, :2].min(axis=0).tolist(), sides[:, 2:].max(axis=0).tolist()
    return Box(*low, *high)


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0
