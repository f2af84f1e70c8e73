"""What the columns of the cell table are: measurements, gates, or what identifies a cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from cellseg.pipeline.table import FIRST, SIZES

UNITS = {
    "px": "px",
    "px2": "px^2",
    "um": "um",
    "um2": "um^2",
    "um3": "um^3",
    "deg": "degree",
    "rad": "radian",
}
GREY = re.compile(r"(edge_)?(mean|std|min|max|sum|median|mad|p\d+(p\d+)?)")
"""What is measured in grey levels of a channel."""


class Measurement(NamedTuple):
    """A column with a number for each cell.

    Parameters
    ----------
    name : str
    what : str
        The name without unit and channel: ``area`` of ``area_px``, ``mean`` of ``mean_DAPI``.
    unit : str
        Empty where it has none.
    channel : str
        Empty where it is of none.
    """

    name: str
    what: str
    unit: str
    channel: str


def measurements(schema: pa.Schema, channels: Iterable[str] = ()) -> list[Measurement]:
    """Return the measurements of a table, in its order: all numbers that identify nothing.

    Parameters
    ----------
    schema : Schema
    channels : iterable of str
        Names of channels, beside those that the columns ``mean_...`` tell.
    """
    known = {name.removeprefix("mean_") for name in schema.names if name.startswith("mean_")}
    # The longest first, so that `a_b` is not taken for `b`.
    by_length = sorted(known | set(channels), key=lambda name: (-len(name), name))
    return [
        _described(field.name, by_length)
        for field in schema
        if field.name in SIZES or (field.name not in FIRST and is_number(field.type))
    ]


def _described(name: str, channels: Sequence[str]) -> Measurement:
    channel = next((each for each in channels if name.endswith(f"_{each}")), "")
    what = name.removesuffix(f"_{channel}") if channel else name
    stem, _, unit = what.rpartition("_")
    if stem and unit in UNITS:
        return Measurement(name, stem, UNITS[unit], channel)
    grey = channel and GREY.fullmatch(what)
    return Measurement(name, what, "grey level" if grey else "", channel)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers; truth values are none."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def gates(schema: pa.Schema) -> list[str]:
    """Return the columns that say whether a cell passes a gate."""
    return [f.name for f in schema if pa.types.is_boolean(f.type) and f.name not in FIRST]


def class_name(number: int, names: Sequence[str]) -> str:
    """Return what the class of a cell is called."""
    return names[number - 1] if number <= len(names) else f"class {number}"
