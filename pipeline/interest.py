"""The region of interest of an image: which pixels are in it, and what its parts are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.geojson import read_geojson
from cellseg.pipeline.image import fingerprint
from cellseg.pipeline.mask_image import MaskImage, open_mask
from cellseg.pipeline.paint import overlapping_part
from cellseg.pipeline.polygons import Feature, rectangle
from cellseg.pipeline.pool import overlapping
from cellseg.pipeline.tiles import Box, Grid

LOOKUP = 512
"""Px on a side of what is drawn to look up the points in it."""


class Area(Protocol):
    """Where the parts of a region are; pixels are asked for window by window."""

    def numbers(self, window: Box, step: int = 1) -> NDArray[np.int64]:
        """Return the part that every `step`-th pixel of a window lies in, 0 for none, (h, w)."""
        ...

    def name(self, number: int) -> str:
        """Return what a part is called."""
        ...


@dataclass(frozen=True, eq=False)
class Outlines:
    """Named polygons; where some lie over each other, the first one counts."""

    features: tuple[Feature, ...]

    @cached_property
    def bounds(self) -> NDArray[np.int32]:
        """The box of pixels around each feature, int32 (F, 4)."""
        sides = [(b.y0, b.x0, b.y1, b.x1) for b in (each.bounds for each in self.features)]
        return np.array(sides, np.int32).reshape(-1, 4)

    def numbers(self, window: Box, step: int = 1) -> NDArray[np.int64]:
        """Return the place of the first feature around each pixel, from 1."""
        found = np.zeros([-(-side // step) for side in window.shape], np.int64)
        near = np.flatnonzero(overlapping(self.bounds, window))
        parts = overlapping_part(self.bounds[near], window)
        # From a pixel that is shown on.
        parts[:, :2] += (np.array([window.y0, window.x0]) - parts[:, :2]) % step
        # The last one first, so that the first one is left on top.
        drawn = zip(near[::-1].tolist(), parts[::-1].tolist(), strict=True)
        for feature, (y0, x0, y1, x1) in drawn:
            if y0 < y1 and x0 < x1:
                inside = self.features[feature].inside(Box(y0, x0, y1, x1), step)
                y, x = (y0 - window.y0) // step, (x0 - window.x0) // step
                found[y : y + len(inside), x : x + inside.shape[1]][inside] = feature + 1
        return found

    def name(self, number: int) -> str:
        """Return what a feature is called."""
        return self.features[number - 1].name


@dataclass(frozen=True)
class Interest:
    """Where the region of an image is to be found; small, and sent to the workers.

    Parameters
    ----------
    plane : Box
        The image's.
    kind : "box", "geojson", "mask" or "none"
    box : (y0, x0, y1, x1) or None
        In px.
    path : Path or None
    classes : tuple of str
        See `read_geojson`.
    state : str
        Identifies the content of the file.
    reduced : (y, x)
        How many px of the full resolution, in which files count, one of the plane is across.
    """

    plane: Box
    kind: str
    box: tuple[float, float, float, float] | None = None
    path: Path | None = field(default=None)
    classes: tuple[str, ...] = ()
    state: str = ""
    reduced: tuple[float, float] = (1.0, 1.0)

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that decides which cells lie inside; where the file lies does not."""
        reduced = () if self.reduced == (1.0, 1.0) else (self.reduced,)
        return self.kind, self.box, sorted(self.classes), self.state, *reduced

    def area(self) -> Area:
        """Return the region itself, read once in a process.

        Raises
        ------
        CellsegError
            If the file is not what it should be, or has changed.
        """
        return _loaded(self)

    def survey(self, grid: Grid) -> Survey:
        """Return what of the region lies in each core of a grid, found once in a process."""
        return _surveyed(self, grid)

    def numbers_at(self, points: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the part that each pixel (N, 2) of the plane lies in, 0 for none, int64 (N,)."""
        found = np.zeros(len(points), np.int64)
        places, owner = np.unique(points // LOOKUP, axis=0, return_inverse=True)
        order = np.argsort(owner.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(owner.reshape(-1), minlength=len(places)))
        for near in np.split(order, ends[:-1]) if len(places) else []:
            (y0, x0), (y1, x1) = points[near].min(axis=0), points[near].max(axis=0) + 1
            drawn = self.area().numbers(Box(int(y0), int(x0), int(y1), int(x1)))
            found[near] = drawn[points[near, 0] - y0, points[near, 1] - x0]
        return found

    def names_at(self, centres: NDArray[np.float64]) -> list[str | None]:
        """Return what the part is called that each centre (N, 2) lies in, None for none."""
        numbers, area = self.numbers_at(centre_pixels(centres)), self.area()
        names = {number: area.name(number) for number in np.unique(numbers[numbers > 0]).tolist()}
        return [names.get(number) for number in numbers.tolist()]


def centre_pixels(centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the pixel that each centre (N, 2) lies in; that of the first pixel is 0, 0."""
    pixels: NDArray[np.int64] = np.floor(centres + 0.5).astype(np.int64)
    return pixels


@lru_cache(maxsize=8)
def _loaded(interest: Interest) -> Area:
    if interest.kind == "box" and interest.box is not None:
        return Outlines((Feature("box", (rectangle(*interest.box),)),))
    if interest.path is None:
        return Outlines(())
    if state_of(interest.path, interest.kind) != interest.state:
        raise CellsegError(f"{interest.path}: changed since the run began. Run again.")
    if interest.kind == "mask":
        mask: MaskImage = open_mask(interest.path, interest.plane, interest.reduced)
        return mask
    features = read_geojson(interest.path, interest.classes)
    return Outlines(tuple(feature.reduced(*interest.reduced) for feature in features))


def state_of(path: Path, kind: str) -> str:
    """Return what tells the content of a region file from another.

    Raises
    ------
    CellsegError
        If it is missing.
    """
    if kind == "mask" or not path.is_file():
        return fingerprint(path)
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


@dataclass(frozen=True, eq=False)
class Survey:
    """What of a region lies in the cores of a grid's tiles.

    Parameters
    ----------
    grid : Grid
    parts : dict
        For each tile that has a pixel of the region in its core, the box around these.
    pixels : dict
        Pixels of each part, by its number.
    """

    grid: Grid
    parts: Mapping[int, Box]
    pixels: Mapping[int, int]

    def tiles(self, around_px: int) -> tuple[int, ...]:
        """Return the tiles that read something within a distance of the region, in order."""
        plane = self.grid.plane
        near = (self.grid.reading(box.grow(around_px, plane)) for box in self.parts.values())
        return tuple(sorted({position for positions in near for position in positions}))

    @property
    def total(self) -> int:
        """Pixels of the region."""
        return sum(self.pixels.values())


@lru_cache(maxsize=64)
def _surveyed(interest: Interest, grid: Grid) -> Survey:
    area = interest.area()
    parts: dict[int, Box] = {}
    pixels: dict[int, int] = {}
    for position in range(len(grid)):
        core = grid.core(position)
        drawn = area.numbers(core)
        if not drawn.any():
            continue
        rows, columns = (
            np.flatnonzero(drawn.any(1)) + core.y0,
            np.flatnonzero(drawn.any(0)) + core.x0,
        )
        parts[position] = Box(
            int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
        )
        numbers, counts = np.unique(drawn[drawn > 0], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            pixels[number] = pixels.get(number, 0) + count
    return Survey(grid, parts, pixels)
