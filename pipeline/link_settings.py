"""`[link]` and `[track]`: how cells of planes become 3D cells, and cells of times tracks."""

from __future__ import annotations

from pydantic import Field, model_validator

from cellseg.models.settings import Frozen


class Link(Frozen):
    """`[link]`: which cells of the planes of a volume are one 3D cell."""

    z: bool = Field(
        default=True,
        description="Link the cells of neighbouring planes to 3D cells, where an image has"
        " several. false: each plane's cells keep labels and rows of their own.",
    )
    overlap: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Shared area over the smaller area from which cells of neighbouring planes may"
        " be one. Default: follows from the size of a voxel; half of what two sections of a cell"
        " that leans by 45 degrees share, and 0.25 where that size is not known.",
    )
    gap: int = Field(
        default=1,
        ge=0,
        le=16,
        description="Planes in a row in which a cell may be missed; what lies on both sides is"
        " then one cell, unless both narrow towards the gap. More joins more cells that lie above"
        " each other.",
    )
    least_planes: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="3D cells in fewer planes are left out, and counted, unless they touch the"
        " first or last plane: what one plane alone shows is mostly no cell.",
    )


class Track(Frozen):
    """`[track]`: which cells of neighbouring time points are one cell."""

    enabled: bool = Field(
        default=False,
        description="Follow cells over time, where an image has several time points, and fill the"
        " columns track and parent.",
    )
    distance_px: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="The farthest that a cell's centre moves from one time point to the next, in"
        " px along x. Default: the median diameter of the image's cells.",
    )
    distance_um: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="The same in um, in place of distance_px.",
    )
    gap: int = Field(
        default=0,
        ge=0,
        le=16,
        description="Time points in a row at which a cell may be missed.",
    )
    divisions: bool = Field(
        default=True,
        description="Look for cells that became two: both begin a new track, and parent says from"
        " which.",
    )

    @model_validator(mode="after")
    def _one_distance(self) -> Track:
        if self.distance_px is not None and self.distance_um is not None:
            raise ValueError("distance_px and distance_um are both given. Leave one of them out.")
        return self
