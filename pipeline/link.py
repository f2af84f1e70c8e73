"""Planes to volumes: which sections, the cells of single planes, are one 3D cell.

Six steps, each of which follows from how many pixels sections share, and from
nothing else:

1. Sections of neighbouring planes are matched one to one, at the highest sum of IoU.
2. Three planes vote. Sections are matched with those two planes on, too. Where such a
   match is not what step 1 leads to, though some section between holds or lies in both,
   the plane between is the bad one: if their IoU is above that of the weakest link that
   leads elsewhere, the two are linked over it. So a plane that shows two cells fused, or
   a cell split, neither fuses nor breaks a 3D cell.
3. A section without a match that holds, or lies in, the sections of one 3D cell in both
   neighbouring planes is a piece of that cell; of several cells, of that it shares most with.
4. A cell is cut where it has a waist. The square roots of the areas of a convex body's
   sections are concave (Brunn's theorem), so a section far below the line from a larger one
   to one behind it is where one cell ends and another begins.
5. Cells that end are matched with cells that begin a few planes on (a gap), unless both
   narrow towards the gap, as two cells do that lie above each other.
6. What is in too few planes is left out, unless the image cuts it off in z.

Sections that are each other's continuation share pixels in neighbouring planes, so
where no two cells touch and nothing is missed, no step but the fifth can join two of
them: exact planes of convex cells give exact volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import pi

import numpy as np
from numpy.typing import NDArray

from cellseg.models.meeting import spread
from cellseg.pipeline.assignment import Floats, Integers, assign

UNKNOWN = 0.25
"""Least overlap where the distance of planes is not known."""
LEAST = 0.1
"""Least overlap, however far planes are apart."""
INSIDE = 0.5
"""Part of the smaller of two sections that must be shared for one to hold or lie in the other."""
WAIST = 0.5
"""Part of the least diameter that a convex cell's section could have, below which what is on both
sides are two cells."""
NARROWED = 0.7
"""A cell narrows towards its end if it is smaller there than this part of its largest section."""


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


@dataclass(frozen=True, eq=False)
class Linked:
    """The 3D cells of a volume.

    Parameters
    ----------
    cell : int64 (N,)
        For each section the lowest section of its 3D cell; -1 where it is left out.
    short : int
        3D cells left out as they are in too few planes.
    pieces : int
        Sections that are not the only one of their cell in their plane.
    bridged : int
        Planes that a cell is linked over, though something lies there.
    missed : int
        Planes that a cell is linked over, with nothing there.
    """

    cell: Integers
    short: int = 0
    pieces: int = 0
    bridged: int = 0
    missed: int = 0


def expected_overlap(shift: Floats) -> Floats:
    """Return the part that two equal circles share, by their distance over their diameter."""
    inside = np.minimum(shift, 1)
    overlap: Floats = (np.arccos(inside) - inside * np.sqrt(1 - inside**2)) * (2 / pi)
    return overlap


def link(planes: Integers, areas: Integers, shares: Shares, rules: LinkRules) -> Linked:
    """Link the sections of a volume to 3D cells.

    Parameters
    ----------
    planes : int64 (N,)
        The plane of each section, ascending; number sections by their position, as ties
        are broken by it.
    areas : int64 (N,)
        Their pixels.
    shares : Shares
        Of all sections up to `LinkRules.reach` planes apart, in any order.
    rules : LinkRules
    """
    chains = _Chains(planes, areas, shares.added(), rules)
    chains.match()
    bridged = chains.bridge()
    chains.place_pieces()
    chains.cut_waists()
    missed = chains.close_gaps()
    cell = chains.cells()
    kept, short = chains.long_enough(cell)
    pieces = int(np.count_nonzero(chains.host >= 0))
    return Linked(np.where(kept, cell, -1), short, pieces, bridged, missed)


class _Chains:
    """Sections as they are linked: to one above, to one below, or as pieces of a chain."""

    def __init__(self, planes: Integers, areas: Integers, shares: Shares, rules: LinkRules) -> None:
        self.planes, self.areas, self.shares, self.rules = planes, areas, shares, rules
        self.up = np.full(len(planes), -1)
        self.down = np.full(len(planes), -1)
        self.host = np.full(len(planes), -1)
        self.strength = np.zeros(len(planes))
        self.apart = planes[shares.others] - planes[shares.ones]
        both = areas[shares.ones] + areas[shares.others]
        self.iou = shares.pixels / (both - shares.pixels)
        smaller = np.minimum(areas[shares.ones], areas[shares.others]).astype(np.float64)
        self.part = shares.pixels / smaller
        self.eligible = self.part >= rules.needed(smaller, self.apart)

    def match(self) -> None:
        """Match the sections of neighbouring planes."""
        self._tie(self._best(self.eligible & (self.apart == 1)))

    def bridge(self) -> int:
        """Link what is one cell over a plane that shows something else; return how often."""
        after = self._best(self.eligible & (self.apart == 2))
        one, other = self.shares.ones[after], self.shares.others[after]
        weakest = np.maximum(self._weakest_up(one), self._weakest_down(other))
        between = self.up[one]
        linked = (between >= 0) & (self.up[between] == other)
        able = after[(self.iou[after] > weakest) & ~linked]
        chosen = able[self._over_something(able)]
        self._untie(self.shares.ones[chosen], self.shares.others[chosen])
        self._tie(chosen)
        return len(chosen)

    def _over_something(self, pairs: Integers) -> NDArray[np.bool_]:
        """Return which pairs two planes apart have a section between that is their own.

        One that is the end of a better such pair is not: the plane between is then sound.
        """
        one, other = self.shares.ones[pairs], self.shares.others[pairs]
        taken = np.zeros(len(self.planes))
        for end in (one, other):
            np.maximum.at(taken, end, self.iou[pairs])
        low, middle, high, _ = self._between
        count = len(self.planes)
        keys = one * count + other
        order = np.argsort(keys)
        place = np.searchsorted(keys[order], low * count + high)
        known = place < len(keys)
        known[known] = keys[order[place[known]]] == (low * count + high)[known]
        pair, middle = order[place[known]], middle[known]
        over, best = np.zeros(len(pairs), bool), np.zeros(len(pairs))
        over[pair] = True
        np.maximum.at(best, pair, taken[middle])
        return over & (self.iou[pairs] > best)

    def place_pieces(self) -> None:
        """Give each section without a match to the cell that it is a piece of."""
        cell = self.cells()
        low, middle, high, pixels = self._between
        alone = (self.up[middle] < 0) & (self.down[middle] < 0) & (cell[low] == cell[high])
        low, middle, pixels = low[alone], middle[alone], pixels[alone]
        order = np.lexsort((low, -pixels, middle))
        first = np.unique(middle[order], return_index=True)[1]
        self.host[middle[order[first]]] = low[order[first]]

    def cut_waists(self) -> None:
        """Cut links to a section far smaller than a convex cell's would be there."""
        side = np.sqrt(self.areas.astype(np.float64))
        thin = np.zeros(len(self.planes), bool)
        for onward, back in ((self.up, self.down), (self.down, self.up)):
            # From a larger section through the next, smaller one to each of those behind it.
            first = np.flatnonzero(onward >= 0)
            first = first[side[onward[first]] < side[first]]
            middle = onward[first]
            behind = onward[middle]
            while (known := behind >= 0).any():
                first, middle, behind = first[known], middle[known], behind[known]
                length = np.abs(self.planes[behind] - self.planes[first])
                part = np.abs(self.planes[middle] - self.planes[first]) / length
                line = side[first] * (1 - part) + side[behind] * part
                lower = np.where(back is self.down, first, middle)
                thin[lower[side[middle] < WAIST * line]] = True
                behind = onward[behind]
        lower = np.flatnonzero(thin)
        self.down[self.up[lower]] = -1
        self.up[lower] = -1

    def close_gaps(self) -> int:
        """Link cells that end to cells that begin a few planes on; return the planes between."""
        missed = 0
        for gap in range(1, self.rules.gap + 1):
            narrow = self._narrow()
            one, other = self.shares.ones, self.shares.others
            free = (self.up[one] < 0) & (self.down[other] < 0)
            free &= (self.host[one] < 0) & (self.host[other] < 0)
            free &= ~(narrow[one] & narrow[other])
            chosen = self._best(self.eligible & free & (self.apart == gap + 1))
            self._tie(chosen)
            missed += gap * len(chosen)
        return missed

    def cells(self) -> Integers:
        """Return the lowest section of each section's cell."""
        cell = np.arange(len(self.planes))
        # Plane by plane upwards, so that what lies below is known.
        starts = np.searchsorted(self.planes, np.unique(self.planes))
        for own in np.split(cell.copy(), starts[1:]):
            linked = own[self.down[own] >= 0]
            cell[linked] = cell[self.down[linked]]
        pieces = np.flatnonzero(self.host >= 0)
        cell[pieces] = cell[self.host[pieces]]
        return cell

    def long_enough(self, cell: Integers) -> tuple[NDArray[np.bool_], int]:
        """Return which sections are in cells that are kept, and how many cells are not."""
        pairs = np.unique(np.stack([cell, self.planes], axis=1), axis=0)
        lengths = np.bincount(pairs[:, 0], minlength=len(cell))
        kept = lengths >= self.rules.least_planes
        kept[cell[(self.planes == 0) | (self.planes == self.rules.depth - 1)]] = True
        return kept[cell], int(np.count_nonzero((lengths > 0) & ~kept))

    def _best(self, wanted: NDArray[np.bool_]) -> Integers:
        """Return the pairs of the best one-to-one matching among the wanted ones."""
        pairs = np.flatnonzero(wanted)
        ones, others = self.shares.ones[pairs], self.shares.others[pairs]
        return pairs[assign(ones, others, self.iou[pairs])]

    def _tie(self, pairs: Integers) -> None:
        self.up[self.shares.ones[pairs]] = self.shares.others[pairs]
        self.down[self.shares.others[pairs]] = self.shares.ones[pairs]
        self.strength[self.shares.ones[pairs]] = self.iou[pairs]

    def _weakest_up(self, sections: Integers) -> Floats:
        """Return the lesser IoU of the two links above each section, 0 where there is no second."""
        first = self.up[sections]
        weakest = np.minimum(self.strength[sections], self.strength[first])
        return np.where((first >= 0) & (self.up[first] >= 0), weakest, 0)

    def _weakest_down(self, sections: Integers) -> Floats:
        """Return the lesser IoU of the two links below each section, 0 where there is no second."""
        first = self.down[sections]
        second = self.down[first]
        weakest = np.minimum(self.strength[first], self.strength[second])
        return np.where((first >= 0) & (second >= 0), weakest, 0)

    def _untie(self, above: Integers, below: Integers) -> None:
        """Cut what is linked above some sections, and below others."""
        old = self.up[above]
        self.down[old[old >= 0]] = -1
        self.up[above] = -1
        old = self.down[below]
        self.up[old[old >= 0]] = -1
        self.down[below] = -1

    def _narrow(self) -> NDArray[np.bool_]:
        """Return which sections are much smaller than the largest of their cell."""
        cell, largest = self.cells(), np.zeros(len(self.planes), np.int64)
        alone = self.host < 0
        np.maximum.at(largest, cell[alone], self.areas[alone])
        return self.areas < NARROWED * largest[cell]

    @cached_property
    def _between(self) -> tuple[Integers, Integers, Integers, Integers]:
        """Sections that hold or lie in one of the plane below and one of the plane above.

        The section below, that itself, the one above, and the sum of what is shared.
        """
        inside = (self.part >= INSIDE) & (self.apart == 1)
        there = self.shares.take(inside)
        # Pairs are in the order of `ones`, so those that go on from a section are a run.
        first = np.searchsorted(there.ones, there.others, "left")
        counts = np.searchsorted(there.ones, there.others, "right") - first
        below, number = spread(counts)
        above = first[below] + number
        pixels = there.pixels[below] + there.pixels[above]
        return there.ones[below], there.others[below], there.others[above], pixels
