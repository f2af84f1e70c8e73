"""What a worker does: estimate a diameter, look at an image, segment a tile, finish an image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cellseg.models import Instances
from cellseg.pipeline.diameter import Estimated, estimate_from
from cellseg.pipeline.overview import overview
from cellseg.pipeline.paint import paint
from cellseg.pipeline.plan import Keys
from cellseg.pipeline.results import ImageResults, Results
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.stitch import Rules, Stitched, stitch
from cellseg.pipeline.table import cell_table
from cellseg.pipeline.tiles import Box

TILES_HELD = 24


@dataclass(frozen=True, eq=False)
class EstimateDiameter:
    """Task: find out from some of the images how large the cells are."""

    scenes: tuple[Scene, ...]

    def __call__(self) -> Estimated:
        """Return what was found, and where."""
        return estimate_from(self.scenes)


@dataclass(frozen=True, eq=False)
class Prepare:
    """Task: look at the whole image once."""

    scene: Scene

    def __call__(self) -> Scene:
        """Return the scene, ready for its tiles."""
        return self.scene.prepare()


@dataclass(frozen=True, eq=False)
class SegmentTile:
    """Task: find the instances of one tile, and write them."""

    scene: Scene
    results: Results
    index: int

    def __call__(self) -> float:
        """Return the seconds it took."""
        start = time.perf_counter()
        plane, position = divmod(self.index, len(self.scene.grid))
        found = self.scene.segment(plane, self.scene.grid.read(position))
        here = self.results.image(self.scene.name)
        here.write_tile(Keys.of(self.scene).tiles, self.index, found)
        return time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Finish:
    """Task: from the tiles of an image to its labels, table and picture."""

    scene: Scene
    results: Results

    def __call__(self) -> tuple[int, dict[str, float]]:
        """Return the number of cells, and the seconds of each stage that was computed."""
        scene, here, keys = self.scene, self.results.image(self.scene.name), Keys.of(self.scene)
        seconds: dict[str, float] = {}

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            result = work()
            seconds[stage] = time.perf_counter() - start
            return result

        planes = here.read_stitched(keys.labels)
        if planes is None:
            planes = timed("stitch", lambda: _stitch(scene, here, keys))
            here.write_stitched(keys.labels, planes)
        if here.labels.key() != keys.labels:
            timed("paint", lambda: _paint(scene, here, keys, planes))
        here.labels.rescale(scene.voxel_um)
        if not here.cells_done(keys.cells):
            table = timed("measure", lambda: cell_table(scene, planes, here.labels))
            here.overview_path.unlink(missing_ok=True)
            here.write_cells(keys.cells, table)
        if scene.workflow.output.overview and not here.overview_path.is_file():
            picture = timed("overview", lambda: overview(scene, here.labels))
            here.write_overview(picture)
        here.clear_tiles()
        return here.count_cells(), seconds


def _loader(scene: Scene, here: ImageResults, keys: Keys, plane: int) -> Callable[[int], Instances]:
    """Return the reader of one plane's tiles; it holds the last few."""
    first = plane * len(scene.grid)

    @lru_cache(maxsize=TILES_HELD)
    def load(position: int) -> Instances:
        return here.read_tile(keys.tiles, first + position)

    return load


def _stitch(scene: Scene, here: ImageResults, keys: Keys) -> list[Stitched]:
    settings = scene.workflow.stitch
    tiling = scene.tiling
    window_px = tiling.size + 2 * tiling.halo
    if settings.window_px is not None:
        window_px = round(settings.window_px / scene.zoom)
    rules = Rules(tiling.margin, settings.overlap, window_px)

    def one(plane: int) -> Stitched:
        def predict(window: Box) -> Instances:
            return scene.segment(plane, window)

        return stitch(scene.grid, rules, _loader(scene, here, keys, plane), predict)

    return [one(plane) for plane in range(scene.planes)]


def _paint(scene: Scene, here: ImageResults, keys: Keys, planes: list[Stitched]) -> None:
    times, _, depth, height, width = scene.image.pixels.shape
    firsts = 1 + np.cumsum([0, *(len(cells) for cells in planes)])

    @lru_cache(maxsize=1)
    def loader(plane: int) -> Callable[[int], Instances]:
        return _loader(scene, here, keys, plane)

    def region(t: int, z: int, box: Box) -> Any:
        plane = t * depth + z
        return paint(planes[plane], loader(plane), box, int(firsts[plane]))

    here.labels.write(keys.labels, (times, depth, height, width), scene.voxel_um, region)


Work = EstimateDiameter | Prepare | SegmentTile | Finish
