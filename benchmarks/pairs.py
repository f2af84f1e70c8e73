"""Images and their truth on disk: which belong together, which are chosen, how they are grouped."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.breakdown import size_class
from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import open_image
from cellseg.pipeline.plate import each_file

BY_SIZE = "by-size"
"""The name of `group_of` on the command line."""
SHOWN = 3
"""Names in a message; the others are counted."""


@dataclass(frozen=True)
class Pair:
    """An image and its truth."""

    name: str
    image: Path
    truth: Path


def find_pairs(images: Path, labels: Path, listed: Path | None = None) -> list[Pair]:
    """Return the images with their label images of the same name, all checked to fit.

    Parameters
    ----------
    images, labels : Path
        Folders, as `[input]` of a workflow takes them.
    listed : Path, optional
        A text file with a name a line, with or without suffix: only these.

    Raises
    ------
    CellsegError
        If a listed image or a label image is missing, a label image is of
        another shape or not of integers, or an image has several planes.
    """
    fields = {field.name: field.path for field in each_file([images])}
    truths = {field.name: field.path for field in each_file([labels])}
    if listed is not None:
        fields = _select(fields, listed)
    missing = [name for name in fields if name not in truths]
    if missing:
        raise CellsegError(
            f"{labels}: no label image for {_some(missing)}. Add it, or leave it out by --list."
        )
    pairs = [Pair(name, path, truths[name]) for name, path in fields.items()]
    reasons = {pair.name: _misfit(pair) for pair in pairs}
    unfit = [f"{name} ({reason})" for name, reason in reasons.items() if reason]
    if unfit:
        raise CellsegError(f"{labels}: no truth for their images: {_some(unfit)}.")
    return pairs


def _select(fields: Mapping[str, Path], listed: Path) -> dict[str, Path]:
    """Return the fields that a list names."""
    if not listed.is_file():
        raise CellsegError(f"{listed}: no such file. Give a list of names, one a line.")
    lines = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines()]
    found, unknown = {}, []
    for line in filter(None, lines):
        name = next((each for each in (line, Path(line).stem) if each in fields), None)
        if name is None:
            unknown.append(line)
        else:
            found[name] = fields[name]
    if unknown:
        raise CellsegError(f"{listed}: no image here is called {_some(unknown)}.")
    if not found:
        raise CellsegError(f"{listed}: empty. Give a list of names, one a line.")
    return found


def _misfit(pair: Pair) -> str | None:
    """Return why an image cannot be scored against its truth, without reading their pixels."""
    image, truth = open_image(pair.image).pixels, open_image(pair.truth).pixels
    if image.shape[0] * image.shape[2] > 1:
        return f"{image.shape[0] * image.shape[2]} planes, wants one"
    if truth.shape[0] * truth.shape[2] > 1 or truth.shape[3:] != image.shape[3:]:
        return f"image {image.shape[3:]}, labels {truth.shape[3:]} px"
    return f"labels are {truth.dtype}, not integers" if truth.dtype.kind not in "iu" else None


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def read_groups(path: Path) -> dict[str, str]:
    """Return the group of each image name, without suffix, from a CSV of lines `name,group`."""
    if not path.is_file():
        raise CellsegError(f"{path}: no such file. Give {BY_SIZE} or a CSV of lines name,group.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise CellsegError(f"{path}: line {number} has {len(row)} columns, not name,group.")
    return {key: group.strip() for name, group in rows for key in (name, Path(name).stem)}


def group_of(pixels: NDArray[Any], diameters_px: NDArray[np.float64]) -> str:
    """Return the group of an image by its shape, bit depth and median true diameter."""
    height, width = pixels.shape[-2:]
    depth = f"{pixels.dtype.itemsize * 8}-bit" + (" float" if pixels.dtype.kind == "f" else "")
    return f"{height} x {width} px, {depth}, {size_class(diameters_px)}"
