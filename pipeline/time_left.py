"""How long a run will still take, with what follows on the tiles: stitch, paint, measure.

Each stage of an image is expected to take so much for a cell, a megapixel, a tile and at all;
how much is first a guess, then what units of that stage have taken in this run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from cellseg.pipeline.job import Job
from cellseg.pipeline.order import RUN
from cellseg.pipeline.segment import Scene

__all__ = ["Spent", "TimeLeft"]


@dataclass(frozen=True)
class Cost:
    """Seconds of a stage: for a cell, a megapixel, a tile and an image."""

    cell: float = 0.0
    megapixel: float = 0.0
    tile: float = 0.0
    image: float = 0.0

    def of(self, cells: float, megapixels: float, tiles: int) -> float:
        """Return the seconds of an image."""
        about = self.cell * cells + self.megapixel * megapixels
        return about + self.tile * tiles + self.image


COSTS = {
    "complete": Cost(cell=6e-6, tile=3e-4),
    "decide": Cost(cell=2e-6, tile=2e-4),
    "order": Cost(cell=1e-6, image=0.01),
    "match": Cost(cell=1e-5),
    "link": Cost(cell=1e-5),
    "share": Cost(cell=1e-5),
    "layer": Cost(cell=1e-5),
    "paint": Cost(megapixel=0.022),
    "measure": Cost(cell=5e-5, image=0.02),
    "finish": Cost(megapixel=0.015, image=0.15),
}
"""What each stage behind ``segment`` takes, as measured on one core of an AMD EPYC."""
ALONE = ("order", "link", "layer", "finish")
"""Stages of one unit."""
TOGETHER = 64
"""About the tiles in a unit of the others; of ``measure``, `RUN` cells."""
ENDS = 1.0
"""Seconds behind the last image, for tables and report."""
KNOWN = 0.05
"""Seconds of a stage from which on its own pace counts, not the guess."""


class Spent(NamedTuple):
    """What a unit of a stage has cost: seconds, and the most memory the process held, in MB.

    And, from which follows what is left: seconds of its cores, units of that stage, and of a tile
    the cells.
    """

    seconds: float
    memory_mb: float | None
    core_seconds: float = 0.0
    units: int = 1
    cells: int = 0


@dataclass
class Image:
    """An image on its way.

    Parameters
    ----------
    megapixels : float
    tiles : int
    left : float
        Of its tiles, those that are not segmented.
    stages : dict of str to float
        The part of each later stage that is still to do.
    """

    megapixels: float
    tiles: int
    left: float
    stages: dict[str, float]


@dataclass
class TimeLeft:
    """Follows a run, and says what is left of it."""

    started: float | None = None
    images: dict[str, Image] = field(default_factory=dict)
    segmented: int = 0
    cells: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    guessed: dict[str, float] = field(default_factory=dict)
    places: set[str] = field(default_factory=set)
    first_tiles: list[float] = field(default_factory=list)
    core_seconds: float = 0.0

    def expect(self, scenes: Iterable[Scene]) -> None:
        """Take up images that are to be done."""
        for scene in scenes:
            kinds = {"match", "link"} if scene.linked or scene.tracked else set()
            kinds |= {"share", "layer"} if scene.overlap == "keep" else set()
            kinds |= COSTS.keys() - {"match", "link", "share", "layer"}
            kinds -= {"complete", "decide"} if len(scene.grid) == 1 else set()
            looked_at = scene.tiles * scene.tiling.size**2
            px = min(looked_at, scene.planes * scene.shape[3] * scene.shape[4])
            image = Image(px / 1e6, scene.tiles, scene.tiles, dict.fromkeys(kinds, 1.0))
            self.images[scene.name] = image

    def set_out(self, job: Job, route: Iterable[str], missing: int) -> None:
        """Note what earlier runs have left of an image."""
        stages = dict.fromkeys((each for each in route if each in COSTS), 1.0)
        scene = job.scene
        megapixels = scene.planes * scene.shape[3] * scene.shape[4] / 1e6
        image = self.images.get(scene.name) or Image(megapixels, scene.tiles, 0, {})
        self.images[scene.name] = Image(image.megapixels, scene.tiles, missing, stages)

    def drop(self, name: str) -> None:
        """Note that nothing is left of an image."""
        self.images.pop(name, None)

    def note(self, name: str, stage: str, spent: Spent, where: str) -> None:
        """Note a unit of a stage that a process has done."""
        image, seconds, units = self.images.get(name), spent.seconds, spent.units
        self.core_seconds += spent.core_seconds
        self.spent[stage] = self.spent.get(stage, 0.0) + seconds
        if self.started is None:
            self.started = time.monotonic() - seconds
        if stage == "segment" and where not in self.places:
            self.places.add(where)
            self.first_tiles.append(seconds)
        if stage == "segment":
            self.segmented, self.cells = self.segmented + 1, self.cells + spent.cells
            if image is not None:
                image.left -= 1
        elif image is not None and stage in COSTS:
            self.guessed[stage] = self.guessed.get(stage, 0.0) + self._guess(image, stage) / units
            image.stages[stage] = max(image.stages.get(stage, 1.0) - 1 / units, 0.0)

    def seconds(self) -> float | None:
        """Return the seconds left; None as long as nothing is known."""
        busy = sum(self.spent.values())
        if self.started is None or not busy:
            return None
        if not self.segmented and any(each.left for each in self.images.values()):
            return None
        # At the pace so far; a machine that does other things, or waits for its disk, is slower.
        at_a_time = busy / (time.monotonic() - self.started)
        left = [self._left(each, at_a_time) for each in self.images.values()]
        return sum(left) + ENDS

    def _left(self, image: Image, at_a_time: float) -> float:
        """Return the seconds left of an image, where so many workers are busy."""
        seconds = image.left * self._tile() / at_a_time
        for stage, part in image.stages.items():
            units = self._units(image, stage) * len(self.images)
            seconds += part * self._guess(image, stage) * self._pace(stage) / min(at_a_time, units)
        return seconds

    def _tile(self) -> float:
        """Return the seconds of a tile; the first one of a process waits for its model."""
        count, seconds = self.segmented, self.spent.get("segment", 0.0)
        if count > 2 * len(self.first_tiles):
            count -= len(self.first_tiles)
            seconds -= sum(self.first_tiles)
        return seconds / max(count, 1)

    def _units(self, image: Image, stage: str) -> int:
        """Return how many units of a stage may be at work at a time."""
        if stage in ALONE:
            return 1
        return 1 + int(self._cells(image) / RUN if stage == "measure" else image.tiles / TOGETHER)

    def _cells(self, image: Image) -> float:
        return image.tiles * self.cells / max(self.segmented, 1)

    def _guess(self, image: Image, stage: str) -> float:
        return COSTS[stage].of(self._cells(image), image.megapixels, image.tiles)

    @property
    def _slow(self) -> float:
        """How many times as long all takes as its share of a core would be, on a busy machine."""
        return max(sum(self.spent.values()) / max(self.core_seconds, 1e-6), 1.0)

    def _pace(self, stage: str) -> float:
        """Return how many times as long as guessed a stage takes."""
        guessed = self.guessed.get(stage, 0.0)
        return (KNOWN * self._slow + self.spent.get(stage, 0.0)) / (KNOWN + guessed)
