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

import numpy as np

from cellseg.pipeline.assignment import Integers
from cellseg.pipeline.chains import Chains
from cellseg.pipeline.link_rules import LinkRules, Shares


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
    chains = Chains(planes, areas, shares.added(), rules)
    chains.match()
    bridged = chains.bridge()
    chains.place_pieces()
    chains.cut_waists()
    missed = chains.close_gaps()
    cell = chains.cells()
    kept, short = chains.long_enough(cell)
    pieces = int(np.count_nonzero(chains.host >= 0))
    return Linked(np.where(kept, cell, -1), short, pieces, bridged, missed)
