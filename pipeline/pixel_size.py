"""Whether the size of a pixel can be right: what files say is often a default nobody meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.segment import Scene

__all__ = ["area_counts", "doubt_median", "doubts", "median_diameter_px"]

PIXEL_UM = (0.01, 50.0)
"""Sides of a pixel, in um, that a microscope or a slide's coarsest level has."""
UNEQUAL = 1.01
"""Pixels of cameras are square: they are higher than wide, or wider, by less than this."""
CELL_UM = (1.0, 150.0)
"""Diameters of cells and nuclei in um, from bacteria to egg cells."""
BINS = 32
"""Areas are counted in bins of this many to a doubling: a median is right to 0.5 % in diameter."""
DOUBLINGS = 64


def doubts(scenes: Sequence[Scene]) -> tuple[str, ...]:
    """Return a line for each thing that cannot be right before anything is computed.

    Parameters
    ----------
    scenes : sequence of Scene
        The images of a run; those with the same fault share a line.
    """
    lines = []
    for find in (_doubt_pixel, _doubt_square, _doubt_cell):
        found = [(scene.name, line) for scene in scenes if (line := find(scene)) is not None]
        if found:
            name, line = found[0]
            lines.append(f"{name}{f' and {len(found) - 1} more' * (len(found) > 1)}: {line}")
    return tuple(lines)


def doubt_median(scene: Scene, median_px: float | None) -> str | None:
    """Return what to do if the cells that were found are no cells at this size of a pixel.

    Parameters
    ----------
    scene : Scene
    median_px : float or None
        Median diameter of its cells, in px as they are measured; None if there are none.
    """
    if median_px is None:
        return None
    um = _cell_um(scene, median_px)
    if um is None:
        return None
    return (
        f"the median cell is {um:.3g} um across ({median_px:.3g} px of {_side(scene):.3g} um),"
        f" which no cell is ({CELL_UM[0]:g} to {CELL_UM[1]:g} um): {_remedy(scene)}"
    )


def area_counts(areas: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count areas in px, 1 or more, in bins of their logarithm; counts of parts add up."""
    bins = np.rint(np.log2(areas) * BINS).astype(np.int64)
    return np.bincount(bins, minlength=BINS * DOUBLINGS)


def median_diameter_px(counts: NDArray[np.int64]) -> float | None:
    """Return the diameter of a disc of the median area, from `area_counts`; None of no cells."""
    total = counts.sum()
    if not total:
        return None
    middle = int(np.searchsorted(np.cumsum(counts), total / 2))
    return float(2 * np.sqrt(2 ** (middle / BINS) / np.pi))


def _side(scene: Scene) -> float:
    """Return the side of a square of a pixel's area in um, NaN if unknown."""
    voxel = scene.voxel_um
    return float(np.sqrt(voxel[1] * voxel[2])) if voxel else float("nan")


def _cell_um(scene: Scene, px: float) -> float | None:
    """Return a diameter in um if no cell has it; None if one may, or the pixel is unknown."""
    um = px * _side(scene)
    return um if um < CELL_UM[0] or um > CELL_UM[1] else None


def _doubt_pixel(scene: Scene) -> str | None:
    if scene.voxel_um is None or all(PIXEL_UM[0] <= um <= PIXEL_UM[1] for um in scene.voxel_um[1:]):
        return None
    return (
        f"a pixel of {_side(scene):.3g} um is none of a microscope ({PIXEL_UM[0]:g} to"
        f" {PIXEL_UM[1]:g} um): {_remedy(scene)}"
    )


def _doubt_square(scene: Scene) -> str | None:
    if scene.voxel_um is None:
        return None
    height, width = scene.voxel_um[1:]
    if max(height, width) <= UNEQUAL * min(height, width):
        return None
    return (
        f"a pixel is {height:.4g} um high and {width:.4g} um wide, and is measured so; cameras have"
        " square ones: if these are, set pixel_size_um"
    )


def _doubt_cell(scene: Scene) -> str | None:
    um = None if scene.diameter_px is None else _cell_um(scene, scene.diameter_px)
    if um is None:
        return None
    return (
        f"cells are taken to be {um:.3g} um across ({scene.diameter_px:.3g} px of"
        f" {_side(scene):.3g} um), which no cell is ({CELL_UM[0]:g} to {CELL_UM[1]:g} um):"
        f" {_remedy(scene)}, or the diameter in [model]"
    )


def _remedy(scene: Scene) -> str:
    given = scene.workflow.pixel_size_um
    return "set pixel_size_um" if given is None else f"mend pixel_size_um = {given:g}"
