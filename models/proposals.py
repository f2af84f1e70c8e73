"""Proposals: what a detector finds before scores and masks are cut, so that cuts can move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import Overlap
from cellseg.models.instances import Instances

Masks = Sequence[NDArray[np.float32]] | NDArray[np.float32]
Placed = tuple[int, int, NDArray[np.float32]]
"""First row and column, and the probabilities (h, w) from there."""
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
    placed : tuple of (y, x, float32 (h, w))
        Of each the first row and column in the plane, and the probabilities from there.
    scores : float32 (N,)
    classes : uint8 (N,)
    shape : (H, W)
        Of the plane.
    overlap : "resolve", "keep" or "certain"
        What is done where two of them claim a pixel; masks that are certain stay as they are.
    """

    placed: tuple[Placed, ...]
    scores: NDArray[np.float32]
    classes: NDArray[np.uint8]
    shape: tuple[int, int]
    overlap: Overlap | Literal["certain"] = "resolve"

    def __len__(self) -> int:
        return len(self.placed)

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
        placed = [paste(box, mask, shape) for box, mask in zip(boxes.tolist(), masks, strict=True)]
        return cls(tuple(placed), scores, classes, shape, overlap)

    @classmethod
    def certain(cls, found: Instances, shape: tuple[int, int]) -> Proposals:
        """Return objects whose masks are cut already: probabilities of 1."""
        corners = found.boxes[:, :2].tolist()
        placed = [
            (y, x, mask.astype(np.float32))
            for (y, x), mask in zip(corners, found.masks, strict=True)
        ]
        return cls(tuple(placed), found.scores, found.classes, shape, "certain")

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
        return RULES[self.overlap](self, best.tolist(), mask_threshold, min_area_px)


def separate(
    found: Proposals, order: Sequence[int], mask_threshold: float, min_area_px: int
) -> Instances:
    """Turn proposals of touching cells into instances that share no pixel.

    Best scores come first. An object of which better ones already cover more
    than `SHARED` is dropped; a pixel that several claim goes to the one most
    certain of it; of what is left of an object, its largest piece is kept.
    """
    best = np.zeros(found.shape, np.float32)
    owner = np.full(found.shape, -1, np.int32)
    kept: list[tuple[int, slice, slice]] = []
    for index in order:
        y, x, probability = found.placed[index]
        window = (slice(y, y + probability.shape[0]), slice(x, x + probability.shape[1]))
        inside = probability >= mask_threshold
        area = np.count_nonzero(inside)
        taken = np.count_nonzero(inside & (owner[window] >= 0))
        if area < min_area_px or taken > SHARED * area:
            continue
        won = inside & (probability > best[window])
        best[window][won] = probability[won]
        owner[window][won] = index
        kept.append((index, *window))
    masks = [
        (index, rows.start, columns.start, _largest_piece(owner[rows, columns] == index))
        for index, rows, columns in kept
    ]
    return _stacked(found, masks, min_area_px)


def whole(
    found: Proposals, order: Sequence[int], mask_threshold: float, min_area_px: int
) -> Instances:
    """Turn proposals of overlapping cells into instances, each whole, whatever others cover.

    Best scores come first; of each object, its largest piece is kept.
    """
    masks = []
    for index in order:
        y, x, probability = found.placed[index]
        masks.append((index, y, x, _largest_piece(probability >= mask_threshold)))
    return _stacked(found, masks, min_area_px)


def certain(
    found: Proposals, order: Sequence[int], mask_threshold: float, min_area_px: int
) -> Instances:
    """Return masks that are cut already."""
    placed = [(index, *found.placed[index]) for index in order]
    masks = [(index, y, x, mask >= mask_threshold) for index, y, x, mask in placed]
    return _stacked(found, masks, min_area_px)


def _stacked(
    found: Proposals, masks: Sequence[tuple[int, int, int, NDArray[np.bool_]]], min_area_px: int
) -> Instances:
    return Instances.stack(
        [
            ((y, x), mask, float(found.scores[index]), int(found.classes[index]))
            for index, y, x, mask in masks
            if np.count_nonzero(mask) >= min_area_px
        ]
    )


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
    corner, weights = [], []
    for low, high, length, size in zip(box[:2], box[2:], shape, mask.shape, strict=True):
        first = max(int(np.ceil(low - 0.5)), 0)
        last = min(int(np.floor(high - 0.5)) + 1, length)
        corner.append(first)
        weights.append(_bilinear(np.arange(first, last), low, high, size))
    return corner[0], corner[1], np.asarray(weights[0] @ mask @ weights[1].T, np.float32)


def _bilinear(pixels: NDArray[np.intp], low: float, high: float, size: int) -> NDArray[np.float32]:
    """Return the weight of each of `size` samples from `low` to `high` for each pixel's centre."""
    position = (pixels + 0.5 - low) * (size / max(high - low, 1e-6)) - 0.5
    position = np.clip(position, 0, size - 1)
    distance = np.abs(position[:, None] - np.arange(size)[None, :])
    return np.asarray(np.maximum(1 - distance, 0), np.float32)


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest part of a mask that hangs together, the first of equals."""
    pieces, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return np.asarray(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax(), bool)
