"""Where another model sees other cells, as a doubt of the review queue; see `cellseg compare`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.pipeline.results import Results
from cellseg.pipeline.review.cell_keys import CellKeys

__all__ = ["DIFFERS", "with_differences"]

DIFFERS = "differs"
"""Column with what is different about a cell, in words; empty where nothing is."""
WORDS = {
    "split": "a piece of what was one cell",
    "merged": "one cell of what were several",
    "outline": "had another outline",
    "only_b": "was no cell before",
}


def with_differences(cells: pd.DataFrame, results: Path) -> pd.DataFrame:
    """Return the rows of cells with `DIFFERS`; as they are where nothing was compared.

    A cell that only the other results have has no row here: the nearest cell of its plane tells
    of it.

    Parameters
    ----------
    cells : DataFrame
        Rows of the cell table of these results, the ones that were compared as B.
    results : Path
        Their folder.
    """
    path = Results(results).differences_path
    if not path.is_file():
        return cells
    table, keys = pd.read_parquet(path), CellKeys(cells)
    table = table[table["image"].isin(keys.images)]
    words = np.full(len(cells), "", object)
    there = table[table["kind"] != "only_a"]
    for image, kind, label, others in zip(
        there["image"], there["kind"], there["label_b"], there["others"], strict=True
    ):
        pieces = str(others or "").split() if kind == "split" else []
        labels = [int(label), *map(int, pieces)]
        rows = keys.rows([image] * len(labels), labels)
        words[rows[rows >= 0]] = WORDS[kind]
    for row, far in _nearest(cells, table[table["kind"] == "only_a"]):
        said = f"a cell {far:.0f} px from here is gone"
        words[row] = f"{words[row]}, {said}" if words[row] else said
    return cells.assign(**{DIFFERS: words})


def _nearest(cells: pd.DataFrame, lost: pd.DataFrame) -> list[tuple[int, float]]:
    """Return, for each cell that is gone, the number of the nearest row and its distance in px."""
    from scipy.spatial import KDTree

    found: list[tuple[int, float]] = []
    planes = ["image", "t", "z"]
    there = cells.groupby(planes, observed=True).indices
    for plane, chosen in lost.groupby(planes).indices.items():
        if (near := there.get(plane)) is None:
            continue
        tree = KDTree(_centres(cells.iloc[near]))
        distances, places = tree.query(_centres(lost.iloc[chosen]))
        found += zip(near[places].tolist(), distances.tolist(), strict=True)
    return found


def _centres(rows: pd.DataFrame) -> NDArray[np.float64]:
    return rows[["y_px", "x_px"]].to_numpy(np.float64)
