"""Edit: one correction, as a line of the log has it."""

from __future__ import annotations

import datetime
import getpass
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cellseg.pipeline.change import Change

__all__ = ["KINDS", "Edit", "user"]

KINDS = (
    "delete",
    "merge",
    "split",
    "redraw",
    "add",
    "class",
    "undo",
    "redo",
    "accept",
    "reject",
)
"""What an edit may be."""


@dataclass(frozen=True)
class Edit:
    """One correction.

    Parameters
    ----------
    id : str
        Unlike that of any other edit.
    who, when : str
        User, and ISO time.
    what : str
        One of `KINDS`.
    changes : tuple of Change
        Of all cells that it touches: those that it takes pixels from, too.
    target : str, optional
        Of ``undo`` and ``redo``: the edit that is taken back, or done again.
    """

    id: str
    who: str
    when: str
    what: str
    changes: tuple[Change, ...]
    target: str | None = None

    @classmethod
    def new(cls, who: str, what: str, changes: Iterable[Change], target: str | None = None) -> Edit:
        """Return an edit that is made now."""
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return cls(uuid.uuid4().hex, who, when, what, tuple(changes), target)

    @property
    def labels(self) -> list[int]:
        """The cells that it touches, ascending."""
        return sorted({change.label for change in self.changes})

    @property
    def effective(self) -> bool:
        """Whether labels or table are other ones after it."""
        return any(c.drawn or c.class_before != c.class_after for c in self.changes)

    @property
    def text(self) -> str:
        """It in words: what was done to which cells."""
        labels = ", ".join(map(str, self.labels[:5])) + ", ..." * (len(self.labels) > 5)
        return f"{self.what} {labels}".rstrip()

    def line(self) -> str:
        """Return its line of the log."""
        about = {"id": self.id, "who": self.who, "when": self.when, "what": self.what}
        if self.target is not None:
            about["target"] = self.target
        changes = [change.to_json() for change in self.changes]
        return json.dumps(about | {"changes": changes}, ensure_ascii=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Edit:
        """Return the edit of a line that was read.

        Raises
        ------
        ValueError, KeyError, TypeError, IndexError
            If it is none.
        """
        about = {name: document[name] for name in ("id", "who", "when", "what")}
        if about["what"] not in KINDS or not all(isinstance(each, str) for each in about.values()):
            raise ValueError("no such edit")
        changes = tuple(Change.from_json(change) for change in document["changes"])
        target = document.get("target")
        if (target is None) == (about["what"] in ("undo", "redo")):
            raise ValueError("undo and redo need a target, no other edit has one")
        return cls(**about, changes=changes, target=target)


def user() -> str:
    """Return who is at this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name where only a number is known, as in containers
        return "unknown"
