"""Corrections: what a person has changed of an image's cells, on its way to labels and table.

The table then follows from what it said before the first correction and from those that count,
however often, and in how many steps, they were carried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.change import Change
from cellseg.pipeline.keys import digest
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.overlay import Overlay

__all__ = ["Corrections"]

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Corrections:
    """What corrections of an image come to.

    Parameters
    ----------
    pending : bool
        Whether labels or table do not show all of them yet.
    changes : tuple of Change
        To be carried out on the labels, in order; some may be there already.
    touched : frozenset of int
        Labels of cells that any of them is about, undone ones too.
    edited : frozenset of int
        Those of which the mask is a person's.
    classes : mapping of int to int
        The class of cells that they are about.
    rows : mapping of int to mapping
        What the table said of cells before the first correction.
    """

    pending: bool = False
    changes: tuple[Change, ...] = ()
    touched: frozenset[int] = frozenset()
    edited: frozenset[int] = frozenset()
    classes: Mapping[int, int] = field(default_factory=dict)
    rows: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """What tells the table that follows from that of other corrections."""
        rows = {str(label): dict(row) for label, row in self.rows.items()}
        classes = {str(label): class_ for label, class_ in self.classes.items()}
        return digest(sorted(self.touched), sorted(self.edited), classes, rows)

    def carry_out(self, labels: LabelStore) -> None:
        """Change the labels on disk, file by file; what is there already stays as it is."""
        overlay = Overlay(self.changes)
        labels.sweep()
        while labels.layers < overlay.layers:
            labels.add_layer()
        for plane, boxes in overlay.boxes().items():
            layer, t, z = plane

            def change(window: NDArray[np.uint32], box: Any, plane: Any = plane) -> None:
                overlay.carry_out(plane, window, box)

            labels.change(t, z, boxes, change, layer)

    def rows_before(self, rows: Columns, first: int, last: int) -> Columns:
        """Return rows with labels from `first` to before `last` as they were before any correction.

        Parameters
        ----------
        rows : dict of str to array (N,)
            Columns of the table as it is, with ``label``.
        first, last : int
        """
        touched = np.array(sorted(self.touched), np.int64)
        stay = ~np.isin(rows["label"], touched)
        known = [self.rows[n] for n in sorted(self.rows) if first <= n < last]
        columns = {
            name: np.concatenate([values[stay], _array([row.get(name) for row in known], values)])
            for name, values in rows.items()
        }
        order = np.argsort(columns["label"], kind="stable")
        return {name: values[order] for name, values in columns.items()}

    def edited_among(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some cells a person has drawn or changed, bool (N,)."""
        return np.isin(labels, np.array(sorted(self.edited), np.int64))

    def set_classes(self, labels: NDArray[np.int64], classes: NDArray[np.uint8]) -> None:
        """Set the class of those of some cells (N,), labels ascending, that they are about."""
        named = np.array(sorted(self.classes), np.int64)
        place = np.searchsorted(labels, named)
        there = place < len(labels)
        there[there] = labels[place[there]] == named[there]
        classes[place[there]] = [self.classes[label] for label in named[there].tolist()]


def _array(values: list[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Return values as an array that goes with another one; None is NaN."""
    if like.dtype.kind not in "fiu" or not values:
        return np.array(values, like.dtype)
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    kind = like.dtype if not np.isnan(numbers).any() else np.result_type(like.dtype, np.float32)
    return numbers.astype(kind)
