"""From the tables of the images to those of the run: cells, gates, images, wells, controls.

Nothing of an image is computed here, so that other gates or controls cost no more than this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cellseg.pipeline.gates import decide_gates, gate_warnings
from cellseg.pipeline.place import Place
from cellseg.pipeline.plan import ImageReport
from cellseg.pipeline.results import Results
from cellseg.pipeline.summary import summarise
from cellseg.pipeline.table import schema
from cellseg.pipeline.workflow import Workflow

__all__ = ["Gathered", "gather"]


@dataclass(frozen=True)
class Gathered:
    """What was gathered.

    Parameters
    ----------
    cells : int
        Of all images.
    gates : dict
        What each gate came to, as in ``gates.json``.
    warnings : tuple of str
        What the user should know.
    """

    cells: int = 0
    gates: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def gather(results: Results, workflow: Workflow, reports: Sequence[ImageReport]) -> Gathered:
    """Write the tables of a run from those of its images that are done.

    ``cells.parquet`` and ``gates.json``, ``images.parquet``, ``wells.parquet`` and
    ``controls.parquet``; what an earlier run wrote of these and is no more is removed.

    Parameters
    ----------
    results : Results
        With the table of each image.
    workflow : Workflow
        Its `[gates]`, `[controls]` and `output.csv` count here.
    reports : sequence of ImageReport
        How it went with the images, in the order of the workflow; `ImageReport.read` reads those
        of an earlier run.
    """
    done = [report for report in reports if report.state == "done"]
    places = [report.place or Place.of_image(report.name) for report in done]

    def rows(columns: Sequence[str]) -> Iterator[pa.Table]:
        for place in places:
            yield from results.at(place).cell_groups(columns)

    gates = decide_gates(workflow.gates, rows)
    channels = tuple(dict.fromkeys(name for report in reports for name in report.channels))
    none = schema(workflow.measure, channels).empty_table()
    columns = {gate.name: gate.column for gate in gates}
    cells = results.write_cells(places, none, workflow.output.csv, columns)
    summary = summarise(results, done, gates, workflow.controls)
    results.write_gates(summary.gates)
    for name in ("images", "wells", "controls"):
        results.write_summary(name, getattr(summary, name), workflow.output.csv)
    return Gathered(cells, summary.gates, tuple(gate_warnings(summary.gates)))
