"""The log of the edits of one image: a line an edit, on disk before the edit counts.

The first line says which labels it is about. A last line that was cut off, by a crash in the
middle of a stroke, is as good as not there. Other lines: ``applying`` keeps the rows of cells as
they were before labels and table are changed, ``applied`` says up to which edit they are.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.edit import Edit

__all__ = ["EditLog", "Header", "read_log"]

FORMAT = 1


@dataclass(frozen=True)
class Header:
    """The first line of a log.

    Parameters
    ----------
    image : str
        Name of the image.
    labels : str
        Key of the labels that the edits are about.
    """

    image: str
    labels: str

    def line(self) -> str:
        """Return it as text."""
        return json.dumps({"edits": FORMAT, "image": self.image, "labels": self.labels})


@dataclass
class EditLog:
    """What a log holds.

    Parameters
    ----------
    header : Header
    edits : list of Edit
        All of them, those that were taken back too.
    applied : int
        How many of them the labels on disk and the table show.
    rows : dict of int to dict
        Of a label, its row before the first edit was applied: the columns that are kept.
    done, undone : list of int
        Places in `edits` of the edits that count, and of those that can be done again; in the
        order in which undo and redo find them, from the end.
    size : int
        Bytes of the file up to the last whole line.
    """

    header: Header
    edits: list[Edit] = field(default_factory=list)
    applied: int = 0
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, edit: Edit) -> None:
        """Take one more edit.

        Raises
        ------
        ValueError
            If it takes back what does not count, or does again what was not taken back.
        """
        if edit.what == "undo":
            self._move(edit, self.done, self.undone)
        elif edit.what == "redo":
            self._move(edit, self.undone, self.done)
        else:
            self.done.append(len(self.edits))
            self.undone.clear()
        self.edits.append(edit)

    def _move(self, edit: Edit, source: list[int], to: list[int]) -> None:
        # The last one, but where logs of several people were merged.
        found = [place for place in source if self.edits[place].id == edit.target]
        if not found:
            raise ValueError(f"there is nothing that this {edit.what} could be of")
        source.remove(found[-1])
        to.append(found[-1])

    @property
    def surviving(self) -> list[Edit]:
        """The edits that count, in order."""
        return [self.edits[place] for place in self.done]

    @property
    def pending(self) -> list[Edit]:
        """What labels and table do not show yet: undone edits, and what undoes them, too."""
        return self.edits[self.applied :]

    def take(self, document: dict[str, Any]) -> None:
        """Take a line that was read.

        Raises
        ------
        ValueError, KeyError, TypeError, IndexError
            If it says nothing that a log can say.
        """
        if "applied" in document:
            places = [n for n, edit in enumerate(self.edits) if edit.id == document["applied"]]
            self.applied = places[-1] + 1
        elif "applying" in document:
            for label, row in document["rows"].items():
                self.rows.setdefault(int(label), dict(row))
        else:
            self.add(Edit.of(document))


def read_log(path: Path) -> EditLog | None:
    """Return what a log holds; None if there is none, or it was cut off in its first line.

    Raises
    ------
    CellsegError
        If a line that is whole is none of a log; the message says which.
    """
    if not path.is_file():
        return None
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    log: EditLog | None = None
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
            if log is None:
                log = EditLog(_header(document))
            else:
                log.take(document)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise CellsegError(
                f"{path}: line {number} is damaged ({error or type(error).__name__}). Mend or"
                " remove that line; later ones that build on it may not fit then."
            ) from None
        log.size += len(line)
    return log


def _header(document: dict[str, Any]) -> Header:
    if document.get("edits") != FORMAT:
        raise ValueError(f'a log begins with {{"edits": {FORMAT}, "image": ..., "labels": ...}}')
    return Header(str(document["image"]), str(document["labels"]))


def applying_line(rows: dict[int, dict[str, Any]]) -> str:
    """Return the line that keeps rows as they were."""
    return json.dumps({"applying": _now(), "rows": rows})


def applied_line(last: Edit) -> str:
    """Return the line that says up to which edit labels and table are."""
    return json.dumps({"applied": last.id, "when": _now()})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
