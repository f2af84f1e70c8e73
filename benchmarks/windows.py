"""The shipped network in tiles against the same in one window: which cells have no partner, where.

One window costs about 2 kB of memory for each px that the network sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from benchmarks.oracle import shared_px
from cellseg.models.errors import CellsegError
from cellseg.models.scale import nearest_zoom
from cellseg.models.settings import MaskRCNNSettings
from cellseg.models.weights import find_weights, read_card
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.image import open_image
from cellseg.pipeline.score import match, pool
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import Tiling

Labels = NDArray[np.uint32]

IOUS = (0.5, 0.8)
ONE_WINDOW = 16384
"""Px of a tile that holds any plane of this benchmark."""
FIELDS = (3, 3)
"""Rows and columns of a mosaic: fields of 520 x 696 px become 1560 x 2088 px, some 6 GB."""
NEAR_PX = 32.0
"""Half of what two tiles share on each side of a border, at the default halo."""
CROPS = 4
"""Crops of a slide, around its middle."""


@dataclass(frozen=True)
class Plane:
    """An image to compare on, as a file of one channel."""

    path: Path
    shape: tuple[int, int]


def mosaics(fields: Path, folder: Path) -> list[Plane]:
    """Write fields of one shape side by side, `FIELDS` to an image; what is left over is left out.

    Parameters
    ----------
    fields : Path
        Folder of TIFFs of one channel.
    folder : Path
        Where to write.

    Returns
    -------
    list of Plane
        The borders between fields are in every tiling alike.

    Raises
    ------
    CellsegError
        If there are not enough fields for one mosaic.
    """
    rows, columns = FIELDS
    paths = sorted(fields.glob("*.tif"))
    count = len(paths) // (rows * columns)
    if not count:
        raise CellsegError(
            f"{fields}: {len(paths)} .tif files; a mosaic takes {rows * columns}."
            " Give a folder with more fields."
        )
    planes = []
    for number in range(count):
        chosen = [tifffile.imread(p) for p in paths[number * rows * columns :][: rows * columns]]
        pixels = np.vstack(
            [np.hstack(chosen[i : i + columns]) for i in range(0, len(chosen), columns)]
        )
        planes.append(_write(pixels, folder / f"mosaic_{number}.tif"))
    return planes


def crops(slide: Path, side: int, folder: Path) -> list[Plane]:
    """Write `CROPS` squares of a slide's first channel, two by two around its middle.

    Raises
    ------
    CellsegError
        If the slide is smaller than that.
    """
    image = open_image(slide)
    height, width = (int(length) for length in image.pixels.shape[3:])
    if 2 * side > min(height, width):
        raise CellsegError(
            f"{slide}: {height} x {width} px; --crop {side} takes twice that."
            f" Give --crop {min(height, width) // 2} or less."
        )
    planes = []
    for number in range(CROPS):
        row, column = divmod(number, 2)
        y, x = height // 2 + (row - 1) * side, width // 2 + (column - 1) * side
        (pixels,) = image.read(0, 0, Box(y, x, y + side, x + side), [0])
        planes.append(_write(pixels, folder / f"crop_{number}.tif"))
    return planes


def _write(pixels: NDArray[Any], path: Path) -> Plane:
    tifffile.imwrite(path, pixels, tile=(256, 256))
    return Plane(path, (int(pixels.shape[0]), int(pixels.shape[1])))


def segmented(
    planes: Sequence[Plane], folder: Path, settings: Mapping[str, object]
) -> list[Labels]:
    """Return the labels of one run over all planes.

    Parameters
    ----------
    planes : sequence of Plane
    folder : Path
        For the workflow and its results.
    settings : mapping
        Workflow keys, as ``tiling.size``, to values.
    """
    workflow = folder / "seams.toml"
    images = json.dumps([str(plane.path) for plane in planes])
    workflow.write_text(f"images = {images}\n[output]\noverview = false\n", encoding="utf-8")
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    output = folder / "_".join(str(value) for value in settings.values())
    result = run(read_workflow(workflow, overrides, output=output), Config(device="cpu"))
    assert not result.failed, result.failed
    return [
        result.image(plane.path.stem).labels.read(0, 0, Box(0, 0, *plane.shape)) for plane in planes
    ]


def centres(labels: Labels) -> NDArray[np.float64]:
    """Return the centre y, x of each label 1..N, float64 (N, 2), in px."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    counts = np.bincount(values, minlength=int(labels.max()) + 1)[1:]
    sums = [np.bincount(values, axis, len(counts) + 1)[1:] for axis in (rows, columns)]
    return np.stack(sums, 1) / counts[:, None]


