"""The table of a profile: what each stage of a run took, and each part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["ProfileTable", "Row", "plain"]

LEAST = 0.01
"""Part of a stage from which on what lies in none of its parts is a row of its own."""
OTHER = "other"
HEAD = ("stage", "units", "seconds", "of a core", "share", "Mpx/s", "cells/s")


@dataclass(frozen=True)
class Row:
    """A stage, or a part of one.

    Parameters
    ----------
    path : tuple of str
        Its name, behind those of the stage and the parts that it lies in.
    units : int
        How often it was done.
    seconds : float
        Summed over all threads of all processes.
    core_seconds : float
        In which a core computed; less where it waited, more where several helped.
    megapixels, cells : float
        Of the images, or the parts of them, of which the stage was done.
    """

    path: tuple[str, ...]
    units: int
    seconds: float
    core_seconds: float
    megapixels: float = 0.0
    cells: float = 0.0


@dataclass(frozen=True)
class ProfileTable:
    """What a run took.

    Parameters
    ----------
    rows : tuple of Row
        In the order in which those that lie in the same are shown.
    wall_seconds : float
        From the start of the command.
    start_seconds : float or None
        Until a tile was computed; None where none was.
    megapixels, cells : float, int
        That were segmented.
    processes : int
    """

    rows: tuple[Row, ...]
    wall_seconds: float
    start_seconds: float | None
    megapixels: float
    cells: int
    processes: int = 1

    @property
    def core_seconds(self) -> float:
        """Seconds of a core of all stages."""
        return sum(row.core_seconds for row in self.rows if len(row.path) == 1)

    @cached_property
    def whole(self) -> tuple[Row, ...]:
        """The rows, and for each with parts one of what lies in none of them."""
        return tuple(self._below_path(()))

    def _below_path(self, path: tuple[str, ...]) -> list[Row]:
        """Return what lies in a path, each row before its own parts, and last what is in none."""
        parts = [row for row in self.rows if row.path[:-1] == path]
        found = [each for row in parts for each in (row, *self._below_path(row.path))]
        row = next((row for row in self.rows if row.path == path), None)
        if row is not None and parts:
            rest = self._rest(row, parts)
            found += [rest] if rest.seconds >= LEAST * row.seconds else []
        return found

    @staticmethod
    def _rest(row: Row, parts: Sequence[Row]) -> Row:
        seconds = max(row.seconds - sum(each.seconds for each in parts), 0.0)
        core_seconds = max(row.core_seconds - sum(each.core_seconds for each in parts), 0.0)
        rest = (*row.path, OTHER)
        return Row(rest, row.units, seconds, core_seconds, row.megapixels, row.cells)

    @property
    def document(self) -> dict[str, Any]:
        """The same for JSON: ``rows``, each with its ``path``, and the numbers below them."""
        return {
            "rows": [self._of(row) for row in self.whole],
            "start_seconds": _rounded(self.start_seconds),
            "wall_seconds": _rounded(self.wall_seconds),
            "core_seconds": _rounded(self.core_seconds),
            "megapixels": _rounded(self.megapixels),
            "cells": self.cells,
            "processes": self.processes,
        }

    def _of(self, row: Row) -> dict[str, Any]:
        return {
            "path": "/".join(row.path),
            "units": row.units,
            "seconds": _rounded(row.seconds),
            "core_seconds": _rounded(row.core_seconds),
            "share": _rounded(self._share(row)),
            "mpx_s": _rounded(_rate(row.megapixels, row.core_seconds)),
            "cells_s": _rounded(_rate(row.cells, row.core_seconds)),
        }

    def _share(self, row: Row) -> float:
        return row.core_seconds / max(self.core_seconds, 1e-9)

    @property
    def text(self) -> str:
        """The table, and below it what the whole command took."""
        lines = [HEAD, *(self._line(row) for row in self.whole)]
        return "\n".join([plain(lines), *self._below])

    def _line(self, row: Row) -> tuple[str, ...]:
        return (
            "  " * (len(row.path) - 1) + row.path[-1],
            str(row.units),
            f"{row.seconds:.2f}",
            f"{row.core_seconds:.2f}",
            f"{self._share(row):.1%}",
            _shown(_rate(row.megapixels, row.core_seconds)),
            _shown(_rate(row.cells, row.core_seconds)),
        )

    @property
    def _below(self) -> list[str]:
        wall, start = self.wall_seconds, self.start_seconds
        busy = self.core_seconds / max(wall, 1e-9)
        lines = [f"wall time {wall:.2f} s, {busy:.2f} cores at work on average"]
        if self.processes > 1:
            lines[0] += f", {self.processes} processes"
        if start is None:
            return [*lines, "no tile was computed"]
        after = max(wall - start, 1e-9)
        mpx, cells = _shown(self.megapixels / after), _shown(self.cells / after)
        return [
            *lines,
            f"start-up {start:.2f} s until the first tile is computed;"
            f" from then on {mpx} Mpx/s, {cells} cells/s",
        ]


def _rate(amount: float, seconds: float) -> float | None:
    """Return how much a second; None of nothing."""
    return amount / seconds if amount and seconds else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def plain(lines: Sequence[Sequence[str]]) -> str:
    """Return rows of text in columns, the first one from the left, the others from the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )
