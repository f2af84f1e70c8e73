"""`[region]`: which part of each image is of interest, as a workflow says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cellseg.models.settings import Frozen

Corner = Annotated[float, Field(allow_inf_nan=False)]
Sides = tuple[Corner, Corner, Corner, Corner]
KINDS = ("box_px", "box_um", "geojson", "mask")


class Region(Frozen):
    """`[region]`: cells whose centre lies inside are kept, whole; left out: all cells.

    One of `box_px`, `box_um`, `geojson` and `mask` at most. In the two paths ``{image}``
    stands for the name of each image; a folder is searched for a file of that name.
    """

    box_px: Sides | None = Field(
        default=None,
        description="A box as [y0, x0, y1, x1] in px from the image's upper left corner.",
    )
    box_um: Sides | None = Field(default=None, description="The same in um.")
    geojson: str | None = Field(
        default=None,
        min_length=1,
        description="GeoJSON with polygons in px of the image, as QuPath exports them: one file,"
        " a folder, or a path with {image} in it; relative to the workflow file.",
    )
    mask: str | None = Field(
        default=None,
        min_length=1,
        description="Mask image, inside where it is not 0, of the image's size or smaller: one"
        " file, a folder, or a path with {image} in it; relative to the workflow file.",
    )
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="Only GeoJSON features whose name or classification is one of these;"
        " empty: all.",
    )
    missing: Literal["error", "all", "none"] = Field(
        default="error",
        description='What of an image without a region file: "error" (it is listed as failed),'
        ' "all" (all its cells) or "none" (none of them).',
    )

    @property
    def kind(self) -> str | None:
        """The key that says where the region is, None if none does."""
        return next((kind for kind in KINDS if getattr(self, kind) is not None), None)

    def beside(self, folder: Path) -> Region:
        """Return the same with paths as seen from `folder`."""
        given = {name: getattr(self, name) for name in ("geojson", "mask")}
        paths = {k: str(folder / _at_home(path)) for k, path in given.items() if path is not None}
        return self.model_copy(update=paths) if paths else self

    @model_validator(mode="after")
    def _one_kind(self) -> Region:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} are both given; an image has one region. Keep one of them."
            )
        if self.classes and given != ["geojson"]:
            raise ValueError("classes is given without geojson, and chooses features of such.")
        for kind in given[:1]:
            if kind.startswith("box"):
                _check_box(kind, getattr(self, kind))
        return self


def _check_box(kind: str, sides: Sides) -> None:
    y0, x0, y1, x1 = sides
    if not (y0 < y1 and x0 < x1):
        raise ValueError(
            f"{kind} = {list(sides)} is empty: it is [y0, x0, y1, x1], with y0 below y1 and x0"
            " below x1."
        )


def _at_home(path: str) -> Path:
    return Path(path).expanduser() if path.startswith("~/") else Path(path)
