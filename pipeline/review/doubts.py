"""How much each cell is in doubt: numbers for all of them at once, words for the one at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.pipeline.review.cell_keys import CellKeys
from cellseg.pipeline.review.differing import DIFFERS
from cellseg.pipeline.review.norms import SHAPE, Norms

__all__ = ["COLUMNS", "KINDS", "Doubts", "Kind", "doubts"]

SEAMS = {
    "joined": (0.6, "put together from pieces"),
    "resolved": (0.15, "chosen where tiles meet"),
}
"""How much doubt a seam casts on a cell, and why; others cast none."""
SURE = 0.9
"""From this score on the model leaves no doubt."""
ODD = 3.5
"""Robust z from which a value is odd (Iglewicz and Hoaglin, How to Detect and Handle Outliers)."""
CERTAIN = 12.0
"""Robust z at which an odd value leaves no hope."""
COVERED = 0.05
"""Share of a cell under others from which overlap counts."""
EDGE = 0.08
"""Of a cell that the image cuts: less than what the window shows at first."""
OTHERWISE = 0.8
"""Doubt where another model sees other cells."""
CAST = ("area_px", "score", "seam", "overlap_px", "touches_edge", *SHAPE)
COLUMNS = ("image", "plate", "label", *CAST)
"""Columns of the cell table that doubts are made of; those that are missing cast none."""
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows of the cell table, and how far each is from what is usual.

    Parameters
    ----------
    cells : DataFrame
    z : DataFrame
        As `Norms.robust_z` gives it.
    """

    cells: pd.DataFrame
    z: pd.DataFrame

    def numbers(self, column: str) -> Values:
        """Return a column as numbers; NaN where it is missing."""
        if column not in self.cells:
            return np.full(len(self.cells), np.nan)
        return self.cells[column].to_numpy(np.float64, na_value=np.nan)

    def at(self, column: str, row: int) -> Any:
        """Return one value of a column."""
        return self.cells[column].iloc[row]


@dataclass(frozen=True)
class Kind:
    """A kind of doubt.

    Parameters
    ----------
    name : str
        What the window calls it.
    cast : callable
        Gives of all cells seen how much doubt each is in, from 0 to 1, float64 (N,).
    say : callable
        Says why, of a row that is in doubt.
    """

    name: str
    cast: Callable[[Seen], Values]
    say: Callable[[Seen, int], str]


def _score(seen: Seen) -> Values:
    score = seen.numbers("score")
    low = np.where(score < SURE, score, SURE)
    return np.asarray((1 - low / SURE) ** 0.7)


def _seam(seen: Seen) -> Values:
    doubt = np.zeros(len(seen.cells))
    if "seam" in seen.cells:
        for seam, (part, _) in SEAMS.items():
            doubt[(seen.cells["seam"] == seam).to_numpy(bool)] = part
    return doubt


def _odd(z: Values) -> Values:
    return np.where(np.abs(z) < ODD, 0, np.clip(np.abs(z) / CERTAIN, 0, 0.95))


def _size(seen: Seen) -> Values:
    return _odd(seen.z["area_px"].to_numpy())


def _say_size(seen: Seen, row: int) -> str:
    return f"{'small' if seen.z['area_px'].iloc[row] < 0 else 'large'} for its plate"


def _shapes(seen: Seen) -> dict[str, Values]:
    """Return how odd each column is; more convex or rounder than others is not odd."""
    signs = {name: -1 if name == "solidity" else 1 for name in SHAPE if name in seen.z}
    away = {name: sign * seen.z[name].to_numpy() for name, sign in signs.items()}
    return {name: np.where(z > 0, _odd(z), 0) for name, z in away.items()}


def _shape(seen: Seen) -> Values:
    """Let the oddest of several columns count."""
    parts = list(_shapes(seen).values())
    return np.max(parts, axis=0) if parts else np.zeros(len(seen.cells))


def _say_shape(seen: Seen, row: int) -> str:
    parts = _shapes(Seen(seen.cells.iloc[[row]], seen.z.iloc[[row]]))
    name = max(parts, key=lambda each: float(parts[each][0]))
    below, above = SHAPE[name]
    return f"{below if name == 'solidity' else above} than usual"


def _covered(seen: Seen) -> Values:
    return np.asarray(seen.numbers("overlap_px") / np.maximum(seen.numbers("area_px"), 1))


