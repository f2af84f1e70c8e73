"""Inputs: from the channels of a file to the planes that a model sees.

A new kind of plane is one settings class in `cellseg.models.channel_settings`, one function here,
and one line in `PLANES`. Every plane is made pixel by pixel, in one order of operations, so that
no value depends on the window it was read in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.channel_settings import Combination, Grey, MaxOf, Stain, SumOf
from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import find_channel

__all__ = ["PLANES", "Inputs", "Plane", "make"]

COLOURS = ("red", "green", "blue")
LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue, as `skimage.color.rgb2gray` has them."""
STAINS = {"hematoxylin": 0, "eosin": 1, "dab": 2}
LEAST, UNIT = 1 / 255, 1e-6
"""A colour is at least as bright as `LEAST`, of 1. `skimage.color.rgb2hed` takes `UNIT` for that,
and counts absorption in units of its logarithm: a pixel of grey level 0 then holds 2.5 times the
stain of one of level 1, and the darkest nuclei fall apart into specks."""

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Plane:
    """A plane that a model sees.

    Parameters
    ----------
    name : str
        Of its columns in the table, if it is made of channels.
    channels : tuple of int
        Channels of the image that it follows from.
    settings : Combination or None
        How; None for a channel as it is.
    """

    name: str
    channels: tuple[int, ...]
    settings: Combination | None = None


