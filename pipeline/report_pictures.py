"""The pictures in a report: overviews made small, and single cells with their outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.pipeline.chosen_cells import choose
from cellseg.pipeline.crops import UNREADABLE, Crops
from cellseg.pipeline.pictures import data_uri, thumbnail
from cellseg.pipeline.report_run import picture_link
from cellseg.pipeline.worker import side_by_side

MOST_OVERVIEWS, MOST_BYTES = 48, 4_000_000
SIDES = ((2, 1100), (6, 560), (MOST_OVERVIEWS, 340))
"""Up to so many overviews are so many px long."""
WHY = {
    "typical": "Nearest to the median in size and brightness.",
    "largest": "Fused neighbours, or something that is no cell?",
    "smallest": "Debris? [model] min_area_px leaves smaller ones out.",
    "least certain": "Lowest score of the model. If these are wrong, raise [model] score.",
    "on seams": "Put together from several tiles, or seen by several. They must look like others.",
}
"""What to look for in each kind of cells."""


def overviews(crops: Crops, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the overviews that are shown: those with warnings, and evenly spread others.

    Returns
    -------
    dict
        ``shown``, each with the image's number, ``src`` and ``href``; ``of`` how many there are.
    """
    links = {n: picture_link(crops.results, report) for n, report in enumerate(reports)}
    there = [number for number, link in links.items() if link]
    chosen = _spread(there, {n for n in there if reports[n].get("warnings")})
    side = next((px for most, px in SIDES if len(chosen) <= most), SIDES[-1][1])
    shown: list[dict[str, Any]] = []
    size = 0
    names = [reports[number]["name"] for number in chosen]
    pictures = side_by_side(lambda name: _small(crops, name, side), names)
    for number, own in zip(chosen, pictures, strict=True):
        if own is None:
            continue
        size += len(own["src"])
        if size > MOST_BYTES and shown:
            break
        shown.append({"image": number, "href": links[number], **own})
    return {"shown": shown, "of": len(there)}


def _small(crops: Crops, name: str, side: int) -> dict[str, Any] | None:
    """Return the overview of an image for the page; None where there is none."""
    try:
        picture = thumbnail(crops.image(name).overview, side)
    except UNREADABLE:
        return None
    return {"src": data_uri(picture), "width": picture.shape[1], "height": picture.shape[0]}


def _spread(there: Sequence[int], first: set[int]) -> list[int]:
    """Return at most some dozen of them in order: half of these from `first`, if there are many."""
    if len(there) <= MOST_OVERVIEWS:
        return list(there)
    chosen = set(sorted(first)[: MOST_OVERVIEWS // 2])
    others = [number for number in there if number not in chosen]
    places = np.linspace(0, len(others) - 1, MOST_OVERVIEWS - len(chosen)).astype(int)
    return sorted(chosen | {others[place] for place in places.tolist()})


def cell_pictures(
    crops: Crops, path: Path, intensity: str | None, numbers: Mapping[str, int]
) -> dict[str, Any]:
    """Return pictures of single cells by kind.

    Parameters
    ----------
    crops : Crops
    path : Path
        The table of all cells.
    intensity : str or None
        A column of the table; see `choose`.
    numbers : mapping
        The place in the run of each image.

    Returns
    -------
    dict
        ``kinds``; ``missing``, the number of cells that no picture could be had of; and how
        many are cut ``of_overviews``.
    """
    kinds, missing, of_overviews = [], 0, 0
    for kind, rows in choose(path, intensity).items():
        cells = []
        for row in rows:
            cut = crops.cut(row) if row["image"] in numbers else None
            if cut is None:
                missing += 1
                continue
            own = {"src": data_uri(cut.picture), "image": numbers[row["image"]]}
            own |= {"label": row["label"], "value": _value(kind, row), "across": cut.across}
            cells.append(own)
            of_overviews += cut.of_overview
        if cells:
            kinds.append({"kind": kind, "why": WHY[kind], "cells": cells})
    return {"kinds": kinds, "missing": missing, "of_overviews": of_overviews}


def _value(kind: str, row: Mapping[str, Any]) -> str:
    """Return what a cell was chosen by."""
    if kind == "least certain":
        return f"score {row['score']:.2f}"
    if row["volume_px"] is not None:
        return f"{row['volume_px']:,} voxels"
    return f"{row['area_px']:,} px" + (f", {row['seam']}" if kind == "on seams" else "")
