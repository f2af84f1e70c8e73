"""`threshold`: smoothed Otsu and a watershed on the distance to the background; no weights.

Everything but the threshold is local: the pixels of a cell depend on its own clump and a few
smoothing widths around it, so that a cell comes out the same in every window that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from cellseg.models.instances import Instances
from cellseg.models.settings import ThresholdSettings

__all__ = ["Threshold", "load", "otsu"]

Plane = NDArray[np.float32]

_BINS = 4096
# Standard deviations between the two kinds of pixel: 2.65 for smoothed noise parted in its
# middle, 3.1 for the worst of 155 real images.
_LEAST_CONTRAST = 2.9
_LEAST_RANGE = 1e-6


@dataclass(frozen=True)
class Threshold:
    """A `Segmenter` for bright, compact cells on a dark background.

    Parameters
    ----------
    settings : ThresholdSettings
        Smoothing, separation and smallest area.
    level : float, optional
        What is above it is cell, on the normalised scale. None: decided for each plane on
        its own, which is right for whole images only; `fit` decides it for an image.
    """

    settings: ThresholdSettings
    level: float | None = None

    def fit_image(self, sample: Sequence[Plane]) -> Threshold:
        """Return the segmenter for one image.

        Parameters
        ----------
        sample : sequence of float32 (C, h, w)
            Normalised samples of the image, all of one image together.

        Returns
        -------
        Threshold
            With its level decided; `self` where the settings give a value.
        """
        if self.settings.threshold != "otsu":
            return self
        return replace(self, level=otsu([self._smooth(plane) for plane in sample]))

    def segment(self, planes: Sequence[Plane]) -> list[Instances]:
        """Return the objects of each plane, in the order of their first pixels.

        Parameters
        ----------
        planes : sequence of float32 (C, H, W)
            Normalised pixels; the mean over the channels counts.

        Returns
        -------
        list of Instances
            The score is the contrast, 1 - threshold / mean grey level of the cell, in [0, 1].
        """
        return [self._segment(plane) for plane in planes]

    def _smooth(self, plane: Plane) -> Plane:
        mean = plane.mean(axis=0)
        return np.asarray(ndimage.gaussian_filter(mean, self.settings.smooth_px), np.float32)

    def _segment(self, plane: Plane) -> Instances:
        smooth = self._smooth(plane)
        level = otsu([smooth]) if self.level is None else self.level
        foreground = _without_pinholes(smooth > level, self.settings.separation_px)
        if not foreground.any():
            return Instances.empty()
        labels = _separate(foreground, self.settings.separation_px)
        return _instances(labels, smooth, level, self.settings.min_area_px)


def load(settings: ThresholdSettings, device: str, precision: str) -> Threshold:  # noqa: ARG001
    """Return the segmenter; `device` and `precision` are there for the models that use them."""
    given = settings.threshold
    return Threshold(settings, None if given == "otsu" else float(given))


def otsu(sample: Sequence[NDArray[np.floating]]) -> float:
    """Return the threshold that parts the grey levels of all of `sample` best.

    Otsu, *A threshold selection method from gray-level histograms* (IEEE Trans. SMC 9, 1979),
    on 4096 bins, of the square roots above the lowest grey level: photon noise is the same at
    every root, so that dim cells are not lost beside bright ones.

    Parameters
    ----------
    sample : sequence of float arrays
        Any shapes, finite.

    Returns
    -------
    float
        inf, so that nothing is above it, where there are no two kinds of pixel to part: in an
        empty sample, a constant one, or one of nothing but smoothed noise.
    """
    values = np.concatenate([np.empty(0), *(np.ravel(part) for part in sample)])
    if values.size == 0 or np.ptp(values) <= _LEAST_RANGE * np.abs(values).max():
        return float("inf")
    lowest = float(values.min())
    counts, edges = np.histogram(np.sqrt(values - lowest), bins=_BINS)
    best = _best_split(counts / values.size, (edges[:-1] + edges[1:]) / 2)
    return float("inf") if best is None else lowest + float(edges[best + 1]) ** 2


def _best_split(share: NDArray[np.float64], centres: NDArray[np.float64]) -> int | None:
    """Return the last bin of the lower kind, or None if there is but one kind."""
    mean = float(share @ centres)
    below = np.cumsum(share)[:-1]
    parts = np.clip(below * (1 - below), 1e-12, None)
    between = (mean * below - np.cumsum(share * centres)[:-1]) ** 2 / parts
    equal = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    best = int(equal[len(equal) // 2])
    within = float(share @ (centres - mean) ** 2) - between[best]
    return best if between[best] / parts[best] >= _LEAST_CONTRAST**2 * within else None


def _without_pinholes(foreground: NDArray[np.bool_], side_px: float) -> NDArray[np.bool_]:
    """Fill holes smaller than a square of `side_px`, which would part a cell in the watershed."""
    holes, count = ndimage.label(~foreground)
    small = np.bincount(holes.ravel(), minlength=count + 1) < side_px**2
    small[0] = False
    return np.asarray(foreground | small[holes])


def _separate(foreground: NDArray[np.bool_], separation_px: float) -> NDArray[np.int32]:
    """Return labels int32 (H, W), one for each peak of the distance to the background."""
    distance = ndimage.distance_transform_edt(foreground)
    # Unsmoothed, every bump of an outline is a peak; a quarter of the separation was best on
    # the demo plate and on Data Science Bowl 2018.
    distance = ndimage.gaussian_filter(distance, separation_px / 4) * foreground
    peaks = _peaks(distance, foreground, 2 * round(separation_px) + 1)
    markers = np.zeros(foreground.shape, np.int32)
    markers.flat[peaks] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, markers, mask=foreground)  # type: ignore[no-untyped-call]
    return np.asarray(labels, np.int32)


def _peaks(
    distance: NDArray[np.float64], foreground: NDArray[np.bool_], side_px: int
) -> NDArray[np.intp]:
    """Return the flat indices of the pixels that are highest in the square around them.

    Of equal ones the first in raster order, so that a plateau has one peak; and
    one in every clump, however small it is beside its neighbour.
    """
    highest = foreground & (distance == ndimage.maximum_filter(distance, side_px))
    rank = np.where(highest.ravel(), np.arange(highest.size, 0, -1), 0).reshape(highest.shape)
    highest &= rank == ndimage.maximum_filter(rank, side_px)
    clumps, count = ndimage.label(foreground)
    without = np.ones(count + 1, bool)
    without[0] = False
    without[clumps[highest]] = False
    left = np.flatnonzero(without[clumps])
    order = left[np.lexsort((-distance.flat[left], clumps.flat[left]))]
    _, first = np.unique(clumps.flat[order], return_index=True)
    return np.sort(np.concatenate([np.flatnonzero(highest), order[first]]))


def _instances(
    labels: NDArray[np.int32], smooth: Plane, level: float, min_area_px: int
) -> Instances:
    """Cut the labels into instances, holes filled, debris left out."""
    found = []
    for label, window in enumerate(ndimage.find_objects(labels), 1):
        patch = labels[window]
        mask = ndimage.binary_fill_holes(patch == label) & ((patch == label) | (patch == 0))
        if np.count_nonzero(mask) < min_area_px:
            continue
        mean = float(smooth[window][mask].mean())
        score = min(max(1 - level / mean, 0.0), 1.0) if mean > 0 else 0.0
        found.append(((window[0].start, window[1].start), mask, score, 1))
    return Instances.stack(found)
