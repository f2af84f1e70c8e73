"""Taking edits from logs made elsewhere: merged, checked, appended to those of the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellseg.models import CellsegError
from cellseg.pipeline.change import Change
from cellseg.pipeline.overlay import Overlay
from cellseg.pipeline.review.edit import Edit
from cellseg.pipeline.review.edit_log import EditLog
from cellseg.pipeline.review.editor import Editor
from cellseg.pipeline.review.merge_logs import Conflict, merge, read_edits

__all__ = ["Taking", "plan_taking"]


@dataclass(frozen=True, eq=False)
class Taking:
    """What logs would add to that of one image.

    Parameters
    ----------
    editor : Editor
        Of the image.
    edits : tuple of Edit
        New ones, in order.
    conflicts : tuple of Conflict
        What is left out, and why.
    """

    editor: Editor
    edits: tuple[Edit, ...]
    conflicts: tuple[Conflict, ...]

    def record(self) -> None:
        """Append the edits to the log of the image."""
        for edit in self.edits:
            self.editor.record(edit)


def plan_taking(results: Path, paths: Sequence[Path]) -> list[Taking]:
    """Check and merge logs, and what the results have, image by image; nothing is written.

    Parameters
    ----------
    results : Path
        The results folder.
    paths : sequence of Path
        ``edits.jsonl`` files, of any of its images, several of one too.

    Raises
    ------
    CellsegError
        If a log is missing or damaged, or is about an image or a cell that is not there.
    """
    logs: dict[str, list[tuple[Path, EditLog]]] = {}
    for path in paths:
        log = read_edits(path)
        logs.setdefault(log.header.image, []).append((path, log))
    return [_of_image(results, image, given) for image, given in logs.items()]


def _of_image(results: Path, image: str, given: Sequence[tuple[Path, EditLog]]) -> Taking:
    try:
        editor = Editor(results, image)
    except CellsegError as error:
        raise CellsegError(f"{given[0][0]}: {error}") from None
    for path, log in given:
        if log.header != editor.header:
            raise CellsegError(
                f"{path}: made for other labels of {image} (key {log.header.labels}, here"
                f" {editor.header.labels}): its edits mean nothing here. Give a log of these"
                " results or of a copy of them."
            )
    merged = merge([log for _, log in given], editor.edit_log)
    edits = tuple(_standing(editor, merged.edits))
    _check(editor, edits, ", ".join(str(path) for path, _ in given))
    return Taking(editor, edits, tuple(merged.conflicts))


def _standing(editor: Editor, edits: Sequence[Edit]) -> list[Edit]:
    """Return edits that the log can take: what takes back something unknown stands for itself."""
    count = {edit.id for edit in editor.surviving}
    found = []
    for edit in edits:
        if edit.what == "undo" and edit.target in count:
            count.discard(edit.target)
        elif edit.target is not None:
            edit = replace(edit, what="redraw", target=None)
        count.add(edit.id)
        found.append(edit)
    return found


def _check(editor: Editor, edits: Sequence[Edit], where: str) -> None:
    """Refuse edits of cells that are not there, or not as an edit found them."""
    overlay = Overlay()
    for edit in edits:
        for change in edit.changes:
            _check_change(editor, overlay, change, f"{where}: edit {edit.id[:8]} ({edit.text})")
        overlay.add(edit.changes)


def _check_change(editor: Editor, overlay: Overlay, change: Change, where: str) -> None:
    times, depth, height, width = editor.shape
    if change.t >= times or change.z >= depth or change.box[2] > height or change.box[3] > width:
        raise CellsegError(f"{where}: lies outside the image of (T, Z, Y, X) = {editor.shape}.")
    if not change.drawn:
        if change.class_before and not overlay.of(change.label):
            editor.there(change.label)
        return
    found = editor.labels(change.t, change.z, change.region, change.layer)
    overlay.carry_out(change.plane, found, change.region)
    if not np.array_equal(found == change.label, change.was):
        has = "has other pixels" if (found == change.label).any() else "is not there"
        raise CellsegError(
            f"{where}: label {change.label} {has}. The log was made for other labels, or lines of"
            " it are missing."
        )
