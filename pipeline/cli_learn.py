"""The commands about models: train, import annotations, evaluate, compare, list."""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.models.errors import CellsegError
from cellseg.pipeline.cli_options import config_option, device_option, settings_option
from cellseg.pipeline.cli_said import SOME
from cellseg.pipeline.progress import progress


@click.command()
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


@click.command(name="import")
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


@click.command()
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


@click.command()
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


@click.command()
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
