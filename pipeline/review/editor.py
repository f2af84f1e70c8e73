"""Editor: correct the cells of one image; every edit is on disk, in the log, when it returns."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models import MODELS, CellsegError
from cellseg.models.errors import nearest
from cellseg.pipeline.change import MOST, Change
from cellseg.pipeline.place import Place
from cellseg.pipeline.results import DAMAGED, ImageResults, Results
from cellseg.pipeline.review.edit import Edit, user
from cellseg.pipeline.review.edit_log import EditLog, Header, read_log
from cellseg.pipeline.review.known import TableRows
from cellseg.pipeline.review.overlay import Overlay
from cellseg.pipeline.review.section import Section, Stroke, joined
from cellseg.pipeline.review.split import Point, by_line, by_seeds
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import read_workflow

__all__ = ["Editor"]

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint32]


class Editor:
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
        self.image = image
        self.who = who or user()
        self.here = _image_results(Path(results), image)
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
        log = read_log(self.here.edits_path)
        if log is not None and log.header != self.header:
            # Labels of another run: what was said of them is kept, but means nothing here.
            self.here.retire_edits()
            log = None
        self._log = log or EditLog(self.header)
        self._overlay = Overlay(c for edit in self._log.pending for c in edit.changes)
        every = (c.label for edit in self._log.edits for c in edit.changes)
        self._highest = max(self._highest, max(every, default=0))

    @property
    def log(self) -> list[Edit]:
        """All edits, undone ones too, in order."""
        return list(self._log.edits)

    @property
    def surviving(self) -> list[Edit]:
        """The edits that count: neither undone nor undo or redo themselves."""
        return self._log.surviving

    @property
    def pending(self) -> int:
        """Number of edits that labels and table on disk do not show yet."""
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
        box = box.intersect(self.plane) or Box(0, 0, 0, 0)
        if layer < self.store.layers and min(box.shape) > 0:
            labels = np.array(self.store.read(t, z, box, layer=layer), np.uint32)
        else:
            labels = np.zeros(box.shape, np.uint32)
        self._overlay.carry_out((layer, t, z), labels, box)
        return labels

    def sections(self, label: int) -> list[Section]:
        """Return the pixels of a cell, plane by plane; none where there is no such cell."""
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
        if self._highest >= MOST:
            raise CellsegError(f"{self.image}: there are no labels left above {MOST}.")
        return self._highest + 1

    def delete(self, labels: int | Iterable[int]) -> Edit:
        """Remove cells."""
        return self._erase(labels, "delete")

    def _erase(self, labels: int | Iterable[int], what: str) -> Edit:
        strokes = [Stroke(s) for label in _several(labels) for s in self._there(label)]
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
        cells = {label: self._there(label) for label in (first, *others)}
        whole = [section for sections in cells.values() for section in sections]
        self._check_one_cell(first, whole)
        layer = self._free_layer(first, cells[first][0].layer, whole, cells)
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
        return self._split(label, by_line(self._in_plane(label, t, z), start, stop))

    def split_seeds(self, label: int, points: Sequence[Point], t: int, z: int) -> Edit:
        """Cut a cell where parts that grow from seeds meet; see `split.by_seeds`.

        The largest part keeps the label; the others get new ones.
        """
        return self._split(label, by_seeds(self._in_plane(label, t, z), points, z))

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
        cell = self._there(label)
        own = cell[0].layer
        drawn = _drawn(corner, mask, own, t, z).within(self.plane)
        old = [s for s in cell if (s.t, s.z) == (t, z)]
        whole = [drawn, *(s for s in cell if (s.t, s.z) != (t, z))]
        self._check_one_cell(label, whole)
        layer = self._free_layer(label, own, whole, {label})
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
        self._check_plane(t, z)
        label, layer = self.new_label(), self._free_layer(0, 0, [drawn], ())
        self._paint("add", [Stroke(drawn.in_layer(layer), label)], {label: _class(class_)})
        return label

    def change_class(self, labels: int | Iterable[int], class_: int) -> Edit:
        """Say that cells are of another class, from 1 to 255."""
        changes = []
        for label in _several(labels):
            section, before = self._there(label)[0], self.class_of(label)
            changes.append(_without_pixels(label, section, before, _class(class_)))
        if all(change.class_before == change.class_after for change in changes):
            raise CellsegError(f"the class is {class_} already.")
        return self._record(Edit.new(self.who, "class", changes))

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
        self._check_plane(t, z)
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
                self._check_one_cell(label, [sections[label], *cell])
        if not painted:
            return None
        return self._paint("redraw", [Stroke(sections[n], n) for n in painted], named=False)

    def undo(self) -> Edit | None:
        """Take back the last edit that counts, whoever made it; None if there is none."""
        self._refresh()
        if not self._log.done:
            return None
        last = self._log.edits[self._log.done[-1]]
        changes = [change.inverse for change in reversed(last.changes)]
        return self._record(Edit.new(self.who, "undo", changes, last.id))

    def redo(self) -> Edit | None:
        """Do again what was undone last; None if nothing was since the last edit."""
        self._refresh()
        if not self._log.undone:
            return None
        last = self._log.edits[self._log.undone[-1]]
        return self._record(Edit.new(self.who, "redo", last.changes, last.id))

    def mark(self, label: int, verdict: str) -> Edit:
        """Note what a reviewer says of a cell: "accept", or "reject", which deletes it."""
        if verdict not in ("accept", "reject"):
            raise CellsegError(f'{verdict}: a cell is marked as "accept" or "reject".')
        if verdict == "reject":
            return self._erase(label, "reject")
        class_ = self.class_of(label)
        change = _without_pixels(label, self._there(label)[0], class_, class_)
        return self._record(Edit.new(self.who, "accept", [change]))

    def record(self, edit: Edit) -> Edit:
        """Append an edit that was made elsewhere, as of another log, to this one."""
        self._refresh()
        return self._record(edit)

    def _refresh(self) -> None:
        """Read the log again if another program has written to it."""
        path = self.here.edits_path
        size = path.stat().st_size if path.is_file() else 0
        if size != self._log.size:
            self._load()

    def _record(self, edit: Edit) -> Edit:
        """Append an edit to the log on disk, then count it."""
        if not self._log.size:
            self._log.size = self.here.append_edits(self.header.line(), 0)
        self._log.size = self.here.append_edits(edit.line(), self._log.size)
        self._log.add(edit)
        self._overlay.add(edit.changes)
        self._highest = max(self._highest, *edit.labels, 0)
        return edit

    def _paint(
        self,
        what: str,
        strokes: Sequence[Stroke],
        classes: Mapping[int, int] | None = None,
        *,
        named: bool = True,
    ) -> Edit:
        """Carry out strokes, one after the other, as one edit."""
        planes: dict[tuple[int, int, int], list[Stroke]] = defaultdict(list)
        for stroke in strokes:
            planes[stroke.section.plane].append(stroke)
        drawn = [change for plane in sorted(planes) for change in self._drawn(plane, planes[plane])]
        changes = self._with_classes(drawn, classes or {})
        if not changes:
            raise CellsegError(f"{what}: no pixel would change.")
        if not named:
            what = _kind(changes)
        return self._record(Edit.new(self.who, what, changes))

    def _drawn(
        self, plane: tuple[int, int, int], strokes: Sequence[Stroke]
    ) -> list[tuple[int, Section, Section]]:
        """Return label, section before and after of each cell that strokes on a plane change."""
        layer, t, z = plane
        found = []
        for box in joined([stroke.section.box for stroke in strokes]):
            before = self.labels(t, z, box, layer)
            after = before.copy()
            for stroke in strokes:
                if (shared := stroke.section.box.intersect(box)) is not None:
                    after[shared.within(box).slices][stroke.section.mask] = stroke.label
            other = before != after
            for label in np.union1d(before[other], after[other]).tolist():
                if label:
                    masks = before == label, after == label
                    around = Section(layer, t, z, box, masks[0] | masks[1]).tight
                    assert around is not None  # noqa: S101 - it is in one of both
                    part = around.box.within(box).slices
                    was, becomes = (Section(*plane, around.box, mask[part]) for mask in masks)
                    found.append((label, was, becomes))
        return found

    def _with_classes(
        self, drawn: Sequence[tuple[int, Section, Section]], classes: Mapping[int, int]
    ) -> list[Change]:
        """Return what was drawn as changes that say whether each cell was there, and still is."""
        of: dict[int, list[tuple[Section, Section]]] = defaultdict(list)
        for label, was, becomes in drawn:
            of[label].append((was, becomes))
        both = {}
        for label, pairs in of.items():
            class_ = classes.get(label) or self.class_of(label)
            kept = any(becomes.mask.any() for _, becomes in pairs)
            known = label not in classes
            there = known and any(was.mask.any() for was, _ in pairs)
            if known and not (kept and there):
                cell = self.sections(label)
                there = bool(cell)
                pixels = sum(int(was.mask.sum()) for was, _ in pairs)
                kept = kept or sum(int(s.mask.sum()) for s in cell) > pixels
            both[label] = (class_ if there else None, class_ if kept else None)
        return [
            Change.between((label, *was.plane), was.box, was.mask, becomes.mask, both[label])
            for label, was, becomes in drawn
        ]

    def _free_layer(
        self, label: int, own: int, whole: Sequence[Section], merged: Iterable[int]
    ) -> int:
        """Return the label image that a cell of some sections goes to, if it can, its own one."""
        if not self.overlapping:
            return own
        free = np.array([0, label, *merged], np.uint32)
        for layer in sorted(range(self.layers), key=lambda number: number != own):
            views = ((self.labels(s.t, s.z, s.box, layer), s.mask) for s in whole)
            if all(np.isin(view[mask], free).all() for view, mask in views):
                return layer
        return self.layers

    def _there(self, label: int) -> list[Section]:
        """Return the sections of a cell that there is."""
        self._refresh()
        cell = self.sections(label)
        if not cell:
            raise CellsegError(f"{self.image}: label {label} is not there.")
        return cell

    def _in_plane(self, label: int, t: int, z: int) -> list[Section]:
        cell = self._there(label)
        if not any((s.t, s.z) == (t, z) for s in cell):
            raise CellsegError(f"{self.image}: label {label} has no pixel in t = {t}, z = {z}.")
        return cell

    def _check_plane(self, t: int, z: int) -> None:
        self._refresh()
        times, depth = self.shape[:2]
        if not (0 <= t < times and 0 <= z < depth):
            raise CellsegError(
                f"{self.image}: t = {t}, z = {z} is no plane of it; it has {times} time points and"
                f" {depth} planes."
            )

    def _check_one_cell(self, label: int, sections: Sequence[Section]) -> None:
        """Refuse a cell in several time points, or in planes that are not linked."""
        for section in sections:
            self._check_plane(section.t, section.z)
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


def _image_results(results: Path, image: str) -> ImageResults:
    """Return the part of a results folder that belongs to an image that is done."""
    try:
        document = json.loads(Results(results).run_path.read_text(encoding="utf-8"))
        lines = {line["name"]: line for line in document["images"] if line["state"] == "done"}
    except (*DAMAGED, TypeError):
        raise CellsegError(
            f"{results}: no results folder of cellseg: its run.json is missing or damaged."
            " Give the output folder of a run."
        ) from None
    if image not in lines:
        raise CellsegError(
            f"{results}: it has no image {image} that is done.{nearest(image, lines)}"
        )
    return Results(results).at(Place.read(lines[image]))


def _kind(changes: Sequence[Change]) -> str:
    """Return what changes come to: a new cell, one less, or other masks."""
    if any(change.class_before is None for change in changes):
        return "add"
    return "delete" if any(change.class_after is None for change in changes) else "redraw"


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


def _around(boxes: Sequence[Box]) -> Box:
    sides = np.array([(box.y0, box.x0, box.y1, box.x1) for box in boxes])
    low, high = sides[:, :2].min(axis=0).tolist(), sides[:, 2:].max(axis=0).tolist()
    return Box(*low, *high)
