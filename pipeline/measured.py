"""Measured: which channels of an image are measured, and the planes that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellseg.models.channel_settings import Stain
from cellseg.pipeline.image import find_channel
from cellseg.pipeline.inputs import Inputs, Pixels, Plane, make
from cellseg.pipeline.patch import white


@dataclass(frozen=True)
class Measured:
    """What is measured of an image's grey levels.

    Parameters
    ----------
    names : tuple of str
        Of the columns, in their order.
    planes : tuple of Plane
        Channels, and planes made of channels, one for each name.
    """

    names: tuple[str, ...]
    planes: tuple[Plane, ...]

    @classmethod
    def of(
        cls,
        wanted: Sequence[int | str] | None,
        inputs: Inputs,
        channels: Sequence[str],
        source: str,
        numbering: Sequence[str] = (),
    ) -> Measured:
        """Find what ``[measure] channels`` names.

        Parameters
        ----------
        wanted : sequence of int or str, or None
            Channels by index or name, or planes that the model sees by the name of their columns.
            None: all of them.
        inputs : Inputs
            What the model sees.
        channels, source, numbering
            See `Inputs.of`.

        Raises
        ------
        CellsegError
            If there is no such channel; lists those that exist, the nearest name first.
        """
        known = inputs.measured_names(channels)
        every = [Plane(name, (number,)) for number, name in enumerate(channels)]
        every += inputs.derived
        chosen = range(len(known))
        if wanted is not None:
            numbered = numbering or channels
            found = (find_channel(known, source, each, numbered) for each in wanted)
            chosen = list(dict.fromkeys(found))
        return cls(tuple(known[n] for n in chosen), tuple(every[n] for n in chosen))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the image to be read, each once, in ascending order."""
        return tuple(sorted({channel for plane in self.planes for channel in plane.channels}))

    def tops(self, dtype: np.dtype[Any]) -> tuple[float, ...]:
        """Return the highest grey level that each can have in an image of a type; of a stain 1."""
        stains = [isinstance(plane.settings, Stain) for plane in self.planes]
        return tuple(1.0 if stain else white(dtype) for stain in stains)

    def see(self, pixels: Pixels) -> Pixels:
        """Return what is measured (N, h, w), of the pixels (C, h, w) of `channels`.

        In a type that holds them all.
        """
        if [plane.channels for plane in self.planes] == [(channel,) for channel in self.channels]:
            return pixels
        by_number = dict(zip(self.channels, pixels, strict=True))
        return np.stack([make(plane, by_number) for plane in self.planes])
