"""CellProfiler: ``Image.csv`` and ``Cells.csv``, named as its ExportToSpreadsheet names them.

Source: what the columns mean, the help of the modules MeasureObjectSizeShape,
MeasureObjectIntensity and ExportToSpreadsheet,
https://cellprofiler-manual.s3.amazonaws.com/CellProfiler-4.2.6/index.html. `CHANNELS` and `COLUMNS`
say which of ours is which of theirs; what has no counterpart is ``Cellseg_`` and our name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from cellseg.pipeline.cell_columns import Measurement, gates, measurements
from cellseg.pipeline.cell_rows import with_columns
from cellseg.pipeline.exported import BATCH, ExportedImage
from cellseg.pipeline.files import whole

COLUMNS = {
    "x_px": "Location_Center_X",
    "y_px": "Location_Center_Y",
    "z_px": "Location_Center_Z",
    "area_px": "AreaShape_Area",
    "volume_px": "AreaShape_Volume",
    "perimeter_px": "AreaShape_Perimeter",
    "major_axis_px": "AreaShape_MajorAxisLength",
    "minor_axis_px": "AreaShape_MinorAxisLength",
    "eccentricity": "AreaShape_Eccentricity",
    "solidity": "AreaShape_Solidity",
    "extent": "AreaShape_Extent",
    "form_factor": "AreaShape_FormFactor",
    "convex_area_px": "AreaShape_ConvexArea",
    "euler_number": "AreaShape_EulerNumber",
    "equivalent_diameter_px": "AreaShape_EquivalentDiameter",
    "feret_max_px": "AreaShape_MaxFeretDiameter",
    "feret_min_px": "AreaShape_MinFeretDiameter",
    "x0_px": "AreaShape_BoundingBoxMinimum_X",
    "y0_px": "AreaShape_BoundingBoxMinimum_Y",
    "x1_px": "AreaShape_BoundingBoxMaximum_X",
    "y1_px": "AreaShape_BoundingBoxMaximum_Y",
}
"""CellProfiler's name of a column, those of the first columns and of shape."""
CHANNELS = {
    "mean": "Intensity_MeanIntensity",
    "std": "Intensity_StdIntensity",
    "min": "Intensity_MinIntensity",
    "max": "Intensity_MaxIntensity",
    "sum": "Intensity_IntegratedIntensity",
    "median": "Intensity_MedianIntensity",
    "mad": "Intensity_MADIntensity",
    "p25": "Intensity_LowerQuartileIntensity",
    "p75": "Intensity_UpperQuartileIntensity",
    "edge_mean": "Intensity_MeanIntensityEdge",
    "edge_std": "Intensity_StdIntensityEdge",
    "edge_min": "Intensity_MinIntensityEdge",
    "edge_max": "Intensity_MaxIntensityEdge",
    "edge_sum": "Intensity_IntegratedIntensityEdge",
    "mass_displacement_px": "Intensity_MassDisplacement",
}
"""CellProfiler's name of what is measured in a channel, without the channel."""
ORIGIN = {"plate": "Metadata_Plate", "well": "Metadata_Well", "site": "Metadata_Site"}
PLANE = {"t": "Metadata_T", "z": "Metadata_Z"}
IMAGE = (
    "ImageNumber",
    "Count_Cells",
    "FileName_Image",
    "PathName_Image",
    "Width_Image",
    "Height_Image",
    "Metadata_Image",
    *ORIGIN.values(),
    *PLANE.values(),
)
"""The columns of ``Image.csv``."""


