"""Tiles that could not be done, each with its place and why; the others of its image are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellseg.pipeline.faults import Failure

if TYPE_CHECKING:
    from cellseg.pipeline.job import Job

__all__ = ["MOST", "SetAside", "summary"]

MOST = 10
"""Tiles set aside after which an image is given up: it is not a tile that is at fault."""


@dataclass(frozen=True)
class SetAside:
    """A tile that could not be done; a part of a line of ``run.json``.

    Parameters
    ----------
    t, z : int
        Its plane.
    y, x : (int, int)
        First px of its core, and the one behind the last.
    reason : str
    traceback : str or None
    """

    t: int
    z: int
    y: tuple[int, int]
    x: tuple[int, int]
    reason: str
    traceback: str | None = None

    @classmethod
    def of(cls, job: Job, unit: int, failure: Failure) -> SetAside:
        """Return the tile of a unit of ``segment``."""
        plane, position = divmod(unit, len(job.scene.grid))
        core, (t, z) = job.scene.grid.core(position), job.scene.plane(plane)
        reason = " ".join(failure.reason.split())
        return cls(t, z, (core.y0, core.y1), (core.x0, core.x1), reason, failure.traceback)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> SetAside:
        """Return what ``run.json`` says."""
        sides = {"y": tuple(document["y"]), "x": tuple(document["x"])}
        return cls(**{**document, **sides})

    @property
    def text(self) -> str:
        """It in words."""
        y, x = (f"{first}:{last}" for first, last in (self.y, self.x))
        return f"tile t={self.t}, z={self.z}, y={y}, x={x}: {self.reason}"


def summary(aside: Sequence[SetAside], tiles: int) -> Failure:
    """Return why an image of so many tiles is not done, of which some were set aside."""
    first = aside[0]
    if tiles == 1:
        return Failure(first.reason, first.traceback)
    end = ", which is where it was given up" if len(aside) >= MOST else "; the others are kept"
    return Failure(
        f"{len(aside)} of {tiles} tiles could not be done{end}. The first, {first.text}",
        first.traceback,
    )
