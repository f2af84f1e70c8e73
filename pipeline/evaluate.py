"""Label images on disk against their truth: which belong together, and how they score."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.score import THRESHOLDS, Score, match, pool

ALL = "(all)"
"""In the table, the name of all images together."""


@dataclass(frozen=True)
class ImageScores:
    """The scores of one pair of label images, one per threshold."""

    name: str
    labels: Path
    truth: Path
    scores: tuple[Score, ...]


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

    def table(self) -> list[dict[str, str | float]]:
        """Return a row for each image and threshold, and last those of ``(all)`` images."""
        groups = [(image.name, image.scores) for image in self.images]
        groups.append((ALL, tuple(self.pooled)))
        return [{"image": name, **score.row()} for name, scores in groups for score in scores]

    def document(self) -> dict[str, Any]:
        """Return the same as one object for JSON."""
        return {
            "pooled": [score.row() for score in self.pooled],
            "images": [
                {
                    "image": image.name,
                    "labels": str(image.labels),
                    "truth": str(image.truth),
                    "scores": [score.row() for score in image.scores],
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
    """Score label images on disk.

    Parameters
    ----------
    labels, truth : Path
        A label image (TIFF or OME-Zarr), a folder of them, or a results
        folder of cellseg. Two images are a pair whatever they are called; in
        folders images pair by name without suffix, letter by letter.
    thresholds : sequence of float
        See `match`.
    names : sequence of str, optional
        Score only these images, each a file name or a name without suffix.

    Raises
    ------
    CellsegError
        If nothing pairs, a name is on neither side, or a pair cannot be scored.
    """
    own, true = find_label_images(labels), find_label_images(truth)
    if _is_image(labels) and _is_image(truth):
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


def find_label_images(path: Path) -> dict[str, Path]:
    """Return the label images at `path`, by name without suffix, as `evaluate_paths` finds them.

    Raises
    ------
    CellsegError
        If there is none, or two have one name.
    """
    if _is_image(path):
        return {_stem(path.name): path}
    if not path.is_dir():
        raise CellsegError(
            f"{path}: no such label image or folder. Give TIFF or OME-Zarr label images,"
            " a folder of them, or a results folder of cellseg."
        )
    found = _of_results(path)
    for file in () if found else sorted(path.iterdir()):
        if not _is_image(file):
            continue
        name = _stem(file.name)
        if name in found:
            raise CellsegError(
                f"{path}: {found[name].name} and {file.name} have one name. Remove one of them."
            )
        found[name] = file
    if not found:
        raise CellsegError(
            f"{path}: no label images. Give TIFF or OME-Zarr label images, a folder of them,"
            " or a results folder of cellseg."
        )
    return found


def _of_results(folder: Path) -> dict[str, Path]:
    """Return the label images of a results folder; of its last run only those that are done."""
    found = {file.parent.name: file for file in sorted(folder.glob("images/*/labels.zarr"))}
    if not (folder / "run.json").is_file():
        return found
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    done = {image["name"] for image in document["images"] if image["state"] == "done"}
    return {name: file for name, file in found.items() if name in done}


def _is_image(path: Path) -> bool:
    """Whether `path` is one image in a format that cellseg reads."""
    from cellseg.pipeline.image import reader_of

    return path.exists() and reader_of(path) is not None


def _stem(name: str) -> str:
    """Return a file name without its suffix, `.ome` before it included."""
    from cellseg.pipeline.image import READERS

    stem, dot, suffix = name.rpartition(".")
    if f"{dot}{suffix.lower()}" not in READERS:
        return name
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def _select(names: Sequence[str], known: set[str]) -> set[str]:
    """Return the known names among which each of `names` must be."""
    wanted = {_stem(name) for name in names}
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


def _score_pair(name: str, labels: Path, truth: Path, thresholds: Sequence[float]) -> ImageScores:
    """Read and score one pair."""
    own, true = _read(labels), _read(truth)
    try:
        scores = match(own, true, thresholds)
    except CellsegError as error:
        raise CellsegError(f"{labels} against {truth}: {error}") from error
    return ImageScores(name, labels, truth, tuple(scores))


def _read(path: Path) -> NDArray[Any]:
    """Return a label image without the axes of length 1 that precede its rows."""
    from cellseg.pipeline.image import open_image

    pixels = np.asarray(open_image(path).pixels)
    return pixels.squeeze(tuple(axis for axis in range(pixels.ndim - 2) if pixels.shape[axis] == 1))
