"""The tables that a run with wells, gates and controls writes, made up for a results folder."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

QUANTILES = ("q05", "q25", "q50", "q75", "q95")
CONTROLS = {"negative": ["*01"], "positive": ["*02", "p2/B03"]}


def name_controls(folder: Path) -> None:
    """Name `CONTROLS` in the workflow of a results folder, as if it had been run with them."""
    path = folder / "workflow.toml"
    workflow = tomllib.loads(path.read_text(encoding="utf-8"))
    path.write_text(tomli_w.dumps({**workflow, "controls": CONTROLS}), encoding="utf-8")


def letters(row: int) -> str:
    return ("A" if row >= 26 else "") + chr(ord("A") + row % 26)


def write_wells(
    folder: Path,
    rows: int,
    columns: int,
    *,
    plates: Sequence[str] = ("p1",),
    measurements: Sequence[str] = ("area_px", "mean_DAPI"),
    empty: Sequence[str] = (),
) -> pa.Table:
    """Write ``wells.parquet`` of full plates, ``controls.parquet`` and ``gates.json``.

    A well has row * 100 + column cells; those in `empty` have none.
    """
    rng = np.random.default_rng(0)
    places = [(p, r, c) for p in plates for r in range(rows) for c in range(columns)]
    names = [f"{letters(r)}{c + 1:02d}" for _, r, c in places]
    none = np.array([name in empty for name in names])
    cells = np.array(
        [0 if n else r * 100 + c + 1 for n, (_, r, c) in zip(none, places, strict=True)]
    )
    table: dict[str, Any] = {
        "plate": [p for p, *_ in places],
        "well": names,
        "images": np.full(len(places), 2),
        "cells": cells,
        "confluence": np.where(none, 0.0, cells / (cells.max() + 1)),
        "cells_per_mm2": pa.nulls(len(places), pa.float64()),
        "positive_fraction": _known(rng.random(len(places)), none),
    }
    for name in measurements:
        middle = rng.normal(300, 40, len(places))
        table[f"{name}_mean"] = _known(middle, none)
        table[f"{name}_std"] = _known(middle / 5, none)
        for k, quantile in enumerate(QUANTILES):
            table[f"{name}_{quantile}"] = _known(middle + 20 * (k - 2), none)
        table[f"{name}_mean_z"] = _known((middle - 300) / 40, none)
        table[f"{name}_mean_robust_z"] = _known((middle - 300) / 38, none)
    table["cells_z"] = (cells - cells.mean()) / (cells.std() + 1)
    wells = pa.table(table)
    pq.write_table(wells, folder / "wells.parquet")
    _write_controls(folder, plates, measurements)
    return wells


def _known(values: Any, none: Any) -> pa.Array:
    return pa.array(np.where(none, np.nan, values), from_pandas=True)


def _write_controls(folder: Path, plates: Sequence[str], measurements: Sequence[str]) -> None:
    statistics = [
        {
            "plate": plate,
            "measurement": name,
            "positive_wells": 8,
            "negative_wells": 8,
            "positive_mean": 420.0,
            "positive_std": 20.0,
            "negative_mean": 300.0,
            "negative_std": 15.0,
            "z_prime": 0.125 + 0.5 * k,
            "ssmd": 4.8,
        }
        for plate in plates
        for k, name in enumerate(measurements)
    ]
    pq.write_table(pa.Table.from_pylist(statistics), folder / "controls.parquet")
    gate = {
        "rule": "area_px > otsu",
        "column": "area_px",
        "comparison": ">",
        "threshold": 150.5,
        "method": "otsu",
        "cells": 40,
        "positive": 10,
    }
    (folder / "gates.json").write_text(json.dumps({"positive": gate}))


def add_quality(folder: Path, flags: Sequence[str] = ()) -> None:
    """Give each image in ``run.json`` what an image with quality says, the first one flags."""
    path = folder / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    for number, image in enumerate(run["images"]):
        own = {
            "background": 100.0 + number,
            "saturated": 0.001 * number,
            "focus": -2.0 - 0.1 * number,
            "flags": list(flags) if number == 0 else [],
        }
        image["quality"] = {"DAPI": own, "<b>dead</b>": None}
    path.write_text(json.dumps(run), encoding="utf-8")
