"""The rows of a cell table as a window shows them: sorted, filtered, found by label."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.review.cell_keys import CellKeys

__all__ = ["Rows"]


class Rows:
    """A table with an order: places are what is shown, rows are those of the table.

    Parameters
    ----------
    frame : DataFrame
        With columns ``image`` and ``label``.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._sorted: tuple[str, bool] | None = None
        self._where: list[str] = []
        self.replace(frame)

    def replace(self, frame: pd.DataFrame) -> None:
        """Take another table, in the same order as far as it goes."""
        self.frame = frame.reset_index(drop=True)
        self.columns = [str(name) for name in self.frame]
        self._cache: dict[int, NDArray[np.object_] | NDArray[np.generic]] = {}
        self._keys: CellKeys | None = None
        self._places: NDArray[np.intp] | None = None
        self._arrange()

    def __len__(self) -> int:
        return len(self.order)

    def sort(self, column: str, *, ascending: bool = True) -> None:
        """Sort by a column; what is unknown comes last."""
        self._sorted = column, ascending
        self._arrange()

    def filter(self, *conditions: str) -> None:
        """Show the rows for which all conditions hold, such as ``area_px > 200``.

        Names with spaces or like Python's words stand in backticks. Empty ones always hold.

        Raises
        ------
        CellsegError
            If one is none; what was shown stays.
        """
        before = self._where
        self._where = [text for text in (each.strip() for each in conditions) if text]
        try:
            self._arrange()
        except CellsegError:
            self._where = before
            raise

    def _arrange(self) -> None:
        kept = np.ones(len(self.frame), bool)
        for condition in self._where:
            kept &= self._holds(condition)
        order = np.flatnonzero(kept)
        if self._sorted is not None and self._sorted[0] in self.frame:
            column, ascending = self._sorted
            values = self.frame[column].iloc[order]
            if values.dtype == object:  # texts, lists, or both types of missing
                values = values.map(str, na_action="ignore")
            ranked = values.reset_index(drop=True).sort_values(ascending=ascending, kind="stable")
            order = order[ranked.index.to_numpy()]
        self.order: NDArray[np.intp] = order
        self._places = None

    def _holds(self, condition: str) -> NDArray[np.bool_]:
        try:
            found = self.frame.eval(condition, engine="python")
        except Exception as error:  # whatever a person may type
            words = condition.replace("`", " ").split()
            unknown = next((w for w in words if w.isidentifier() and w not in self.columns), "")
            raise CellsegError(
                f"{condition}: no condition on the table: {' '.join(str(error).split())[:120]}."
                f" Write it as area_px > 200 and score < 0.8.{nearest(unknown, self.columns)}"
            ) from None
        if not isinstance(found, pd.Series) or not pd.api.types.is_bool_dtype(found):
            raise CellsegError(
                f"{condition}: neither holds nor fails for a cell. Compare it: area_px > 200."
            )
        return found.fillna(value=False).to_numpy(bool)

    def text(self, place: int, column: int) -> str:
        """Return what a cell of the table shows."""
        values = self._cache.get(column)
        if values is None:
            values = self._cache[column] = self.frame.iloc[:, column].to_numpy()
        value = values[self.order[place]]
        if isinstance(value, (float, np.floating)):
            return "" if np.isnan(value) else f"{value:.5g}"
        if isinstance(value, np.ndarray):
            return " ".join(map(str, value.tolist()))
        return "" if value is None or value is pd.NA else str(value)

    def key(self, place: int) -> tuple[str, int]:
        """Return image and label of what is shown in a place."""
        row = self.frame.iloc[self.order[place]]
        return str(row["image"]), int(row["label"])

    def place(self, image: str, label: int) -> int | None:
        """Return where a cell is shown; None if it is not."""
        if self._keys is None:
            self._keys = CellKeys(self.frame)
        row = self._keys.row(image, label)
        if row is None:
            return None
        if self._places is None:
            self._places = np.full(len(self.frame), -1, np.intp)
            self._places[self.order] = np.arange(len(self.order))
        place = int(self._places[row])
        return place if place >= 0 else None

    def shown(self) -> pd.DataFrame:
        """Return the rows that are shown, in order."""
        return self.frame.iloc[self.order]

    def numeric(self) -> list[str]:
        """Return the columns with numbers, those that can be plotted."""
        kinds = self.frame.dtypes
        wanted = [
            name
            for name, kind in zip(self.columns, kinds, strict=True)
            if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        ]
        return [name for name in wanted if self.frame[name].notna().any()]
