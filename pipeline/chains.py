"""Sections of a volume on their way to 3D cells: the steps of `cellseg.pipeline.link`."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cellseg.models.meeting import spread
from cellseg.pipeline.assignment import Floats, Integers, assign
from cellseg.pipeline.link_rules import LinkRules, Shares

INSIDE = 0.5
"""Part of the smaller of two sections that must be shared for one to hold or lie in the other."""
WAIST = 0.5
"""Part of the least diameter that a convex cell's section could have, below which what is on both
sides are two cells."""
NARROWED = 0.7
"""A cell narrows towards its end if it is smaller there than this part of its largest section."""


class Chains:
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
