"""The seam audit: cells near tile borders as many, as large, as roundly edged as elsewhere.

Cells in strips along the seams are compared with those in strips beside them;
`cellseg.pipeline.strips` says where these lie. Nothing is kept but sums for at
most 64 stretches of seams, which parts of an image add up to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import erfc, inf, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.strips import GROUPS, Floats, Integers, distances, strips
from cellseg.pipeline.tiles import Grid

UNITS = 2**16
"""Lengths are summed in 1 / 65536: sums of integers are the same in any order."""
FEWEST = 20
"""Cells on either side below which nothing is said."""
OFF = 0.1
SURE = 0.001
CELLS, WHOLE, AREA, STRAIGHT = range(4)
"""What is summed: cells; of those that do not touch the image's edge number, area, straightness."""


@dataclass(frozen=True)
class Ratio:
    """On seams over interior, and how often chance alone would differ as much.

    Parameters
    ----------
    ratio : float or None
        1 where nothing is wrong; None if there are too few cells.
    p : float or None
        Two-sided p-value of ratio 1.
    """

    ratio: float | None = None
    p: float | None = None

    @property
    def rounded(self) -> Ratio:
        """The same in four significant digits."""
        return Ratio(*(None if v is None else float(f"{v:.4g}") for v in (self.ratio, self.p)))

    @property
    def sure(self) -> float:
        """The ratio where it is certainly another than 1, else 1."""
        known = self.ratio is not None and self.p is not None and self.p < SURE
        return self.ratio if known and self.ratio is not None else 1.0

    def __str__(self) -> str:
        """Return it for people: ``1.01 (p 0.62)``."""
        if self.ratio is None or self.p is None:
            return "unknown"
        p = "p < 0.0001" if self.p < 0.0001 else f"p {self.p:.2g}"
        return f"{self.ratio:.2f} ({p})"


