"""The cells of an image as corrected: the rows measured, brought up to date edit by edit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellseg.pipeline.tiles import Box

if TYPE_CHECKING:
    from cellseg.pipeline.review.edits import Editor
    from cellseg.pipeline.review.section import Section

__all__ = ["GONE", "STATE", "CorrectedCells"]

STATE = "review"
"""The column that says what was done to a cell since it was measured."""
GONE = ("deleted", "rejected")
PLACE = ("t", "z", "y_px", "x_px", "area_px", "y0_px", "x0_px", "y1_px", "x1_px", "layer")
"""Columns that corrections change at once; others wait until the cells are measured again."""


class CorrectedCells:
    """The table of an image with its corrections.

    Rows keep their places: cells that are deleted stay as rows, new ones come last.

    Parameters
    ----------
    measured : DataFrame
        As it is on disk.
    image : str
        Name of the image.
    """

    def __init__(self, measured: pd.DataFrame, image: str) -> None:
        self.measured, self.image = measured, image
        self.table = measured.assign(**{STATE: ""})
        labels = self.table["label"].tolist()
        self._rows = {label: row for row, label in enumerate(labels)}
        area = float(measured["area_px"].median()) if len(measured) else 400.0
        self.typical_px = 2 * float(np.sqrt(area / np.pi))

    def place(self, label: int) -> int | None:
        """Return the row of a cell; None if there is no such cell."""
        return self._rows.get(label)

    def label(self, row: int) -> int:
        """Return the cell of a row."""
        return int(self.table["label"].to_numpy()[row])

    def box(self, label: int) -> tuple[int, int, Box] | None:
        """Return t, z and box of a cell; None if there is no such cell."""
        row = self._rows.get(label)
        if row is None:
            return None
        names = ("t", "z", "y0_px", "x0_px", "y1_px", "x1_px")
        t, z, *sides = (int(self.table[name].to_numpy()[row]) for name in names)
        return t, z, Box(*sides)

    def note(self, labels: Iterable[int], editor: Editor) -> None:
        """Bring the rows of some cells up to date."""
        wanted = sorted(set(labels))
        if not wanted:
            return
        self._append([label for label in wanted if label not in self._rows])
        reviewed = editor.reviewed
        changed = {c.label for edit in editor.surviving for c in edit.changes if c.drawn}
        for label in wanted:
            row, sections = self._rows[label], editor.sections(label)
            verdict = reviewed.get(label)
            if sections:
                drawn = label in changed
                self._set(row, self._places(row, sections, drawn=drawn))
                state = self._state(row, verdict, drawn=drawn)
                self._set(row, {"class": editor.class_of(label), STATE: state})
            else:
                self._set(row, {STATE: "rejected" if verdict == "reject" else "deleted"})

    def _append(self, labels: list[int]) -> None:
        """Add rows for new cells."""
        if not labels:
            return
        rows = pd.DataFrame({"image": self.image, "label": labels}).reindex(
            columns=self.table.columns
        )
        first = len(self.table)
        self.table = pd.concat([self.table, _typed(rows, self.table)], ignore_index=True)
        self._rows |= {label: first + n for n, label in enumerate(labels)}

    def _places(self, row: int, sections: list[Section], *, drawn: bool) -> dict[str, Any]:
        """Return where a cell lies: as it was measured, or as it is drawn now."""
        if row < len(self.measured) and not drawn:
            before = self.measured.iloc[row]
            return {name: before[name] for name in PLACE if name in before}
        largest = max(sections, key=lambda each: int(each.mask.sum()))
        y, x = np.nonzero(largest.mask)
        sides = np.array([[s.box.y0, s.box.x0, s.box.y1, s.box.x1] for s in sections])
        low, high = sides[:, :2].min(axis=0).tolist(), sides[:, 2:].max(axis=0).tolist()
        centre = largest.box.y0 + float(y.mean()), largest.box.x0 + float(x.mean())
        values = largest.t, largest.z, *centre, len(y), *low, *high, largest.layer + 1
        return dict(zip(PLACE, values, strict=True))

    def _state(self, row: int, verdict: str | None, *, drawn: bool) -> str:
        state = "new" if row >= len(self.measured) else "corrected" if drawn else ""
        return ", ".join(filter(None, (state, "accepted" if verdict == "accept" else "")))

    def _set(self, row: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if name in self.table:
                self.table.loc[row, name] = value


def _typed(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return rows without values in the types of a table: zeros where a type knows no missing."""
    columns: dict[str, Any] = {}
    for name in table.columns:
        kind, values = table[name].dtype, rows[name]
        if kind.kind in "iub":
            values = values.fillna(0)
        elif kind.kind == "O":
            values = values.astype(object).where(values.notna(), "" if name == STATE else None)
        columns[name] = values.astype(kind)
    return pd.DataFrame(columns)
