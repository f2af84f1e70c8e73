"""What planes are linked by: how many pixels sections share, and how many they must."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.assignment import Floats, Integers

UNKNOWN = 0.25
"""Least overlap where the distance of planes is not known."""
LEAST = 0.1
"""Least overlap, however far planes are apart."""


@dataclass(frozen=True)
class LinkRules:
    """How sections are judged.

    Parameters
    ----------
    depth : int
        Planes of the volume.
    step : float or None
        Distance of two planes in px of a plane; None if it is not known.
    overlap : float or None
        Shared area over the smaller area from which sections of neighbouring planes may be
        one cell; None for what `expected_overlap` says.
    gap, least_planes : int
        See `cellseg.pipeline.link_settings.Link`.
    """

    depth: int
    step: float | None = None
    overlap: float | None = None
    gap: int = 1
    least_planes: int = 2

    @property
    def reach(self) -> int:
        """How many planes on sections are compared."""
        return max(self.gap + 1, 2)

    def needed(self, areas: Floats, apart: Integers) -> Floats:
        """Return the part of the smaller section that must be shared, (P,).

        Parameters
        ----------
        areas : float64 (P,)
            Of the smaller of each pair, in px.
        apart : int64 (P,)
            How many planes on the other is.
        """
        if self.overlap is not None:
            return np.full(len(areas), self.overlap)
        if self.step is None:
            return np.full(len(areas), UNKNOWN)
        shift = self.step * apart / np.sqrt(areas * (4 / pi))
        return np.maximum(expected_overlap(shift) / 2, LEAST)


@dataclass(frozen=True, eq=False)
class Shares:
    """What sections of different planes share.

    Parameters
    ----------
    ones, others : int64 (P,)
        Two sections by their number, `others` in the later plane; no pair twice.
    pixels : int64 (P,)
        How many they share: above 0.
    """

    ones: Integers
    others: Integers
    pixels: Integers

    def __len__(self) -> int:
        return len(self.ones)

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> Shares:
        """Return the chosen pairs."""
        return Shares(self.ones[chosen], self.others[chosen], self.pixels[chosen])

    def added(self) -> Shares:
        """Return each pair once, in order, with the sum of its pixels."""
        order = np.lexsort((self.others, self.ones))
        there = self.take(order)
        new = np.ones(len(there), bool)
        new[1:] = (np.diff(there.ones) != 0) | (np.diff(there.others) != 0)
        starts = np.flatnonzero(new)
        if not len(starts):
            return there
        pixels = np.add.reduceat(there.pixels, starts)
        return Shares(there.ones[starts], there.others[starts], pixels)


def expected_overlap(shift: Floats) -> Floats:
    """Return the part that two equal circles share, by their distance over their diameter."""
    inside = np.minimum(shift, 1)
    overlap: Floats = (np.arccos(inside) - inside * np.sqrt(1 - inside**2)) * (2 / pi)
    return overlap
