"""Assignment: which of the ones goes with which of the others, one to one, at the highest gain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_TABLE = 2**20
"""Entries up to which a group is settled as a full table, and beyond as a sparse one."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def assign(ones: Integers, others: Integers, gains: Floats) -> Integers:
    """Choose pairs such that none has a partner in common and the gains add up to the most.

    Pairs fall into groups that hang together, and each group is settled exactly: time
    goes with the pairs, and neither their order nor other groups change anything. Of
    choices of one gain the same is taken whenever the group is the same, so number
    both sides by something that does not depend on how they were found.

    Parameters
    ----------
    ones, others : int64 (P,)
        The two sides of each pair; no pair twice.
    gains : float64 (P,)
        Above 0.

    Returns
    -------
    int64 (M,)
        The chosen pairs by their index, ascending.
    """
    if not len(ones):
        return np.zeros(0, np.int64)
    order = np.lexsort((others, ones))
    row = np.unique(ones[order], return_inverse=True)[1]
    column = np.unique(others[order], return_inverse=True)[1]
    alone = (np.bincount(row)[row] == 1) & (np.bincount(column)[column] == 1)
    chosen = [order[alone]]
    rest = np.flatnonzero(~alone)
    for group in _groups(row[rest], column[rest]):
        pairs = rest[group]
        chosen.append(order[pairs[_settle(row[pairs], column[pairs], gains[order[pairs]])]])
    return np.sort(np.concatenate(chosen))


def _groups(row: Integers, column: Integers) -> list[Integers]:
    """Return the pairs of each group that hangs together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(row):
        return []
    first = int(row.max()) + 1
    size = first + int(column.max()) + 1
    graph = coo_array((np.ones(len(row), np.int8), (row, first + column)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][row]
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _settle(row: Integers, column: Integers, gains: Floats) -> Integers:
    """Return the best choice within one group, as indices of its pairs."""
    from scipy.optimize import linear_sum_assignment

    own, row = np.unique(row, return_inverse=True)
    other, column = np.unique(column, return_inverse=True)
    if len(own) * len(other) > LARGEST_TABLE:
        return _settle_sparse(row, column, gains)
    table = np.zeros((len(own), len(other)))
    number = np.full(table.shape, -1)
    table[row, column], number[row, column] = gains, np.arange(len(row))
    found: Integers = number[linear_sum_assignment(table, maximize=True)]
    return found[found >= 0]


def _settle_sparse(row: Integers, column: Integers, gains: Floats) -> Integers:
    """Do the work of `_settle` for a group too large for a table."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    height, width = int(row.max()) + 1, int(column.max()) + 1
    own, dearest = np.arange(height), 2 * float(gains.max())
    # A column for each row means "no partner", at no gain. Costs must not be 0.
    costs = np.concatenate([dearest - gains, np.full(height, dearest)])
    places = np.concatenate([row, own]), np.concatenate([column, width + own])
    graph = csr_array((costs, places), shape=(height, width + height))
    found_row, found_column = min_weight_full_bipartite_matching(graph)
    taken = found_column < width
    keys = row.astype(np.int64) * width + column
    wanted = found_row[taken].astype(np.int64) * width + found_column[taken]
    chosen: Integers = np.flatnonzero(np.isin(keys, wanted))
    return chosen
