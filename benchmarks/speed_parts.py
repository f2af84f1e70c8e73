"""The parts of a tile, timed in this process: read, network, masks, as a run does them."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.floor import Work, count
from benchmarks.speed_runs import Configuration
from benchmarks.speed_scenes import Input
from cellseg.models.detector import Detector
from cellseg.models.owner import Found, Network
from cellseg.models.timing import recorded
from cellseg.pipeline import read_workflow
from cellseg.pipeline.execute import Outcome, started
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
    """Some tiles that show cells, and how to segment them as a run does: so many at a time.

    Parameters
    ----------
    tiles : tuple of (Job, int)
        The image and the number of the tile.
    cells : int
        With their centre in the cores of these.
    images : tuple of Tensor
        What the network sees of them (1, C, H, W).
    model : NamedModel
    """

    tiles: tuple[tuple[Job, int], ...]
    cells: int
    images: tuple[Tensor, ...]
    model: NamedModel

    @property
    def megapixels(self) -> float:
        """Of the cores of the tiles."""
        boxes = [job.scene.grid.core(unit % len(job.scene.grid)) for job, unit in self.tiles]
        return sum(box.shape[0] * box.shape[1] for box in boxes) / 1e6

    @property
    def seen(self) -> float:
        """Px that the network sees for each of the image."""
        px = sum(each.shape[-2] * each.shape[-1] for each in self.images)
        return px / 1e6 / self.megapixels

    @property
    def detector(self) -> Detector:
        """The model itself."""
        model = self.model.loaded()
        assert isinstance(model, Detector)
        return model

    def whole(self, repeats: int) -> Timed:
        """Time the tiles, from file to file."""
        return self._time(lambda tile: segment(*tile), self.tiles, repeats)

    def parts(self, repeats: int) -> dict[str, Timed]:
        """Time the parts of the tiles, by ``part/part``."""
        rounds = []
        for _ in range(repeats):
            with recorded():
                outcomes = self._each(lambda tile: segment(*tile), self.tiles)
                rounds.append(_summed(part for one in outcomes for part in one.noted))
        met = list(dict.fromkeys(name for each in rounds for name in each))
        stems = list(dict.fromkeys(name.split("/")[0] for name in met))
        # A part ends behind those in it, and is to stand before them.
        names = sorted(met, key=lambda name: (stems.index(name.split("/")[0]), name.count("/")))
        return {
            name: Timed(*(median(each[name][axis] for each in rounds) for axis in (0, 1)))
            for name in names
        }

    def network(self, repeats: int) -> Timed:
        """Time the network alone."""
        return self._time(self._compute(self.detector.compute), self.images, repeats)

    def dense(self, repeats: int) -> Timed:
        """Time what of the network works on every pixel."""
        used = self.detector.compute
        dense = Network(Dense(used.module), used.device, used.precision)
        return self._time(self._compute(dense), self.images, repeats)

    def work(self) -> Work:
        """Count what the network does."""
        found = [count(self.detector.network, image) for image in self.images]
        total = Work(sum(each.megapixels for each in found))
        for each in found:
            total.layers += each.layers
            total.rows += each.rows
        return total

    def _compute(self, network: Network) -> Callable[[Tensor], object]:
        def compute(image: Tensor) -> object:
            self.model.loaded()  # which has torch compute in this thread with its share of cores
            return network([np.asarray(image[0])])

        return compute

    def _time(self, work: Callable[[Any], object], items: Sequence[Any], repeats: int) -> Timed:
        found = []
        for _ in range(repeats):
            start, busy = time.perf_counter(), time.process_time()
            self._each(work, items)
            found.append((time.perf_counter() - start, time.process_time() - busy))
        return Timed(*(float(median(axis)) for axis in zip(*found, strict=True)))

    def _each(self, work: Callable[[Any], object], items: Sequence[Any]) -> list[Outcome[Any]]:
        """Do some work for each item, as the engine of a run does its tasks."""
        tasks: deque[Any] = deque(partial(work, item) for item in items)
        with started(self.model.config, neural=True) as engine:
            outcomes = list(engine.outcomes(tasks))
        failures = [each.failure.reason for each in outcomes if each.failure is not None]
        assert not failures, failures
        return outcomes


@dataclass(frozen=True, eq=False)
class Dense:
    """Backbone, pyramid and proposal head of a Mask R-CNN, whatever computes it."""

    network: Any

    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Compute them, and find nothing."""
        self.network.dense(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return []


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
    # Of several processes one, as what is timed lies in this one.
    config = configuration.config.model_copy(update={"workers": 1, "engine": "local"})
    workflow = read_workflow(given.workflow(folder, "mask_rcnn"), output=folder / "sample")
    planned = plan(workflow, config)
    model = planned.scenes[0].segmenter
    assert isinstance(model, NamedModel)
    chosen, cells, images = [], 0, list[Tensor]()
    with _seen(Sample((), 0, (), model).detector, images):
        for job, unit in _spread_out(planned, tiles):
            before = len(images)
            found = segment(job, unit)
            if len(images) > before:
                chosen.append((job, unit))
                cells += found
            if len(chosen) == tiles:
                break
    return Sample(tuple(chosen), cells, tuple(images), model) if chosen else None


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
def _seen(detector: Detector, images: list[Tensor]) -> Iterator[None]:
    """Note in `images` what a detector's network is asked for."""
    asked = detector.ask

    def note(image: NDArray[np.float32]) -> Found:
        images.append(torch.from_numpy(image)[None])
        return asked(image)

    detector.ask = note
    try:
        yield
    finally:
        detector.ask = asked
