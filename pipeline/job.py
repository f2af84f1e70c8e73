"""A job: one image on its way from tiles to a table, and how far it has come.

Its stages, in order, each in units that any worker may do, in any order: segment a
tile; complete, then decide, the cells of a block of tiles; put all cells in order; of
volumes and time series, match the cells of a region of a plane with those of the next
ones, and link all of them; where cells may overlap, find what they share in a region, and
lay all of them in layers; paint a region; measure a run of labels; finish. What is done
is told by its files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from cellseg.pipeline.candidate import Candidates
from cellseg.pipeline.complete import Rules
from cellseg.pipeline.copied import CopiedImage
from cellseg.pipeline.corrections import Corrections
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.keys import Keys, digest
from cellseg.pipeline.link_rules import LinkRules
from cellseg.pipeline.ngff import level_count
from cellseg.pipeline.pyramid import regions
from cellseg.pipeline.results import Results
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.stitch import HELD
from cellseg.pipeline.tiles import Blocks, Box, Grid
from cellseg.pipeline.unfinished import Unfinished

ROUTE = (
    "segment",
    "complete",
    "decide",
    "order",
    "match",
    "link",
    "share",
    "layer",
    "paint",
    "measure",
    "finish",
)
"""All stages, in order; before the last, where a plate takes copies of the images, ``frame`` and
``copy``."""
AGAIN = ("scan", "order", "measure", "finish")
"""The stages where the cells of label images that are there are measured again."""
IN_PART = ("touched", "order", "measure", "finish")
"""The same where only those are that edits have touched."""
TOGETHER = 64
"""Planes that are one unit of ``match``, ``share`` and ``paint``, where each is small."""
DEPTH = 0.75
"""Part of the halo, beyond which what is outside the core is seen as in a larger window: measured
with the shipped network, see docs/seams.md."""


@dataclass(frozen=True, eq=False)
class Job:
    """One image on its way from tiles to a table; small, and the same for every process.

    Parameters
    ----------
    scene : Scene
        The image, prepared.
    results : Results
    again : bool
        Whether cells are taken from the label images that are there and measured, nothing else:
        see `cellseg.pipeline.rescan`.
    corrections : Corrections, optional
        What a person has corrected of those label images.
    in_part : bool
        Whether the table says what they showed before, so that only what the corrections have
        touched is measured: see `cellseg.pipeline.touched`.
    """

    scene: Scene
    results: Results
    again: bool = False
    corrections: Corrections | None = None
    in_part: bool = False

    @cached_property
    def here(self) -> ImageResults:
        """The image's part of the results."""
        return self.results.at(self.scene.place)

    @cached_property
    def keys(self) -> Keys:
        """What identifies the outcome of each stage."""
        return Keys.of(self.scene, self.here.labels.key() if self.again else None)

    @property
    def labels_state(self) -> str | None:
        """What tells one state of the label images from another that a person has made of it."""
        if not self.again:
            return None
        return digest(self.keys.labels, self.here.labels.state())

    @cached_property
    def work(self) -> Unfinished:
        """What the stages hand to each other."""
        keys = self.keys
        if self.again:
            state = self.labels_state
            if self.corrections is not None:
                state = digest(state, self.corrections.key)
            keys = Keys(keys.tiles, digest(state), digest(state, keys.cells))
        return Unfinished(self.here.folder, keys)

    @cached_property
    def blocks(self) -> Blocks:
        """The blocks of tiles of each plane."""
        return Blocks(self.scene.grid)

    @cached_property
    def regions(self) -> Grid:
        """The regions in which each plane is painted."""
        return regions(self.scene.grid.plane)

    @property
    def rules(self) -> Rules:
        """How candidates are judged, in px of this image."""
        settings, tiling = self.scene.workflow.stitch, self.scene.tiling
        window_px = tiling.size + 2 * tiling.halo
        if settings.window_px is not None:
            window_px = round(settings.window_px / self.scene.zoom)
        depth = round(DEPTH * tiling.halo)
        return Rules(
            tiling.margin, settings.overlap, window_px, depth, overlapping=self.overlapping
        )

    def tile(self, plane: int) -> Callable[[int], Candidates]:
        """Return the reader of one plane's tiles; it holds the last few."""
        first = plane * len(self.scene.grid)
        return lru_cache(maxsize=HELD)(lambda position: self.work.read_tile(first + position))

    def start_labels(self, layers: int) -> None:
        """Begin the label images; 0 layers where their number is not known yet."""
        scene = self.scene
        times, _, depth, height, width = scene.shape
        levels = level_count(scene.source.path) if scene.place.beside_image else None
        shape = times, depth, height, width
        self.here.labels.start(self.keys.labels, shape, scene.labels_voxel_um, layers, levels)

    def units(self, stage: str) -> int:
        """Return how many units a stage has; of ``measure``, once the cells are in order."""
        planes = self.scene.planes
        counts: dict[str, Callable[[], int]] = {
            "segment": lambda: self.scene.tiles,
            "complete": lambda: planes * len(self.blocks),
            "decide": lambda: planes * len(self.decided_blocks),
            "scan": lambda: self.units("paint"),
            "match": lambda: self.units("paint"),
            "share": lambda: self.units("paint"),
            "paint": lambda: -(-planes // self.together) * len(self.regions),
            "measure": lambda: self.runs or 0,
            "copy": lambda: -(-planes * self.scene.shape[1] // self.together) * len(self.regions),
        }
        return counts.get(stage, lambda: 1)()

    def numbers(self, stage: str) -> Sequence[int]:
        """Return the numbers of a stage's units, which a region of interest leaves gaps in."""
        if self.scene.focus is None or stage not in ("segment", "decide"):
            return range(self.units(stage))
        chosen, count = self.scene.looked_at, len(self.scene.grid)
        if stage == "decide":
            chosen, count = self.decided_blocks, len(self.blocks)
        return [plane * count + each for plane in range(self.scene.planes) for each in chosen]

    @cached_property
    def decided_blocks(self) -> Sequence[int]:
        """The blocks of a plane in which cells may be: all, or those with a part of the region."""
        focus = self.scene.focus
        if focus is None:
            return range(len(self.blocks))
        tiles = np.array(sorted(focus.survey(self.scene.grid).parts), np.int64)
        blocks: list[int] = np.unique(self.blocks.of(tiles)).tolist()
        return blocks

    @property
    def runs(self) -> int | None:
        """Number of runs of cells to measure, None if they are not all written."""
        return self.work.linked_runs if self.scene.linked else self.work.runs

    @property
    def link_rules(self) -> LinkRules:
        """How sections are judged."""
        scene, link = self.scene, self.scene.workflow.link
        depth = scene.shape[2]
        return LinkRules(depth, scene.step_px, link.overlap, link.gap, link.least_planes)

    def partners(self, plane: int) -> list[int]:
        """Return the later planes whose cells are matched with those of a plane."""
        scene, (t, z) = self.scene, self.scene.plane(plane)
        times, _, depth, *_ = scene.shape
        last = min(z + self.link_rules.reach, depth - 1) if scene.linked else z
        partners = list(range(plane + 1, plane + 1 + last - z))
        if scene.tracked and t + 1 < times:
            partners.append(plane + depth)
        return partners

    @property
    def together(self) -> int:
        """Planes in a unit of ``match``, ``share`` and ``paint``."""
        return TOGETHER if len(self.regions) == 1 else 1

    def regions_in(self, unit: int) -> list[tuple[int, Box]]:
        """Return the planes, and in each the region, of a unit of those stages."""
        first, position = divmod(unit, len(self.regions))
        last = min((first + 1) * self.together, self.scene.planes)
        region = self.regions.core(position)
        return [(plane, region) for plane in range(first * self.together, last)]

    @property
    def seamless(self) -> bool:
        """Whether each plane is one tile, so that there is nothing to decide."""
        return len(self.scene.grid) == 1

    @property
    def overlapping(self) -> bool:
        """Whether cells may share pixels."""
        return self.scene.overlap == "keep"

    def missing(self, stage: str) -> list[int]:
        """Return the units of a stage that are not done, in order."""
        if stage in ("order", "link"):
            written = self.work.runs if stage == "order" else self.work.linked_runs
            return [] if written is not None else [0]
        done = self.work.done(stage)
        return [unit for unit in self.numbers(stage) if unit not in done]

    def missing_tiles(self) -> list[int]:
        """Return the tiles that are to be segmented; none once their cells are in order.

        Other than `route`, it changes nothing.
        """
        labels, key = self.here.labels, self.keys.labels
        if labels.key() == key or (self.work.runs is not None and labels.started(key)):
            return []
        return self.missing("segment")

    def complete(self) -> bool:
        """Whether nothing is left to do."""
        if self.again and self.here.facts_or_none().get("labels_state") != self.labels_state:
            return False
        here, pictured = self.here, not self.scene.workflow.output.overview
        pictured = pictured or here.overview_path.is_file()
        painted = here.labels.key() == self.keys.labels
        return painted and here.cells_done(self.keys.cells) and pictured and self.placed

    @property
    def rows_stand(self) -> bool:
        """Whether there is a table of what the label images show, measured as asked for."""
        here = self.here
        measured = here.cells_done(self.keys.cells) and here.measured_on(self.keys.labels)
        return measured and here.labels.changed_ns < here.cells_path.stat().st_ctime_ns

    @property
    def placed(self) -> bool:
        """Whether the image is where the results go, if they go to a plate."""
        return self.here.field is None or self.here.image_key() == self.image_key

    @property
    def image_key(self) -> str:
        """What identifies the image in a plate."""
        images = self.scene.workflow.output.images
        about = (self.scene.channels, self.scene.voxel_um) if images == "copy" else ()
        return f"{images}-{digest(self.scene.key, *about)}"

    @property
    def copying(self) -> bool:
        """Whether the image is still to be copied into a plate."""
        return not self.placed and self.scene.workflow.output.images == "copy"

    @property
    def copied(self) -> CopiedImage:
        """The image in a plate, whole or not."""
        assert self.here.field is not None  # noqa: S101 - only what goes to a plate is copied
        return CopiedImage(self.here.field, self.scene.shape, level_count(self.scene.source.path))

    def copies_in(self, unit: int) -> list[tuple[int, int, Box]]:
        """Return the planes, channels and regions of a unit of ``copy``."""
        first, position = divmod(unit, len(self.regions))
        both = range(self.scene.planes * self.scene.shape[1])
        some = both[first * self.together : (first + 1) * self.together]
        region = self.regions.core(position)
        return [(*divmod(number, self.scene.shape[1]), region) for number in some]

    def route(self) -> tuple[str, ...]:
        """Return the stages that lead from what earlier runs have left to the end."""
        if self.again:
            return IN_PART if self.in_part else AGAIN
        stages = self._route()
        if self.copying and not self.copied.claimed(self.image_key):
            self.work.restart("frame")
            self.work.restart("copy")
        return (*stages[:-1], "frame", "copy", stages[-1]) if self.copying else stages

    def _route(self) -> tuple[str, ...]:
        here, keys = self.here, self.keys
        if here.labels.key() == keys.labels:
            if here.cells_done(keys.cells):
                return ROUTE[-1:]
            if self.runs is not None:
                return ROUTE[-2:]
            if here.measured_on(keys.labels):
                return ("link" if self.scene.linked else "order", *ROUTE[-2:])
            here.labels.clear()
        idle = {"complete", "decide"} if self.seamless else set()
        # In a region of interest cells are completed where they are decided.
        idle |= {"complete"} if self.scene.focus is not None else set()
        idle |= set() if self.overlapping else {"share", "layer"}
        idle |= set() if self.scene.linked or self.scene.tracked else {"match", "link"}
        route = tuple(stage for stage in ROUTE if stage not in idle)
        if self.work.runs is not None and here.labels.started(keys.labels):
            return route[route.index("order") + 1 :]
        self.work.restart("order")
        return route
