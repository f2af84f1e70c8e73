"""Apply: labels, table and summaries on disk as the logs of edits say.

Only the parts of label images that were edited are written, each file whole; only images with
edits are measured again. That edits are applied stands in the log when all of it is done: what
was killed before is done again, and leads to the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.models import CellsegError
from cellseg.pipeline.config import Config
from cellseg.pipeline.corrections import Corrections
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.order import RUN
from cellseg.pipeline.plan import ImageReport
from cellseg.pipeline.remeasure import RunAgain
from cellseg.pipeline.rescan import KEPT, TRACKED
from cellseg.pipeline.result import Progress
from cellseg.pipeline.review.edit_log import EditLog, applied_line, applying_line, read_log
from cellseg.pipeline.review.known import images_of

__all__ = ["ApplyEdits", "apply", "pending_edits"]


@dataclass
class _Log:
    """The log of an image, and where the image's results lie."""

    here: ImageResults
    log: EditLog

    @property
    def pending(self) -> int:
        """Number of edits that labels and table do not show."""
        return sum(edit.effective for edit in self.log.pending)

    def append(self, line: str) -> None:
        """Append a line to the log."""
        self.here.append_edits(line)

    def note_rows(self) -> None:
        """Keep what the table says of cells that are to be changed, before they are."""
        wanted = _first_touched(self.log)
        rows: dict[int, dict[str, Any]] = {}
        for part in sorted({label // RUN for label in wanted}):
            names = [n for n in (*KEPT, *TRACKED) if n in self.here.cells_columns]
            table = self.here.rows_of(part * RUN, (part + 1) * RUN, names)
            place = np.flatnonzero(np.isin(table["label"].to_numpy(), sorted(wanted)))
            rows |= {int(row["label"]): _plain(row) for row in table.take(place).to_pylist()}
        if rows:
            self.append(applying_line(rows))
            self.log.rows.update(rows)


class ApplyEdits(RunAgain):
    """Measure results again, edits of the logs carried out first; see `RunAgain`.

    Parameters
    ----------
    folder, config, overrides, corrected
        See `RunAgain`.
    images : collection of str, optional
        Names of the images to measure; by default all, whether they have edits or not.

    Raises
    ------
    CellsegError
        If a log is damaged, or label images are given for an image with edits that are not
        applied yet.
    """

    what = "applying edits"

    def __init__(
        self,
        folder: Path,
        config: Config,
        overrides: Sequence[str] = (),
        corrected: Path | None = None,
        images: Collection[str] | None = None,
    ) -> None:
        self.logs = _logs(folder, images)
        corrections = {name: corrections_of(each.log) for name, each in self.logs.items()}
        super().__init__(folder, config, overrides, corrected, images, corrections)
        for name in sorted(set(self.corrected) & set(self.logs)):
            if count := self.logs[name].pending:
                raise CellsegError(
                    f"{self.logs[name].here.edits_path}: {count} edits are not applied, and other"
                    f" labels of {name} would take their place. Run `cellseg measure {folder}`"
                    " first, or move that file away."
                )

    @property
    def pending(self) -> dict[str, int]:
        """How many edits of each image are to be applied."""
        return {name: each.pending for name, each in self.logs.items() if each.pending}

    @property
    def unmeasured(self) -> tuple[ImageReport, ...]:
        """Those of the images to measure whose rows are as before, each with the reason."""
        return tuple(r for r in super().unmeasured if r.name in self.reports)

    def _carry_out(self) -> Iterator[Progress]:
        """Change labels, measure, gather; yield after each step."""
        for name, each in self.logs.items():
            if name not in self.lost:
                each.note_rows()
                self.corrections[name] = corrections_of(each.log)
        yield from super()._carry_out()
        kept = {report.name for report in self.unmeasured}
        for name, each in self.logs.items():
            if name in self.reports and name not in kept and name not in self.corrected:
                pending = each.log.pending
                if pending:
                    each.append(applied_line(pending[-1]))


def apply(
    results: Path, images: Collection[str] | None = None, config: Config | None = None
) -> tuple[ImageReport, ...]:
    """Carry out the edits that are not applied yet, and measure those images again.

    Parameters
    ----------
    results : Path
        The results folder.
    images : collection of str, optional
        Names of images; by default all of which a log says that edits are pending.
    config : Config, optional
        ``workers`` of it.

    Returns
    -------
    tuple of ImageReport
        How it went with each image; one with a ``reason`` could not be measured again, and its
        edits stay pending.

    Raises
    ------
    CellsegError
        If there are no such results, or a log is damaged.
    """
    pending = pending_edits(results)
    if images is not None:
        pending = {name: count for name, count in pending.items() if name in images}
    if not pending:
        return ()
    going = ApplyEdits(results, config or Config(), images=pending)
    for _ in going.steps():
        pass
    return tuple(report for report in going.ordered if report.name in pending)


def pending_edits(results: Path) -> dict[str, int]:
    """Return how many edits of each image are not applied yet; images without any are left out."""
    logs = _logs(results, None)
    return {name: each.pending for name, each in logs.items() if each.pending}


def corrections_of(log: EditLog) -> Corrections:
    """Return what a log comes to."""
    every = [change for edit in log.edits if edit.effective for change in edit.changes]
    surviving = [change for edit in log.surviving for change in edit.changes]
    classes = {c.label: c.class_after for c in every if c.class_after is not None}
    return Corrections(
        pending=any(edit.effective for edit in log.pending),
        changes=tuple(change for edit in log.pending for change in edit.changes),
        touched=frozenset(change.label for change in every),
        edited=frozenset(change.label for change in surviving if change.drawn),
        classes=classes,
        rows=log.rows,
    )


def _logs(folder: Path, images: Collection[str] | None) -> dict[str, _Log]:
    """Return the logs that are about the labels that there are."""
    found = {}
    for name, here in images_of(folder).items():
        if images is not None and name not in images:
            continue
        log = read_log(here.edits_path)
        if log is not None and log.header.labels == here.labels.key():
            found[name] = _Log(here, log)
    return found


def _first_touched(log: EditLog) -> set[int]:
    """Return the cells that were there before any edit, and of which no row is kept yet."""
    first: dict[int, int | None] = {}
    for edit in log.edits:
        if edit.effective:
            for change in edit.changes:
                first.setdefault(change.label, change.class_before)
    there = {label for label, class_ in first.items() if class_ is not None}
    return there - set(log.rows)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: NaN is null."""
    return {
        name: None if isinstance(value, float) and value != value else value
        for name, value in row.items()
    }
