"""The cells of a results folder ranked by doubt: those of one image, or of all.

Of the table of all cells only the columns are read that doubts are made of: a million rows take
about a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cellseg.models.errors import CellsegError
from cellseg.pipeline.files import DAMAGED
from cellseg.pipeline.results import Results
from cellseg.pipeline.review.contents import Contents
from cellseg.pipeline.review.differing import with_differences
from cellseg.pipeline.review.doubts import COLUMNS, doubts
from cellseg.pipeline.review.norms import NEEDED, Norms
from cellseg.pipeline.review.queue import Order, Queue
from cellseg.pipeline.review.settled import settled_cells
from cellseg.pipeline.table_files import row_groups

__all__ = ["cells_of_all", "norms_of", "queue_of"]

PLACE = ("t", "z", "y_px", "x_px")
"""Columns that tell which cell is nearest to one that another model has seen."""
USUAL = 1_000_000
"""As many cells, evenly chosen, tell what is usual."""


def cells_of_all(contents: Contents, columns: Collection[str], every: int = 1) -> pd.DataFrame:
    """Return some columns of the cells of all images, as they were measured.

    Texts are categories. Columns that there are not are left out.

    Parameters
    ----------
    contents : Contents
    columns : collection of str
    every : int
        Of so many cells one.

    Raises
    ------
    CellsegError
        If a table is missing or damaged.
    """
    results = [entry.results.cells_path for entry in contents.entries]
    paths = [Results(contents.folder).cells_path] if contents.editable else results
    tables: list[pa.Table] = []
    for path in paths:
        try:
            tables += _parts(path, columns, every)
        except (*DAMAGED,) as error:
            raise CellsegError(f"{path}: cannot be read: {error}. Run cellseg measure.") from None
    joined = pa.concat_tables(tables, promote_options="permissive")
    found: pd.DataFrame = joined.unify_dictionaries().to_pandas()
    return found


def _parts(path: Path, columns: Collection[str], every: int) -> Iterator[pa.Table]:
    for table in row_groups(path, list(columns)):
        if every > 1:
            table = table.take(np.arange(0, len(table), every))
        yield _encoded(table)


def _encoded(table: pa.Table) -> pa.Table:
    """Return a table with its texts as numbers of few names."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            table = table.set_column(place, field.name, table[field.name].dictionary_encode())
    return table


def norms_of(contents: Contents) -> Norms:
    """Return what is usual on each plate of a results folder."""
    every = -(-sum(entry.cells for entry in contents.entries) // USUAL)
    return Norms.of(cells_of_all(contents, NEEDED, max(every, 1)))


def queue_of(
    contents: Contents,
    order: Order = "image by image",
    norms: Norms | None = None,
) -> Queue:
    """Return the queue of all images of a results folder, with what its logs say of each cell.

    Parameters
    ----------
    contents : Contents
    order : Order
    norms : Norms, optional
        What is usual; by default among all these cells.

    Raises
    ------
    CellsegError
        If the table or a log is missing or damaged.
    """
    compared = contents.editable and Results(contents.folder).differences_path.is_file()
    cells = cells_of_all(contents, (*COLUMNS, *PLACE) if compared else COLUMNS)
    cells = cells[cells["image"].isin([entry.name for entry in contents.entries])]
    if compared:
        cells = with_differences(cells, contents.folder)
    return Queue(doubts(cells, norms or norms_of(contents)), settled_cells(contents), order)
