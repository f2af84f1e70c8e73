"""Gates: the threshold of each, found over all cells of a run, and the cells that pass it.

Cells are seen row group by row group, and twice: for the range of a column, then for how many
lie in each of its bins. Both are the same in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.gate_settings import Rule, parse

__all__ = ["BINS", "Gate", "decide_gates", "gate_warnings", "otsu_bin", "values_of"]

BINS = 65536
"""Bins between the least and the greatest value, of which Otsu's method chooses one: as many as
there are grey levels of 16 bits."""
COMPARE: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.bool_]]] = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}
Rows = Callable[[Sequence[str]], Iterable[pa.Table]]
"""The cells of a run, some columns of them at a time; of images that lack one, without it."""


@dataclass(frozen=True)
class Gate:
    """A gate with its threshold; None where the cells have none, and no cell is positive."""

    name: str
    rule: Rule
    threshold: float | None

    def passed(self, values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which cells (N,) are positive, and of which that is known, bool (N,) each.

        Parameters
        ----------
        values : float64 (N,)
            Of the gate's column, NaN where unknown.
        """
        known = ~np.isnan(values)
        if self.threshold is None:
            return np.zeros(len(values), np.bool_), known
        return known & COMPARE[self.rule.comparison](values, self.threshold), known

    def column(self, rows: pa.Table) -> pa.Array:
        """Return the gate's column of some rows of the cell table: bool, null where unknown."""
        positive, known = self.passed(values_of(rows, self.rule.column))
        return pa.array(positive, pa.bool_(), mask=~known)

    def document(self, cells: int, positive: int) -> dict[str, Any]:
        """Return what ``gates.json`` says of it.

        Parameters
        ----------
        cells, positive : int
            How many have a value, and how many of them pass.
        """
        return {
            "rule": self.rule.text,
            "column": self.rule.column,
            "comparison": self.rule.comparison,
            "threshold": self.threshold,
            "method": self.rule.method,
            "cells": cells,
            "positive": positive,
        }


def values_of(rows: pa.Table, column: str) -> NDArray[np.float64]:
    """Return a column as float64 (N,), NaN where it is null or where there is no such column."""
    if column not in rows.column_names:
        return np.full(len(rows), np.nan)
    values: NDArray[np.float64] = (
        rows[column].cast(pa.float64()).to_numpy().astype(np.float64, copy=False)
    )
    return values


def decide_gates(gates: Mapping[str, str], rows: Rows) -> list[Gate]:
    """Return the gates with their thresholds.

    Parameters
    ----------
    gates : dict of str to str
        The rules by name.
    rows : callable
        See `Rows`; called twice at most.
    """
    rules = {name: parse(text) for name, text in gates.items()}
    columns = sorted({rule.column for rule in rules.values() if rule.number is None})
    found = _otsu(columns, rows) if columns else {}
    return [
        Gate(name, rule, found[rule.column] if rule.number is None else rule.number)
        for name, rule in rules.items()
    ]


def gate_warnings(gates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what the user should know of gates, given what ``gates.json`` says of each."""
    return [
        f"gate {name}: {gate['column']} has fewer than two different values, so there is no"
        " threshold and no cell is positive. Give a number in place of otsu."
        for name, gate in gates.items()
        if gate["threshold"] is None
    ]


def _otsu(columns: Sequence[str], rows: Rows) -> dict[str, float | None]:
    """Return Otsu's threshold of each column; None where it has fewer than two values."""
    ranges = dict.fromkeys(columns, (np.inf, -np.inf))
    for name, values in _finite(columns, rows):
        low, high = ranges[name]
        ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
    spread = {name: limits for name, limits in ranges.items() if limits[0] < limits[1]}
    counts = {name: np.zeros(BINS, np.int64) for name in spread}
    for name, values in _finite(list(spread), rows) if spread else ():
        low, high = spread[name]
        place = ((values - low) / (high - low) * BINS).astype(np.int64)
        counts[name] += np.bincount(np.minimum(place, BINS - 1), minlength=BINS)
    thresholds: dict[str, float | None] = dict.fromkeys(columns)
    for name, (low, high) in spread.items():
        thresholds[name] = low + (otsu_bin(counts[name]) + 0.5) * ((high - low) / BINS)
    return thresholds


def _finite(columns: Sequence[str], rows: Rows) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the finite values of each column, where there are any."""
    for table in rows(columns):
        for name in columns:
            values = values_of(table, name)
            values = values[np.isfinite(values)]
            if len(values):
                yield name, values


def otsu_bin(counts: NDArray[np.int64]) -> int:
    """Return the last bin of the lower class: that with the greatest variance between classes.

    Otsu, IEEE Transactions on Systems, Man and Cybernetics 9 (1979), equation 18; of several
    the first, as in `skimage.filters.threshold_otsu`. Sums are exact, so that no rounding
    decides between them.

    Parameters
    ----------
    counts : int64 (bins,)
        At least two of them not 0.
    """
    lower = np.cumsum(counts)
    total = np.cumsum(counts * np.arange(len(counts)))
    # Python's integers: of a billion cells the products are beyond 64 bits.
    split = np.flatnonzero(counts)[:-1]
    cells, whole = int(lower[-1]), int(total[-1])
    below, part = lower[split].astype(object), total[split].astype(object)
    apart = (whole * below - part * cells) ** 2
    weights = below * (cells - below)
    best = max(range(len(split)), key=lambda n: (apart[n] / weights[n], -n))
    return int(split[best])
