"""The review queue: cells ranked by how much they are in doubt, and why, in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["KINDS", "Norms", "Queue", "doubts"]

KINDS = {
    "score": "low score",
    "seam": "seam",
    "size": "odd size",
    "shape": "odd shape",
    "overlap": "overlap",
    "edge": "touches edge",
}
"""The kinds of doubt, and what the window calls them."""
SEAMS = {
    "joined": (0.6, "put together from pieces"),
    "resolved": (0.15, "chosen where tiles meet"),
}
"""How much doubt a seam casts on a cell, and why; others cast none."""
SHAPE = {
    "solidity": ("less convex", "more convex"),
    "eccentricity": ("rounder", "more elongated"),
    "straight_edge": ("outline less straight", "outline straighter"),
}
"""Columns in which a cell may be odd, as far as the table has them; below and above the others."""
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
NEEDED = ("plate", "area_px", *SHAPE)


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
        values = _compared(cells)
        plates = cells["plate"].fillna("").rename("plate")
        median = values.groupby(plates).median()
        away = (values - median.reindex(plates).to_numpy()).abs()
        spread = 1.4826 * away.groupby(plates).median()
        return cls(pd.concat({"median": median, "spread": spread}, axis=1))

    def robust_z(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Return how far each cell is from what is usual on its plate; 0 where nothing is known."""
        values, plates = _compared(cells), cells["plate"].fillna("")
        median, spread = (
            pd.DataFrame(self.table[name]).reindex(index=plates, columns=values.columns).to_numpy()
            for name in ("median", "spread")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (values.to_numpy() - median) / spread
        z[~np.isfinite(z)] = 0
        return pd.DataFrame(z, index=cells.index, columns=values.columns)


def _compared(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the columns in which cells are compared; sizes as logarithms."""
    named = {name: cells[name].astype(np.float64) for name in SHAPE if name in cells}
    size = np.log(cells["area_px"].astype(np.float64).clip(lower=1))
    return pd.DataFrame({"area_px": size, **named})


def doubts(cells: pd.DataFrame, norms: Norms | None = None) -> pd.DataFrame:
    """Rank cells by doubt.

    Each kind of doubt is a number from 0 to 1; together they leave the product of what each leaves.

    Parameters
    ----------
    cells : DataFrame
        Rows of the cell table. Columns that are missing cast no doubt.
    norms : Norms, optional
        What is usual; by default among these cells.

    Returns
    -------
    DataFrame
        The most doubtful first: ``image``, ``label``, ``doubt`` from 0 to 1, ``reason``, and for
        each of `KINDS` its part in it. Its index is that of `cells`.
    """
    z = (norms or Norms.of(cells)).robust_z(cells) if len(cells) else _compared(cells)
    if "touches_edge" in cells:  # what is left of a cell that the image cuts is odd, and no doubt
        z[cells["touches_edge"].fillna(value=False).to_numpy(bool)] = 0.0
    parts, words = {}, {}
    parts["score"], words["score"] = _score(cells)
    parts["seam"], words["seam"] = _seam(cells)
    parts["size"], words["size"] = _size(z)
    parts["shape"], words["shape"] = _shape(z)
    parts["overlap"], words["overlap"] = _overlap(cells)
    parts["edge"], words["edge"] = _edge(cells)
    table = pd.DataFrame(parts, index=cells.index)
    left = 1 - table.to_numpy().clip(0, 1)
    ranked = pd.DataFrame(
        {
            "image": cells["image"],
            "label": cells["label"].astype(np.int64),
            "doubt": 1 - left.prod(axis=1),
            "reason": _joined(words, table),
        },
        index=cells.index,
    )
    found = pd.concat([ranked, table], axis=1)
    return found.sort_values(["doubt", "image", "label"], ascending=[False, True, True])


Words = NDArray[np.object_]
Part = tuple[NDArray[np.float64], Words]


def _nothing(count: int) -> Part:
    return np.zeros(count), np.full(count, "", object)


def _score(cells: pd.DataFrame) -> Part:
    doubt, words = _nothing(len(cells))
    if "score" in cells:
        score = cells["score"].to_numpy(np.float64, na_value=np.nan)
        low = score < SURE
        doubt[low] = (1 - score[low] / SURE) ** 0.7
        words[low] = [f"score {value:.2f}" for value in score[low]]
    return doubt, words


def _seam(cells: pd.DataFrame) -> Part:
    doubt, words = _nothing(len(cells))
    if "seam" in cells:
        for seam, (part, why) in SEAMS.items():
            there = (cells["seam"] == seam).to_numpy(bool)
            doubt[there], words[there] = part, why
    return doubt, words


def _odd(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(z) < ODD, 0, np.clip(np.abs(z) / CERTAIN, 0, 0.95))


def _size(z: pd.DataFrame) -> Part:
    doubt, words = _nothing(len(z))
    if len(z):
        away = z["area_px"].to_numpy()
        doubt = _odd(away)
        words[(doubt > 0) & (away < 0)] = "small for its plate"
        words[(doubt > 0) & (away > 0)] = "large for its plate"
    return doubt, words


def _shape(z: pd.DataFrame) -> Part:
    """Let the oddest of several columns count; more convex or rounder than others is not odd."""
    doubt, words = _nothing(len(z))
    for name, (below, above) in SHAPE.items():
        if name in z and len(z):
            away = z[name].to_numpy() * (-1 if name == "solidity" else 1)
            part = np.where(away > 0, _odd(away), 0)
            more = part > doubt
            words[more] = below if name == "solidity" else above
            doubt = np.maximum(doubt, part)
    words[doubt > 0] += " than usual"
    return doubt, words


def _overlap(cells: pd.DataFrame) -> Part:
    doubt, words = _nothing(len(cells))
    if "overlap_px" in cells:
        share = cells["overlap_px"].to_numpy(np.float64, na_value=0)
        share = share / np.maximum(cells["area_px"].to_numpy(np.float64), 1)
        there = share > COVERED
        doubt[there] = share[there].clip(max=0.9)
        words[there] = [f"{100 * value:.0f} % under others" for value in share[there]]
    return doubt, words


def _edge(cells: pd.DataFrame) -> Part:
    doubt, words = _nothing(len(cells))
    if "touches_edge" in cells:
        there = cells["touches_edge"].fillna(value=False).to_numpy(bool)
        doubt[there], words[there] = EDGE, "touches the edge"
    return doubt, words


def _joined(words: Mapping[str, Words], parts: pd.DataFrame) -> list[str]:
    """Return the reasons of each cell, the weightiest first."""
    order = np.argsort(-parts.to_numpy(), axis=1, kind="stable")
    said = np.stack([words[str(name)] for name in parts], axis=1)
    sorted_ = np.take_along_axis(said, order, axis=1)
    return [", ".join(filter(None, row)) for row in sorted_.tolist()]


@dataclass
class Queue:
    """The cells to look at, in order, and the place in it.

    Parameters
    ----------
    ranked : DataFrame
        As `doubts` gives it.
    verdicts : dict of (image, label) to str
        "accept" or "reject", of cells that were looked at.
    kinds : collection of str
        Only cells of one of these kinds of doubt; empty for all cells.
    least : float
        Only cells of at least this doubt.
    open_only : bool
        Leave out those with a verdict.
    """

    ranked: pd.DataFrame
    verdicts: dict[tuple[str, int], str] = field(default_factory=dict)
    kinds: Collection[str] = ()
    least: float = 0.0
    open_only: bool = False
    place: int = -1

    def __post_init__(self) -> None:
        self.filter(self.kinds, self.least, open_only=self.open_only)

    def filter(self, kinds: Collection[str], least: float, *, open_only: bool) -> None:
        """Set what is shown; the cell at hand stays at hand, if it still is."""
        here = self.current
        self.kinds, self.least, self.open_only = kinds, least, open_only
        kept = self.ranked["doubt"].to_numpy() >= least
        if kinds:
            kept &= (self.ranked[list(kinds)].to_numpy() > 0).any(axis=1)
        keys = zip(self.ranked["image"].tolist(), self.ranked["label"].tolist(), strict=True)
        self.keys: list[tuple[str, int]] = [k for k, keep in zip(keys, kept, strict=True) if keep]
        if open_only:
            self.keys = [key for key in self.keys if key not in self.verdicts]
        self.rows: dict[tuple[str, int], int] = {key: n for n, key in enumerate(self.keys)}
        self.place = self.rows.get(here, -1) if here else -1
        reasons = zip(
            self.ranked["image"], self.ranked["label"], self.ranked["reason"], strict=True
        )
        self._reasons = {(image, int(label)): why for image, label, why in reasons}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def current(self) -> tuple[str, int] | None:
        """Image and label of the cell at hand; None before the first."""
        keys = getattr(self, "keys", [])
        return keys[self.place] if 0 <= self.place < len(keys) else None

    @property
    def done(self) -> int:
        """How many of those shown have a verdict."""
        return sum(key in self.verdicts for key in self.keys)

    def reason(self, key: tuple[str, int]) -> str:
        """Return why a cell is in doubt."""
        return self._reasons.get(key, "") or "no doubt"

    def step(self, by: int = 1) -> tuple[str, int] | None:
        """Go on, or back, to the nearest cell without a verdict; None if there is none.

        Going back, cells with a verdict count too.
        """
        place = self.place + by
        while 0 <= place < len(self.keys):
            if by < 0 or self.keys[place] not in self.verdicts:
                self.place = place
                return self.keys[place]
            place += by
        return None

    def go_to(self, key: tuple[str, int]) -> bool:
        """Take a cell at hand; return whether it is among those shown."""
        if key in self.rows:
            self.place = self.rows[key]
        return key in self.rows

    def mark(self, key: tuple[str, int], verdict: str | None) -> None:
        """Note what was said of a cell; None takes it back."""
        if verdict is None:
            self.verdicts.pop(key, None)
        else:
            self.verdicts[key] = verdict
