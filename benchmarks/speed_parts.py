"""The parts of a tile, timed in this process: read, network, masks, as a run does them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.floor import Work, count
from benchmarks.speed_runs import Configuration
from benchmarks.speed_scenes import Input
from cellseg.models.detector import Detector
from cellseg.models.owner import Network
from cellseg.models.timing import drain, recorded
from cellseg.pipeline import read_workflow
from cellseg.pipeline.job import Job
from cellseg.pipeline.named_model import NamedModel
from cellseg.pipeline.plan import Plan, plan
from cellseg.pipeline.tasks import segment


@dataclass(frozen=True)
class Timed:
    """What some work takes: seconds on the clock, and of a core; medians."""

    seconds: float
    core_seconds: float


@dataclass(frozen=True, eq=False)
class Sample:
    """Some tiles that show cells, and how to segment them as a run does.

    Parameters
    ----------
    tiles : tuple of (Job, int)
        The image and the number of the tile.
    at_once : int
        How many a run has in hand at a time.
    megapixels : float
        Of their cores.
    cells : int
        With their centre in these.
    images : tuple of Tensor
        What the network sees of them (1, C, H, W).
    detector : Detector
    """

    tiles: tuple[tuple[Job, int], ...]
    at_once: int
    megapixels: float
    cells: int
    images: tuple[Tensor, ...]
    detector: Detector

    @property
    def seen(self) -> float:
        """Px that the network sees for each of the image."""
        px = sum(each.shape[-2] * each.shape[-1] for each in self.images)
        return px / 1e6 / self.megapixels

    def whole(self, repeats: int) -> Timed:
        """Time the tiles, from file to file."""
        return self._time(lambda tile: segment(*tile), self.tiles, repeats)

    def parts(self, repeats: int) -> dict[str, Timed]:
        """Time the parts of the tiles, by ``part/part``."""
        rounds = []
        for _ in range(repeats):
            with recorded():
                self._spread(lambda tile: segment(*tile), self.tiles)
                rounds.append(_summed(drain()))
        names = dict.fromkeys(name for each in rounds for name in each)
        return {
            name: Timed(*(median(each[name][axis] for each in rounds) for axis in (0, 1)))
            for name in names
        }

    def network(self, repeats: int) -> Timed:
        """Time the network alone."""
        return self._time(self._compute(self.detector.network), self.images, repeats)

    def dense(self, repeats: int) -> Timed:
        """Time what of the network works on every pixel."""
        whole = dense_part(self.detector.network)

        def compute(batch: Tensor) -> list[dict[str, Any]]:
            whole(batch)
            if batch.is_cuda:
                torch.cuda.synchronize()
            return []

        return self._time(self._compute(compute), self.images, repeats)

    def work(self) -> Work:
        """Count what the network does."""
        found = [count(self.detector.network, image) for image in self.images]
        total = Work(sum(each.megapixels for each in found))
        for each in found:
            total.layers += each.layers
            total.rows += each.rows
        return total

    def _compute(self, module: Callable[[Tensor], Any]) -> Callable[[Tensor], object]:
        network = Network(module, self.detector.device, self.detector.precision)
        return lambda image: network([np.asarray(image[0])])

    def _time(self, work: Callable[[Any], object], items: Sequence[Any], repeats: int) -> Timed:
        found = []
        for _ in range(repeats):
            start, busy = time.perf_counter(), time.process_time()
            self._spread(work, items)
            found.append((time.perf_counter() - start, time.process_time() - busy))
        return Timed(*(float(median(axis)) for axis in zip(*found, strict=True)))

    def _spread(self, work: Callable[[Any], object], items: Sequence[Any]) -> None:
        if self.at_once == 1:
            for item in items:
                work(item)
        else:
            with ThreadPoolExecutor(self.at_once) as pool:
                list(pool.map(work, items))


def dense_part(network: nn.Module) -> Callable[[Tensor], object]:
    """Return backbone, pyramid and proposal head of a Mask R-CNN."""
    whole: Callable[[Tensor], object] | None = getattr(network, "dense", None)
    if whole is not None:
        return whole
    parts: Any = network

    def compute(images: Tensor) -> object:
        features = parts.backbone(images)
        return parts.rpn.head([features[name] for name in parts.backbone.proposing])

    return compute


def _summed(noted: Iterable[Any]) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for each in noted:
        seconds, core_seconds = sums["/".join(each.path)]
        sums["/".join(each.path)] = seconds + each.seconds, core_seconds + each.core_seconds
    return sums


def sample(given: Input, configuration: Configuration, tiles: int, folder: Path) -> Sample | None:
    """Choose tiles, evenly spread, that are no background; None if there are none.

    They are segmented once, so that what happens once in a process has happened.
    """
    config = configuration.config
    workflow = read_workflow(given.workflow(folder, "mask_rcnn"), output=folder / "sample")
    planned = plan(workflow, config)
    model = planned.scenes[0].segmenter
    assert isinstance(model, NamedModel)
    detector = model.loaded()
    assert isinstance(detector, Detector)
    chosen, cells = [], 0
    with _seen(detector.network) as images:
        for job, unit in _spread_out(planned, tiles):
            before = len(images)
            found = segment(job, unit)
            if len(images) > before:
                chosen.append((job, unit))
                cells += found
            if len(chosen) == tiles:
                break
    if not chosen:
        return None
    cores = [job.scene.grid.core(unit % len(job.scene.grid)) for job, unit in chosen]
    px = sum(core.shape[0] * core.shape[1] for core in cores)
    about = config.in_hand(neural=True), px / 1e6, cells, tuple(images), detector
    return Sample(tuple(chosen), *about)


def _spread_out(planned: Plan, tiles: int) -> Iterator[tuple[Job, int]]:
    """Yield all tiles of all images, first a few far from each other, then those between."""
    jobs: dict[int, Job] = {}
    places = [(n, unit) for n, scene in enumerate(planned.scenes) for unit in range(scene.tiles)]
    step = max(len(places) // tiles, 1)
    for first in range(step):
        # From the middle of each stretch on: the first tile of a slide is often empty.
        for image, unit in places[(first + step // 2) % step :: step]:
            if image not in jobs:
                jobs[image] = Job(planned.scenes[image].prepare(), planned.results)
            yield jobs[image], unit


@contextmanager
def _seen(network: nn.Module) -> Iterator[list[Tensor]]:
    """Give what a network has been asked for since."""
    images: list[Tensor] = []
    handle = network.register_forward_pre_hook(
        lambda _, given: images.append(given[0].detach().float().cpu())
    )
    try:
        yield images
    finally:
        handle.remove()
