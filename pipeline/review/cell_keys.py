"""Cells by image and label: their rows in a table, found without an object for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["CellKeys"]


class CellKeys:
    """The images and labels of the rows of a table.

    Parameters
    ----------
    cells : DataFrame
        With columns ``image`` and ``label``.
    """

    def __init__(self, cells: pd.DataFrame) -> None:
        images = cells["image"].astype("category")
        self.codes: NDArray[np.int64] = images.cat.codes.to_numpy().astype(np.int64)
        self.images = [str(name) for name in images.cat.categories]
        self.labels: NDArray[np.int64] = cells["label"].to_numpy(np.int64)
        self._codes = {name: code for code, name in enumerate(self.images)}
        keys = self._key(self.codes, self.labels)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def _key(codes: Any, labels: Any) -> Any:
        return (codes << 32) | labels

    def __getitem__(self, row: int) -> tuple[str, int]:
        """Return image and label of a row."""
        return self.images[int(self.codes[row])], int(self.labels[row])

    def row(self, image: str, label: int) -> int | None:
        """Return the row of a cell; None if it has none."""
        found = int(self.rows([image], [label])[0])
        return found if found >= 0 else None

    def rows(self, images: Sequence[str], labels: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows of some cells; -1 for those that have none."""
        codes = np.array([self._codes.get(name, -1) for name in images], np.int64)
        wanted = self._key(codes, np.asarray(labels, np.int64))
        found = np.full(len(wanted), -1, np.int64)
        if len(self):
            places = np.searchsorted(self._sorted, wanted).clip(max=len(self) - 1)
            there = self._sorted[places] == wanted
            found[there] = self._order[places[there]]
        return found

    def of_image(self, image: str) -> NDArray[np.bool_]:
        """Return which rows are of an image."""
        return np.asarray(self.codes == self._codes.get(image, -1))
