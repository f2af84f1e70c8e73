"""What the logs of a results folder say of each cell: accepted, rejected, or gone."""

from __future__ import annotations

from collections.abc import Iterable

from cellseg.pipeline.review.contents import Contents
from cellseg.pipeline.review.edit import Edit
from cellseg.pipeline.review.edit_log import Header, read_log

__all__ = ["settled", "settled_cells"]

VERDICTS = ("accept", "reject")


def settled(edits: Iterable[Edit]) -> dict[int, str]:
    """Return the cells that need no second look, and why.

    Parameters
    ----------
    edits : iterable of Edit
        Those that count, in order.

    Returns
    -------
    dict of int to str
        Of a label "accept" or "reject", or "gone" where it was deleted or merged into another.
    """
    found: dict[int, str] = {}
    for edit in edits:
        for change in edit.changes:
            if edit.what in VERDICTS:
                found[change.label] = edit.what
            elif change.class_after is None:
                found[change.label] = "gone"
            elif found.get(change.label) in ("gone", "reject"):
                del found[change.label]
    return found


def settled_cells(contents: Contents) -> dict[tuple[str, int], str]:
    """Return the same of all images of a results folder, by image and label.

    A log that was made for labels of another run counts for nothing.

    Raises
    ------
    CellsegError
        If a log is damaged.
    """
    found: dict[tuple[str, int], str] = {}
    for entry in contents.entries if contents.editable else ():
        log = read_log(entry.results.edits_path)
        if log is not None and log.header == Header(entry.name, entry.results.labels.key() or ""):
            for label, verdict in settled(log.surviving).items():
                found[entry.name, label] = verdict
    return found
