"""`[measure]`: which groups of columns the cell table has, and how they are measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cellseg.models.frozen import Frozen

__all__ = ["Measure"]


class Measure(Frozen):
    """`[measure]`: the columns of the cell table beside position, area and score.

    Lengths are in px of the image.
    """

    groups: tuple[str, ...] = Field(
        default=("shape", "intensity"), description="Groups of columns to measure."
    )
    percentiles: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = Field(
        default=(5, 25, 75, 95),
        description="Percentiles of the grey levels in a cell, beside the median; group intensity.",
    )
