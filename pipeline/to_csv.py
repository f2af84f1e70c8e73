"""CSV: the table of all cells as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from cellseg.pipeline.cell_rows import with_columns
from cellseg.pipeline.exported import BATCH, ExportedImage
from cellseg.pipeline.files import whole
from cellseg.pipeline.table_files import plain


def write_csv(images: Sequence[ExportedImage], path: Path) -> Iterator[str]:
    """Write the rows of the images as one CSV file; yield the name of each image.

    A header and a row for each cell, lists as their items with spaces between, nothing where
    the table is null: what ``[output] csv = true`` writes.
    """
    schema = pa.unify_schemas([image.rows.schema for image in images])
    header = plain(schema.empty_table()).schema
    with (
        whole(path) as partial,
        partial.open("wb") as file,
        pyarrow.csv.CSVWriter(file, header) as out,
    ):
        for image in images:
            for table in image.rows.tables(BATCH):
                out.write_table(plain(with_columns(table, schema)))
            yield image.name
