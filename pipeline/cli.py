"""The command `cellseg`: parses, calls, prints; nothing else."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cellseg.models.errors import CellsegError
from cellseg.pipeline.cli_learn import compare, evaluate, import_, models, train
from cellseg.pipeline.cli_results import edit, export, measure, report, review
from cellseg.pipeline.cli_run import finish, inspect, run, status, submit
from cellseg.pipeline.stopping import CONTINUE, Stopped, heeding


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
            click.echo(f"cellseg: {stopped}. {_goes_on()}", err=True)
            ctx.exit(CONTINUE)
        except KeyboardInterrupt:
            click.echo(f"cellseg: stopped. {_goes_on()}", err=True)
            ctx.exit(130)


def _goes_on() -> str:
    """Say which command goes on with what was stopped."""
    fresh = ", without --fresh," if "--fresh" in sys.argv else ""
    return f"The same command{fresh} goes on from here."


@click.group(cls=OneLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cellseg")
def main() -> None:
    """Segment the cells of slides and plates: labels, a table with a row a cell, and a picture.

    Start with `cellseg run workflows/quickstart.toml`.
    """


for _command in (
    compare,
    edit,
    evaluate,
    export,
    finish,
    import_,
    inspect,
    measure,
    models,
    report,
    review,
    run,
    status,
    submit,
    train,
):
    main.add_command(_command)


def command() -> None:
    """Run `main` as a program of its own, which ends at once when all is said.

    To tidy up what torch and a gigabyte of tiles have left in memory takes a second
    behind the last line. A window still tidies up after itself.
    """
    try:
        main()
    except SystemExit as end:
        if "torch" not in sys.modules or "qtpy" in sys.modules or isinstance(end.code, str):
            raise
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(end.code or 0)
