"""What each shard of a run says of itself, in ``RESULTS/shards``, until the run is finished.

``3-of-16.json`` is how far it is, ``3-of-16.jsonl`` has a line for each image that it did, or a
part of one, with what that cost. Each is written by its own shard alone.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.pipeline.files import append_line, replace_file, write_json
from cellseg.pipeline.lock import FOLDER, Claim, holds

__all__ = ["Part", "Records", "ShardState", "clear_records", "read_shards"]

SHARDS = "shards"


@dataclass(frozen=True)
class Part:
    """Which of how many shards one is, from 1."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Part:
        """Return what ``3/16`` says.

        Raises
        ------
        CellsegError
            If it says something else.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise CellsegError(
                f'--shard {text}: give its number, from 1, and how many there are, as in "3/16".'
                " A job array that counts from 0 needs 1 added."
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """It as a part of a file's name."""
        return f"{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Records:
    """Where a shard writes of itself.

    Parameters
    ----------
    results : Path
        The results folder.
    part : Part
    mine : Claim
        The shard's claim to that folder.
    """

    results: Path
    part: Part
    mine: Claim

    def note(self, state: str, **about: Any) -> None:
        """Write how far it is: ``running``, ``stopped`` or ``done``."""
        holder = self.mine.holder
        own = {"shard": str(self.part), "state": state, "host": holder.host, "pid": holder.pid}
        own |= {"job": holder.job, "claim": self.mine.path.name, "token": holder.token}
        own |= {"updated": time.time()}
        write_json(self.results / SHARDS / f"{self.part.name}.json", own | about)

    def add(self, line: dict[str, Any]) -> None:
        """Add what was done of an image."""
        path = self.results / SHARDS / f"{self.part.name}.jsonl"
        append_line(path, json.dumps(line, ensure_ascii=False))

    def write_workflow(self, toml: str) -> None:
        """Write the resolved workflow, as every shard does."""
        # What a killed one leaves of it lies here, and goes when the run is finished.
        own = self.results / SHARDS / f"{self.part.name}.toml"
        replace_file(own, lambda partial: partial.write_text(toml, encoding="utf-8"))
        own.replace(self.results / "workflow.toml")


@dataclass(frozen=True)
class ShardState:
    """What a shard has said of itself.

    Parameters
    ----------
    about : dict
        How far it is.
    lines : tuple of dict
        What it did of images.
    alive : bool
        Whether it is, or may be, at work.
    """

    about: dict[str, Any]
    lines: tuple[dict[str, Any], ...]
    alive: bool

    @property
    def state(self) -> str:
        """Return ``running``, ``done``, ``stopped`` (it was asked to), or ``dead``."""
        said = str(self.about["state"])
        return "dead" if said == "running" and not self.alive else said

    @property
    def done(self) -> dict[str, int]:
        """The cells of each image that it finished."""
        return {each["name"]: each["cells"] for each in self.lines if each["state"] == "done"}

    @property
    def failed(self) -> dict[str, str]:
        """The images that it could not do, and why."""
        return {each["name"]: each["reason"] for each in self.lines if each["state"] == "failed"}

    @property
    def tiles(self) -> int:
        """Tiles that it segmented."""
        return sum(each["tiles"] for each in self.lines)

    @property
    def document(self) -> dict[str, Any]:
        """What ``run.json`` and ``cellseg status`` say of it."""
        kept = ("shard", "host", "pid", "job", "workers", "seconds", "memory_mb")
        about = {name: self.about.get(name) for name in kept}
        counts = {"images": len(self.done), "tiles": self.tiles}
        return about | {"state": self.state} | counts


def read_shards(results: Path) -> list[ShardState]:
    """Return what the shards of a run have said of themselves; none where there are none."""
    paths = (results / SHARDS).glob("*-of-*.json")
    found = [(each, _read(each)) for each in paths]
    known = [(path, about) for path, about in found if about is not None]
    order = sorted(known, key=lambda each: [int(n) for n in each[0].stem.split("-of-")])
    return [_state(results, path, about) for path, about in order]


def _state(results: Path, path: Path, about: dict[str, Any]) -> ShardState:
    claim = results / FOLDER / str(about["claim"])
    alive = claim.exists() and holds(claim, str(about["token"]))
    return ShardState(about, tuple(_lines(path.with_suffix(".jsonl"))), alive)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # gone, or being written
        return None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a file that may be written meanwhile."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def clear_records(results: Path) -> None:
    """Forget what shards have said; for who has the results folder alone."""
    shutil.rmtree(results / SHARDS, ignore_errors=True)
