"""The commands on results: measure again, correct, review, export, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellseg.models.errors import CellsegError
from cellseg.pipeline.cli_options import config_option
from cellseg.pipeline.cli_said import print_late_notes, print_summary
from cellseg.pipeline.export import HELP
from cellseg.pipeline.progress import progress

if TYPE_CHECKING:
    from cellseg.pipeline.config import Config
    from cellseg.pipeline.lock import Claim
    from cellseg.pipeline.review.apply import ApplyEdits


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Set a key of [measure], [gates], [controls] or [output], or pixel_size_um; may be"
    " repeated. All else stays as RESULTS/workflow.toml has it.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Corrected label images, called as the images are: a file, a folder or other results."
    " They take the place of those in RESULTS; ids stay.",
)
@click.option("--workers", type=int, help="Processes that measure.")
@config_option
@click.pass_context
def measure(
    ctx: click.Context,
    results: Path,
    overrides: tuple[str, ...],
    *,
    labels: Path | None,
    workers: int | None,
    config_path: Path | None,
) -> None:
    """Measure the cells of RESULTS again, as its label images show them now.

    Other measurements, channels or gates, or labels that were corrected in napari or
    elsewhere: tables, pictures and report are written anew. Edits in the logs of images are
    carried out first. Nothing is segmented, and `cellseg run` keeps the corrected labels.

    Exit code 1: some images could not be measured again; their rows are as before.
    """
    from cellseg.pipeline.config import read_config
    from cellseg.pipeline.review.apply import ApplyEdits

    going = ApplyEdits(results, read_config(config_path, workers=workers), overrides, labels)
    images = len(going.kept)
    click.echo(f"{images} image{'s' * (images != 1)} to measure in {results}")
    if pending := sum(going.pending.values()):
        click.echo(f"  {pending} edit{'s' * (pending != 1)} to apply first")
    if not _measure(going, images):
        ctx.exit(1)


def _measure(going: ApplyEdits, images: int, held: Claim | None = None) -> bool:
    """Measure again, with a bar; return whether all that was to be measured could be."""
    planned = going.plan
    with progress("images", images) as show:
        for step in going.steps(held):
            show(len(going.reports), f"{step.image} {step.stage}".rstrip(), None)
    print_summary(going.result(), time.time() - going.started.timestamp())
    print_late_notes(going, planned)
    return not going.unmeasured


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option(
    "--apply",
    "logs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A log of edits, the edits.jsonl of an image; more may follow.",
)
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@click.option("--workers", type=int, help="Processes that measure.")
@config_option
@click.pass_context
def edit(
    ctx: click.Context,
    results: Path,
    more: tuple[Path, ...],
    *,
    logs: tuple[Path, ...],
    dry_run: bool,
    workers: int | None,
    config_path: Path | None,
) -> None:
    """Correct the cells of RESULTS as logs of edits say, and measure those images again.

    Logs of several reviewers are merged, with each other and with the edits that RESULTS
    have. Edits of the same cell that differ are conflicts: they are listed and left out; those
    that RESULTS have stay. Without --apply, the edits that were made in napari are applied.

    Exit code 1: conflicts, or images that could not be measured again. 2: nothing was
    changed; one line says why.
    """
    from cellseg.pipeline.config import read_config
    from cellseg.pipeline.lock import claim
    from cellseg.pipeline.results import Results

    config = read_config(config_path, workers=workers)
    Results(results).read_run()
    with nullcontext() if dry_run else claim(results, "cellseg edit") as held:
        if not _edit(results, (*logs, *more), config, held):
            ctx.exit(1)


def _edit(results: Path, logs: Sequence[Path], config: Config, held: Claim | None) -> bool:
    """Take logs and apply them, or only list them; return whether nothing was left out."""
    from cellseg.pipeline.review.edits import ApplyEdits, pending_edits, plan_taking

    taking = plan_taking(results, logs)
    for image in taking:
        for each in image.edits:
            click.echo(f"{image.editor.image}: {each.text} ({each.who})")
        for conflict in image.conflicts:
            click.echo(f"  conflict, left out: {image.editor.image}: {conflict.text}", err=True)
    pending = pending_edits(results)
    for name, count in pending.items():
        click.echo(f"{name}: {count} edit{'s' * (count != 1)} made before, not applied yet")
    if held is not None:
        for image in taking:
            image.record()
        pending = pending_edits(results)
    done = True
    if pending and held is not None:
        done = _measure(ApplyEdits(results, config, images=pending), len(pending), held)
    elif not any(image.edits for image in taking) and not pending:
        click.echo("no edits to apply")
    return done and not any(image.conflicts for image in taking)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--image", help="Name of the image to open first. Default: the first one.")
def review(results: Path, image: str | None) -> None:
    """Open RESULTS in napari: look at the cells, correct them, keep every correction.

    RESULTS is the folder of a run, or a plate.zarr. Needs pip install "cellseg[review]".
    """
    try:
        from cellseg.pipeline.review.widget import open_window
    except ImportError as error:
        if (error.name or "").startswith("cellseg"):
            raise
        missing = 'review needs napari. Install it: pip install "cellseg[review]"'
        raise CellsegError(missing) from None
    open_window(results, image)


@click.command(help=HELP)
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--to", "form", required=True, metavar="FORMAT", help="One of those above.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File or folder to write. Default: in RESULTS, named as above.",
)
@click.option(
    "--fields",
    type=click.Choice(["corrected", "reviewed", "done"]),
    help="With --to training: which images. Default: those with corrected cells.",
)
@click.option(
    "--size",
    type=click.IntRange(min=64),
    help="With --to training: of larger images crops of this side, around corrected cells, in px"
    " as the model sees them. Default: 1024.",
)
def export(
    results: Path, form: str, output: Path | None, fields: str | None, size: int | None
) -> None:
    """Write the cells of RESULTS, the folder of a run, for other programs."""
    from cellseg.pipeline.export import Export

    options: dict[str, Any] = {"fields": fields, "size": size}
    going = Export(results, form, output, **{k: v for k, v in options.items() if v is not None})
    with progress("images", len(going.images)) as show:
        for done, name in enumerate(going.steps(), 1):
            show(done, name, None)
    images = len(going.images)
    click.echo(f"{images} image{'s' * (images != 1)} in {going.output}")


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
def report(results: Path) -> None:
    """Write report.html of RESULTS, the folder of a run, anew.

    One page to read offline and to hand on: what came out, what to look at, heat maps of
    plates, distributions, sample cells, times. A run writes it at its end; do it again
    where tables or pictures of the folder have changed.
    """
    from cellseg.pipeline.report import write_report

    click.echo(write_report(results))
