"""Cells of neighbouring time points to tracks, by overlap and by the distance of their centres.

Each pair of time points is one linear assignment problem, as in Jaqaman et al., "Robust
single-particle tracking in live-cell time-lapse sequences", Nature Methods 2008: the
gain of a pair is 1, and its IoU, and how near the centres are. Cells missed for a while are
closed up in a second step, and divisions found in a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.assignment import Floats, Integers, assign
from cellseg.pipeline.link_rules import Shares

ALIKE = 0.5
"""The smaller of two daughters has at least this part of the other's size."""


@dataclass(frozen=True)
class TrackRules:
    """How cells are followed.

    Parameters
    ----------
    distance : float
        The farthest that a centre moves from one time point to the next.
    gap : int
        Time points in a row at which a cell may be missed.
    divisions : bool
        Whether to look for cells that became two.
    """

    distance: float
    gap: int = 0
    divisions: bool = True


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks of cells.

    Parameters
    ----------
    track : uint32 (N,)
        From 1 on, in the order of the first cell of each.
    parent : uint32 (N,)
        The track that divided into that one; 0 for none.
    """

    track: NDArray[np.uint32]
    parent: NDArray[np.uint32]


def follow(
    times: Integers, centres: Floats, sizes: Integers, shares: Shares, rules: TrackRules
) -> Tracks:
    """Follow cells over time.

    Parameters
    ----------
    times : int64 (N,)
        The time point of each cell, ascending; number cells by their position, as ties
        are broken by it.
    centres : float64 (N, D)
        In the unit of `TrackRules.distance`.
    sizes : int64 (N,)
        Pixels or voxels.
    shares : Shares
        What cells share with those of the next time point, in any order.
    rules : TrackRules
    """
    before = np.full(len(times), -1)
    after = np.full(len(times), -1)
    shares = shares.added()
    for apart in range(1, rules.gap + 2):
        for t in range(int(times.max(initial=0)) + 1 - apart):
            ones = np.flatnonzero((times == t) & (after < 0))
            others = np.flatnonzero((times == t + apart) & (before < 0))
            pairs, gains = _near(ones, others, centres, rules.distance)
            if apart == 1:
                pairs, gains = _with_overlap(pairs, gains, shares, sizes, times == t)
            # One more pair outweighs most of what others lose in nearness by it.
            chosen = assign(pairs[:, 0], pairs[:, 1], 1 + gains)
            one, other = pairs[chosen].T
            after[one], before[other] = other, one
    mother = _divisions(times, centres, sizes, before, after, rules)
    return _numbered(times, before, mother)


def _near(
    ones: Integers, others: Integers, centres: Floats, distance: float
) -> tuple[Integers, Floats]:
    """Return the pairs of cells within a distance, and how near they are, above 0 to 1."""
    from scipy.spatial import cKDTree

    if not len(ones) or not len(others):
        return np.zeros((0, 2), np.int64), np.zeros(0)
    trees = cKDTree(centres[ones]), cKDTree(centres[others])
    found = trees[0].sparse_distance_matrix(trees[1], distance, output_type="ndarray")
    gains = 1 - found["v"] / distance
    pairs = np.stack([ones[found["i"]], others[found["j"]]], axis=1)
    return pairs[gains > 0], gains[gains > 0]


def _with_overlap(
    pairs: Integers, gains: Floats, shares: Shares, sizes: Integers, now: NDArray[np.bool_]
) -> tuple[Integers, Floats]:
    """Return all pairs that are near or overlap, their IoU added to how near they are."""
    there = shares.take(now[shares.ones])
    iou = there.pixels / (sizes[there.ones] + sizes[there.others] - there.pixels)
    both = np.concatenate([pairs, np.stack([there.ones, there.others], axis=1)])
    pairs, place = np.unique(both, axis=0, return_inverse=True)
    summed = np.zeros(len(pairs))
    np.add.at(summed, place, np.concatenate([gains, iou]))
    return pairs, summed


def _divisions(
    times: Integers,
    centres: Floats,
    sizes: Integers,
    before: Integers,
    after: Integers,
    rules: TrackRules,
) -> dict[int, int]:
    """Return the mother of each daughter; both daughters of one are like in size.

    A cell that begins is a daughter of one before it that goes on as another cell, if
    that one's centre is within half the distance from the middle between the two.
    """
    mother: dict[int, int] = {}
    if not rules.divisions:
        return mother
    for t in range(1, int(times.max(initial=0)) + 1):
        new = np.flatnonzero((times == t) & (before < 0))
        old = np.flatnonzero((times == t - 1) & (after >= 0))
        old = old[times[after[old]] == t]
        pairs, _ = _near(old, new, centres, 2 * rules.distance)
        one, two = after[pairs[:, 0]], pairs[:, 1]
        middle = (centres[one] + centres[two]) / 2
        away = np.linalg.norm(centres[pairs[:, 0]] - middle, axis=1)
        gains = 1 - away / (rules.distance / 2)
        alike = np.minimum(sizes[one], sizes[two]) >= ALIKE * np.maximum(sizes[one], sizes[two])
        able = np.flatnonzero(alike & (gains > 0))
        chosen = able[assign(pairs[able, 0], pairs[able, 1], gains[able])]
        for pair in chosen.tolist():
            parent, daughter = pairs[pair].tolist()
            mother[daughter] = mother[int(after[parent])] = parent
    return mother


def _numbered(times: Integers, before: Integers, mother: dict[int, int]) -> Tracks:
    """Return the tracks in the order of their first cells, and the parent of each."""
    before = before.copy()
    before[list(mother)] = -1
    starts = np.flatnonzero(before < 0)
    track = np.zeros(len(times), np.int64)
    track[starts] = np.arange(1, len(starts) + 1)
    for t in np.unique(times).tolist():
        on = np.flatnonzero((times == t) & (before >= 0))
        track[on] = track[before[on]]
    parents = np.zeros(len(starts) + 1, np.int64)
    for daughter, parent in mother.items():
        parents[track[daughter]] = track[parent]
    return Tracks(track.astype(np.uint32), parents[track].astype(np.uint32))


def arrays_of(tracks: Tracks) -> dict[str, NDArray[Any]]:
    """Return the fields as arrays to store."""
    return {"track": tracks.track, "parent": tracks.parent}
