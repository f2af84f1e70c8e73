"""What a run would take: one window is segmented and timed, the rest is arithmetic."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cellseg.models import MODELS
from cellseg.pipeline.config import Config
from cellseg.pipeline.plan import Plan
from cellseg.pipeline.tiles import Box

PROBE = 512
"""Px on a side of the window that is timed."""
BASE_BYTES = 700e6
"""A process with its libraries loaded, before it reads a pixel."""


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a run on this machine."""

    images: int
    megapixels: float
    tiles: int
    seconds: float
    bytes_a_worker: float
    workers: int

    def text(self) -> str:
        """Return it in words."""
        minutes = self.seconds / 60
        span = f"{self.seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
        return (
            f"{self.images} images, {self.megapixels:.1f} Mpx in {self.tiles} tiles:"
            f" about {span} and {self.bytes_a_worker / 1e9:.1f} GB in each of"
            f" {self.workers} worker(s), judged by one window. Nothing was written."
        )


def estimate(plan: Plan, config: Config) -> Estimate:
    """Time a window in the middle of the first image, and reckon from it.

    Raises
    ------
    CellsegError
        If that window cannot be segmented.
    """
    scene = plan.scenes[0].prepare()
    height, width = scene.grid.plane.shape
    side = min(PROBE, height, width)
    y, x = (height - side) // 2, (width - side) // 2
    scene.segment(0, Box(y, x, y + min(side, 64), x + min(side, 64)))
    start = time.perf_counter()
    scene.segment(0, Box(y, x, y + side, x + side))
    each_px = (time.perf_counter() - start) / side**2
    read = largest = total = 0
    for one in plan.scenes:
        areas = [h * w for h, w in (one.grid.read(i).shape for i in range(len(one.grid)))]
        read += one.planes * sum(areas)
        largest = max(largest, *areas)
        total += one.planes * one.grid.plane.shape[0] * one.grid.plane.shape[1]
    bytes_a_px = MODELS[plan.workflow.model.name].bytes_per_px
    return Estimate(
        images=len(plan.scenes),
        megapixels=total / 1e6,
        tiles=plan.tiles,
        seconds=each_px * read / config.workers,
        bytes_a_worker=BASE_BYTES + bytes_a_px * largest,
        workers=config.workers,
    )
