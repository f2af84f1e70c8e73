"""The settings of gates and controls: which cells count as positive, which wells are controls."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cellseg.models.errors import CellsegError, nearest
from cellseg.models.settings import Frozen

__all__ = ["Controls", "Gates", "Rule", "check_columns", "parse"]

Comparison = Literal[">", ">=", "<", "<="]
OTSU = "otsu"
EXAMPLE = 'positive = "mean_DAPI > otsu"'
# From the right, as the name of a channel may hold anything.
RULE = re.compile(r"(?P<column>.*\S)\s*(?P<comparison>[<>]=?)\s*(?P<level>[^<>=\s]+)", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """A gate: which cells are positive.

    Parameters
    ----------
    text : str
        As the workflow has it.
    column : str
        Of the cell table.
    comparison : ">", ">=", "<" or "<="
        Of a cell's value with the threshold.
    number : float or None
        The threshold; None for one that follows from all cells of the run (Otsu).
    """

    text: str
    column: str
    comparison: Comparison
    number: float | None

    @property
    def method(self) -> Literal["otsu", "number"]:
        """Where the threshold comes from."""
        return "otsu" if self.number is None else "number"


def parse(text: str) -> Rule:
    """Read a rule, ``column > level``.

    Raises
    ------
    ValueError
        If it is none.
    """
    found = RULE.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            f"{json.dumps(text)} is no rule. Expected: a column of the cell table, >, >=, < or <=,"
            f" and a number or otsu, as in {EXAMPLE}."
        )
    level, number = found["level"], None
    if level != OTSU:
        try:
            number = float(level)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"{json.dumps(text)}: {level} is not a number, nor otsu.{nearest(level, [OTSU])}"
            )
    comparison: Any = found["comparison"]
    return Rule(text, found["column"], comparison, number)


def _check_gates(value: Any) -> Any:
    """Refuse a table of gates that has a bad name or rule."""
    if not isinstance(value, Mapping):
        raise ValueError(f"gates is not a table of names and rules, as in {EXAMPLE}.")  # noqa: TRY004 - pydantic
    for name, text in value.items():
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
            raise ValueError(
                f"{json.dumps(name)} is no name for a gate, which becomes a column. Allowed:"
                " letters, digits and _, not a digit first."
            )
        if not isinstance(text, str):
            raise ValueError(f"{name} is not text in quotes, as in {EXAMPLE}.")  # noqa: TRY004 - pydantic
        try:
            parse(text)
        except ValueError as error:
            raise ValueError(f"{name} = {error}") from None
    return value


Gates = Annotated[dict[str, str], BeforeValidator(_check_gates)]
"""`[gates]`: the rule of each gate by its name."""


def check_columns(gates: Mapping[str, str], columns: Mapping[str, bool]) -> None:
    """Refuse gates on columns that there are not, or with the name of one.

    Parameters
    ----------
    gates : dict of str to str
    columns : dict of str to bool
        Columns of the cell table, and whether each holds numbers.

    Raises
    ------
    CellsegError
        The nearest column first.
    """
    numbers = [name for name, numeric in columns.items() if numeric]
    for name, text in gates.items():
        if name in columns:
            raise CellsegError(
                f"[gates] {name}: the cell table has a column of that name. Give the gate another."
            )
        column = parse(text).column
        if column in numbers:
            continue
        fault = "does not hold numbers" if column in columns else "is no column of the cell table"
        raise CellsegError(
            f"[gates] {name} = {json.dumps(text)}: {json.dumps(column)} {fault}."
            f"{nearest(column, numbers)} Known: {', '.join(numbers)}."
        )


class Controls(Frozen):
    """`[controls]`: wells that others are compared with, by name or glob, ``plate/A01`` of one."""

    negative: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description='Wells of negative controls: names or globs ("A01", "B*", "plate/A01").',
    )
    positive: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description='Wells of positive controls: names or globs ("P24", "*23", "plate/P*").',
    )

    def kind(self, plate: str | None, well: str) -> Literal["negative", "positive"] | None:
        """Return what kind of control a well is; None if it is none."""
        if _any_matches(self.negative, plate, well):
            return "negative"
        return "positive" if _any_matches(self.positive, plate, well) else None

    def remarks(self, wells: Iterable[tuple[str | None, str]]) -> list[str]:
        """Return what is odd about the controls, given all wells (plate, well) of a run.

        Raises
        ------
        CellsegError
            If a well is a control of both kinds.
        """
        wells = list(dict.fromkeys(wells))
        for plate, well in wells:
            if _any_matches(self.negative, plate, well) and _any_matches(
                self.positive, plate, well
            ):
                raise CellsegError(
                    f"[controls]: well {well} is named as negative and as positive control."
                    " Leave it out of one of them."
                )
        names = [well for _, well in wells]
        return [
            f"[controls] {kind}: no well of this run is {json.dumps(pattern)}."
            f"{nearest(pattern, names)}"
            for kind, patterns in (("negative", self.negative), ("positive", self.positive))
            for pattern in patterns
            if not any(_any_matches([pattern], *each) for each in wells)
        ]


def _any_matches(patterns: Sequence[str], plate: str | None, well: str) -> bool:
    """Whether a well is meant by one of some names or globs."""
    for pattern in patterns:
        of_plate, slash, of_well = pattern.rpartition("/")
        if slash and not fnmatchcase(plate or "", of_plate):
            continue
        if fnmatchcase(well, of_well) or _padded(well) == _padded(of_well):
            return True
    return False


def _padded(well: str) -> tuple[str, int] | str:
    """Return row and column of a well, whose number may be written as 1 or 01."""
    found = re.fullmatch(r"([A-Za-z]{1,2})(\d+)", well)
    return well if found is None else (found[1].upper(), int(found[2]))
