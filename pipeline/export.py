"""Export: what the cells of a results folder can be written as, for other programs."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg.models.errors import CellsegError, nearest

if TYPE_CHECKING:
    from cellseg.pipeline.exported import ExportedImage


@dataclass(frozen=True)
class Exporter:
    """An entry of `EXPORTERS`.

    Parameters
    ----------
    writer : str
        As ``module:function``, imported late: takes the images and the path to
        write to, and yields the name of each image when it is done with it.
    summary : str
        One line for the help.
    output : str
        Name of what it writes, in the results folder, where no other is given; of a folder with
        a slash.
    needs : str
        A package that is installed with ``cellseg[tables]`` only, or nothing.
    options : tuple of str
        What else its writer takes, by name; ``folder`` is the results folder.
    """

    writer: str
    summary: str
    output: str
    needs: str = ""
    options: tuple[str, ...] = ()


EXPORTERS: dict[str, Exporter] = {
    "csv": Exporter(
        "cellseg.pipeline.to_csv:write_csv",
        "the table of all cells as text: R, Excel",
        "cells.csv",
    ),
    "anndata": Exporter(
        "cellseg.pipeline.to_anndata:write_h5ad",
        "the table as AnnData: scanpy, squidpy",
        "cells.h5ad",
        "h5py",
    ),
    "spatialdata": Exporter(
        "cellseg.pipeline.to_spatialdata:write_spatialdata",
        "labels, outlines and table as one zarr: spatialdata, napari-spatialdata",
        "cells.spatialdata.zarr/",
    ),
    "geojson": Exporter(
        "cellseg.pipeline.to_geojson:write_geojson",
        "outlines, classes and measurements, a file for each image: QuPath",
        "geojson/",
    ),
    "roi": Exporter(
        "cellseg.pipeline.to_roi:write_rois",
        "outlines for the ROI Manager, a zip file for each image: ImageJ, Fiji",
        "rois/",
        "roifile",
    ),
    "ome-tiff": Exporter(
        "cellseg.pipeline.to_ome_tiff:write_ome_tiffs",
        "labels as tiled pyramids, a file for each image: Fiji, QuPath",
        "ome_tiff/",
    ),
    "cellprofiler": Exporter(
        "cellseg.pipeline.to_cellprofiler:write_cellprofiler",
        "Image.csv and Cells.csv: CellProfiler Analyst, pycytominer",
        "cellprofiler/",
    ),
    "coco": Exporter(
        "cellseg.pipeline.to_coco:write_coco",
        "masks as run lengths, box, area, score and class in JSON: pycocotools",
        "cells.coco.json",
    ),
    "masks": Exporter(
        "cellseg.pipeline.to_masks:write_stacks",
        "a TIFF for each image, one plane for each cell: 255 on it, else 0",
        "masks/",
    ),
    "training": Exporter(
        "cellseg.pipeline.review.to_training:write_training",
        "corrected fields as images and labels for cellseg train --from",
        "training/",
        options=("folder", "fields", "size"),
    ),
}

WIDTH = max(map(len, EXPORTERS))
HELP = "\n".join(
    [
        "Write the cells of RESULTS, the folder of a run, for other programs.\n",
        "Each cell is whole: a pixel under several cells is in all of them. Images that are not",
        "done are left out.\n",
        "\b",
        *(
            f"  {name:{WIDTH}}  {exporter.summary}\n  {'':{WIDTH}}  RESULTS/{exporter.output}"
            for name, exporter in EXPORTERS.items()
        ),
    ]
)
"""What `cellseg export --help` says."""


def check_known(forms: Iterable[str], where: str) -> None:
    """Refuse formats that are not known.

    Parameters
    ----------
    forms : iterable of str
    where : str
        Who asks for them, for the message.

    Raises
    ------
    CellsegError
    """
    for form in forms:
        if form not in EXPORTERS:
            raise CellsegError(
                f"{where} {form}: no such format.{nearest(form, EXPORTERS)}"
                f" Known: {', '.join(EXPORTERS)}."
            )


def check_installed(forms: Iterable[str], where: str) -> None:
    """Refuse formats that need a package which is not installed; see `check_known`.

    Raises
    ------
    CellsegError
    """
    for form in forms:
        needs = EXPORTERS[form].needs
        if needs and find_spec(needs) is None:
            raise CellsegError(
                f"{where} {form}: needs the package {needs}, which is not installed."
                ' Install it by pip install "cellseg[tables]".'
            )


@dataclass(frozen=True)
class Exported:
    """How an export at the end of a run went; a line of ``run.json``.

    Parameters
    ----------
    form : str
    output : str
        Where it is.
    seconds : float
    reason : str or None
        Why it could not be written.
    """

    form: str
    output: str
    seconds: float
    reason: str | None = None


class Export:
    """The export of a results folder; `steps` does it.

    Parameters
    ----------
    results : Path
        Of a run.
    form : str
        One of `EXPORTERS`.
    output : Path, optional
        Where to write; by default in the results folder.
    **options
        What the form takes beside it; see `Exporter`.

    Raises
    ------
    CellsegError
        If there is no such form or option, a package that it needs is missing, or no image is done.
    """

    def __init__(
        self, results: Path, form: str, output: Path | None = None, **options: str | int
    ) -> None:
        check_known([form], "--to")
        check_installed([form], "--to")
        from cellseg.pipeline.exported import find_images

        self.exporter = EXPORTERS[form]
        for name in options:
            if name not in self.exporter.options:
                raise CellsegError(f"--{name}: means nothing to --to {form}. Leave it out.")
        self.options: dict[str, str | int | Path] = {**options}
        if "folder" in self.exporter.options:
            self.options["folder"] = results
        self.images: list[ExportedImage] = find_images(results)
        self.output = output or results / self.exporter.output

    def steps(self) -> Generator[str]:
        """Write; yield the name of each image that is done. A file is there only once whole."""
        module, function = self.exporter.writer.split(":")
        yield from getattr(import_module(module), function)(
            self.images, self.output, **self.options
        )
