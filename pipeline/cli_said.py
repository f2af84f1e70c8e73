"""What the command line says of a plan, of a run as it goes, and of what it has written."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from cellseg.pipeline.progress import progress

if TYPE_CHECKING:
    from cellseg.pipeline.lock import Claim
    from cellseg.pipeline.plan import Plan
    from cellseg.pipeline.result import Result
    from cellseg.pipeline.stages import Run

SOME = 10
"""Images, files and the like that are named; the others are counted."""


def print_plan(planned: Plan) -> None:
    """Say what will be done."""
    model = " ".join(str(planned.model[key]) for key in ("name", "weights") if key in planned.model)
    if planned.neural:
        model += " by {inference} in {precision}".format_map(planned.model)
    images = len(planned.scenes) + len(planned.unreadable)
    tiles = f" {planned.tiles} tile{'s' * (planned.tiles != 1)}," if not planned.undecided else ""
    click.echo(
        f"{images} image{'s' * (images != 1)},{tiles}"
        f" model {model}, results in {planned.results.folder}"
    )
    levels = sorted({scene.level for scene in planned.scenes})
    if levels != [0]:
        click.echo(f"  read at level {', '.join(map(str, levels))} of their pyramids")
    if planned.region_text:
        click.echo(f"  {planned.region_text}")
    _print_diameter(planned)
    for report in planned.unreadable[:SOME]:
        click.echo(f"  cannot be read: {report.reason}", err=True)


def _print_diameter(planned: Plan, said: Collection[str] = ()) -> None:
    """Say how large the cells are taken to be, and what of the plan's notes is not said yet."""
    if planned.diameter:
        click.echo(f"  {planned.diameter.text}")
    for note in planned.notes:
        if note not in said:
            click.echo(f"  note: {note}")


def follow(going: Run, held: Claim | None = None) -> None:
    """Carry out a run, with a bar in a terminal and plain lines elsewhere."""
    steps = going.steps(held)
    if going.plan.undecided:
        said = going.plan.notes
        next(steps, None)  # decides it
        _print_diameter(going.plan, said)
    said_where = False
    with progress("tiles", going.plan.tiles) as show:
        for step in steps:
            if going.heartbeat.dashboard and not said_where:
                show(step.tiles, step.stage, f"workers: {going.heartbeat.dashboard}")
                said_where = True
            report = step.report
            line = None
            if report is not None and report.state == "failed":
                line = f"failed: {report.reason}"
            show(step.tiles, f"{step.image} {step.stage}".rstrip(), line)


def print_late_notes(going: Run, planned: Plan) -> None:
    """Say what turned out to be odd after all images were done."""
    late = [note for note in going.plan.remarks if note not in planned.remarks]
    for note in (*going.gathered.warnings, *late):
        click.echo(f"  note: {note}")


def print_summary(result: Result, seconds: float) -> None:
    """Say what was done and where it lies."""
    done = len(result.images) - len(result.failed)
    click.echo(
        f"{result.cells} cells in {done} of {len(result.images)} images, {seconds:.1f} s\n"
        f"  table     {result.cells_path}"
    )
    for what, where in result.kinds_of_places:
        click.echo(f"  {what:9} {where}")
    if result.report_path.is_file():
        click.echo(f"  report    {result.report_path}")
    for export in result.exports:
        if export.reason is None:
            click.echo(f"  {export.form:9} {export.output}")
    background = sum(report.background_tiles for report in result.images)
    if background:
        tiles = sum(report.tiles for report in result.images)
        click.echo(f"  {background} of {tiles} tiles show background only, and were left out")
    warned = [report for report in result.images if report.warnings]
    for report in warned[:SOME]:
        click.echo(f"  note: {report.name}: {'; '.join(report.warnings)}")
    for report in result.failed[:SOME]:
        click.echo(f"  failed: {report.name}: {report.reason}", err=True)
        for tile in report.tiles_set_aside[1:]:
            click.echo(f"    {tile.text}", err=True)
    for export in result.exports:
        if export.reason is not None:
            click.echo(f"  not exported: {export.form}: {export.reason}", err=True)
    more = max(len(warned) - SOME, 0) + max(len(result.failed) - SOME, 0)
    if more:
        click.echo(f"  and {more} more; see {result.folder / 'run.json'}", err=True)


def print_profile(going: Run) -> None:
    """Say what took how long, and where the trace lies."""
    if going.profile_table is not None:
        click.echo(f"\n{going.profile_table.text}")
        click.echo(f"trace for ui.perfetto.dev: {going.plan.results.profile_path}")
