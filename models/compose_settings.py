"""What may be set of composed training images, each key once: unit, default, reason."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cellseg.models.frozen import Frozen

Part = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class ComposeSettings(Frozen):
    """`[compose]` of a training: images made of real cells that overlap."""

    density: tuple[Positive, Positive] = Field(
        default=(0.03, 0.35),
        description="Range of the areas of all cells of a crop together, as a part of the crop's:"
        " from a few cells to a crowd, all orders of magnitude alike.",
    )
    most_cells: int = Field(
        default=80, ge=1, le=1000, description="Cells a crop at most: more take too long to place."
    )
    cluster: float = Field(
        default=2.5,
        ge=1,
        description="Mean number of cells that hang together; some stay alone, as real ones do.",
    )
    share: tuple[Part, Part] = Field(
        default=(0.05, 0.6),
        description="Range of the part of the smaller cell's area that two neighbours share.",
    )
    usual: Part = Field(
        default=0.8,
        description="Share of neighbours within that range; of the others one half hardly touch"
        " and the other half go beyond.",
    )
    covered: Part = Field(
        default=0.85,
        description="Largest part of a cell that others cover: beyond, no annotator could tell.",
    )
    zoom: tuple[Positive, Positive] = Field(
        default=(0.5, 2.0),
        description="Range of the magnification of all cells of a crop; strong ones are rarer.",
    )
    scale: float = Field(
        default=0.12, ge=0, le=1, description="Spread of the size of single cells, as a logarithm."
    )
    stretch: float = Field(
        default=0.15, ge=0, le=1, description="Spread of their elongation, as a logarithm."
    )
    shear: float = Field(default=0.12, ge=0, le=1, description="Spread of their shear.")
    bend: float = Field(
        default=0.05,
        ge=0,
        le=0.1,
        description="Largest elastic bend, in diameters of the cell; above 0.1 outlines fold.",
    )
    gain: float = Field(
        default=0.25, ge=0, le=2, description="Spread of their brightness, as a logarithm."
    )
    transmission: Part = Field(
        default=0.25,
        description="Share of crops in which cells take light away from a bright background,"
        " as in bright field; in the others their light adds, as in fluorescence.",
    )