def write_cellprofiler(images: Sequence[ExportedImage], folder: Path) -> Iterator[str]:
    """Write ``Image.csv`` and ``Cells.csv``; yield the name of each image.

    A time point of an image is an image set; where its cells are not linked to 3D cells, so is
    each of its planes. ``ObjectNumber`` is the label, which counts through all planes.
    Intensities are grey levels of the file, which CellProfiler divides by the largest possible.
    """
    schema = pa.unify_schemas([image.rows.schema for image in images])
    renamed = names(schema, {channel for image in images for channel in image.channels})
    kinds = {theirs: schema.field(ours).type for ours, theirs in renamed.items()}
    header = pa.schema([("ImageNumber", pa.int64()), *kinds.items()])
    with (
        whole(folder / "Image.csv") as image_path,
        whole(folder / "Cells.csv") as cells_path,
        image_path.open("w", newline="", encoding="utf-8") as image_file,
        cells_path.open("wb") as cells_file,
        pyarrow.csv.CSVWriter(cells_file, header) as cells,
    ):
        sets = csv.DictWriter(image_file, IMAGE)
        sets.writeheader()
        first = 1
        for image in images:
            counted = _sets(image)
            for table in image.rows.tables(BATCH):
                numbers = pa.array(first + counted.numbers(table))
                rows = with_columns(table, schema).select(list(renamed))
                rows = rows.rename_columns(list(renamed.values()))
                cells.write_table(rows.add_column(0, "ImageNumber", numbers))
            sets.writerows(counted.rows(image, first))
            first += len(counted.planes)
            yield image.name


def names(schema: pa.Schema, channels: Iterable[str] = ()) -> dict[str, str]:
    """Return what the columns of a table are called in CellProfiler, in the order of the file."""
    known = {each.name: _named(each) for each in measurements(schema, channels)}
    known |= {
        name: f"Cellseg_{name}" for name in (*gates(schema), "class", "touches_edge", "track")
    }
    renamed = {"label": "ObjectNumber", **ORIGIN, **COLUMNS, **known}
    return {ours: renamed[ours] for ours in renamed if ours in schema.names}


def _named(each: Measurement) -> str:
    what = each.name.removesuffix(f"_{each.channel}")
    if each.channel and what in CHANNELS:
        return f"{CHANNELS[what]}_{each.channel}"
    return COLUMNS.get(each.name, f"Cellseg_{each.name}")


@dataclass(frozen=True)
class Sets:
    """The image sets of an image.

    Parameters
    ----------
    linked : bool
        Whether cells are 3D, and a set a whole volume.
    counts : int64 (T, Z)
        Cells in each plane, those of a volume all in the first.
    origin : dict
        Of `ORIGIN`, as far as it is known.
    """

    linked: bool
    counts: NDArray[np.int64]
    origin: dict[str, str | None]

    @property
    def planes(self) -> list[tuple[int, int]]:
        """The planes as t, z; of a volume the first one."""
        times, depth = self.counts.shape
        return [(t, z) for t in range(times) for z in range(1 if self.linked else depth)]

    def numbers(self, table: pa.Table) -> NDArray[np.int64]:
        """Return the number of the set of some rows, from 0."""
        t, z = (table[name].to_numpy().astype(np.int64) for name in "tz")
        numbers: NDArray[np.int64] = t if self.linked else t * self.counts.shape[1] + z
        return numbers

    def rows(self, image: ExportedImage, first: int) -> Iterator[dict[str, Any]]:
        """Yield a row of ``Image.csv`` for each."""
        _, _, height, width = image.shape
        for number, (t, z) in enumerate(self.planes, first):
            yield {
                "ImageNumber": number,
                "Count_Cells": int(self.counts[t, z]),
                "FileName_Image": image.file_name,
                "PathName_Image": str(image.source.parent),
                "Width_Image": width,
                "Height_Image": height,
                "Metadata_Image": image.name,
                **{theirs: self.origin.get(ours) for ours, theirs in ORIGIN.items()},
                "Metadata_T": t,
                "Metadata_Z": None if self.linked else z,
            }


def _sets(image: ExportedImage) -> Sets:
    """Return the image sets of an image."""
    counts = np.zeros(image.shape[:2], np.int64)
    linked, origin = False, dict[str, str | None](image.origin)
    for table in image.rows.tables(BATCH, ["t", "z", "z0_px"]):
        linked |= table["z0_px"].null_count < len(table)
        t, z = (table[name].to_numpy() for name in "tz")
        np.add.at(counts, (t, z * (not linked)), 1)
    return Sets(linked, counts, origin)
