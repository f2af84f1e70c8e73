"""Quality of an image: background, saturation and focus of each of its channels.

From the same windows that decide how the image is normalised; no tiling moves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cellseg.pipeline.image import Image
from cellseg.pipeline.sampling import sample_windows
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.worker import side_by_side

__all__ = ["Quality", "channel_quality", "image_quality", "quality_warnings"]

SATURATED_SHARE = 0.002
"""Share of pixels at the top grey level from which a channel is flagged: where cells cover a tenth
of an image, one in fifty of their pixels."""
BLURRED_SLOPE = -3.5
"""Power log-log slope below which a channel is flagged; see docs/summary.md for what it was
tried on."""
ROUGHEST_NOISE = 10.0
"""Variance of the blocks' means in a patch, of that which white noise would give, up to which a
patch shows nothing: white noise stays below 4 in an image of any size."""
SQUARE_PX, LEAST_SQUARE_PX = 256, 64
"""Side of the squares whose power spectra are averaged, and the least there must be."""
SQUARES = 8
"""Squares along a side of a window, at most."""
PATCH_PX, BLOCK_PX = 32, 8
"""Sides of a patch that may show something, and of the blocks whose means are compared."""
BLOCKS = PATCH_PX // BLOCK_PX
FREEDOM = BLOCKS**2 - 3
"""Degrees of freedom of the means of a patch beside a tilted plane."""
EMPTY, SATURATED, BLURRED = "empty", "saturated", "out of focus"


@dataclass(frozen=True)
class Quality:
    """What the windows of one channel show; a part of ``run.json``.

    Parameters
    ----------
    background : float or None
        Grey level of the background: the commonest mean of blocks of 8 px.
    saturated : float
        Share of pixels at the top grey level of the camera or file, 0 to 1.
    focus : float or None
        Power log-log slope: about -1 to -3 in focus, steeper where blurred. None in images
        under 64 px and in constant ones.
    flags : tuple of "empty", "saturated", "out of focus"
    top : float or None
        The greatest grey level there is.
    """

    background: float | None
    saturated: float
    focus: float | None
    flags: tuple[str, ...]
    top: float | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What ``run.json`` says of it."""
        return {
            "background": self.background,
            "saturated": self.saturated,
            "focus": self.focus,
            "flags": list(self.flags),
        }


