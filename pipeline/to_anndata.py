"""AnnData: measurements and what describes each cell, in one .h5ad file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellseg.pipeline.annotated import ROWS, TEXT, Writer, survey, write_cells
from cellseg.pipeline.exported import ExportedImage
from cellseg.pipeline.files import whole

if TYPE_CHECKING:
    import h5py


class Hdf5:
    """A `cellseg.pipeline.annotated.Store` in an HDF5 file."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file

    def group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Make a group."""
        (self.file.create_group(path) if path else self.file).attrs.update(attributes)

    def array(
        self, path: str, shape: tuple[int, ...], dtype: Any, attributes: Mapping[str, Any]
    ) -> Any:
        """Make an array."""
        import h5py

        options: dict[str, Any] = {}
        if 0 not in (shape or (0,)):
            options = {"chunks": (min(ROWS, shape[0]), *shape[1:]), "compression": "gzip"}
            options |= {"compression_opts": 1, "shuffle": dtype is not TEXT}
        kind = h5py.string_dtype() if dtype is TEXT else dtype
        made = self.file.create_dataset(path, shape, kind, **options)
        made.attrs.update(attributes)
        return made


def write_h5ad(images: Sequence[ExportedImage], path: Path) -> Iterator[str]:
    """Write all cells as an AnnData object; yield the name of each image.

    ``X`` (cells, measurements) float32, NaN where unknown; ``var`` unit and channel of each
    measurement; ``obs`` the other columns, words as categoricals, with names ``<image>/<label>``;
    ``obsm["spatial"]`` x and y, in um if the size of a pixel is known for all cells, else px:
    ``uns["spatial_unit"]`` says which. Columns that are empty for all cells are left out.
    """
    import h5py

    schema, found = survey(images)
    with whole(path) as partial, h5py.File(partial, "w") as file:
        writer = Writer(Hdf5(file), found)
        writer.write_notes("uns", {"spatial_unit": found.unit})
        yield from write_cells(writer, images, schema)
