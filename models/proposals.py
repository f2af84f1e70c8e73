"""Proposals: what a detector finds before scores and masks are cut, so that cuts can move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import Overlap
from cellseg.models.instances import Instances
from cellseg.models.laid import Laid, Places, contested

Masks = Sequence[NDArray[np.float32]] | NDArray[np.float32]
TOGETHER_PX = 2**18
"""Pixels of crops that are pasted at a time: they fit the processor's cache."""
SHARED = 0.5
"""An object that loses more than this part of its area to better ones is a second guess at them."""


@runtime_checkable
class Proposes(Protocol):
    """A segmenter that can say what it finds before scores and masks are cut."""

    def proposals(self, plane: NDArray[np.float32], corner: tuple[int, int] = (0, 0)) -> Proposals:
        """Return what it finds in a plane (C, H, W)."""
        ...


@dataclass(frozen=True, eq=False)
class Proposals:
    """Objects of one plane, each pixel with the probability that it belongs to it.

    Parameters
    ----------
    laid : Laid of float32
        The probabilities of each in a box of the plane, zero around it.
    scores : float32 (N,)
    classes : uint8 (N,)
    shape : (H, W)
        Of the plane.
    overlap : "resolve", "keep" or "certain"
        What is done where two of them claim a pixel; masks that are certain stay as they are.
    """

    laid: Laid
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    shape: tuple[int, int]
    overlap: Overlap | Literal["certain"] = "resolve"

    def __len__(self) -> int:
        return len(self.laid)

    @classmethod
    def pasted(
        cls,
        boxes: NDArray[np.float64],
        masks: Masks,
        scores: NDArray[np.float32],
        classes: NDArray[np.uint8],
        shape: tuple[int, int],
        overlap: Overlap,
    ) -> Proposals:
        """Build from masks over boxes.

        Parameters
        ----------
        boxes : float64 (N, 4) as y0, x0, y1, x1 in px
        masks : N arrays, float32 (R, S), probabilities over each box
        scores : float32 (N,)
        classes : uint8 (N,)
        shape : (H, W) of the plane
        overlap : "resolve" or "keep"
        """
        return cls(_pasted(boxes, masks, shape), scores, classes, shape, overlap)

    @classmethod
    def certain(cls, found: Instances, shape: tuple[int, int]) -> Proposals:
        """Return objects whose masks are cut already: probabilities of 1."""
        laid = Laid(found.boxes, found.laid.values.astype(np.float32))
        return cls(laid, found.scores, found.classes, shape, "certain")

    def cut(self, score: float, mask_threshold: float, min_area_px: int) -> Instances:
        """Return the objects at some settings; see `cellseg.models.settings.DetectorSettings`.

        Parameters
        ----------
        score : float
            Objects below it are left out.
        mask_threshold : float
            A pixel is in the mask from this probability on.
        min_area_px : int
            Smaller objects are left out.
        """
        best = np.argsort(-self.scores, kind="stable")
        best = best[self.scores[best] >= score]
        inside = self.laid.values >= mask_threshold
        return RULES[self.overlap](self, best, inside, min_area_px)


def separate(
    found: Proposals, order: NDArray[np.intp], inside: NDArray[np.bool_], min_area_px: int
) -> Instances:
    """Turn proposals of touching cells into instances that share no pixel.

    Best scores come first. An object of which better ones already cover more
    than `SHARED` is dropped; a pixel that several claim goes to the one most
    certain of it; of what is left of an object, its largest piece is kept.

    Parameters
    ----------
    found : Proposals
    order : int (M,)
        Those that are used, best first.
    inside : bool, of the probabilities' shape
        Where they reach the mask's threshold.
    min_area_px : int
        Smaller objects are left out.
    """
    laid, (height, width) = found.laid, found.shape
    areas = laid.counts(inside)
    order = order[areas[order] >= min_area_px]
    rank = np.full(len(laid), -1)
    rank[order] = np.arange(len(order))
    claims = laid.places(laid.without(inside, np.flatnonzero(rank < 0)), width)
    shared = contested(claims.id, height * width)
    disputes = Places(*(each[shared] for each in claims))
    probability = laid.values[disputes.at]
    guesses, won = _settled(disputes, probability, order, areas, height * width)
    rank[guesses] = -1
    mine = laid.without(inside, np.flatnonzero(rank < 0))
    mine = mine.copy() if mine is inside else mine
    mine[disputes.at[~won]] = False
    return _cut(found, order[rank[order] >= 0], _largest_pieces(laid, mine), min_area_px)


def _settled(
    disputes: Places,
    probability: NDArray[np.float32],
    order: NDArray[np.intp],
    areas: NDArray[np.int64],
    size: int,
) -> tuple[list[int], NDArray[np.bool_]]:
    """Return which objects are second guesses, and which claims to a pixel of several are won.

    Parameters
    ----------
    disputes : Places
        The pixels that several objects claim, once for each.
    probability : float32 (K,)
        Of each such claim.
    order, areas
        The objects, best first, and the pixels that each claims in all.
    size : int
        Px of the plane.
    """
    best, owner = np.zeros(size, np.float32), np.zeros(size, np.int32)
    bounds = np.searchsorted(disputes.crop, np.arange(len(areas) + 1))
    guesses = []
    for index in order[np.diff(bounds)[order] > 0].tolist():
        own = slice(*bounds[index : index + 2].tolist())
        pixels, sure = disputes.id[own], probability[own]
        before = best[pixels]
        if np.count_nonzero(before) > SHARED * areas[index]:
            guesses.append(index)
            continue
        better = pixels[sure > before]
        best[pixels] = np.maximum(sure, before)
        owner[better] = index + 1
    return guesses, owner[disputes.id] == disputes.crop + 1


