"""Export: what the cells of a results folder can be written as, for other programs."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
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
        Name of what it writes, in the results folder, where no other is given.
    options : tuple of str
        What else its writer takes, by name; ``folder`` is the results folder.
    """

    writer: str
    summary: str
    output: str
    options: tuple[str, ...] = ()


EXPORTERS: dict[str, Exporter] = {
    "coco": Exporter(
        "cellseg.pipeline.exported:write_coco",
        "one COCO file in JSON: run lengths, box, area, score, class and label of each cell",
        "cells.coco.json",
    ),
    "masks": Exporter(
        "cellseg.pipeline.exported:write_stacks",
        "a folder with a TIFF for each image, one plane for each cell: 255 on it, else 0",
        "masks",
    ),
    "training": Exporter(
        "cellseg.pipeline.review.to_training:write_training",
        "corrected fields as images and labels for cellseg train --from",
        "training",
        ("folder", "fields", "size"),
    ),
}


HELP = "\n".join(
    [
        "Write the cells of RESULTS, the folder of a run, for other programs.\n",
        "Each cell is whole: a pixel under several cells is in all of them. Images that are not",
        "done are left out.\n",
        "\b",
        *(
            f"  {name:6} {exporter.summary}\n         Default: RESULTS/{exporter.output}"
            for name, exporter in EXPORTERS.items()
        ),
    ]
)
"""What `cellseg export --help` says."""


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
        If there is no such form or option, or no image that is done.
    """

    def __init__(
        self, results: Path, form: str, output: Path | None = None, **options: str | int
    ) -> None:
        if form not in EXPORTERS:
            raise CellsegError(
                f"--to {form}: no such format. Known: {', '.join(EXPORTERS)}."
                + nearest(form, EXPORTERS)
            )
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
