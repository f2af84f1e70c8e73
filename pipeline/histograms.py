"""How measurements are distributed over all cells of a run: counts in bins, in bounded memory.

The ranges of the bins follow from some thousand rows spread over the table, the counts from
all rows. Of a table with more than some million rows, parts evenly spread over it stand for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.table_files import batches, group_rows

BINS = 48
SAMPLE_ROWS = 20_000
"""Rows that the ranges follow from."""
SAMPLE_GROUPS = 5
"""Times as many are read for them at most, in whole row groups."""
MOST_ROWS = 2_000_000
"""Rows that are counted; more would take longer than they tell."""
MOST_COLUMNS = 400
TAIL = 0.002
"""Share of cells on either side that may lie beyond the bins: one cell must not widen them."""
FAR = 5
"""Distances of the quartiles beyond them that bins reach at most."""

Floats = NDArray[np.float64]
Groups = Callable[[pa.RecordBatch], NDArray[np.int64]]


def spread_groups(rows: Sequence[int], most: int) -> list[int]:
    """Return the row groups to be read: all, or evenly spread ones of at most `most` rows."""
    total = sum(rows)
    if total <= most:
        return list(range(len(rows)))
    step = -(-total // most)
    return list(range(0, len(rows), step))


@dataclass
class Bins:
    """The bins of one measurement, and what is in them.

    Parameters
    ----------
    low, high : float
        Their range; what lies outside is counted apart.
    groups : int
        Kinds of wells that are counted apart.
    """

    low: float
    high: float
    groups: int

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.groups, BINS), np.int64)
        self.below = self.above = self.number = 0
        self.total, self.least, self.most = 0.0, np.inf, -np.inf

    @classmethod
    def around(cls, sample: Floats, groups: int) -> Bins | None:
        """Return empty bins in which all but the tails of a sample lie; None without a sample."""
        if not len(sample):
            return None
        low, q25, q75, high = np.quantile(sample, (TAIL, 0.25, 0.75, 1 - TAIL)).tolist()
        if q75 > q25:
            low, high = max(low, q25 - FAR * (q75 - q25)), min(high, q75 + FAR * (q75 - q25))
        if (sample == np.rint(sample)).all():
            # Whole numbers: bins that hold as many of them each, or the picture is a comb.
            low = float(np.floor(low)) - 0.5
            high = low + BINS * max(float(np.ceil((high - low) / BINS)), 1.0)
        elif not high > low:
            low, high = low - 0.5, low + 0.5
        return cls(low, high, groups)

    def add(self, values: Floats, group: NDArray[np.int64]) -> None:
        """Count some cells; NaN counts nowhere."""
        known = np.isfinite(values)
        values, group = values[known], group[known]
        if not len(values):
            return
        self.number += len(values)
        self.total += float(values.sum())
        self.least, self.most = min(self.least, values.min()), max(self.most, values.max())
        under, over = values < self.low, values > self.high
        self.below += int(np.count_nonzero(under))
        self.above += int(np.count_nonzero(over))
        inside = ~(under | over)
        place = ((values[inside] - self.low) * (BINS / (self.high - self.low))).astype(np.int64)
        flat = group[inside] * BINS + np.minimum(place, BINS - 1)
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)

    def document(self, name: str, median: float) -> dict[str, Any]:
        """Return it for a page."""
        mean = self.total / max(self.number, 1)
        return {
            "name": name,
            "low": self.low,
            "high": self.high,
            "counts": self.counts.tolist(),
            "below": self.below,
            "above": self.above,
            "number": self.number,
            "mean": mean,
            "median": median,
            "least": float(self.least),
            "most": float(self.most),
        }


def histograms(
    path: Path, names: Sequence[str], beside: Sequence[str], group_of: Groups, groups: int
) -> dict[str, Any]:
    """Count how measurements are distributed.

    Parameters
    ----------
    path : Path
        A table of cells.
    names : sequence of str
        Its columns that are measurements.
    beside : sequence of str
        Columns that `group_of` needs.
    group_of : callable
        Gives the group, from 0, of each row.
    groups : int
        How many there are.

    Returns
    -------
    dict
        ``rows`` of the table, ``read`` of them, and ``columns``.
    """
    rows, names = group_rows(path), list(names)[:MOST_COLUMNS]
    chosen = spread_groups(rows, MOST_ROWS)
    read = sum(rows[number] for number in chosen)
    some = chosen[:: max(read // (SAMPLE_GROUPS * SAMPLE_ROWS), 1)]
    step = max(sum(rows[number] for number in some) // SAMPLE_ROWS, 1)
    sample = _sample(path, names, some, step)
    bins = {name: Bins.around(sample[name], groups) for name in names}
    for batch in batches(path, [*names, *beside], chosen):
        group = group_of(batch)
        for name in names:
            if (own := bins[name]) is not None:
                own.add(_floats(batch[name]), group)
    columns = [
        own.document(name, float(np.median(sample[name])))
        for name, own in bins.items()
        if own is not None
    ]
    columns.sort(key=lambda column: column["least"] == column["most"])  # those tell nothing
    return {"rows": sum(rows), "read": read, "columns": columns}


def _sample(
    path: Path, names: Sequence[str], chosen: Sequence[int], step: int
) -> dict[str, Floats]:
    """Return every `step`-th row of some row groups, by column, without what is not known."""
    parts: dict[str, list[Floats]] = {name: [np.zeros(0)] for name in names}
    skip = 0
    for batch in batches(path, names, chosen):
        for name in names:
            values = _floats(batch[name])[skip::step]
            parts[name].append(values[np.isfinite(values)])
        skip = (skip - len(batch)) % step
    return {name: np.concatenate(values) for name, values in parts.items()}


def _floats(column: pa.Array) -> Floats:
    """Return a column as float64, NaN where it is null."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
