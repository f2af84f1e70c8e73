"""What a run would take: one window is segmented and timed, the rest is arithmetic."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from cellseg.models import MODELS
from cellseg.pipeline.config import Config
from cellseg.pipeline.plan import Plan
from cellseg.pipeline.tiles import Box

PROBE = 512
"""Px on a side, as the model sees them, of the window that is timed."""
WARM = 64
"""The same of one that is segmented before, so that what happens once is not timed."""
BASE_BYTES = 700e6
"""A process with its libraries loaded, before it reads a pixel."""
IMAGE_BYTES = 20
"""For each px of an image that a tile reads, however small the model sees it: measured at 1 / 8."""


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a run on this machine."""

    images: int
    megapixels: float
    tiles: int
    seconds: float
    bytes_a_worker: float
    workers: int
    undecided: bool = False
    """Whether the images are taken as they are since their magnification is not known yet."""

    def text(self) -> str:
        """Return it in words."""
        minutes = self.seconds / 60
        span = f"{self.seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
        seen = ", seen as it is: an estimated diameter may change that" if self.undecided else ""
        return (
            f"{self.images} images, {self.megapixels:.1f} Mpx in {self.tiles} tiles:"
            f" about {span} and {self.bytes_a_worker / 1e9:.1f} GB in each of"
            f" {self.workers} worker(s), judged by one window{seen}. Nothing was written."
        )


def estimate(plan: Plan, config: Config) -> Estimate:
    """Time a window in the middle of the first image, and reckon from it.

    Work and most of the memory go with the px that the model sees. Background,
    which costs nearly nothing, is reckoned as if it were looked at.

    Raises
    ------
    CellsegError
        If that window cannot be segmented.
    """
    # What is timed is the model, be there cells in that window or not.
    scene = replace(plan.scenes[0].prepare(), background=None)
    height, width = scene.grid.plane.shape
    side, warm = (min(int(px / scene.zoom), height, width) for px in (PROBE, WARM))
    y, x = (height - side) // 2, (width - side) // 2
    scene.segment(0, Box(y, x, y + warm, x + warm))
    start = time.perf_counter()
    scene.segment(0, Box(y, x, y + side, x + side))
    each_px = (time.perf_counter() - start) / (side * scene.zoom) ** 2
    bytes_a_px = MODELS[plan.workflow.model.name].bytes_per_px
    seen = largest = 0.0
    total, at_once = 0, config.in_hand(neural=plan.neural, tiles=plan.tiles)
    for one in plan.scenes:
        grid, scale = one.grid, one.zoom**2
        areas = [h * w for h, w in (grid.read(i).shape for i in one.looked_at)]
        seen += one.planes * sum(areas) * scale
        largest = max(largest, max(areas, default=0) * (bytes_a_px * scale + IMAGE_BYTES))
        cores = (grid.core(i).shape for i in one.looked_at)
        total += one.planes * sum(height * width for height, width in cores)
    # The window was looked at alone; on a CPU each tile in hand has cores of its own.
    on_cores = plan.neural and not config.cluster.gpus and config.torch_device() == "cpu"
    return Estimate(
        images=len(plan.scenes),
        megapixels=total / 1e6,
        tiles=plan.tiles,
        seconds=each_px * seen / (config.workers * (at_once if on_cores else 1)),
        bytes_a_worker=BASE_BYTES + at_once * largest,
        workers=config.workers,
        undecided=plan.undecided,
    )
