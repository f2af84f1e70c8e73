"""Controls: how the wells of a plate compare with its control wells, and these with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellseg.pipeline.gate_settings import Controls
from cellseg.pipeline.statistics import compare, robust_z_scores, z_scores

__all__ = ["Well", "control_table", "nullable", "scores"]

Well = tuple[str | None, str]
"""Plate and well."""
Columns = dict[str, pa.Array]


def scores(wells: Sequence[Well], values: Mapping[str, pa.Array], controls: Controls) -> Columns:
    """Return the z and robust z scores of wells, against the negative controls of their plate.

    Parameters
    ----------
    wells : sequence of (plate, well)
    values : dict of str to Array
        Columns of the table of wells.
    controls : Controls

    Returns
    -------
    dict of str to Array
        ``<column>_z`` and ``<column>_robust_z``; none where no negative controls are named.
    """
    if not controls.negative:
        return {}
    rows, kinds = _rows(values, len(wells)), _kinds(wells, controls)
    found = np.full((2, *rows.shape), np.nan)
    for own in _plates(wells).values():
        negative = kinds[own] == "negative"
        found[0][:, own] = z_scores(rows[:, own], negative)
        found[1][:, own] = robust_z_scores(rows[:, own], negative)
    return {
        f"{name}_{score}": nullable(found[place, number])
        for number, name in enumerate(values)
        for place, score in enumerate(("z", "robust_z"))
    }


def control_table(
    wells: Sequence[Well], values: Mapping[str, pa.Array], controls: Controls
) -> pa.Table | None:
    """Return how the controls of each plate compare in each column; None where none are named.

    Parameters
    ----------
    wells, values, controls
        See `scores`.
    """
    if not wells or not (controls.negative or controls.positive):
        return None
    rows, kinds, tables = _rows(values, len(wells)), _kinds(wells, controls), []
    for plate, own in _plates(wells).items():
        mine, kind = rows[:, own], kinds[own]
        found = compare(mine[:, kind == "positive"], mine[:, kind == "negative"])
        about = {
            "plate": pa.array([plate] * len(values), pa.string()),
            "measurement": pa.array(list(values), pa.string()),
        }
        tables.append(
            pa.table(about | {n: pa.array(v, from_pandas=True) for n, v in found.items()})
        )
    return pa.concat_tables(tables)


def nullable(values: NDArray[np.float64]) -> pa.Array:
    """Return a column of numbers, null where they are not known."""
    return pa.array(np.asarray(values, float), pa.float64(), from_pandas=True)


def _rows(values: Mapping[str, pa.Array], wells: int) -> NDArray[np.float64]:
    """Return columns as rows, float64 (V, wells)."""
    rows = [column.cast(pa.float64()).to_numpy(zero_copy_only=False) for column in values.values()]
    return np.array(rows, float).reshape(len(values), wells)


def _kinds(wells: Sequence[Well], controls: Controls) -> NDArray[np.str_]:
    return np.array([controls.kind(*well) or "" for well in wells], np.str_)


def _plates(wells: Sequence[Well]) -> dict[str | None, NDArray[np.intp]]:
    """Return the places of the wells of each plate."""
    plates = [plate for plate, _ in wells]
    return {
        each: np.flatnonzero([plate == each for plate in plates]) for each in dict.fromkeys(plates)
    }