@dataclass(frozen=True)
class Inputs:
    """What a model sees of an image.

    Parameters
    ----------
    planes : tuple of Plane
        In the model's order.
    """

    planes: tuple[Plane, ...]

    @classmethod
    def of(
        cls,
        entries: Sequence[int | str | Combination],
        channels: Sequence[str],
        source: str,
        numbering: Sequence[str] = (),
    ) -> Inputs:
        """Find the channels that the entries of ``[model] channels`` name.

        Parameters
        ----------
        entries : sequence
        channels : sequence of str
            Names of the channels of an image.
        source : str
            Which image it is, for an error.
        numbering : sequence of str
            See `find_channel`.

        Raises
        ------
        CellsegError
            If there is no such channel; lists those that exist, the nearest name first.
        """
        find = partial(find_channel, channels, source, numbering=numbering)
        return cls(tuple(_plane(entry, channels, source, find) for entry in entries))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the image to be read, each once, in ascending order.

        As they are if the model sees channels alone, in its order.
        """
        if self.plain:
            return tuple(plane.channels[0] for plane in self.planes)
        return tuple(sorted({channel for plane in self.planes for channel in plane.channels}))

    @property
    def plain(self) -> bool:
        """Whether the model sees channels as they are."""
        return all(plane.settings is None for plane in self.planes)

    @property
    def derived(self) -> tuple[Plane, ...]:
        """The planes that are made of channels, each once."""
        return tuple(dict.fromkeys(p for p in self.planes if p.settings is not None))

    @property
    def first(self) -> Inputs:
        """The first plane alone."""
        return Inputs(self.planes[:1])

    def see(self, pixels: Pixels) -> Pixels:
        """Return the planes (N, h, w) that the model sees.

        Parameters
        ----------
        pixels : (C, h, w), type of the file
            Of `channels`, in that order.

        Returns
        -------
        (N, h, w)
            In the type of the file where every plane has it, else float32.
        """
        if self.plain:
            return pixels
        by_number = dict(zip(self.channels, pixels, strict=True))
        return _stacked([make(plane, by_number) for plane in self.planes], pixels.dtype)

    def measured_names(self, channels: Sequence[str]) -> tuple[str, ...]:
        """Return the names of an image's channels and behind them those of the `derived` planes.

        Where there is such a name already, ``input_`` stands in front.
        """
        names = list(channels)
        for plane in self.derived:
            names.append(plane.name if plane.name not in names else f"input_{plane.name}")
        return tuple(names if len(set(names)) == len(names) else _numbered(names, len(channels)))


def _numbered(names: Sequence[str], channels: int) -> list[str]:
    return [*names[:channels], *(f"input_{n}" for n in range(len(names) - channels))]


def _plane(
    entry: int | str | Combination,
    channels: Sequence[str],
    source: str,
    find: Callable[[int | str], int],
) -> Plane:
    if isinstance(entry, int | str):
        return Plane(str(entry), (find(entry),))
    name, named = NAMES[type(entry)](entry)
    if isinstance(entry, Stain | Grey) and entry.of is None and not set(COLOURS) <= set(channels):
        raise CellsegError(
            f"{source}: {name} is made of the channels red, green and blue; there are"
            f" {', '.join(map(repr, channels))}. Name the three, as in of = [0, 1, 2]."
        )
    return Plane(name, tuple(_index(channels, find, each, entry) for each in named), entry)


def _index(
    channels: Sequence[str],
    find: Callable[[int | str], int],
    channel: int | str,
    entry: Combination,
) -> int:
    # A key in TOML is always text.
    if isinstance(entry, SumOf) and channel not in channels and str(channel).isdecimal():
        channel = int(channel)
    return find(channel)


def _stacked(planes: Sequence[Pixels], dtype: np.dtype[Any]) -> Pixels:
    kept = dtype if all(plane.dtype == dtype for plane in planes) else np.dtype(np.float32)
    return np.stack([plane.astype(kept, copy=False) for plane in planes])


def make(plane: Plane, pixels: dict[int, Pixels]) -> Pixels:
    """Return a plane (h, w), contiguous, from the channels of an image by their number."""
    mine = [np.ascontiguousarray(pixels[channel]) for channel in plane.channels]
    return mine[0] if plane.settings is None else PLANES[type(plane.settings)](plane.settings, mine)


def _largest(_: MaxOf, channels: Sequence[Pixels]) -> Pixels:
    """Return the largest of the channels, in their own type."""
    return np.asarray(np.maximum.reduce(channels))


def _sum(settings: SumOf, channels: Sequence[Pixels]) -> Pixels:
    """Return the weighted sum, float32."""
    return _weighted([weight for _, weight in settings.sum], channels)


def _grey(settings: Grey, channels: Sequence[Pixels]) -> Pixels:
    """Return luminance or darkness, float32, in grey levels of the image."""
    luminance = _weighted(LUMINANCE, channels)
    return luminance if settings.grey == "luminance" else _white(channels[0].dtype) - luminance


def _stain(settings: Stain, channels: Sequence[Pixels]) -> Pixels:
    """Return how much of a stain there is, float32, 0 or more, as `skimage.color.rgb2hed` says.

    But for the darkest pixels: see `LEAST`.
    """
    absorbed = [_absorbed(channel) for channel in channels]
    amount = _weighted(_unmixing()[STAINS[settings.stain]], absorbed)
    return np.maximum(amount, np.float32(0))


PLANES: dict[type[Any], Callable[[Any, Sequence[Pixels]], Pixels]] = {
    MaxOf: _largest,
    SumOf: _sum,
    Stain: _stain,
    Grey: _grey,
}
"""How each kind of plane is made of its channels (h, w), given in the order of the settings."""

NAMES: dict[type[Any], Callable[[Any], tuple[str, Sequence[int | str]]]] = {
    MaxOf: lambda entry: ("max_" + "_".join(map(str, entry.max)), entry.max),
    SumOf: lambda entry: ("sum_" + "_".join(n for n, _ in entry.sum), [n for n, _ in entry.sum]),
    Stain: lambda entry: (entry.stain, entry.of or COLOURS),
    Grey: lambda entry: (entry.grey, entry.of or COLOURS),
}
"""What each kind of plane is called, and the channels that it is made of."""


def _weighted(weights: Sequence[float], channels: Sequence[Pixels]) -> Pixels:
    """Return a weighted sum, float32, added up from the first to the last."""
    total = np.float32(weights[0]) * channels[0].astype(np.float32)
    for weight, channel in zip(weights[1:], channels[1:], strict=True):
        total += np.float32(weight) * channel.astype(np.float32)
    return total


def _white(dtype: np.dtype[Any]) -> np.float32:
    """Return the grey level of white: 1 in floats."""
    return np.float32(1 if dtype.kind == "f" else np.iinfo(dtype).max)


def _absorbed(channel: Pixels) -> Pixels:
    """Return how much of a colour is absorbed, float32 from 0, of white, to 0.4."""
    if channel.dtype.itemsize <= 2 and channel.dtype.kind == "u":
        return np.asarray(_absorption_table(channel.dtype.name)[channel])
    bright = channel.astype(np.float64) / float(_white(channel.dtype))
    return _absorption(bright).astype(np.float32)


def _absorption(bright: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(bright, LEAST)) / np.log(UNIT))


@lru_cache(maxsize=2)
def _absorption_table(dtype: str) -> NDArray[np.float32]:
    """Return the absorption for each grey level: a logarithm a level, not a pixel."""
    white = np.iinfo(dtype).max
    return _absorption(np.arange(white + 1) / white).astype(np.float32)


@lru_cache(maxsize=1)
def _unmixing() -> tuple[tuple[float, ...], ...]:
    """Return for each stain the weights of the three absorptions."""
    from skimage.color import hed_from_rgb

    return tuple(tuple(map(float, row)) for row in hed_from_rgb.T)
