"""Scenes of true cells put through tiles, and what became of each cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from benchmarks.scenes import Labels, Mask, Scene, intact, scene
from cellseg.models import Instances
from cellseg.pipeline.stitch import EXTRA, Rules, stitch
from cellseg.pipeline.tiles import Box, Grid

SETTINGS = ((256, 64), (256, 32), (128, 64), (128, 32), (512, 64))
"""Tile size and halo, px."""
OFFSETS = ((0, 0), (101, 57))
"""Px by which a scene is shifted against the grid."""
MARGIN, OVERLAP = 4, 0.4
"""The defaults of `[tiling] margin` and `[stitch] overlap`."""
UNTILED_DRAWS = 10
"""Passes over the untiled scene that the number of lost or fused cells is the mean of."""
FIRST_UNTILED_SEED = 1000


def stitched(here: Scene, grid: Grid, seed: int) -> Labels:
    """Return the labels of a scene that is segmented in the tiles of a grid."""
    tiles = cache(lambda position: here.segment(grid.read(position), seed))
    rules = Rules(MARGIN, OVERLAP, grid.size + 2 * grid.halo)
    cells = stitch(grid, rules, tiles, lambda window: here.segment(window, seed))
    labels = np.zeros(grid.plane.shape, np.int32)
    for label, (tile, index) in enumerate(zip(cells.tile, cells.index, strict=True), 1):
        source = cells.extra if tile == EXTRA else tiles(int(tile))
        y0, x0, y1, x1 = source.boxes[index].tolist()
        labels[y0:y1, x0:x1][source.masks[index]] = label
    return labels


def shared_px(labels: NDArray[Any], other: NDArray[Any]) -> coo_array:
    """Return how many px each value of one label image shares with each of another.

    Sparse (N + 1, M + 1), each pair once; row and column 0 are the background.
    """
    count = int(other.max()) + 1
    keys = labels.ravel().astype(np.int64) * count + other.ravel()
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    rows, columns = np.divmod(keys[starts], count)
    shape = int(labels.max()) + 1, count
    table = coo_array((np.diff(starts, append=keys.size), (rows, columns)), shape=shape)
    table.sum_duplicates()
    return table


@dataclass(frozen=True, eq=False)
class Judged:
    """What became of the true cells.

    Parameters
    ----------
    found, misshapen, doubled : int
        Labels; those that hold a part of a true cell, or of the background, but
        not all or none of it, by the scene's tolerance; those in excess of one
        in the place of a cell.
    exact, lost, fused : bool (N,)
        Of each true cell, whether a label equals it to the pixel, none holds
        half of it, or one holds half of it and half of another.
    """

    found: int
    misshapen: int
    doubled: int
    exact: Mask
    lost: Mask
    fused: Mask


def judge(labels: Labels, here: Scene) -> Judged:
    """Compare labels with the truth."""
    cells = here.cells.disjoint()
    px = shared_px(labels, cells.to_labels(here.shape)).toarray()
    px = np.pad(px, [(0, 0), (0, len(cells) + 1 - px.shape[1])])
    areas, own = px.sum(1)[1:], px[1:, 1:]
    within = own / cells.areas()
    partly = (within > here.tolerance) & (within < 1 - here.tolerance)
    beyond = px[1:, 0] > here.tolerance * areas
    several = (within > 0.5).sum(1) > 1
    owners = own.argmax(1)[2 * own.max(1, initial=0) > areas] if own.size else np.zeros(0, int)
    return Judged(
        found=len(areas),
        misshapen=int((partly.any(1) | beyond).sum()),
        doubled=len(owners) - len(np.unique(owners)),
        exact=((within == 1) & (own == areas[:, None])).any(0),
        lost=within.max(0, initial=0) < 0.5,
        fused=(within[several] > 0.5).any(0),
    )


def crossing(cells: Instances, size: int) -> Mask:
    """Return which cells lie in more than one core of a grid, bool (N,)."""
    first, last = cells.boxes[:, :2] // size, (cells.boxes[:, 2:] - 1) // size
    return np.asarray((first != last).any(1))


@cache
def untiled(name: str) -> tuple[float, float]:
    """Return how many cells one pass over the untiled scene loses, and how many it fuses."""
    here = scene(name)
    plane = Box(0, 0, *here.shape)
    draws = UNTILED_DRAWS if here.failure is not intact else 1
    found = [here.segment(plane, FIRST_UNTILED_SEED + seed) for seed in range(draws)]
    passes = [judge(each.to_labels(here.shape).astype(np.int32), here) for each in found]
    lost, fused = ([getattr(one, name).sum() for one in passes] for name in ("lost", "fused"))
    return float(np.mean(lost)), float(np.mean(fused))


def experiment(
    name: str, size: int, halo: int, offset: tuple[int, int] = (0, 0), seed: int = 0
) -> dict[str, Any]:
    """Return a row of the table.

    Parameters
    ----------
    name : str
        One of `benchmarks.scenes.EXPERIMENTS`.
    size, halo : int
        Of the tiles, px.
    offset : (int, int)
        Px by which the scene is shifted down and to the right.
    seed : int
        For the failures.

    Returns
    -------
    dict
        See `Judged`; cells on seams lie in more than one core. ``large_whole``
        is None where the experiment is not about single cells.
    """
    here = scene(name).shifted(*offset)
    grid = Grid(Box(0, 0, *here.shape), size, halo)
    judged = judge(stitched(here, grid, seed), here)
    seam = crossing(here.cells.disjoint(), size)
    lost, fused_before = untiled(name)
    return {
        "experiment": name,
        "tile_px": size,
        "halo_px": halo,
        "offset": "{}, {}".format(*offset),
        "cells": len(seam),
        "found": judged.found,
        "exact": int(judged.exact.sum()),
        "misshapen": judged.misshapen,
        "doubled": judged.doubled,
        "on_seams": int(seam.sum()),
        "lost_on_seams": int(judged.lost[seam].sum()),
        "lost_inside": int(judged.lost[~seam].sum()),
        "lost_untiled": lost,
        "fused": int(judged.fused.sum()),
        "fused_untiled": fused_before,
        "large_whole": bool(judged.exact[list(here.large)].all()) if here.large else None,
    }
