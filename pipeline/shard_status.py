"""How far the shards of a run are together, told from what each says of itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cellseg.pipeline.files import DAMAGED
from cellseg.pipeline.results import Results
from cellseg.pipeline.shard_records import ShardState, read_shards
from cellseg.pipeline.status import NAMED, read_status, span

__all__ = ["ShardsStatus", "shards_status"]


@dataclass(frozen=True)
class ShardsStatus:
    """How far the shards of a run are together.

    Parameters
    ----------
    folder : Path
    shards : sequence of ShardState
    """

    folder: Path
    shards: Sequence[ShardState]

    @property
    def state(self) -> Literal["running", "stopped"]:
        """Whether any is at work; ``stopped`` too where nothing is left but to finish."""
        return "running" if any(shard.state == "running" for shard in self.shards) else "stopped"

    @property
    def cells(self) -> dict[str, int]:
        """The cells of each image that a shard has done."""
        return {name: cells for shard in self.shards for name, cells in shard.done.items()}

    @property
    def images(self) -> int:
        """All images."""
        return max(int(shard.about["images"]) for shard in self.shards)

    @property
    def done(self) -> int:
        """Images that are done, by these shards or before them."""
        # What one shard has found done, others may have done since it began.
        found = (int(shard.about["found"]) + int(shard.about["done"]) for shard in self.shards)
        return max(len(self.cells), *found)

    @property
    def failed(self) -> dict[str, str]:
        """Images that could not be done so far, and why."""
        every = [shard.failed | shard.about["unreadable"] for shard in self.shards]
        return {name: why for each in every for name, why in each.items() if name not in self.cells}

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles that are segmented, and all."""
        seen = (int(shard.about["tiles_done"]) for shard in self.shards)
        whole = max(int(shard.about["all_tiles"]) for shard in self.shards)
        return min(max(sum(shard.tiles for shard in self.shards), *seen), whole), whole

    @property
    def seconds_left(self) -> float | None:
        """At the rate of those that are at work; None if that is not known."""
        rate = 0.0
        for shard in self.shards:
            taken = float(shard.about["updated"]) - float(shard.about["started"])
            if shard.state == "running" and taken > 0:
                rate += int(shard.about["tiles"]) / taken
        done, whole = self.tiles
        return (whole - done) / rate if rate else None

    @property
    def seconds(self) -> float:
        """Since the first of them began."""
        return time.time() - min(float(shard.about["started"]) for shard in self.shards)

    @property
    def document(self) -> dict[str, Any]:
        """The same for programs, with the keys of a status without shards."""
        done, whole = self.tiles
        return {
            "folder": str(self.folder),
            "state": self.state,
            "images": self.images,
            "done": self.done,
            "failed": self.failed,
            "cells": sum(self.cells.values()),
            "tiles": done,
            "all_tiles": whole,
            "seconds": self.seconds,
            "seconds_left": self.seconds_left,
            "shards": [shard.document for shard in self.shards],
        }

    @property
    def text(self) -> str:
        """The same for people, in a few lines."""
        done, whole = self.tiles
        left = max(self.images - self.done - len(self.failed), 0)
        said = f"{self.done} done, {len(self.failed)} failed, {left} to do"
        lines = [
            f"{self.folder}: {self._counts}",
            f"  images    {self.images}: {said}",
            f"  tiles     {done} of {whole} ({done / max(whole, 1):.0%})",
            f"  cells     {sum(self.cells.values()):,} in the images that these shards did",
            *self._at_work,
            *(f"  failed    {name}: {why}" for name, why in list(self.failed.items())[:NAMED]),
        ]
        return "\n".join([*lines, self._next(left)])

    @property
    def _counts(self) -> str:
        words = {"running": "at work", "done": "ended", "stopped": "stopped", "dead": "dead"}
        counts = Counter(shard.state for shard in self.shards)
        said = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
        return f"{len(self.shards)} shard{'s' * (len(self.shards) != 1)}: {', '.join(said)}"

    @property
    def _at_work(self) -> list[str]:
        running = [shard for shard in self.shards if shard.state == "running"]
        lines = [f"  at work   {_place(shard)}" for shard in running[:NAMED]]
        if running:
            left = "not known yet" if self.seconds_left is None else span(self.seconds_left)
            lines.append(f"  time      {span(self.seconds)} so far, left {left}")
        return lines

    def _next(self, left: int) -> str:
        if self.state == "running":
            return f"  Once they have ended, cellseg finish {self.folder} gathers all."
        if left:
            return (
                f"  No shard is at work. Start shards again, or cellseg finish {self.folder} does"
                " what is left and gathers all."
            )
        return f"  Now cellseg finish {self.folder} gathers all."


def _place(shard: ShardState) -> str:
    about = shard.about
    job = f", job {about['job']}" if about["job"] else ""
    return f"{about['shard']} {about['at']} (process {about['pid']} on {about['host']}{job})"


def shards_status(folder: Path) -> ShardsStatus | None:
    """Return how far shards are; None where there are none, or they are being finished."""
    shards = read_shards(folder)
    if not shards or _is_finishing(folder):
        return None
    return ShardsStatus(folder, shards)


def _is_finishing(folder: Path) -> bool:
    results = Results(folder)
    if not results.progress_path.is_file():
        return False
    try:
        return read_status(folder).state == "running"
    except (*DAMAGED, TypeError):
        return False
