"""What the tables of wells give to a report: plates as rows and columns, and their controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.file_names import place
from cellseg.pipeline.gate_settings import Controls

FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of plates of 6 to 1,536 wells."""
KEYS = ("plate", "well", "images")
AGGREGATES = ("mean", "q50", "std", "q05", "q25", "q75", "q95")
"""Of a measurement over the cells of a well; the first are kept longest."""
SCORES = ("", "_z", "_robust_z")
MOST_VALUES = 500_000
"""Numbers of wells in a page: some 3 MB."""
KINDS = ("negative", "positive", "other")
OTHER = KINDS.index("other")


def control_of(controls: Controls, plate: str | None, well: str | None) -> int:
    """Return the place in `KINDS` of a well."""
    kind = controls.kind(plate, well) if well else None
    return OTHER if kind is None else KINDS.index(kind)


def grouping(controls: Controls) -> Callable[[pa.RecordBatch], NDArray[np.int64]]:
    """Return what gives the control group of each row of a table of cells."""

    def group(rows: pa.RecordBatch) -> NDArray[np.int64]:
        if not controls.negative and not controls.positive:
            return np.full(len(rows), OTHER, np.int64)
        plates, wells = (rows[name].dictionary_encode() for name in ("plate", "well"))
        names = [[*each.dictionary.to_pylist(), None] for each in (plates, wells)]
        p, w = (
            each.indices.fill_null(len(each.dictionary)).to_numpy().astype(np.int64)
            for each in (plates, wells)
        )
        pairs, inverse = np.unique(p * len(names[1]) + w, return_inverse=True)
        apart = [divmod(pair, len(names[1])) for pair in pairs.tolist()]
        own = [control_of(controls, names[0][i], names[1][j]) for i, j in apart]
        return np.array(own, np.int64)[inverse]

    return group


def plates(wells: pa.Table, controls: Controls) -> dict[str, Any] | None:
    """Return the wells of each plate and their numbers; None where no well is on a plate.

    Parameters
    ----------
    wells : Table
        ``wells.parquet``.
    controls : mapping
        The workflow's ``[controls]``.

    Returns
    -------
    dict
        ``plates``, each with its name, rows and columns; ``wells`` as plate, row, column, name,
        images, control; ``columns`` of numbers, one for each well, each a measurement and an
        aggregate; ``left_out`` of them for want of room.
    """
    names, on = wells["well"].to_pylist(), wells["plate"].to_pylist()
    counts = wells["images"].to_pylist() if "images" in wells.column_names else [None] * len(wells)
    at = [place(name or "") for name in names]
    kept = [number for number, where in enumerate(at) if where is not None]
    if not kept:
        return None
    known = list(dict.fromkeys(on[number] for number in kept))
    listed = []
    for number in kept:
        row, column = at[number] or (0, 0)
        kind = KINDS[control_of(controls, on[number], names[number])]
        listed.append([known.index(on[number]), row, column, names[number], counts[number], kind])
    columns, left_out = _columns(wells.take(kept))
    shapes = [_format([well for well in listed if well[0] == n]) for n in range(len(known))]
    about = [{"name": n, "rows": r, "columns": c} for n, (r, c) in zip(known, shapes, strict=True)]
    return {"plates": about, "wells": listed, "columns": columns, "left_out": left_out}


def _format(wells: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Return rows and columns of the smallest usual plate that has these wells."""
    rows, columns = max(well[1] for well in wells) + 1, max(well[2] for well in wells) + 1
    fits = (each for each in FORMATS if rows <= each[0] and columns <= each[1])
    return next(fits, (rows, columns))


def _columns(wells: pa.Table) -> tuple[list[dict[str, Any]], int]:
    """Return the columns of numbers, those of use in most plates first, as far as there is room."""
    known = set(wells.column_names)
    columns = []
    for field in wells.schema:
        if field.name in KEYS or not (
            pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        ):
            continue
        base, aggregate, score = _taken_apart(field.name, known)
        columns.append((AGGREGATES.index(aggregate) if aggregate else -1, base, aggregate, score))
    most = max(MOST_VALUES // max(len(wells), 1), 1)
    kept = {i for _, i in sorted((rank[0], i) for i, rank in enumerate(columns))[:most]}
    return [
        {"base": base, "aggregate": aggregate, "score": score, "values": _rounded(wells, *each)}
        for i, each in enumerate(columns)
        if i in kept
        for _, base, aggregate, score in [each]
    ], len(columns) - len(kept)


def _taken_apart(name: str, known: set[str]) -> tuple[str, str, str]:
    """Return measurement, aggregate and score of a column of wells."""
    score = next((s for s in SCORES[:0:-1] if name.endswith(s) and name[: -len(s)] in known), "")
    stem = name.removesuffix(score)
    for aggregate in AGGREGATES:
        base = stem.removesuffix(f"_{aggregate}")
        # A channel may be called "mean": its column has brothers if it is an aggregate.
        if base != stem and {f"{base}_mean", f"{base}_q50"} <= known:
            return base, aggregate, score
    return stem, "", score


def _rounded(wells: pa.Table, _: int, base: str, aggregate: str, score: str) -> list[Any]:
    """Return a column's numbers in five significant digits, None where unknown."""
    name = base + (f"_{aggregate}" if aggregate else "") + score
    values = wells[name].cast(pa.float64()).to_numpy()
    return [None if not np.isfinite(v) else float(f"{v:.5g}") for v in values.tolist()]


def control_statistics(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of ``controls.parquet``, the clearest separation first."""
    rows: list[dict[str, Any]] = table.to_pylist()
    lowest = -np.inf

    def rank(row: dict[str, Any]) -> float:
        value = row.get("z_prime")
        return lowest if value is None or not np.isfinite(value) else float(value)

    return sorted(rows, key=rank, reverse=True)
