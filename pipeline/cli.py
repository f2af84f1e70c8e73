"""The command `cellseg`: parses, calls, prints; nothing else."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellseg.models.errors import CellsegError
from cellseg.pipeline.export import HELP
from cellseg.pipeline.progress import progress
from cellseg.pipeline.stopping import CONTINUE, Stopped, heeding

if TYPE_CHECKING:
    from cellseg.pipeline.config import Config
    from cellseg.pipeline.lock import Claim
    from cellseg.pipeline.plan import Plan
    from cellseg.pipeline.result import Result
    from cellseg.pipeline.review.apply import ApplyEdits
    from cellseg.pipeline.shard_records import Part
    from cellseg.pipeline.stages import Run

SOME = 10


class OneLine(click.Group):
    """A group whose commands end in one line, whatever the user's mistake was."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit code 2 for what the user can mend, 1 for a machine that cannot.

        And 75 where SIGTERM or SIGUSR1 has stopped it: the same command goes on.
        """
        try:
            with heeding():
                return super().invoke(ctx)
        except CellsegError as error:
            click.echo(f"cellseg: {error}", err=True)
            ctx.exit(2)
        except OSError as error:
            where = error.filename or "the results folder"
            click.echo(
                f"cellseg: {where}: {error.strerror or error}."
                " Mend that, and the same command goes on from here.",
                err=True,
            )
            ctx.exit(1)
        except Stopped as stopped:
            click.echo(f"cellseg: {stopped}. The same command goes on from here.", err=True)
            ctx.exit(CONTINUE)
        except KeyboardInterrupt:
            click.echo("cellseg: stopped. The same command goes on from here.", err=True)
            ctx.exit(130)


settings_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Set a key of the file, as in --set tiling.size=512; may be repeated.",
)
config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="How this machine computes. Default: config.toml here, if there is one.",
)
workers_option = click.option("--workers", type=int, help="Workers that segment.")
engine_option = click.option(
    "--engine",
    help="Where workers are: local, slurm, pbs, lsf, sge, or the address of a dask scheduler.",
)
device_option = click.option("--device", help='"auto", "cpu", "cuda" or "cuda:N".')


@click.group(cls=OneLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cellseg")
def main() -> None:
    """Segment the cells of slides and plates: labels, a table with a row a cell, and a picture.

    Start with `cellseg run workflows/quickstart.toml`.
    """


@main.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, metavar="[INPUT]...")
@click.option("-o", "--output", help="Folder of the results, in place of the workflow's.")
@settings_option
@click.option("--dry-run", is_flag=True, help="Print what would be done, and compute nothing.")
@click.option("--fresh", is_flag=True, help="Forget what an earlier run has computed.")
@click.option(
    "--shard",
    metavar="K/N",
    help="Be one of N processes, on any machines, that do the images between them; they agree by"
    " files in the results. `cellseg finish` then gathers.",
)
@workers_option
@engine_option
@device_option
@config_option
@click.pass_context
def run(
    ctx: click.Context,
    workflow: Path,
    images: tuple[str, ...],
    output: str | None,
    overrides: tuple[str, ...],
    *,
    dry_run: bool,
    fresh: bool,
    shard: str | None,
    workers: int | None,
    engine: str | None,
    device: str | None,
    config_path: Path | None,
) -> None:
    """Run WORKFLOW, a TOML file, on its images or on each INPUT (file, folder or glob).

    What an earlier run of the same workflow has completed is not computed
    again, however it ended.

    Exit code 0: all done. 1: some images could not be done, or not be exported as
    the workflow asks; they are listed. 2: nothing was computed; one line says why.
    75: stopped by SIGTERM or SIGUSR1, as batch systems send them; the same command goes on.
    """
    from cellseg.pipeline.config import read_config
    from cellseg.pipeline.shard_records import Part
    from cellseg.pipeline.workflow import read_workflow

    part = None if shard is None else Part.read(shard)
    if part is not None and fresh:
        raise CellsegError(
            "--fresh with --shard: shards would forget what the others compute."
            " Remove the results folder first, or give another one by --output."
        )
    settings = read_workflow(workflow, overrides, images, output)
    config = read_config(config_path, workers=workers, engine=engine, device=device)
    from cellseg.pipeline.plan import plan
    from cellseg.pipeline.stages import Run

    planned = plan(settings, config, fresh=fresh)
    _print_plan(planned)
    if dry_run:
        from cellseg.pipeline.estimate import estimate

        click.echo(estimate(planned, config).text())
        return
    if part is not None:
        _run_shard(planned, config, part)
    elif not _run_whole(Run(planned, config, fresh=fresh)):
        ctx.exit(1)


def _run_whole(going: Run, held: Claim | None = None) -> bool:
    """Carry out a run, and say what came of it; return whether all could be done."""
    planned = going.plan
    _follow(going, held)
    result = going.result()
    _print_summary(result, time.time() - going.started.timestamp())
    _print_late_notes(going, planned)
    return not result.failed and not any(export.reason for export in result.exports)


def _run_shard(planned: Plan, config: Config, part: Part) -> None:
    """Do what no other shard does, and say what that was."""
    from cellseg.pipeline.shard import Shard

    going = Shard(planned, config, part)
    _follow(going)
    seconds = time.time() - going.started.timestamp()
    click.echo(f"shard {part}: {going.summary}, {seconds:.1f} s")
    for name, report in going.reports.items():
        if report.state == "failed":
            click.echo(f"  failed: {name}: {report.reason}", err=True)
    click.echo(f"  once all shards have ended: cellseg finish {planned.results.folder}")


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--wait", is_flag=True, help="Wait for the shards that are at work to end.")
@workers_option
@engine_option
@device_option
@config_option
@click.pass_context
def finish(
    ctx: click.Context,
    results: Path,
    *,
    wait: bool,
    workers: int | None,
    engine: str | None,
    device: str | None,
    config_path: Path | None,
) -> None:
    """Finish RESULTS, on which shards have worked: what they left undone, tables and report.

    It is what `cellseg run RESULTS/workflow.toml` does. While a shard is at work it refuses,
    and says which one.

    Exit codes are those of `cellseg run`.
    """
    from cellseg.pipeline.config import read_config
    from cellseg.pipeline.workflow import read_workflow

    if not (results / "workflow.toml").is_file():
        raise CellsegError(
            f"{results}: no shard has worked there: it has no workflow.toml."
            " Give the output folder of `cellseg run --shard`."
        )
    settings = read_workflow(results / "workflow.toml", output=results)
    config = read_config(config_path, workers=workers, engine=engine, device=device)
    from cellseg.pipeline.lock import claim
    from cellseg.pipeline.plan import plan
    from cellseg.pipeline.stages import Run

    with claim(results, "cellseg finish", wait=wait) as held:
        planned = plan(settings, config)
        _print_plan(planned)
        done = _run_whole(Run(planned, config), held)
    if not done:
        ctx.exit(1)


@main.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, metavar="[INPUT]...")
@click.option("-o", "--output", help="Folder of the results, in place of the workflow's.")
@settings_option
@click.option("--jobs", type=click.IntRange(min=1), default=16, help="How many. Default: 16.")
@click.option("--partition", help="Partition of SLURM.")
@click.option("--account", help="Account that pays.")
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs of each job.")
@click.option("--cpus", type=click.IntRange(min=1), help="Cores of each job.")
@click.option("--time", "walltime", help="Time of each job, as 02:00:00. Default: as estimated.")
@click.option("--memory", help="Memory of each job, as 8G. Default: as estimated.")
@click.option(
    "--sbatch",
    "more",
    multiple=True,
    metavar="OPTION",
    help='A further option of sbatch, as --sbatch "--exclude=node7"; may be repeated.',
)
@click.option("--print", "only_print", is_flag=True, help="Print the scripts, and submit nothing.")
@click.option("--workers", type=int, help="Workers in each job.")
@device_option
@config_option
def submit(
    workflow: Path,
    images: tuple[str, ...],
    output: str | None,
    overrides: tuple[str, ...],
    *,
    jobs: int,
    partition: str | None,
    account: str | None,
    gpus: int | None,
    cpus: int | None,
    walltime: str | None,
    memory: str | None,
    more: tuple[str, ...],
    only_print: bool,
    workers: int | None,
    device: str | None,
    config_path: Path | None,
) -> None:
    """Submit WORKFLOW to SLURM: an array of jobs that share it out, and one that finishes it.

    Each job is a `cellseg run --shard`. One whose time ends before its work is queued again;
    what a killed one had is done by others. What is not said here is taken from [cluster] of
    the configuration, time and memory else from a window that is segmented here and now.
    """
    from cellseg.pipeline.config import DEFAULT_FILE, read_config
    from cellseg.pipeline.workflow import read_workflow

    settings = read_workflow(workflow, overrides, images, output)
    config = read_config(config_path, workers=workers, device=device)
    from cellseg.pipeline.lock import claim
    from cellseg.pipeline.plan import plan
    from cellseg.pipeline.submit import Asked, submission

    on_gpu = gpus if gpus is not None else config.cluster.gpus
    # The machine where jobs are submitted need not have what they are to run on.
    planned = plan(settings, config.model_copy(update={"device": "cpu"} if on_gpu else {}))
    asked = Asked(jobs, partition, account, gpus, cpus, walltime, memory, more)
    found = config_path or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    scripts = submission(planned, config, asked, found)
    if only_print:
        click.echo(f"{scripts.array}\n{scripts.finish}", nl=False)
        return
    _print_plan(planned)
    planned.results.folder.mkdir(parents=True, exist_ok=True)
    with claim(planned.results.folder, "cellseg submit"):
        planned.results.write_workflow(planned.workflow.toml())
        scripts.write()
        array, last = scripts.submit()
    count = f"{scripts.jobs} job{'s' * (scripts.jobs != 1)}"
    click.echo(
        f"submitted: {count} as array {array}, then {last} to finish\n"
        f"  watch     cellseg status {planned.results.folder}; squeue --jobs={array},{last}\n"
        f"  output    {scripts.folder}\n"
        f"  cancel    scancel {array} {last}"
    )


@main.command()
@click.argument("inputs", nargs=-1, required=True, metavar="PATH...")
@click.option("--pattern", help="How file names are read, in place of the preset that fits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of text.")
@click.pass_context
def inspect(
    ctx: click.Context, inputs: tuple[str, ...], pattern: str | None, *, as_json: bool
) -> None:
    """Print what the images of PATH are understood to be; nothing is computed.

    PATH is a file, a folder, a glob or a workflow. Shown are plates, wells, fields,
    channels, shapes and pixel sizes, files that are left over, and what is wrong.

    Exit code 1: some images cannot be used; they are listed.
    """
    from cellseg.pipeline.survey import survey

    found = survey(inputs, pattern)
    if as_json:
        import json

        click.echo(json.dumps(found.document, indent=2))
    else:
        click.echo(found.text)
    if found.problems:
        ctx.exit(1)


def _print_plan(planned: Plan) -> None:
    """Say what will be done."""
    model = " ".join(str(planned.model[key]) for key in ("name", "weights") if key in planned.model)
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


def _follow(going: Run, held: Claim | None = None) -> None:
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


def _print_late_notes(going: Run, planned: Plan) -> None:
    """Say what turned out to be odd after all images were done."""
    late = [note for note in going.plan.remarks if note not in planned.remarks]
    for note in (*going.gathered.warnings, *late):
        click.echo(f"  note: {note}")


def _print_summary(result: Result, seconds: float) -> None:
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


@main.command()
@click.argument("training", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "start",
    metavar="WEIGHTS",
    help="Start from these weights, a shipped name (`cellseg models`) or a .safetensors file,"
    " in place of random ones.",
)
@settings_option
@click.option("--fresh", is_flag=True, help="Start anew instead of going on from a checkpoint.")
@device_option
@config_option
def train(
    training: Path,
    overrides: tuple[str, ...],
    *,
    start: str | None,
    fresh: bool,
    device: str | None,
    config_path: Path | None,
) -> None:
    """Train a model; goes on from its checkpoint if there is one.

    TRAINING is a TOML file (see workflows/train.toml), or, with --from, a folder
    with your own images in `images` and their label images, of the same names,
    in `labels`: a few minutes adapt the weights to them.
    """
    from cellseg.pipeline.config import read_config
    from cellseg.pipeline.training import read_fine_tuning, read_training

    if training.is_dir():
        settings = read_fine_tuning(training, start, overrides)
    else:
        settings = read_training(training, overrides, start)
    config = read_config(config_path, device=device)
    from cellseg.pipeline.learn import Learning

    learning = Learning(settings, config, fresh=fresh)
    click.echo(learning.describe())
    with progress("steps", settings.steps) as show:
        for step in learning.steps():
            show(step.count, step.losses_text, step.validation_text)
    if (outcome := learning.outcome) is not None:
        click.echo(outcome)
    click.echo(
        f"weights   {learning.weights_path}\nlog       {learning.curve.csv_path}"
        f"\ncurve     {learning.curve.picture_path}"
    )


@main.command(name="import")
@click.argument("annotations", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="The annotated images: a folder or one image. Default: where ANNOTATIONS are.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the training set, for cellseg train --from.",
)
@click.option(
    "--classes",
    metavar="NAME,NAME...",
    help="Take only cells that are called so; with several, each is a class, in this order.",
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="CHANNEL",
    help="Keep this channel of the images, by index or name; may be repeated. Default: all.",
)
@click.pass_context
def import_(
    ctx: click.Context,
    annotations: Path,
    *,
    images: Path | None,
    output: Path,
    classes: str | None,
    channels: tuple[str, ...],
) -> None:
    """Make a training set of ANNOTATIONS: a file, or a folder of files.

    labelme, COCO, GeoJSON of QuPath, ImageJ's ROIs (.zip, .roi), label images or
    stacks of masks. What gives no cell is listed with its reason, all of it in
    report.txt of the training set.

    Exit code 1: something was skipped.
    """
    from cellseg.pipeline.imported import Import

    beside = annotations if annotations.is_dir() else annotations.parent
    names = [name.strip() for name in (classes or "").split(",") if name.strip()]
    wanted = [int(channel) if channel.isdigit() else channel for channel in channels]
    going = Import(annotations, images or beside, output, names, wanted)
    with progress("images", len(going.pairs)) as show:
        for done, name in enumerate(going.steps(), 1):
            show(done, name, None)
    first, *_ = going.report
    click.echo(first)
    for line in [str(each) for each in going.skipped][:SOME]:
        click.echo(f"  skipped: {line}", err=True)
    if len(going.skipped) > SOME:
        where = going.set.folder / "report.txt"
        click.echo(f"  and {len(going.skipped) - SOME} more; see {where}", err=True)
    if going.skipped:
        ctx.exit(1)


@main.command()
@click.argument("labels", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option(
    "--names",
    type=click.Path(path_type=Path),
    help="A text file with the images' names, one a line.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def evaluate(labels: Path, truth: Path, names: Path | None, *, as_json: bool) -> None:
    """Compare LABELS with TRUTH: label images, folders of them, or a results folder.

    AP is TP / (TP + FP + FN) over all cells, at IoU 0.5 to 0.9; files of the
    same name belong together.

    Where cells overlap, give either side as a TIFF stack with a plane for each
    cell, as a COCO file, or as label layers. A second table then shows the
    recall of true cells by the share of their area that others cover.
    """
    import json

    from cellseg.pipeline.evaluate import evaluate_paths

    chosen = names.read_text(encoding="utf-8").splitlines() if names else None
    found = evaluate_paths(labels, truth, names=chosen)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2))
        return
    click.echo(found.text)
    for side, names_left in (("LABELS", found.unpaired_labels), ("TRUTH", found.unpaired_truth)):
        for name in names_left[:SOME]:
            click.echo(f"  only in {side}: {name}", err=True)


@main.command()
@click.argument("results_a", type=click.Path(path_type=Path))
@click.argument("results_b", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The table: .parquet or .csv. Default: RESULTS_B/differences.parquet.",
)
def compare(results_a: Path, results_b: Path, output: Path | None) -> None:
    """Find the cells in which RESULTS_A and RESULTS_B, of the same images, differ.

    The table has a row for each: cells only in one, split, merged, or of another
    outline, with their place; the review queue shows it. Label images or folders
    of them will do as well, with --output.
    """
    from cellseg.pipeline.differences import Comparison, differences_path

    if output is None and not (results_b / "run.json").is_file():
        raise CellsegError(f"{results_b}: no results folder. Say by --output where the table goes.")
    going = Comparison(results_a, results_b)
    with progress("images", len(going.names)) as show:
        for done, name in enumerate(going.steps(), 1):
            show(done, name, None)
    found = going.result()
    path = output or differences_path(results_b)
    found.write(path)
    images = len(going.names)
    click.echo(f"A {results_a}, B {results_b}: {images} image{'s' * (images != 1)}\n{found.text}")
    for name in found.unpaired[:SOME]:
        click.echo(f"  only in one: {name}", err=True)
    click.echo(f"  table     {path}")


@main.command()
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
    _print_summary(going.result(), time.time() - going.started.timestamp())
    _print_late_notes(going, planned)
    return not going.unmeasured


@main.command()
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


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of text.")
def status(results: Path, *, as_json: bool) -> None:
    """Print how far the run of RESULTS is: done, running, failed and why, time left.

    From any terminal or machine that sees the folder.
    """
    import json

    from cellseg.pipeline.shard_status import shards_status
    from cellseg.pipeline.status import read_status

    found = shards_status(results) or read_status(results)
    click.echo(json.dumps(found.document, indent=2) if as_json else found.text)


@main.command()
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


@main.command(help=HELP)
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


@main.command()
@click.argument("results", type=click.Path(path_type=Path))
def report(results: Path) -> None:
    """Write report.html of RESULTS, the folder of a run, anew.

    One page to read offline and to hand on: what came out, what to look at, heat maps of
    plates, distributions, sample cells, times. A run writes it at its end; do it again
    where tables or pictures of the folder have changed.
    """
    from cellseg.pipeline.report import write_report

    click.echo(write_report(results))


@main.command()
def models() -> None:
    """List the models and the weights that come with cellseg."""
    from cellseg.models import MODELS
    from cellseg.models.weights import read_card, shipped

    click.echo("Models ([model] name):")
    for name, model in MODELS.items():
        click.echo(f"  {name:16} {model.summary}")
    click.echo("Weights ([model] weights):")
    for name, path in shipped().items():
        card = read_card(path)
        accuracy = ", ".join(f"{key} {value:.3f}" for key, value in card.accuracy.items())
        click.echo(f"  {name:16} {card.architecture}, cells about {card.diameter_px:.0f} px across")
        click.echo(f"  {'':16} data: {card.data} ({card.data_licence})")
        click.echo(f"  {'':16} measured: {accuracy}")
