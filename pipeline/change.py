"""Change: what one cell's mask was, and is, in a box of one plane; small, whatever the image.

What it was and what it is are said in full, not as a difference: changes that are carried out
again, from any state that some of them have led to, lead to the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellseg.pipeline.coco import format_counts, parse_counts
from cellseg.pipeline.tiles import Box

__all__ = ["Change", "carry_out", "decode", "encode"]

Mask = NDArray[np.bool_]
MOST = 2**32 - 1
"""The highest label."""


@dataclass(frozen=True)
class Change:
    """What became of one cell in a box of one plane.

    Parameters
    ----------
    label : int
    t, z : int
    box : (y0, x0, y1, x1)
        Half open, in px; of no pixel where only the class changes.
    before, after : str or None
        The cell's pixels in the box, as COCO's string of run lengths down its columns; None
        where it has none.
    class_before, class_after : int or None
        Class of the cell; None where there was, or is, no such cell.
    layer : int
        The label image, from 0.
    """

    label: int
    t: int
    z: int
    box: tuple[int, int, int, int]
    before: str | None
    after: str | None
    class_before: int | None
    class_after: int | None
    layer: int = 0

    @classmethod
    def between(
        cls,
        where: tuple[int, int, int, int],
        box: Box,
        before: Mask,
        after: Mask,
        classes: tuple[int | None, int | None],
    ) -> Self:
        """Return the change from one mask to another, both of the shape of a box.

        Parameters
        ----------
        where : (label, layer, t, z)
        box : Box
        before, after : bool (h, w)
        classes : (int or None, int or None)
        """
        label, layer, t, z = where
        sides = box.y0, box.x0, box.y1, box.x1
        return cls(label, t, z, sides, encode(before), encode(after), *classes, layer)

    @property
    def inverse(self) -> Change:
        """What takes it back."""
        return Change(
            self.label,
            self.t,
            self.z,
            self.box,
            self.after,
            self.before,
            self.class_after,
            self.class_before,
            self.layer,
        )

    @property
    def region(self) -> Box:
        """Its box."""
        return Box(*self.box)

    @property
    def plane(self) -> tuple[int, int, int]:
        """Layer, t and z."""
        return self.layer, self.t, self.z

    @property
    def drawn(self) -> bool:
        """Whether it says anything about pixels."""
        return self.before is not None or self.after is not None

    @cached_property
    def was(self) -> Mask:
        """The mask before, bool of the shape of the box."""
        return decode(self.before, self.region.shape)

    @cached_property
    def becomes(self) -> Mask:
        """The mask after, bool of the shape of the box."""
        return decode(self.after, self.region.shape)

    def carry_out(self, labels: NDArray[np.uint32], window: Box) -> None:
        """Change the labels (h, w) of a window of its plane, in place."""
        shared = window.intersect(self.region)
        if shared is None:
            return
        inside = labels[shared.within(window).slices]
        mask = self.becomes[shared.within(self.region).slices]
        inside[(inside == self.label) & ~mask] = 0
        inside[mask] = self.label

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        about = {name: value for name, value in vars(self).items() if name not in _CACHED}
        return about | {"box": list(self.box)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave.

        Raises
        ------
        ValueError, KeyError, TypeError, IndexError
            If it is no change.
        """
        about = {name: document[name] for name in _NAMES}
        box = tuple(int(side) for side in document["box"])
        change = cls(**about | {"box": box, "layer": document.get("layer", 0)})
        change.check()
        return change

    def check(self) -> None:
        """Refuse what no edit can have written.

        Raises
        ------
        ValueError, TypeError, IndexError
        """
        y0, x0, y1, x1 = self.box
        numbers = self.label, self.t, self.z, self.layer, *self.box
        if not all(isinstance(number, int) for number in numbers):
            raise TypeError("a number is missing")
        if not 0 < self.label <= MOST or min(numbers) < 0 or y1 < y0 or x1 < x0:
            raise ValueError("a number is out of range")
        for class_ in (self.class_before, self.class_after):
            if class_ is not None and not (isinstance(class_, int) and 0 < class_ < 256):
                raise ValueError("no such class")
        _ = self.was, self.becomes


_CACHED = ("was", "becomes")
_NAMES = ("label", "t", "z", "box", "before", "after", "class_before", "class_after")


def carry_out(changes: Iterable[Change], labels: NDArray[np.uint32], window: Box) -> None:
    """Carry out changes of one plane, in their order, on the labels (h, w) of a window."""
    for change in changes:
        change.carry_out(labels, window)


def encode(mask: Mask) -> str | None:
    """Return a mask as COCO's string of run lengths down its columns; None if it is empty."""
    if not mask.any():
        return None
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    ends = np.flatnonzero(np.diff(flat.view(np.int8)))
    counts = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    return format_counts(counts[:-1] if counts[-1] == 0 else counts)


def decode(text: str | None, shape: tuple[int, int]) -> Mask:
    """Return the mask (h, w) that `encode` gave a string for.

    Raises
    ------
    ValueError, IndexError
        If it is no such string, or of another shape.
    """
    mask = np.zeros(shape[0] * shape[1], bool)
    if text is not None:
        ends = np.cumsum(_counts(text))
        if ends[-1] > mask.size or np.any(np.diff(ends) < 0) or ends[0] < 0:
            raise ValueError("run lengths do not fit the box")
        runs = np.diff(np.concatenate([[0], ends, [mask.size]]))
        mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return mask.reshape(shape[1], shape[0]).T


def _counts(text: str) -> Sequence[int]:
    counts = parse_counts(text)
    if not counts:
        raise ValueError("no run lengths")
    return counts
