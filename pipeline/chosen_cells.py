"""Which cells a report shows: a few typical ones, and those at the ends, found in one pass.

Whatever the table's length, no more than some thousand rows are held.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.histograms import MOST_ROWS, spread_groups
from cellseg.pipeline.results import batches, group_rows
from cellseg.pipeline.table import BOX

SHOWN = 6
"""Cells of each kind."""
SPREAD = 4_000
"""Rows, spread over the table, that the typical cells are chosen from."""
NEEDED = ("image", "label", "t", "z", "layer", *BOX, "area_px", "volume_px", "score", "seam")
EDGE = "touches_edge"
HASH = 2_654_435_761
"""Knuth's multiplier: labels in an order that says nothing of where the cells lie."""

Keys = NDArray[np.float64]
Rank = Callable[[dict[str, NDArray[Any]]], Keys]


def _size(rows: dict[str, NDArray[Any]]) -> Keys:
    volume = rows["volume_px"].astype(np.float64)
    return np.where(np.isfinite(volume), volume, rows["area_px"])


def _largest(rows: dict[str, NDArray[Any]]) -> Keys:
    return np.where(rows[EDGE].astype(bool), np.inf, -_size(rows))


def _smallest(rows: dict[str, NDArray[Any]]) -> Keys:
    return np.where(rows[EDGE].astype(bool), np.inf, _size(rows))


def _least_certain(rows: dict[str, NDArray[Any]]) -> Keys:
    return rows["score"].astype(np.float64)


def _on_seams(rows: dict[str, NDArray[Any]]) -> Keys:
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
    step = max(sum(sizes) // SPREAD, 1)
    spread: list[pa.RecordBatch] = []
    best: dict[str, tuple[Keys, list[dict[str, Any]]]] = {}
    skip = 0
    # Where there is so much that not all is read, the ends are those of the part that is.
    for batch in batches(path, wanted, spread_groups(sizes, 10 * MOST_ROWS)):
        rows = {name: batch[name].to_numpy(zero_copy_only=False) for name in RANKED}
        for kind, rank in EXTREMES.items():
            _keep(best, kind, rank(rows), batch)
        spread.append(batch.take(np.arange(skip, len(batch), step)))
        skip = (skip - len(batch)) % step
    if not spread:
        return {}
    chosen = {"typical": _typical(pa.Table.from_batches(spread), intensity)}
    if _all_equal(pa.Table.from_batches(spread), "score"):
        best.pop("least certain", None)
    return {k: v for k, v in (chosen | {k: rows for k, (_, rows) in best.items()}).items() if v}


RANKED = ("label", "area_px", "volume_px", "score", "seam", EDGE)
"""What `EXTREMES` look at."""


def _keep(
    best: dict[str, tuple[Keys, list[dict[str, Any]]]], kind: str, keys: Keys, batch: pa.RecordBatch
) -> None:
    """Let the lowest of some rows join the lowest so far."""
    keys = np.where(np.isnan(keys), np.inf, keys)
    before, rows = best.get(kind, (np.zeros(0), []))
    lowest = np.argsort(keys, kind="stable")[:SHOWN]
    lowest = lowest[np.isfinite(keys[lowest])]
    if len(lowest) == 0 or (len(rows) == SHOWN and keys[lowest[0]] >= before[-1]):
        return
    both, every = np.concatenate([before, keys[lowest]]), rows + batch.take(lowest).to_pylist()
    order = np.argsort(both, kind="stable")[:SHOWN]
    best[kind] = both[order], [every[i] for i in order.tolist()]


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
    order, images = np.argsort(away, kind="stable"), rows["image"].to_pylist()
    seen: dict[str, int] = {}
    turns = []
    for place, row in enumerate(order.tolist()):
        turns.append((seen.get(images[row], 0), place, row))
        seen[images[row]] = seen.get(images[row], 0) + 1
    near = sorted(turns[: 50 * SHOWN])[:SHOWN]
    return list(rows.take([row for *_, row in near]).to_pylist())


def _all_equal(rows: pa.Table, name: str) -> bool:
    return len(rows[name].unique()) <= 1
