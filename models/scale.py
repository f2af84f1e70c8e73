"""Scale: a model sees cells at about the diameter it was trained at, whatever the microscope's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.settings import DetectorSettings
from cellseg.models.weights import Card

STEPS = 8
"""Magnifications are eighths: a tile that starts at a multiple of 8 px is then sampled at the very
points at which its neighbour is, and cells do not depend on the tiling."""
SMALLEST, LARGEST = 1 / STEPS, 8.0
TRIED = (1.0, 0.5, 2.0, 0.25, 4.0)
"""Magnifications at which "auto" looks for cells; the network itself bridges what is between."""
LOOK_PX = 512
"""The most that "auto" shows the network of a plane, in px on a side as it sees them: all of a
window of 512 px at 4 times its size takes 16 times the time and memory, and is no surer."""


@runtime_checkable
class Zooms(Protocol):
    """A segmenter that knows the diameter it was trained at, and can change its magnification."""

    diameter_px: float

    def at_zoom(self, zoom: float) -> Self:
        """Return it at another magnification."""
        ...

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        """See `cellseg.models.Segmenter`."""
        ...


def nearest_zoom(factor: float) -> float:
    """Return the magnification in use that is nearest to `factor`, an eighth or more."""
    return min(max(round(factor * STEPS) / STEPS, SMALLEST), LARGEST)


def zoom_for(card: Card, settings: DetectorSettings) -> float:
    """Return the magnification of images whose cells have the diameter that `settings` gives.

    1 where it gives none.

    Raises
    ------
    CellsegError
        If the diameter is still to be turned into px.
    """
    if settings.diameter_um is not None or settings.diameter_px == "auto":
        given = "auto" if settings.diameter_um is None else f"{settings.diameter_um:g} um"
        raise CellsegError(
            f"[model] diameter = {given} is decided by a run, from its images."
            " Give a model that is used by itself diameter_px as a number."
        )
    if settings.diameter_px is None:
        return 1.0
    return nearest_zoom(card.diameter_px / settings.diameter_px)


def magnify(plane: NDArray[np.float32], zoom: float) -> NDArray[np.float32]:
    """Return a plane (C, H, W) resampled to about (C, H x zoom, W x zoom).

    Pixel k of the result lies at (k + 0.5) / zoom - 0.5 of the plane; what
    comes to lie beyond its end repeats the last pixel.
    """
    if zoom == 1:
        return plane
    # Late: which magnification an image needs is reckoned where there may be no torch.
    import torch
    from torch.nn.functional import interpolate

    pads = [(0, -length % STEPS) for length in plane.shape[1:]]
    padded = np.pad(plane, [(0, 0), *pads], mode="edge")
    size = [round(length * zoom) for length in padded.shape[1:]]
    seen = interpolate(
        torch.from_numpy(padded)[None], size=size, mode="bilinear", antialias=zoom < 1
    )
    return np.asarray(seen[0].numpy())


def estimate_diameter(model: Zooms, planes: Sequence[NDArray[np.float32]]) -> float | None:
    """Estimate the typical diameter of the cells in some planes, in px.

    The model looks at them at several magnifications, of those above 1 at the
    middle only; the one at which its objects explain the most of what it saw,
    area times score, is near the right one, and the median diameter of those
    objects is the estimate. Once more from there, since a network sizes best
    the cells it was trained at.

    Parameters
    ----------
    model : Zooms
    planes : sequence of float32 (C, H, W), normalised

    Returns
    -------
    float or None
        None if it finds nothing at any magnification.
    """
    looks = {zoom: _look(model, planes, zoom) for zoom in TRIED}
    best = max(TRIED, key=lambda zoom: looks[zoom].explained)
    if not len(looks[best].areas):
        return None
    rough = _median_diameter(looks[best])
    again = _look(model, planes, nearest_zoom(model.diameter_px / rough))
    return _median_diameter(again) if len(again.areas) else rough


@dataclass(frozen=True)
class _Look:
    """Area in px and score of each object at one magnification, and the px they were looked for."""

    areas: NDArray[np.float64]
    scores: NDArray[np.float64]
    px: int

    @property
    def explained(self) -> float:
        """The share of the px that objects explain."""
        return float((self.areas * self.scores).sum()) / max(self.px, 1)


def _look(model: Zooms, planes: Sequence[NDArray[np.float32]], zoom: float) -> _Look:
    """Return what the model finds at a magnification in as much as it may see of each plane."""
    parts = [_middle(plane, int(LOOK_PX / zoom)) for plane in planes]
    found = model.at_zoom(zoom).segment(parts)
    areas = np.concatenate([np.zeros(0, np.int64), *(one.areas() for one in found)])
    scores = np.concatenate([np.zeros(0, np.float32), *(one.scores for one in found)])
    px = sum(part[0].size for part in parts)
    return _Look(areas.astype(np.float64), scores.astype(np.float64), px)


def _middle(plane: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the middle of a plane (C, H, W), up to `side` px high and wide."""
    y, x = (max(length - side, 0) // 2 for length in plane.shape[1:])
    return plane[:, y : y + side, x : x + side]


def _median_diameter(look: _Look) -> float:
    """Return the diameter of a disc of the median area, objects weighed by their score."""
    areas, scores = look.areas, look.scores
    order = np.argsort(areas)
    half = np.searchsorted(np.cumsum(scores[order]), scores.sum() / 2)
    return float(2 * np.sqrt(areas[order[min(half, len(areas) - 1)]] / np.pi))
