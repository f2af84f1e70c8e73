"""What is reported of a region of interest: its area, its parts, and what of it lies outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellseg.pipeline.interest import Interest, Outlines, Survey
from cellseg.pipeline.table_files import row_groups
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import Voxel

NAMED = 3
PARTS = 1000
"""Parts of a region that are listed, at most."""


def region_facts(
    interest: Interest, survey: Survey, voxel_um: Voxel | None, tables: Sequence[Path]
) -> dict[str, Any]:
    """Return the area of a region and of each of its parts, and their cells.

    Areas are of one plane; cells are those of all planes. Parts of one name are one here.

    Parameters
    ----------
    interest : Interest
    survey : Survey
    voxel_um : (z, y, x) or None
    tables : sequence of path
        The rows of the image's cells.
    """
    area, cells = interest.area(), Counter[str]()
    for path in tables:
        for rows in row_groups(path, ["region"]):
            cells.update(rows["region"].to_pylist())
    pixels = Counter[str]()
    for number in sorted(survey.pixels):
        pixels[area.name(number)] += survey.pixels[number]
    parts = {
        name: _area(px, voxel_um) | {"cells": cells[name]}
        for name, px in (pixels.items() if len(pixels) <= PARTS else ())
    }
    return _area(survey.total, voxel_um) | {"cells": cells.total(), "parts": parts}


def _area(px: int, voxel_um: Voxel | None) -> dict[str, Any]:
    um2 = None if voxel_um is None else round(px * voxel_um[1] * voxel_um[2], 3)
    return {"area_px": px, "area_um2": um2}


def region_notes(interest: Interest, survey: Survey) -> tuple[str, ...]:
    """Return what the user should know of a region: what of it lies outside the image."""
    if interest.kind == "none":
        return ('region: none for this image, and [region] missing = "none"',)
    if not survey.total:
        return ("region: it holds no pixel of the image",)
    area, found = interest.area(), list[str]()
    if isinstance(area, Outlines):
        boxes = [Box(*sides) for sides in area.bounds.tolist()]
        outside = [
            area.name(number)
            for number, box in enumerate(boxes, 1)
            if box.intersect(interest.plane) is None
        ]
        beyond = sum(box.intersect(interest.plane) not in (box, None) for box in boxes)
        if outside:
            names = ", ".join(outside[:NAMED]) + ", ..." * (len(outside) > NAMED)
            found.append(f"region: {len(outside)} of {len(boxes)} parts lie outside: {names}")
        if beyond:
            found.append(f"region: {beyond} of {len(boxes)} parts reach beyond the image's edge")
    return tuple(found)