def image_quality(scene: Scene) -> dict[str, Quality]:
    """Return the quality of each channel of an image's first, middle and last plane.

    At most 4 megapixels of a plane are looked at, a channel and plane at a time: all of it, or
    64 windows of 256 px.
    """
    numbers = sorted({0, scene.planes // 2, scene.planes - 1})
    planes = [scene.plane(number) for number in numbers]
    image = scene.image

    def look(channel: int) -> Quality:
        return channel_quality(_windows(image, channel, planes))

    found = side_by_side(look, range(len(scene.channels)))
    return dict(zip(scene.channels, found, strict=True))


def _windows(
    image: Image, channel: int, planes: Sequence[tuple[int, int]]
) -> Iterable[NDArray[Any]]:
    for t, z in planes:
        for (window,) in sample_windows(image, [channel], t, z):
            yield window


def channel_quality(windows: Iterable[NDArray[Any]]) -> Quality:
    """Return the quality of one channel, seen in windows (h, w).

    NaN and infinite pixels count as the darkest of their window.
    """
    seen = _Seen()
    for window in windows:
        finite = np.isfinite(window)
        if finite.any():
            seen.add(window if finite.all() else np.where(finite, window, window[finite].min()))
    return seen.quality()


@dataclass
class _Seen:
    """What was seen of a channel so far."""

    pixels: int = 0
    real: bool = False
    least: float = np.inf
    most: float = -np.inf
    at_most: int = 0
    rough: float = 0.0
    means: list[NDArray[np.float64]] = field(default_factory=list)
    power: NDArray[np.float64] | None = None

    def add(self, window: NDArray[Any]) -> None:
        """Take a window (h, w) into account."""
        least, most = float(window.min()), float(window.max())
        if most > self.most:
            self.most, self.at_most = most, 0
        if most == self.most:
            self.at_most += int(np.count_nonzero(window == window.max()))
        self.pixels += window.size
        self.real = window.dtype.kind == "f"
        self.least = min(self.least, least)
        # Less the level, so that single precision resolves the noise on any.
        single = (window.astype(np.float64) - least).astype(np.float32)
        means, rough = _blocks(single)
        self.means.append(means.ravel().astype(np.float64) + least)
        self.rough = max(self.rough, rough)
        power = _ring_power(single)
        if power is not None and (self.power is None or len(power) == len(self.power)):
            self.power = power if self.power is None else self.power + power

    def quality(self) -> Quality:
        """Return what it comes to."""
        if not self.pixels:
            return Quality(None, 0.0, None, (EMPTY,))
        saturated = self.at_most / self.pixels if self._at_top() else 0.0
        focus = None if self.power is None else _slope(self.power)
        means = np.concatenate(self.means)
        background = half_sample_mode(means) if means.size else self.least
        flags = self._flags(saturated, focus, background)
        rounded = None if focus is None else round(focus, 3)
        return Quality(_rounded(background), round(saturated, 6), rounded, flags, self.most)

    def _at_top(self) -> bool:
        """Whether the greatest grey level is that of a camera: of 8 to 16 bits, also shifted to 16.

        Of floats 1 is one too.
        """
        tops = {2**bits - 1 for bits in (*range(8, 17), 32)}
        shifted = {(2**bits - 1) << (16 - bits) for bits in (10, 12, 14)}
        return self.most in tops | shifted or (self.real and self.most == 1)

    def _flags(self, saturated: float, focus: float | None, background: float) -> tuple[str, ...]:
        constant = self.least == self.most
        # White around stained tissue is at the top without a loss to what is darker.
        lost = saturated >= SATURATED_SHARE and (background < self.most or constant)
        full = [SATURATED] * lost
        if (constant or 0 < self.rough <= ROUGHEST_NOISE) and not (constant and lost):
            return (*full, EMPTY)
        return (*full, *([BLURRED] * (focus is not None and focus < BLURRED_SLOPE)))


def _rounded(value: float) -> float:
    """Return a grey level to 6 digits."""
    return float(f"{value:.6g}")


def _blocks(plane: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Return the mean of each block of 8 px (n, m), and the greatest roughness of a patch.

    Roughness is the variance of the means of a patch's blocks, beside a tilted plane (uneven
    light), over what the variance of their pixels leads one to expect: an F ratio, that a hot
    pixel does not raise.
    """
    rows, columns = (length // BLOCK_PX for length in plane.shape)
    cut = plane[: rows * BLOCK_PX, : columns * BLOCK_PX]
    blocks = cut.reshape(rows, BLOCK_PX, columns, BLOCK_PX)
    means = blocks.mean((1, 3))
    off = blocks - means[:, None, :, None]
    within = np.einsum("aibj,aibj->ab", off, off).astype(np.float64) / (BLOCK_PX**2 - 1)
    between, expected = _patches(means.astype(np.float64)), _patches(within).mean((1, 2))
    if not len(between):
        return means, 0.0
    variance = _beside_plane(between) * BLOCK_PX**2
    rough = np.where(variance > 0, np.inf, 0.0)
    np.divide(variance, expected, out=rough, where=expected > 0)
    return means, float(rough.max())


def _patches(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the blocks of each whole patch, (n, 4, 4)."""
    rows, columns = (length // BLOCKS for length in blocks.shape)
    cut = blocks[: rows * BLOCKS, : columns * BLOCKS]
    return cut.reshape(rows, BLOCKS, columns, BLOCKS).swapaxes(1, 2).reshape(-1, BLOCKS, BLOCKS)


def _beside_plane(patches: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance (n,) of patches (n, 4, 4) about a plane fitted to each."""
    level = patches - patches.mean((1, 2), keepdims=True)
    ramp = np.arange(BLOCKS) - (BLOCKS - 1) / 2
    ramp /= np.sqrt(BLOCKS * np.sum(ramp * ramp))
    down, across = (level * ramp[:, None]).sum((1, 2)), (level * ramp).sum((1, 2))
    rest: NDArray[np.float64] = np.square(level).sum((1, 2)) - down**2 - across**2
    # What is left of an exact plane by rounding is nothing.
    rest[rest < 1e-9 * np.square(level).sum((1, 2))] = 0
    return np.maximum(rest, 0) / FREEDOM


def _ring_power(plane: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return the power of a window in rings of frequency, float64 (rings,); None in a small one.

    Summed over squares of 256 px (Welch 1967), each under a Hann window: without it the edges
    of a square hide how steep the spectrum of a blurred image is.
    """
    side = min(SQUARE_PX, *plane.shape)
    if side < LEAST_SQUARE_PX:
        return None
    starts = [_starts(length, side) for length in plane.shape]
    hann = np.hanning(side + 1)[:-1].astype(np.float32)
    power = np.zeros((side, side // 2 + 1))
    for y in starts[0]:
        row = np.stack([plane[y : y + side, x : x + side] for x in starts[1]])
        row = (row - row.mean((1, 2), keepdims=True)) * (hann[:, None] * hann)
        row -= row.mean((1, 2), keepdims=True)
        spectrum = fft.rfft2(row)
        power += (spectrum.real**2 + spectrum.imag**2).sum(0)
    down = np.minimum(np.arange(side), side - np.arange(side))[:, None]
    rings = np.hypot(down, np.arange(side // 2 + 1)).astype(np.intp) + 1
    power[:, 1 : (side + 1) // 2] *= 2  # the other half of the spectrum is the same
    summed: NDArray[np.float64] = np.bincount(rings.ravel(), power.ravel())[2 : side // 8]  # type: ignore[assignment]
    return summed


def _starts(length: int, side: int) -> list[int]:
    """Return where squares begin along a side: evenly, the first and last at the edges."""
    count = min(length // side, SQUARES)
    if count == 1:
        return [(length - side) // 2]
    return [number * (length - side) // (count - 1) for number in range(count)]


def _slope(power: NDArray[np.float64]) -> float | None:
    """Return the slope of log power over log frequency, of rings from the second on."""
    ring = np.arange(2, len(power) + 2)[power > 0]
    if len(ring) < 2:
        return None
    return float(np.polyfit(np.log(ring), np.log(power[power > 0]), 1)[0])


def half_sample_mode(values: NDArray[np.float64]) -> float:
    """Return where values (N,), N > 0, lie most densely: the half-sample mode.

    The shortest interval that holds half of them, of those half, and so on (Bickel and
    Fruehwirth, Computational Statistics and Data Analysis 2006); of several the middle one.
    """
    rest = np.sort(values)
    while len(rest) > 3:
        half = (len(rest) + 1) // 2
        width = rest[half - 1 :] - rest[: len(rest) - half + 1]
        shortest = np.flatnonzero(width == width.min())
        start = int(shortest[len(shortest) // 2])
        rest = rest[start : start + half]
    return float(np.median(rest))


def quality_warnings(channels: Mapping[str, Quality]) -> list[str]:
    """Return what the user should know, and what to do, each flag once for all channels."""
    return [
        f"{_named([name for name, one in channels.items() if flag in one.flags])}: {words}"
        for flag, words in _WORDS.items()
        if any(flag in one.flags for one in channels.values())
    ]


_WORDS = {
    EMPTY: "nothing but background (empty): see whether the stain, exposure and position are right",
    SATURATED: "saturated pixels: grey levels of bright cells are too low; expose less, and"
    " compare no intensities with this image",
    BLURRED: "out of focus: outlines and intensities are not to be trusted; focus again, or"
    " leave the image out",
}


def _named(channels: Sequence[str]) -> str:
    some = ", ".join(channels[:3]) + ", ..." * (len(channels) > 3)
    return f"channel{'s' * (len(channels) > 1)} {some}"
