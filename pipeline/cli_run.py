"""The commands that compute: run, its shards and their end, a look at inputs and at progress."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellseg.models import timing
from cellseg.models.errors import CellsegError
from cellseg.models.timing import recorded
from cellseg.pipeline.cli_options import (
    config_option,
    device_option,
    machine_options,
    settings_option,
)
from cellseg.pipeline.cli_said import (
    follow,
    print_late_notes,
    print_plan,
    print_profile,
    print_summary,
)

if TYPE_CHECKING:
    from cellseg.pipeline.config import Config
    from cellseg.pipeline.lock import Claim
    from cellseg.pipeline.plan import Plan
    from cellseg.pipeline.shard_records import Part
    from cellseg.pipeline.stages import Run


@click.command()
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
@click.option(
    "--profile",
    is_flag=True,
    help="Print what took how long, and write profile.txt and a trace, profile.json.",
)
@machine_options
@config_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    workflow: Path,
    images: tuple[str, ...],
    output: str | None,
    overrides: tuple[str, ...],
    *,
    dry_run: bool,
    fresh: bool,
    shard: str | None,
    profile: bool,
    config_path: Path | None,
    **machine: Any,
) -> None:
    """Run WORKFLOW, a TOML file, on its images or on each INPUT (file, folder or glob).

    What an earlier run of the same workflow has completed is not computed
    again, however it ended.

    Exit code 0: all done. 1: some images could not be done, or not be exported as
    the workflow asks; they are listed. 2: nothing was computed; one line says why.
    75: stopped by SIGTERM or SIGUSR1, as batch systems send them; the same command goes on.
    """
    from cellseg.pipeline.config import keep_freed_memory, read_config
    from cellseg.pipeline.shard_records import Part
    from cellseg.pipeline.workflow import read_workflow

    keep_freed_memory()
    part = None if shard is None else Part.read(shard)
    if part is not None and fresh:
        raise CellsegError(
            "--fresh with --shard: shards would forget what the others compute."
            " Remove the results folder first, or give another one by --output."
        )
    if part is not None and profile:
        raise CellsegError("--profile with --shard: a profile is of a run alone. Leave one out.")
    settings = read_workflow(workflow, overrides, images, output)
    config = read_config(config_path, **machine)
    with recorded(profile):
        with timing.part("plan"):
            from cellseg.pipeline.plan import plan
            from cellseg.pipeline.stages import Run

            planned = plan(settings, config, fresh=fresh)
        print_plan(planned)
        if dry_run:
            from cellseg.pipeline.estimate import estimate

            click.echo(estimate(planned, config).text())
        elif part is not None:
            _run_shard(planned, config, part)
        elif not _run_whole(Run(planned, config, fresh=fresh, profile=profile)):
            ctx.exit(1)


def _run_whole(going: Run, held: Claim | None = None) -> bool:
    """Carry out a run, and say what came of it; return whether all could be done."""
    planned = going.plan
    follow(going, held)
    result = going.result()
    print_summary(result, time.time() - going.started.timestamp())
    print_late_notes(going, planned)
    if going.profile_table is not None:
        print_profile(going)
    return not result.failed and not any(export.reason for export in result.exports)


def _run_shard(planned: Plan, config: Config, part: Part) -> None:
    """Do what no other shard does, and say what that was."""
    from cellseg.pipeline.shard import Shard

    going = Shard(planned, config, part)
    follow(going)
    seconds = time.time() - going.started.timestamp()
    click.echo(f"shard {part}: {going.summary}, {seconds:.1f} s")
    for name, report in going.reports.items():
        if report.state == "failed":
            click.echo(f"  failed: {name}: {report.reason}", err=True)
    click.echo(f"  once all shards have ended: cellseg finish {planned.results.folder}")


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--wait", is_flag=True, help="Wait for the shards that are at work to end.")
@machine_options
@config_option
@click.pass_context
def finish(
    ctx: click.Context,
    /,
    results: Path,
    *,
    wait: bool,
    config_path: Path | None,
    **machine: Any,
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
    config = read_config(config_path, **machine)
    from cellseg.pipeline.claims import have_died
    from cellseg.pipeline.lock import claim
    from cellseg.pipeline.plan import plan
    from cellseg.pipeline.stages import Run

    with claim(results, "cellseg finish", wait=wait) as held:
        if config.engine == "local" and have_died(results):
            # What kills processes must not kill this one: of others it is found, and set aside.
            config = config.model_copy(update={"workers": max(config.workers, 2)})
        planned = plan(settings, config)
        print_plan(planned)
        done = _run_whole(Run(planned, config), held)
    if not done:
        ctx.exit(1)


@click.command()
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
    print_plan(planned)
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


@click.command()
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


@click.command()
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