def whole(
    found: Proposals, order: NDArray[np.intp], inside: NDArray[np.bool_], min_area_px: int
) -> Instances:
    """Turn proposals of overlapping cells into instances, each whole, whatever others cover.

    Best scores come first; of each object, its largest piece is kept. See `separate`.
    """
    return _cut(found, order, _largest_pieces(found.laid, inside), min_area_px)


def certain(
    found: Proposals, order: NDArray[np.intp], inside: NDArray[np.bool_], min_area_px: int
) -> Instances:
    """Return masks that are cut already; see `separate`."""
    return _cut(found, order, inside, min_area_px)


def _cut(
    found: Proposals, order: NDArray[np.intp], masks: NDArray[np.bool_], min_area_px: int
) -> Instances:
    """Return objects in an order, without those that are too small."""
    laid = Laid(found.laid.boxes, masks)
    return Instances.cut(laid, found.scores, found.classes, order, min_area_px)


RULES = {"resolve": separate, "keep": whole, "certain": certain}
"""What is done where two cells claim a pixel."""


def paste(
    box: Sequence[float], mask: NDArray[np.float32], shape: tuple[int, int]
) -> tuple[int, int, NDArray[np.float32]]:
    """Resample a box-sized mask to the pixels whose centres lie in its box.

    Parameters
    ----------
    box : (y0, x0, y1, x1)
        In px with fractions; pixel i reaches from i to i + 1.
    mask : float32 (R, S)
        Probabilities over the box.
    shape : (H, W)
        Size of the plane; what lies outside is left out.

    Returns
    -------
    y, x : int
        Corner of the crop.
    probability : float32 (h, w)
        Bilinear between the centres of the mask's cells; may be empty.
    """
    laid = _pasted(np.asarray([box], np.float64), mask[None], shape)
    return int(laid.boxes[0, 0]), int(laid.boxes[0, 1]), laid[0]


def _pasted(boxes: NDArray[np.float64], masks: Masks, shape: tuple[int, int]) -> Laid:
    """Resample many masks, see `paste`; a few at a time."""
    first = np.maximum(np.ceil(boxes[:, :2] - 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(boxes[:, 2:] - 0.5) + 1, shape).astype(np.int64)
    laid = Laid(np.concatenate([first, np.maximum(first, last)], axis=1), np.zeros(0, np.float32))
    values = np.empty(int(laid.sides.prod(axis=1).sum()), np.float32)
    sizes = [mask.shape for mask in masks]
    for start, stop in _parts(sizes, laid.ends):
        part = Laid(laid.boxes[start:stop], values[laid.starts[start] : laid.ends[stop - 1]])
        _resample(part, boxes[start:stop], np.stack([*masks[start:stop]]))
    return Laid(laid.boxes, values)


def _parts(sizes: Sequence[tuple[int, ...]], ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield runs of masks of one size, no more pixels in all than `TOGETHER_PX` or one mask's."""
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop < len(sizes) and sizes[stop] == sizes[start]:
            before = ends[start - 1] if start else 0
            if ends[stop] - before <= TOGETHER_PX:
                continue
        yield start, stop
        start = stop


def _resample(laid: Laid, boxes: NDArray[np.float64], masks: NDArray[np.float32]) -> None:
    """Fill crops with masks (N, R, S) over their boxes: first along y, then along x."""
    count, height, width = masks.shape
    rows, sides = laid.rows, laid.sides
    low, high, weights = _bilinear(rows.y, boxes[rows.crop, 0], boxes[rows.crop, 2], height)
    lines = masks.reshape(count * height, width)
    low, high = low + rows.crop * height, high + rows.crop * height
    down = lines[low] * weights[0][:, None] + lines[high] * weights[1][:, None]
    crop = np.repeat(np.arange(count), sides[:, 1])
    begins = np.cumsum(sides[:, 1]) - sides[:, 1]
    x = np.arange(len(crop)) - begins[crop] + laid.boxes[crop, 1]
    left, right, shares = _bilinear(x, boxes[crop, 1], boxes[crop, 3], width)
    # Of each pixel the column among those of all crops, and the row among those of `down`.
    lengths = rows.end - rows.start
    row = np.repeat(np.arange(len(lengths)), lengths)
    column = np.arange(len(row)) - rows.start[row] + begins[rows.crop][row]
    flat, row = down.ravel(), row * width
    laid.values[:] = flat[row + left[column]] * shares[0][column]
    laid.values[:] += flat[row + right[column]] * shares[1][column]


def _bilinear(
    pixels: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64], size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the two samples around each pixel's centre, and the weight of each, float32 (2, n).

    The samples are `size` from `low` to `high`; none lies beyond the first and last one.
    """
    position = (pixels + 0.5 - low) * (size / np.maximum(high - low, 1e-6)) - 0.5
    position = np.clip(position, 0, size - 1)
    first = position.astype(np.intp)
    second = np.minimum(first + 1, size - 1)
    weights = np.stack([1 - (position - first), position - first]).astype(np.float32)
    return first, second, weights


def _largest_pieces(laid: Laid, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return of each mask the largest part that hangs together, the first of equals."""
    whole = laid.spans(masks).in_one_piece(len(laid))
    if whole.all():
        return masks
    found = Laid(laid.boxes, masks.copy())
    for index in np.flatnonzero(~whole).tolist():
        mask = found[index]
        pieces, count = ndimage.label(mask)
        if count > 1:
            mask[:] = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return found.values