def _overlap(seen: Seen) -> Values:
    share = _covered(seen)
    return np.where(share > COVERED, np.clip(share, 0, 0.9), 0)


def _say_overlap(seen: Seen, row: int) -> str:
    share = seen.at("overlap_px", row) / max(seen.at("area_px", row), 1)
    return f"{100 * share:.0f} % under others"


def _touches_edge(cells: pd.DataFrame) -> NDArray[np.bool_]:
    if "touches_edge" not in cells:
        return np.zeros(len(cells), bool)
    return cells["touches_edge"].fillna(value=False).to_numpy(bool)


def _differs(seen: Seen) -> Values:
    if DIFFERS not in seen.cells:
        return np.zeros(len(seen.cells))
    return np.where(seen.cells[DIFFERS].fillna("") != "", OTHERWISE, 0.0)


KINDS = {
    "score": Kind("low score", _score, lambda seen, row: f"score {seen.at('score', row):.2f}"),
    "seam": Kind("seam", _seam, lambda seen, row: SEAMS[seen.at("seam", row)][1]),
    "size": Kind("odd size", _size, _say_size),
    "shape": Kind("odd shape", _shape, _say_shape),
    "overlap": Kind("overlap", _overlap, _say_overlap),
    "edge": Kind(
        "touches edge",
        lambda seen: np.where(_touches_edge(seen.cells), EDGE, 0.0),
        lambda _seen, _row: "touches the edge",
    ),
    "differs": Kind("other model differs", _differs, lambda seen, row: str(seen.at(DIFFERS, row))),
}
"""The kinds of doubt."""


@dataclass(frozen=True, eq=False)
class Doubts:
    """How much each cell is in doubt.

    Parameters
    ----------
    seen : Seen
    parts : float32 (N, kinds)
        Of each of `KINDS`, in that order, from 0 to 1.
    total : float32 (N,)
        All together: each kind leaves a share of what the others leave.
    keys : CellKeys
    """

    seen: Seen
    parts: NDArray[np.float32]
    total: NDArray[np.float32]
    keys: CellKeys

    def __len__(self) -> int:
        return len(self.total)

    def of_kinds(self, kinds: Any) -> NDArray[np.bool_]:
        """Return which cells are in doubt of one of some kinds."""
        columns = [list(KINDS).index(kind) for kind in kinds]
        return np.asarray((self.parts[:, columns] > 0).any(axis=1))

    def reason(self, row: int) -> str:
        """Return why a cell is in doubt, the weightiest first; nothing where it is in none."""
        parts = self.parts[row]
        order = np.argsort(-parts, kind="stable").tolist()
        kinds = list(KINDS.values())
        return ", ".join(kinds[n].say(self.seen, row) for n in order if parts[n] > 0)

    def ranked(self) -> pd.DataFrame:
        """Return all cells as a table, the most doubtful first.

        Its columns are ``image``, ``label``, ``doubt``, ``reason`` and each of `KINDS`; its index
        is that of the cells.
        """
        cells = self.seen.cells
        table = pd.DataFrame(
            {
                "image": cells["image"],
                "label": self.keys.labels,
                "doubt": self.total,
                "reason": [self.reason(row) for row in range(len(self))],
                **{kind: self.parts[:, number] for number, kind in enumerate(KINDS)},
            },
            index=cells.index,
        )
        return table.sort_values(["doubt", "image", "label"], ascending=[False, True, True])


def doubts(cells: pd.DataFrame, norms: Norms | None = None) -> Doubts:
    """Return how much cells are in doubt, each kind from 0 to 1.

    Parameters
    ----------
    cells : DataFrame
        Rows of the cell table; `COLUMNS` of it are enough.
    norms : Norms, optional
        What is usual; by default among these cells.
    """
    z = (norms or Norms.of(cells)).robust_z(cells)
    # What is left of a cell that the image cuts is odd, and no doubt.
    z[_touches_edge(cells)] = 0.0
    seen = Seen(cells, z)
    parts = np.zeros((len(cells), len(KINDS)), np.float32)
    left = np.ones(len(cells))
    for number, kind in enumerate(KINDS.values()):
        part = np.nan_to_num(kind.cast(seen)).clip(0, 1)
        parts[:, number] = part
        left *= 1 - part
    return Doubts(seen, parts, (1 - left).astype(np.float32), CellKeys(cells))
