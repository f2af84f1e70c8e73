"""A picture of the images that a model does worst: image, truth, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.breakdown import Cells, Outcome, mean_ap
from cellseg.models.normalise import decide
from cellseg.models.settings import Percentile
from cellseg.pipeline.overview import GAMMA, outlines

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

PANEL, TEXT, GAP = 400, 20, 8
"""Px: the longer side of a panel, the height of a line of text, the space between panels."""
WINDOW = 800
"""Px; of a larger image only the part with the most wrong pixels is shown."""
TRUTH, MATCHED, MISSED, FALSE = (0, 200, 255), (0, 220, 0), (255, 220, 0), (255, 40, 40)
LEGEND = "image | truth (blue) | found: matched at IoU 0.5 green, missed truth yellow, false red"


@dataclass(frozen=True)
class Case:
    """One image, its truth and what was found.

    Parameters
    ----------
    outcome : Outcome
    pixels : (H, W) of any type
        The first channel that the model saw.
    truth, labels : integers (H, W)
        The labels that `outcome` was counted from.
    """

    outcome: Outcome
    pixels: NDArray[Any]
    truth: NDArray[Any]
    labels: NDArray[Any]

    @property
    def rank(self) -> tuple[float, str]:
        """The worst image comes first."""
        return mean_ap(self.outcome.scores), self.outcome.name

    @property
    def title(self) -> str:
        """Name, accuracy and counts."""
        outcome, first = self.outcome, self.outcome.scores[0]
        return (
            f"{outcome.name[:40]}  {' x '.join(map(str, self.pixels.shape))} px"
            f"  AP {first.average_precision:.3f} at 0.5, mean {mean_ap(outcome.scores):.3f};"
            f" {len(outcome.true.labels)} true, {len(outcome.found.labels)} found,"
            f" {first.false_negative} missed, {first.false_positive} false"
        )


def write_worst(cases: Sequence[Case], path: Path) -> None:
    """Write a row of three panels for each case."""
    rows = [panels(case) for case in cases]
    width = 3 * PANEL + 2 * GAP
    height = TEXT + sum(TEXT + GAP + row.shape[0] for row in rows)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    draw.text((2, 2), LEGEND, "black", font)
    top = TEXT
    for case, row in zip(cases, rows, strict=True):
        draw.text((2, top + 2), case.title, "black", font)
        sheet.paste(Image.fromarray(row), (0, top + TEXT))
        top += TEXT + GAP + row.shape[0]
    sheet.save(path, "PNG")


def panels(case: Case) -> Picture:
    """Return image, truth and found cells side by side, uint8 (h, 3 * PANEL + 2 * GAP, 3)."""
    true, found = case.outcome.true, case.outcome.found
    missed, false = true.labels[true.iou == 0], found.labels[found.iou == 0]
    window = _window(np.isin(case.truth, missed) | np.isin(case.labels, false))
    grey = _grey(case.pixels, window)
    truth, labels = (_nearest(side[window], grey.shape) for side in (case.truth, case.labels))
    pictures = [np.repeat(grey[:, :, None], 3, axis=2) for _ in range(3)]
    _outline(pictures[1], truth, true.labels, TRUTH)
    _outline(pictures[2], truth, missed, MISSED)
    _outline(pictures[2], labels, false, FALSE)
    _outline(pictures[2], labels, _matched(found), MATCHED)
    row = np.full((grey.shape[0], 3 * PANEL + 2 * GAP, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        left = index * (PANEL + GAP)
        row[:, left : left + picture.shape[1]] = picture
    return row


def _matched(cells: Cells) -> NDArray[np.int64]:
    return cells.labels[cells.iou > 0]


def _window(wrong: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the square of `WINDOW` px, or what there is of it, with the most wrong pixels."""
    starts = [
        sorted({min(start, max(length - WINDOW, 0)) for start in range(0, length, WINDOW)})
        for length in wrong.shape
    ]
    windows = [(slice(y, y + WINDOW), slice(x, x + WINDOW)) for y in starts[0] for x in starts[1]]
    return max(windows, key=lambda window: np.count_nonzero(wrong[window]))


def _grey(pixels: NDArray[Any], window: tuple[slice, slice]) -> Picture:
    """Return a window with the contrast of the whole image, its longer side `PANEL` px."""
    contrast = decide(Percentile(), [pixels[None]])
    shown = np.clip(contrast.apply(pixels[window][None])[0], 0, 1) ** GAMMA
    height, width = (max(round(n * PANEL / max(shown.shape)), 1) for n in shown.shape)
    picture = Image.fromarray((shown * 255).astype(np.uint8))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _nearest(labels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return labels at another size, each pixel that of the nearest centre."""
    rows, columns = (
        (np.arange(wanted) + 0.5) * length // wanted
        for wanted, length in zip(shape, labels.shape, strict=True)
    )
    resized: NDArray[Any] = labels[np.ix_(rows.astype(int), columns.astype(int))]
    return resized


def _outline(
    picture: Picture, labels: NDArray[Any], chosen: NDArray[np.int64], colour: Colour
) -> None:
    """Draw the outlines of some labels."""
    picture[outlines(labels) & np.isin(labels, chosen)] = colour