@dataclass(frozen=True)
class Audit:
    """What the seams of an image look like.

    Parameters
    ----------
    density : Ratio
        Cells on seams over cells in the interior strips, of equal area.
    size : Ratio
        Mean area on seams over mean area beside them.
    straight_edge : Ratio
        The same of `cellseg.pipeline.edges.straight_edge`.
    on_seam, interior : int
        Cells counted.
    within_px : int
        The distance `d`; 0 if there are no seams to judge.
    """

    density: Ratio = Ratio()
    size: Ratio = Ratio()
    straight_edge: Ratio = Ratio()
    on_seam: int = 0
    interior: int = 0
    within_px: int = 0
    within_region: bool = False
    """Whether cells of a region of interest were counted, of which the density says nothing."""

    @property
    def document(self) -> dict[str, Any]:
        """For ``run.json``: ratios and p-values in four significant digits, None for unknown."""
        ratios = {
            name: {"ratio": each.rounded.ratio, "p": each.rounded.p}
            for name, each in self._ratios.items()
        }
        counts = {"on_seam": self.on_seam, "interior": self.interior, "within_px": self.within_px}
        return ratios | counts

    @property
    def _ratios(self) -> dict[str, Ratio]:
        return {
            "density": self.density,
            "size": self.size,
            "straight_edge": self.straight_edge,
        }

    @property
    def text(self) -> str:
        """One line for people."""
        if self.within_region and self.size.ratio is not None:
            return (
                f"seams: size {self.size}, straight edges {self.straight_edge},"
                f" {self.on_seam} cells on seams; density is not judged in a region"
            )
        if self.density.ratio is None:
            if self.on_seam + self.interior == 0:
                return "seams: none with cells near them"
            counts = f"{self.on_seam} on them, {self.interior} beside"
            return f"seams: too few cells near seams to judge ({counts})"
        return (
            f"seams: density {self.density}, size {self.size},"
            f" straight edges {self.straight_edge}, {self.on_seam} cells on seams"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that is off by more than a tenth and not by chance."""
        return tuple(
            f"seams: {what}: {self._ratios[name]}. {REMEDY}"
            for name, least, most, what in SIGNS
            if not least <= self._ratios[name].sure <= most
        )


REMEDY = (
    "Raise [tiling] halo to the largest cell's diameter plus [tiling] margin; see docs/seams.md."
)
SIGNS = (
    ("density", 0, 1 + OFF, "more cells on tile borders than beside them, as if doubled or cut"),
    ("density", 1 - OFF, inf, "fewer cells on tile borders than beside them, as if lost or fused"),
    ("size", 0, 1 + OFF, "cells on tile borders are larger than beside them, as if fused"),
    ("size", 1 - OFF, inf, "cells on tile borders are smaller than beside them, as if cut"),
    ("straight_edge", 0, 1 + OFF, "cells on tile borders have straight edges, as if cut"),
)
"""What is off outside which bounds, and what it means."""


@dataclass(frozen=True, eq=False)
class SeamCounts:
    """Sums over the cells near seams; parts of an image add up, in any split and order.

    Parameters
    ----------
    distances : int64 (D,)
        Values of `d` in px, falling by half; none if the tiles are one, or too small.
    sums : int64 (D, 2, 4, GROUPS)
        On seams and in the interior: cells, and of those that do not touch the
        edge of the image number, area in px and straightness in 1 / 65536; for
        each stretch of seams.
    whole : int64 (2,)
        All cells that do not touch the edge of the image, and the sum of their
        diameters (of the circles of the same area) in 1 / 65536 px.
    """

    distances: Integers
    sums: Integers
    whole: Integers

    @classmethod
    def of(
        cls,
        grid: Grid,
        centres: Floats,
        areas: Integers,
        straight: Floats,
        touches_edge: NDArray[np.bool_],
    ) -> SeamCounts:
        """Count some of the cells of an image.

        Parameters
        ----------
        grid : Grid
            The tiles, the same ones for all planes.
        centres : float64 (N, 2)
            Row and column in px; the centre of the first pixel is 0.
        areas : int64 (N,)
            In px.
        straight : float64 (N,)
            See `cellseg.pipeline.edges.straight_edge`.
        touches_edge : bool (N,)
            Cells that the edge of the image may cut: counted, and left out of size and edges.
        """
        px = distances(grid)
        inside = ~np.asarray(touches_edge, bool)
        scaled = np.rint(np.asarray(straight) * UNITS)
        amounts = np.stack([np.ones(len(areas)), inside, areas * inside, scaled * inside])
        sums = np.zeros((len(px), 2, len(amounts), GROUPS), np.int64)
        for found, distance in zip(sums, px.tolist(), strict=True):
            for near, strip, group in strips(grid, distance, np.asarray(centres) + 0.5):
                _count(found, strip * GROUPS + group, amounts[:, near])
        diameters = np.rint(np.sqrt(amounts[AREA] * (4 / pi)) * UNITS)
        whole = [np.count_nonzero(inside), int(diameters.sum())]
        return cls(px, sums, np.array(whole, np.int64))

    def __add__(self, other: SeamCounts) -> SeamCounts:
        """Return the counts of both parts.

        Raises
        ------
        ValueError
            If they were counted on other tiles.
        """
        if not np.array_equal(self.distances, other.distances):
            raise ValueError(
                f"counts within {self.distances} and {other.distances} px do not add up:"
                " they are of different tiles"
            )
        return SeamCounts(self.distances, self.sums + other.sums, self.whole + other.whole)

    def to_arrays(self) -> dict[str, Integers]:
        """Return what `from_arrays` takes; at most 33 kB."""
        return {"distances": self.distances, "sums": self.sums, "whole": self.whole}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> SeamCounts:
        """Return the counts that `to_arrays` was asked of."""
        return cls(*(np.asarray(arrays[name], np.int64) for name in ("distances", "sums", "whole")))

    def finish(self, *, within_region: bool = False) -> Audit:
        """Return what the counts say.

        Parameters
        ----------
        within_region : bool
            Whether cells were kept in a part of the plane only: how many there are on
            seams and beside them then follows from where that part lies.
        """
        if not len(self.distances):
            return Audit()
        chosen = self._chosen()
        sums = self.sums[chosen]
        on, interior = sums[:, CELLS].sum(axis=1).tolist()
        fewest = 2 * FEWEST  # all lost on seams is no reason to keep silent
        return Audit(
            density=_density(sums[:, CELLS])
            if on + interior >= fewest and not within_region
            else Ratio(),
            size=_means(sums[:, WHOLE], sums[:, AREA]),
            straight_edge=_means(sums[:, WHOLE], sums[:, STRAIGHT]),
            on_seam=on,
            interior=interior,
            within_px=int(self.distances[chosen]),
            within_region=within_region,
        )

    def _chosen(self) -> int:
        """Return the number of the smallest distance that is a mean diameter or more."""
        count, diameters = self.whole.tolist()
        diameter = diameters / UNITS / max(count, 1)
        return max(int(np.count_nonzero(self.distances >= diameter)) - 1, 0)


def _count(found: Integers, place: Integers, amounts: Floats) -> None:
    """Add amounts (4, n) of cells to `found` (2, 4, GROUPS) at their place in (2, GROUPS)."""
    for what, amount in enumerate(amounts):
        added = np.bincount(place, amount, 2 * GROUPS)
        found[:, what] += np.rint(added).astype(np.int64).reshape(2, GROUPS)


def _density(cells: Integers) -> Ratio:
    """Compare the cells (2, GROUPS) on seams with those in the interior."""
    on, interior = cells.sum(axis=1).tolist()
    return Ratio(on / max(interior, 1), _p_value((cells[0] - cells[1]).astype(np.float64)))


def _means(counts: Integers, totals: Integers) -> Ratio:
    """Compare the mean of a quantity on seams with that in the interior, both (2, GROUPS)."""
    number, total = counts.sum(axis=1), totals.sum(axis=1)
    if number.min() < FEWEST or total.min() <= 0:
        return Ratio()
    # What each group adds to the difference of the means; on average 0 if there is none.
    excess = (totals - counts * (total.sum() / number.sum())) / number[:, None]
    on, interior = (total / number).tolist()
    return Ratio(on / interior, _p_value(excess[0] - excess[1]))


def _p_value(differences: Floats) -> float:
    """Return the two-sided p-value of differences that chance alone makes symmetric about 0.

    Their sum z over the root of the sum of their squares is about normal
    whatever their distributions, and however these vary from group to group,
    as flipping their signs changes nothing: Efron, "Student's t-test under
    symmetry conditions", J. Am. Stat. Assoc. 64 (1969) 1278-1302. So clusters
    of cells within a group, and the same cells in many planes, do no harm.
    With n groups z is at most sqrt(n): a single short seam proves little.
    """
    scale = sqrt(float(np.square(differences).sum()))
    return erfc(abs(float(differences.sum())) / scale / sqrt(2)) if scale > 0 else 1.0
