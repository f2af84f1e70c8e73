"""What a run says as it goes, and what it has written in the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellseg.pipeline.export import Exported
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.place import Place
from cellseg.pipeline.plan import ImageReport
from cellseg.pipeline.results import Results


@dataclass(frozen=True)
class Progress:
    """One step of a run: a unit of work or an image is done, or the cells' size is known.

    `all_tiles` is only right from then on. `stage` is the one of `ROUTE` that the image is in.
    `seconds_left` is None as long as that is not known.
    """

    image: str
    tiles: int
    all_tiles: int
    stage: str = ""
    report: ImageReport | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Result:
    """What a run has written, and where.

    Attributes
    ----------
    folder : Path
        The results folder.
    cells_path : Path
        The table of all cells, ``cells.parquet``.
    cells : int
        Its rows.
    images : tuple of ImageReport
        How it went with each image, in the order of the workflow.
    warnings : tuple of str
        What concerns all of them.
    exports : tuple of Exported
        How it went with each format that was asked for.
    """

    folder: Path
    cells: int
    images: tuple[ImageReport, ...]
    warnings: tuple[str, ...] = ()
    exports: tuple[Exported, ...] = ()

    @property
    def cells_path(self) -> Path:
        """The table of all cells."""
        return Results(self.folder).cells_path

    @property
    def report_path(self) -> Path:
        """The page about the run; there is none with ``[output] report = false``."""
        return Results(self.folder).report_path

    @property
    def failed(self) -> tuple[ImageReport, ...]:
        """The images that could not be done, each with its reason."""
        return tuple(report for report in self.images if report.state == "failed")

    @property
    def kinds_of_places(self) -> dict[tuple[str, str], None]:
        """What lies where, each kind once, in words: labels, plates, pictures."""
        places = [report.place for report in self.images if report.place]
        return dict.fromkeys(
            (what, where) for place in places for what, where in place.described(self.folder)
        )

    def image(self, name: str) -> ImageResults:
        """Return where the labels, table and picture of an image lie."""
        places = {report.name: report.place for report in self.images}
        return Results(self.folder).at(places.get(name) or Place.of_image(name))
