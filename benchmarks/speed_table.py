"""The rows of the speed benchmark: what was timed, in Mpx and cells a second, against the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.floor import DENSE, Ceilings, Work
from benchmarks.machine import cores
from benchmarks.speed_parts import Sample, Timed
from benchmarks.speed_runs import START, Configuration, Ran, middle, middle_of_row, run_command
from benchmarks.speed_scenes import Input

COLUMNS = {
    "what": "what",
    "seconds": "s",
    "core_seconds": "s of a core",
    "mpx_s": "Mpx/s",
    "mpx_s_core": "Mpx/s a core",
    "cells_s": "cells/s",
    "times_floor": "x floor",
}
Row = dict[str, Any]


class Rows:
    """The rows of one input under one configuration.

    Parameters
    ----------
    given : Input
    configuration : Configuration
    """

    def __init__(self, given: Input, configuration: Configuration) -> None:
        self.about = {"input": given.name, "configuration": configuration.name}
        self.rows: list[Row] = []

    def add(
        self,
        what: str,
        timed: Timed,
        megapixels: float,
        cells: float,
        floor: Timed | None = None,
        *,
        by_clock: bool = True,
    ) -> None:
        """Add a row.

        Parameters
        ----------
        what : str
        timed : Timed
        megapixels, cells : float
            That it was done for.
        floor : Timed, optional
            The least that the network takes for these: on all cores, and on one.
        by_clock : bool
            Whether the time on the clock says something; of a part beside others it does not.
        """
        seconds, core_seconds = timed.seconds, timed.core_seconds
        least = None if floor is None else (floor.seconds if by_clock else floor.core_seconds)
        own = seconds if by_clock else core_seconds
        row = {
            **self.about,
            "what": what,
            "seconds": seconds if by_clock else None,
            "core_seconds": core_seconds,
            "megapixels": megapixels,
            "cells": cells,
            "mpx_s": _rate(megapixels, seconds) if by_clock else None,
            "mpx_s_core": _rate(megapixels, core_seconds),
            "cells_s": _rate(cells, own),
            "times_floor": None if not least else own / least,
        }
        self.rows.append(row)


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if amount and seconds > 0 else None


def floor_of(ceilings: Ceilings, work: Work, precision: str, *sections: str) -> Timed:
    """Return the least that some sections take, by default all: on all cores, and on one."""
    return Timed(*(ceilings.seconds(work, precision, n, *sections) for n in (cores(), 1)))


def rows_of_parts(
    rows: Rows, sample: Sample, work: Work, ceilings: Ceilings, precision: str, repeats: int
) -> None:
    """Time floor, network and tile on a sample of tiles."""
    about = sample.megapixels, sample.cells
    for name in ceilings.peaks:
        rows.add(f"floor, {name}", floor_of(ceilings, work, name), *about)
    least, dense = (floor_of(ceilings, work, precision, *s) for s in ((), DENSE))
    rows.add("network, dense part", sample.dense(repeats), *about, dense)
    rows.add("network", sample.network(repeats), *about, least)
    rows.add("tile", sample.whole(repeats), *about, least)
    for name, timed in sample.parts(repeats).items():
        rows.add(f"tile: {name}", timed, *about, by_clock=False)


def rows_of_runs(rows: Rows, runs: Sequence[Ran], given: Input, floor: Timed | None) -> None:
    """Add whole runs and their stages; `floor` is the network's for all tiles that it saw."""
    about = given.megapixels, runs[0].profile["cells"]
    paths = dict.fromkeys(row["path"] for run in runs for row in run.profile["rows"])
    for path in paths:
        timed = Timed(0.0, middle_of_row(runs, path, "core_seconds"))
        rated = (0.0, 0.0) if path.split("/")[0] in START else about
        rows.add(f"run: {path}", timed, *rated, by_clock=False)
    later = Timed(middle(runs, "later_seconds"), middle(runs, "later_core_seconds"))
    rows.add("run without start-up", later, *about, floor)
    whole = Timed(middle(runs, "seconds"), middle(runs, "core_seconds"))
    rows.add("run", whole, *about, floor)


def facts_of_runs(given: Input, configuration: Configuration, runs: Sequence[Ran]) -> Row:
    """Return what else is known of whole runs."""
    share = middle(runs, "network_share")
    return {
        "input": given.name,
        "configuration": configuration.name,
        "megapixels": round(given.megapixels, 3),
        "cells": runs[0].profile["cells"],
        "images": given.fields,
        "start_seconds": middle(runs, "start_seconds"),
        "images_s": given.fields / max(middle(runs, "later_seconds"), 1e-9),
        "network_share": share,
        "all_else_share": 1 - share,
        "peak_mb": middle(runs, "peak_mb"),
        "tiles": middle_of_row(runs, "segment", "units"),
        "tiles_computed": middle_of_row(runs, "segment/model", "units"),
    }


def run_often(
    given: Input, configuration: Configuration, repeats: int, folder: Path, model: str = "mask_rcnn"
) -> list[Ran]:
    """Run the command line some times."""
    return [run_command(given, model, configuration, folder) for _ in range(repeats)]


def plain(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return rows as columns of text, of each of `columns` its name and its title."""
    cells = [list(columns.values())]
    cells += [[_shown(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in cells
    )


def markdown(document: Mapping[str, Any]) -> str:
    """Return what was timed as a whole, and all but the parts, as tables of a guide."""
    whole = [row for row in document.get("rows", ()) if ": " not in row["what"]]
    titles = {"input": "input", "configuration": "configuration"} | COLUMNS
    tables = {"Speed": (whole, titles)}
    for name in ("facts", "growth", "agreement", "accuracy"):
        rows = document.get(name, ())
        tables[name.capitalize()] = rows, {key: key for row in rows[:1] for key in row}
    return "\n".join(_table(title, *each) for title, each in tables.items() if each[0])


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[_shown(row.get(name)) for name in columns] for row in rows]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(value: object) -> str:
    """Return a value as text, a number with three digits or so."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