def border_distance(
    points: NDArray[np.float64], shape: tuple[int, int], size: int
) -> NDArray[np.float64]:
    """Return the px from each point (N, 2) to the nearest border between cores of side `size`."""
    gaps = [np.full(len(points), np.inf)]
    for axis, length in enumerate(shape):
        borders = np.arange(size, length, size)
        if len(borders):
            gaps.append(np.abs(points[:, axis, None] - borders).min(1))
    return np.asarray(np.min(gaps, 0))


def partnered(labels: Labels, other: Labels, iou: float) -> NDArray[np.bool_]:
    """Return which labels 1..N have a partner of at least `iou`, bool (N,)."""
    shared = shared_px(labels, other)
    areas, others = np.bincount(labels.ravel()), np.bincount(other.ravel())
    inside = (shared.row > 0) & (shared.col > 0)
    rows, columns, px = shared.row[inside], shared.col[inside], shared.data[inside]
    found = np.zeros(len(areas), bool)
    found[rows[px >= iou * (areas[rows] + others[columns] - px)]] = True
    return found[1:]


def differing(
    tiled: Sequence[Labels], whole: Sequence[Labels], size: int, iou: float, near_px: float
) -> dict[str, Any]:
    """Count the cells of both sides without a partner, near borders between tiles and elsewhere.

    Parameters
    ----------
    tiled, whole : sequences of label images
        Of the same planes, in tiles of `size` px and in one window.
    size : int
    iou : float
        From which two cells are partners.
    near_px : float
        Cells whose centre is at most that far from a border are near it.

    Returns
    -------
    dict
        Counts and rates, and the one-sided p of Fisher's exact test that cells
        near borders differ no more often than others.
    """
    table = np.zeros((2, 2), np.int64)
    for pair in zip(tiled, whole, strict=True):
        for one, other in (pair, pair[::-1]):
            near = border_distance(centres(one), (one.shape[0], one.shape[1]), size) <= near_px
            alone = ~partnered(one, other, iou)
            np.add.at(table, (1 - near.astype(int), 1 - alone.astype(int)), 1)
    totals = table.sum(1)
    rates = [float(a / n) if n else 0.0 for a, n in zip(table[:, 0], totals, strict=True)]
    return {
        "near": int(table[0, 0]),
        "of_near": int(totals[0]),
        "near_rate": rates[0],
        "elsewhere": int(table[1, 0]),
        "of_elsewhere": int(totals[1]),
        "elsewhere_rate": rates[1],
        "p": float(fisher_exact(table, alternative="greater").pvalue),
    }


def network_rows(
    planes: Sequence[Plane],
    folder: Path,
    tiles: Sequence[tuple[int, int]],
    diameter_px: float | None = None,
    near_px: float = NEAR_PX,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each tile size and halo: the shipped network in tiles against one window.

    Parameters
    ----------
    planes : sequence of Plane
    folder : Path
        For the results.
    tiles : sequence of (size, halo)
        In px as the network sees them.
    diameter_px : float, optional
        `[model] diameter_px`.
    near_px : float
        See `differing`; in px as the network sees them.
    """
    model = {} if diameter_px is None else {"model.diameter_px": diameter_px}
    zoom = 1.0 if diameter_px is None else nearest_zoom(_trained_px() / diameter_px)
    whole = segmented(planes, folder, {**model, "tiling.size": ONE_WINDOW})
    for size, halo in tiles:
        settings = {**model, "tiling.size": size, "tiling.halo": halo}
        tiled = segmented(planes, folder, settings)
        side = Tiling(size=size, halo=halo).at_zoom(zoom).size
        scores = pool(match(*pair, IOUS) for pair in zip(tiled, whole, strict=True))
        yield {
            "tile_px": size,
            "halo_px": halo,
            "cells": sum(int(labels.max()) for labels in tiled),
            "one_window": sum(int(labels.max()) for labels in whole),
            **{f"f1_{score.threshold}": round(score.f1, 5) for score in scores},
            **{f"differ_{iou}": differing(tiled, whole, side, iou, near_px / zoom) for iou in IOUS},
        }


def _trained_px() -> float:
    """Return the diameter of the cells that the shipped network was trained on."""
    return read_card(find_weights(MaskRCNNSettings().weights)).diameter_px
