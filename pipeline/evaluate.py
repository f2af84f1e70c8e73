"""Cells on disk against their truth: which files belong together, and how they score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.masks import Masks, MaskSource, find_masks, is_mask_file, read_pair, stem_of
from cellseg.pipeline.recall import ShareRecall, recall_by_share, recall_without_overlap
from cellseg.pipeline.score import THRESHOLDS, Score, match, pool

ALL = "(all)"
"""In the table, the name of all images together."""
RECALL_IOU = 0.5


@dataclass(frozen=True)
class ImageScores:
    """The scores of one pair of files, one per threshold."""

    name: str
    labels: Path
    truth: Path
    scores: tuple[Score, ...]
    recall: tuple[ShareRecall, ...]
    """By class of share, at `RECALL_IOU`."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of all pairs, and the names that have no partner on the other side."""

    images: tuple[ImageScores, ...]
    unpaired_labels: tuple[str, ...]
    unpaired_truth: tuple[str, ...]

    @property
    def pooled(self) -> list[Score]:
        """The scores over all cells of all images."""
        return pool(image.scores for image in self.images)

    @property
    def recall(self) -> list[ShareRecall]:
        """The recall over all true cells by class of share; empty if hardly any are covered.

        That is, if none is covered to more than a tenth by other true cells.
        """
        pooled = pool(image.recall for image in self.images)
        return pooled if any(each.cells for each in pooled[1:]) else []

    def recall_table(self) -> list[dict[str, Any]]:
        """Return a row for each image and class of share, and last those of ``(all)`` images."""
        if not self.recall:
            return []
        groups = [(image.name, image.recall) for image in self.images]
        groups.append((ALL, tuple(self.recall)))
        return [{"image": name, **each.row()} for name, recall in groups for each in recall]

    def table(self) -> list[dict[str, str | float]]:
        """Return a row for each image and threshold, and last those of ``(all)`` images."""
        groups = [(image.name, image.scores) for image in self.images]
        groups.append((ALL, tuple(self.pooled)))
        return [{"image": name, **score.row()} for name, scores in groups for score in scores]

    @property
    def text(self) -> str:
        """The tables in words."""
        tables = [_aligned(self.table())]
        if rows := self.recall_table():
            what = "by share of the true cell's area under other true cells"
            tables.append(f"Recall at IoU {RECALL_IOU} {what}\n{_aligned(rows)}")
        return "\n\n".join(tables)

    def document(self) -> dict[str, Any]:
        """Return the same as one object for JSON."""
        return {
            "pooled": [score.row() for score in self.pooled],
            "recall_by_share": [each.row() for each in self.recall],
            "images": [
                {
                    "image": image.name,
                    "labels": str(image.labels),
                    "truth": str(image.truth),
                    "scores": [score.row() for score in image.scores],
                    "recall_by_share": [each.row() for each in image.recall if self.recall],
                }
                for image in self.images
            ],
            "unpaired": {"labels": self.unpaired_labels, "truth": self.unpaired_truth},
        }


def evaluate_paths(
    labels: Path,
    truth: Path,
    thresholds: Sequence[float] = THRESHOLDS,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Score cells on disk.

    Parameters
    ----------
    labels, truth : Path
        What `cellseg.pipeline.masks.find_masks` reads: label images, masks of
        cells that overlap, a folder of them, or a results folder of cellseg.
        Two files of one image are a pair whatever they are called; in folders
        images pair by name without suffix, letter by letter.
    thresholds : sequence of float
        See `match`.
    names : sequence of str, optional
        Score only these images, each a file name or a name without suffix.

    Raises
    ------
    CellsegError
        If nothing pairs, a name is on neither side, or a pair cannot be scored.
    """
    own, true = find_masks(labels), find_masks(truth)
    if is_mask_file(labels) and is_mask_file(truth) and len(own) == len(true) == 1:
        true = dict(zip(own, true.values(), strict=True))
    wanted = own.keys() | true.keys()
    if names is not None:
        wanted = _select(names, wanted)
    paired = sorted(wanted & own.keys() & true.keys())
    if not paired:
        raise CellsegError(
            f"{labels}, {truth}: no label image has one of the same name as its truth"
            f" (labels {_examples(own)}; truth {_examples(true)})."
            " Give the two of a pair one name; only the suffix may differ."
        )
    return Evaluation(
        tuple(_score_pair(name, own[name], true[name], thresholds) for name in paired),
        tuple(sorted((wanted & own.keys()) - true.keys())),
        tuple(sorted((wanted & true.keys()) - own.keys())),
    )


def _aligned(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned text."""

    def written(value: object) -> str:
        if value is None:
            return "-"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [list(rows[0]), *([written(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _select(names: Sequence[str], known: set[str]) -> set[str]:
    """Return the known names among which each of `names` must be."""
    wanted = {stem_of(name) for name in names}
    unknown = sorted(wanted - known)
    if unknown:
        raise CellsegError(
            f"{unknown[0]}: neither the labels nor the truth have an image of this name."
            f"{nearest(unknown[0], known)} Known: {_examples(sorted(known))}."
        )
    return wanted


def _examples(names: Iterable[str]) -> str:
    """Return the first two names, for a message."""
    first = list(names)
    return ", ".join(first[:2]) + (f" and {len(first) - 2} more" if len(first) > 2 else "")


def _score_pair(
    name: str, labels: MaskSource, truth: MaskSource, thresholds: Sequence[float]
) -> ImageScores:
    """Read and score one pair."""
    try:
        scores, recall = _score(*read_pair(labels, truth), thresholds)
    except CellsegError as error:
        raise CellsegError(f"{labels.path} against {truth.path}: {error}") from error
    return ImageScores(name, labels.path, truth.path, scores, recall)


def _score(
    own: Masks, true: Masks, thresholds: Sequence[float]
) -> tuple[tuple[Score, ...], tuple[ShareRecall, ...]]:
    """Return the scores and the recall by share of one pair."""
    if own.shape != true.shape:
        raise CellsegError(
            f"labels {own.shape} and truth {true.shape} differ in shape."
            " Give masks of the same plane or volume; a TIFF with a plane for each cell holds"
            " 0 and one other value."
        )
    one, other = own.label_image(), true.label_image()
    if one is None or other is None:
        found, cells = own.instances(), true.instances()
        return tuple(match(found, cells, thresholds)), recall_by_share(found, cells, RECALL_IOU)
    *scores, at_recall = match(one, other, [*thresholds, RECALL_IOU])
    return tuple(scores), recall_without_overlap(at_recall)
