"""`[measure]`: which groups of columns the cell table has, and how they are measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cellseg.models.frozen import Frozen

__all__ = ["Measure"]


class Measure(Frozen):
    """`[measure]`: the columns of the cell table beside position, area and score.

    Lengths are in px of the image.
    """

    groups: tuple[str, ...] = Field(
        default=("shape", "intensity"), description="Groups of columns to measure."
    )
    channels: tuple[int | str, ...] | None = Field(
        default=None,
        description="Channels to measure, by index or name, or planes that the model sees, by the"
        " name of their columns; left out: all.",
    )
    percentiles: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = Field(
        default=(5, 25, 75, 95),
        description="Percentiles of the grey levels in a cell, beside the median; group intensity.",
    )
    ring_gap_px: int = Field(
        default=1,
        ge=0,
        le=50,
        description="Px around a cell that are left out between it and its ring, because the"
        " cell's blur reaches into them; group ring.",
    )
    ring_px: int = Field(
        default=5, ge=1, le=50, description="Width of the ring around a cell; group ring."
    )
    background_gap_px: int = Field(
        default=4,
        ge=0,
        le=50,
        description="Px between any cell and what counts as background; group background.",
    )
    background_px: int = Field(
        default=8,
        ge=1,
        le=50,
        description="Width of the ring in which a cell's background is looked for; group"
        " background.",
    )
    radial_bins: int = Field(
        default=4, ge=1, le=32, description="Rings from a cell's centre to its edge; group radial."
    )
    manders_threshold: float = Field(
        default=0.15,
        ge=0,
        lt=1,
        description="Part of a channel's largest grey level in a cell from which a pixel counts;"
        " group correlation.",
    )
    neighbour_distance_px: float = Field(
        default=50, gt=0, description="How far a neighbour's centre may be; group neighbours."
    )
    neighbour_distance_um: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="The same in um, in place of px.",
    )
    texture_scales_px: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        default=(3,), min_length=1, description="Distances of the pixels compared; group texture."
    )
    texture_levels: int = Field(
        default=256, ge=2, le=256, description="Grey levels that are told apart; group texture."
    )
    texture_range: Literal["type", "cell"] | tuple[float, float] = Field(
        default="type",
        description="What spans those levels: all that the image's type can hold (floats: 0 to"
        " 1), as in CellProfiler; each cell's own range; or two grey levels.",
    )
    granularity_length: int = Field(
        default=16, ge=1, le=64, description="Sizes in the spectrum; group granularity."
    )
    granularity_step_px: int = Field(
        default=4, ge=1, le=16, description="Every how many px the image is looked at for it."
    )
    granularity_background_step: int = Field(
        default=4, ge=1, le=16, description="Every how many of those for its background."
    )
    granularity_background_radius: int = Field(
        default=10, ge=1, le=50, description="Radius of what is larger than a grain, in those."
    )
    granularity_growth: int = Field(
        default=128,
        ge=1,
        le=4096,
        description="Steps in which what is left may grow back; the more, the nearer to"
        " CellProfiler and the further around a cell the image is looked at.",
    )

    @field_validator("texture_range")
    @classmethod
    def _rises(cls, value: str | tuple[float, float]) -> str | tuple[float, float]:
        if not isinstance(value, str) and not value[0] < value[1]:
            raise ValueError(f"{list(value)}: the first grey level must be below the second")
        return value
