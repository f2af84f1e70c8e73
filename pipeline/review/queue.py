"""The review queue: the cells in doubt, in order, what was said of them, and the place in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.review.doubts import Doubts

__all__ = ["Key", "Order", "Queue"]

Key = tuple[str, int]
"""Image and label of a cell."""
Order = Literal["worst first", "image by image"]


class Queue:
    """The cells to look at, in order, and the place in it.

    Parameters
    ----------
    doubts : Doubts
        Of the cells of one image or of many.
    verdicts : mapping of (image, label) to str
        Of cells that are settled: "accept", "reject" or "gone".
    order : "worst first" or "image by image"
        Whether cells of all images are mixed, or an image with all its cells comes after the
        other; the one with most doubt comes first then.
    """

    def __init__(
        self,
        doubts: Doubts,
        verdicts: Mapping[Key, str] | None = None,
        order: Order = "worst first",
    ) -> None:
        self.doubts, self.order = doubts, order
        self.verdicts: dict[Key, str] = dict(verdicts or {})
        self.kinds: Collection[str] = ()
        self.least, self.open_only = 0.0, False
        self.without: set[str] = set()
        self._place, self._at_hand, self._image = -1, False, ""
        self._shown = np.zeros(0, np.int64)
        self._settled = np.zeros(len(doubts), bool)
        images, labels = [key[0] for key in self.verdicts], [key[1] for key in self.verdicts]
        rows = doubts.keys.rows(images, labels)
        self._settled[rows[rows >= 0]] = True
        self.filter()

    def filter(
        self, kinds: Collection[str] = (), least: float = 0.0, *, open_only: bool = False
    ) -> None:
        """Set what is shown; the cell at hand stays at hand, if it still is.

        Parameters
        ----------
        kinds : collection of str
            Only cells of one of these kinds of doubt; empty for all cells.
        least : float
            Only cells of at least this doubt.
        open_only : bool
            Leave out those that are settled.
        """
        here = self.current
        self.kinds, self.least, self.open_only = kinds, least, open_only
        # Of single precision, as the doubts are: 0.3 is not less than 0.3.
        kept = self.doubts.total >= np.float32(least)
        if kinds:
            kept &= self.doubts.of_kinds(kinds)
        if open_only:
            kept &= ~self._settled
        for image in self.without:
            kept &= ~self.doubts.keys.of_image(image)
        self._shown = self._ordered(np.flatnonzero(kept))
        self._places = np.full(len(self.doubts), -1, np.int64)
        self._places[self._shown] = np.arange(len(self._shown))
        self._place, self._at_hand = -1, False
        if here is None or not self.go_to(here):
            self._before(self._image)

    def _ordered(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        keys, total = self.doubts.keys, self.doubts.total[rows]
        codes, labels = keys.codes[rows], keys.labels[rows]
        if self.order == "worst first":
            return rows[np.lexsort((labels, codes, -total))]
        weight = np.bincount(codes, total, minlength=len(keys.images))
        return rows[np.lexsort((labels, -total, codes, -weight[codes]))]

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, place: int) -> Key:
        """Return the cell in a place of what is shown."""
        return self.doubts.keys[int(self._shown[place])]

    @property
    def keys(self) -> list[Key]:
        """All cells that are shown, in order."""
        return [self[place] for place in range(len(self))]

    @property
    def place(self) -> int | None:
        """The place of the cell at hand; None before the first."""
        return self._place if self._at_hand else None

    @property
    def current(self) -> Key | None:
        """The cell at hand; None before the first."""
        return self[self._place] if self._at_hand else None

    @property
    def done(self) -> int:
        """How many of those shown are settled."""
        return int(self._settled[self._shown].sum())

    def reason(self, key: Key) -> str:
        """Return why a cell is in doubt."""
        row = self.doubts.keys.row(*key)
        return ("" if row is None else self.doubts.reason(row)) or "no doubt"

    def place_of(self, key: Key) -> int | None:
        """Return where a cell is shown; None if it is not."""
        row = self.doubts.keys.row(*key)
        place = -1 if row is None else int(self._places[row])
        return place if place >= 0 else None

    def step(self, by: int = 1) -> Key | None:
        """Go on, or back, to the nearest cell that is not settled; None if there is none.

        Going back, cells that are settled count too.
        """
        place = self._place + by
        if by > 0:
            open_ = np.flatnonzero(~self._settled[self._shown[place:]])
            place = place + int(open_[0]) if len(open_) else len(self)
        elif not self._at_hand:
            place += 1
        if not 0 <= place < len(self):
            return None
        self._take(place)
        return self[place]

    def _take(self, place: int) -> None:
        self._place, self._at_hand = place, True
        self._image = self[place][0]

    def go_to(self, key: Key) -> bool:
        """Take a cell at hand; return whether it is among those shown."""
        place = self.place_of(key)
        if place is not None:
            self._take(place)
        return place is not None

    def enter(self, image: str) -> None:
        """Go before the first cell of an image, where the queue goes image by image."""
        if self._image != image:
            self._image = image
            self._before(image)

    def _before(self, image: str) -> None:
        of_it = np.flatnonzero(self.doubts.keys.of_image(image)[self._shown])
        if self.order == "image by image" and len(of_it):
            self._place, self._at_hand = int(of_it[0]) - 1, False

    def leave_out(self, image: str) -> None:
        """Show no cells of an image any more, as it cannot be opened."""
        self.without.add(image)
        self.filter(self.kinds, self.least, open_only=self.open_only)

    def mark(self, key: Key, verdict: str | None) -> None:
        """Note what was said of a cell; None takes it back."""
        if verdict is None:
            self.verdicts.pop(key, None)
        else:
            self.verdicts[key] = verdict
        row = self.doubts.keys.row(*key)
        if row is not None:
            self._settled[row] = verdict is not None
