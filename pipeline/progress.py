"""Progress: how far the work of a command is, as a bar in a terminal and plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["progress"]

PLAIN_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


@contextmanager
def progress(unit: str, total: int) -> Iterator[Callable[[int, str, str | None], None]]:
    """Yield a function of (done, what, extra line) that shows how far the work is."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeLeft())
        with Progress(
            *columns, TextColumn("{task.description}"), console=Console(stderr=True)
        ) as bar:
            task = bar.add_task("", total=total)

            def show(done: int, what: str, line: str | None) -> None:
                bar.update(task, completed=done, description=what)
                if line:
                    bar.console.print(line, markup=False, highlight=False)

            yield show
        return
    start = last = time.monotonic()

    def tell(done: int, what: str, line: str | None) -> None:
        nonlocal last
        now = time.monotonic()
        if line:
            click.echo(line, err=True)
        if now - last >= PLAIN_SECONDS:
            click.echo(f"{done}/{total} {unit}, {now - start:.0f} s, {what}", err=True)
            last = now

    yield tell
