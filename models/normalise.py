"""Grey levels to the scale that models see, decided once per image and channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellseg.models.settings import Percentile, Range, Unchanged

Settings = Percentile | Range | Unchanged


@dataclass(frozen=True)
class Normalisation:
    """For each channel the grey level that becomes 0, and the one that becomes 1."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return pixels (C, H, W) of any type as float32; not clipped.

        A channel without any contrast (low equals high) becomes 0 throughout.
        """
        low = np.asarray(self.low, np.float32)[:, None, None]
        span = np.asarray(self.high, np.float32)[:, None, None] - low
        scale = np.divide(1, span, out=np.zeros_like(span), where=span > 0)
        return np.asarray((pixels.astype(np.float32) - low) * scale, np.float32)


def decide(settings: Settings, sample: Sequence[NDArray[np.generic]]) -> Normalisation:
    """Decide the scale of one image from samples of it.

    Parameters
    ----------
    settings : Percentile, Range or Unchanged
    sample : sequence of (C, h, w) arrays
        At least one. The whole image where it is small.
    """
    channels = sample[0].shape[0]
    if isinstance(settings, Unchanged):
        return Normalisation((0.0,) * channels, (1.0,) * channels)
    if isinstance(settings, Range):
        return Normalisation((settings.low,) * channels, (settings.high,) * channels)
    bounds = [_bounds(settings, [part[c] for part in sample]) for c in range(channels)]
    return Normalisation(tuple(low for low, _ in bounds), tuple(high for _, high in bounds))


def _bounds(settings: Percentile, parts: Sequence[NDArray[np.generic]]) -> tuple[float, float]:
    """Return the grey levels that become 0 and 1, different ones unless all pixels are equal."""
    pixels = np.concatenate([part.ravel() for part in parts])
    low, high = (float(v) for v in np.percentile(pixels, (settings.low, settings.high)))
    if low < high:
        return low, high
    # A few cells on a flat background, or a few holes in a flat foreground.
    least, most = float(pixels.min()), float(pixels.max())
    return (low, most) if most > low else (least, high)
