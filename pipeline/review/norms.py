"""What is usual for the cells of each plate: median and spread of their size and shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["NEEDED", "SHAPE", "Norms"]

SHAPE = {
    "solidity": ("less convex", "more convex"),
    "eccentricity": ("rounder", "more elongated"),
    "straight_edge": ("outline less straight", "outline straighter"),
}
"""Columns in which a cell may be odd, as far as the table has them; below and above the others."""
NEEDED = ("plate", "area_px", *SHAPE)
"""Columns that norms are learnt from."""


@dataclass(frozen=True)
class Norms:
    """What is usual on each plate: median and spread of some columns.

    Parameters
    ----------
    table : DataFrame
        By plate (nothing for none) and column, ``median`` and ``spread``: 1.4826 times the median
        absolute deviation, which is the standard deviation where values are normal.
    """

    table: pd.DataFrame

    @classmethod
    def of(cls, cells: pd.DataFrame) -> Norms:
        """Learn it from the cells of all images.

        Parameters
        ----------
        cells : DataFrame
            Those of `NEEDED` that there are.
        """
        values, plates = _compared(cells), _plates(cells)
        median = values.groupby(plates).median()
        away = (values - median.reindex(plates).to_numpy()).abs()
        spread = 1.4826 * away.groupby(plates).median()
        return cls(pd.concat({"median": median, "spread": spread}, axis=1))

    def robust_z(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Return how far each cell is from what is usual on its plate; 0 where nothing is known."""
        values, plates = _compared(cells), _plates(cells)
        median, spread = (
            pd.DataFrame(self.table[name]).reindex(index=plates, columns=values.columns).to_numpy()
            for name in ("median", "spread")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (values.to_numpy() - median) / spread
        z[~np.isfinite(z)] = 0
        return pd.DataFrame(z, index=cells.index, columns=values.columns)


def _plates(cells: pd.DataFrame) -> pd.Series:
    """Return the plate of each cell, nothing for none; few names, however many cells."""
    plates = cells["plate"].astype("category")
    names = {name: str(name) for name in plates.cat.categories}
    codes, known = plates.cat.codes.to_numpy(), np.array([*names.values(), ""], object)
    return pd.Series(known[codes], index=cells.index, name="plate")


def _compared(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the columns in which cells are compared; sizes as logarithms."""
    named = {name: cells[name].astype(np.float64) for name in SHAPE if name in cells}
    size = np.log(cells["area_px"].astype(np.float64).clip(lower=1))
    return pd.DataFrame({"area_px": size, **named})
