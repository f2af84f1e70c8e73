"""Which cells a report shows: a few typical ones, and those at the ends, found in one pass.

Whatever the table's length, no more than some thousand rows are held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.histograms import MOST_ROWS, spread_groups
from cellseg.pipeline.table import BOX
from cellseg.pipeline.table_files import batches, group_rows

SHOWN = 6
"""Cells of each kind."""
SPREAD, NEAREST = 4_000, 300
"""Rows, spread over the table, and of these the most typical, that are chosen from."""
NEEDED = ("image", "label", "t", "z", "layer", *BOX, "area_px", "volume_px", "score", "seam")
EDGE = "touches_edge"
HASH = 2_654_435_761
"""Knuth's multiplier: labels in an order that says nothing of where the cells lie."""

Columns = dict[str, NDArray[Any]]
Keys = NDArray[np.float64]
Rank = Callable[[Columns], Keys]


def _size(rows: Columns) -> Keys:
    volume = rows["volume_px"].astype(np.float64)
    return np.where(np.isfinite(volume), volume, rows["area_px"])


def _largest(rows: Columns) -> Keys:
    return np.where(rows[EDGE].astype(bool), np.inf, -_size(rows))


def _smallest(rows: Columns) -> Keys:
    return np.where(rows[EDGE].astype(bool), np.inf, _size(rows))


def _least_certain(rows: Columns) -> Keys:
    return rows["score"].astype(np.float64)


def _on_seams(rows: Columns) -> Keys:
    """Rank joined cells first, then those that several tiles could see; of each any."""
    kind = np.where(
        rows["seam"] == "joined", 0.0, np.where(rows["seam"] == "resolved", 1.0, np.inf)
    )
    return np.asarray(kind + (rows["label"].astype(np.uint64) * HASH % 2**32) / 2**32)


EXTREMES: dict[str, Rank] = {
    "largest": _largest,
    "smallest": _smallest,
    "least certain": _least_certain,
    "on seams": _on_seams,
}
"""Kinds of cells, and what ranks them: the lowest are shown, infinite ones never."""


RANKED = ("label", "area_px", "volume_px", "score", "seam", EDGE)
"""What `EXTREMES` look at."""


class Lowest:
    """The rows of a table that a rank puts first, some rows of it at a time."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.keys: Keys = np.zeros(0)
        self.rows: list[dict[str, Any]] = []

    def add(self, columns: Columns, batch: pa.RecordBatch) -> None:
        """Let some rows join those so far, and keep the first."""
        keys = self.rank(columns)
        keys = np.where(np.isnan(keys), np.inf, keys)
        lowest = np.argsort(keys, kind="stable")[:SHOWN]
        lowest = lowest[np.isfinite(keys[lowest])]
        if not len(lowest) or (len(self.rows) == SHOWN and keys[lowest[0]] >= self.keys[-1]):
            return
        keys, rows = np.append(self.keys, keys[lowest]), self.rows + batch.take(lowest).to_pylist()
        order = np.argsort(keys, kind="stable")[:SHOWN]
        self.keys, self.rows = keys[order], [rows[place] for place in order.tolist()]


def choose(path: Path, intensity: str | None) -> dict[str, list[dict[str, Any]]]:
    """Choose the cells that a report shows.

    Parameters
    ----------
    path : Path
        The table of all cells.
    intensity : str or None
        The column that, beside the size, a typical cell has the median of.

    Returns
    -------
    dict
        For each kind of cell its rows of the table; a kind of which there is none is left out.
    """
    sizes = group_rows(path)
    wanted = [*NEEDED, EDGE, *([intensity] if intensity else [])]
    step, skip = max(sum(sizes) // SPREAD, 1), 0
    spread: list[pa.RecordBatch] = []
    extremes = {kind: Lowest(rank) for kind, rank in EXTREMES.items()}
    # Where there is so much that not all is read, the ends are those of the part that is.
    for batch in batches(path, wanted, spread_groups(sizes, 10 * MOST_ROWS)):
        columns = {name: batch[name].to_numpy(zero_copy_only=False) for name in RANKED}
        for lowest in extremes.values():
            lowest.add(columns, batch)
        spread.append(batch.take(np.arange(skip, len(batch), step)))
        skip = (skip - len(batch)) % step
    if not spread:
        return {}
    some = pa.Table.from_batches(spread)
    if len(some["score"].unique()) <= 1:
        del extremes["least certain"]  # of a model that is as sure of all
    found = {"typical": _typical(some, intensity)}
    found |= {kind: lowest.rows for kind, lowest in extremes.items()}
    return {kind: rows for kind, rows in found.items() if rows}


def _typical(rows: pa.Table, intensity: str | None) -> list[dict[str, Any]]:
    """Return the whole cells nearest to the median in size and brightness, of several images."""
    rows = rows.filter(pa.compute.invert(rows[EDGE]))
    if not len(rows):
        return []
    columns = {name: rows[name].to_numpy() for name in ("area_px", "volume_px")}
    values = [_size(columns)]
    if intensity:
        values.append(rows[intensity].to_numpy().astype(np.float64))
    away = np.zeros(len(rows))
    for value in values:
        q25, median, q75 = np.nanquantile(value, (0.25, 0.5, 0.75))
        away += np.nan_to_num(np.abs(value - median) / ((q75 - q25) or 1.0), nan=10.0)
    images, seen = rows["image"].to_pylist(), Counter[str]()
    turns = []
    for place, row in enumerate(np.argsort(away, kind="stable").tolist()):
        # The nearest cell of each image comes before the second of any.
        turns.append((seen[images[row]], place, row))
        seen[images[row]] += 1
    near = sorted(turns[:NEAREST])[:SHOWN]
    return list(rows.take([row for *_, row in near]).to_pylist())
