"""A shard: one of several processes, on any machines, that do the images of a run between them.

They know of each other by files alone, see `cellseg.pipeline.claims`. A small image is claimed
whole. Of a large one tiles are claimed, some at a time, and the rest of it by who finds none
missing. What belongs to all images, ``cells.parquet`` and ``run.json`` say, is left to
`cellseg finish`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Literal

from cellseg.models import CellsegError
from cellseg.pipeline.claims import Claims, Work
from cellseg.pipeline.config import Config
from cellseg.pipeline.diameter import Estimated
from cellseg.pipeline.execute import Failure, Outcome
from cellseg.pipeline.in_hand import Chunk, InHand
from cellseg.pipeline.job import Job
from cellseg.pipeline.keys import digest
from cellseg.pipeline.lock import Claim, claim
from cellseg.pipeline.plan import Plan
from cellseg.pipeline.result import Progress
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.set_aside import SetAside
from cellseg.pipeline.shard_records import Part, Records, read_shards
from cellseg.pipeline.stages import Run
from cellseg.pipeline.stopping import check
from cellseg.pipeline.tasks import EstimateDiameter, Prepare, Unit
from cellseg.pipeline.tasks import Work as Task

__all__ = ["Shard"]

SMALL = 16
"""Tiles up to which an image is claimed whole."""
CHUNK = 8
"""Tiles of a larger one that are claimed at a time."""
AHEAD = 2
"""Pieces of work that are claimed for each of several that are done at a time."""
EVERY = 2.0
"""Seconds between two signs of how far it is."""
DIAMETER = "all.diameter"
"""What of a run is one piece of work for all images."""
WAIT = 1.0
"""Seconds between two looks for what another shard is about to know."""


class Shard(Run):
    """A plan of which this process does what no other shard does; see `Run`.

    Parameters
    ----------
    plan : Plan
    config : Config
    part : Part
        Where in the order of the images to begin: shards that begin apart meet late.
    """

    def __init__(self, plan: Plan, config: Config, part: Part) -> None:
        super().__init__(plan, config)
        self.part = part
        self.what = f"cellseg run --shard {part}"
        self.hand = InHand()
        self.estimating: Work | None = None
        self.jobs: dict[str, Job] = {}
        self.found: set[str] = set()
        self.given_up: set[str] = set()
        self.own_tiles: Counter[str] = Counter()
        self.identity = _identity(plan)
        self.to_claim: deque[Scene] = deque()
        self.told = 0.0
        self.memory = 0.0
        self.segmented = 0

    def steps(self, held: Claim | None = None) -> Iterator[Progress]:  # noqa: ARG002 - its own
        """Do what no other shard does until nothing is left; yield after each tile and image.

        Raises
        ------
        CellsegError
            If this shard, or a command that needs the results alone, is at work in them; if
            shards of another workflow are; or if another shard has taken this one for dead.
        Stopped
            If that was asked: what it has claimed is left to the others.
        """
        folder = self.plan.results.folder
        folder.mkdir(parents=True, exist_ok=True)
        with claim(folder, self.what, together=True, name=f"shard-{self.part.name}") as mine:
            self.mine, self.claims = mine, Claims(folder, mine)
            self.records = Records(folder, self.part, mine)
            self.log_files.open()
            try:
                for step in self._carry_out():
                    yield step
                    mine.check()
                    self._tell(step)
            except BaseException:
                self._leave()
                raise
            finally:
                self.log_files.close()

    def _carry_out(self) -> Iterator[Progress]:
        self._agree()
        self._note("running")
        self._agree()  # two that began at once see each other now
        self.records.write_workflow(self.plan.workflow.toml())
        self._size()
        yield from self._steps()
        self._note("done")

    def _agree(self) -> None:
        """Refuse to work beside shards of another workflow, or of other images."""
        for other in read_shards(self.plan.results.folder):
            if other.alive and other.about.get("identity") != self.identity:
                raise CellsegError(
                    f"{self.plan.results.folder}: shard {other.about['shard']} is at work there"
                    " with another workflow or other images. Give all shards the same ones."
                )

    def _size(self) -> None:
        """Wait for the diameter of the cells where another shard estimates it."""
        key = self.plan.diameter_key
        while self.plan.undecided and key is not None:
            if (known := self.plan.results.read_diameter(key)) is not None:
                self.plan = self.plan.sized(known)
            elif (work := self.claims.take(DIAMETER, key)) is not None:
                self.estimating = work
                return
            elif self.claims.is_left(DIAMETER, key):
                raise CellsegError(
                    '[model] diameter_px = "auto": no shard could estimate it; the first one that'
                    " tried says why. Give diameter_px a number, or let `cellseg finish` try."
                )
            else:
                self.mine.check()
                check()
                time.sleep(WAIT)

    def _decide(self, estimated: Estimated, failure: Failure | None) -> Progress:
        """Go on with the diameter; where it cannot be estimated, have no shard wait for it."""
        work, key = self.estimating, self.plan.diameter_key
        self.estimating = None
        if failure is not None and work is not None and key is not None:
            self.claims.set_aside(work, key)
        return super()._decide(estimated, failure)

    def _write_run(self, state: str) -> None:
        """Leave ``run.json`` to `cellseg finish`."""

    def _list_in_plate(self, scene: Scene) -> None:
        """Leave the list of a plate's fields to `cellseg finish`."""

    def _queue_images(self) -> Iterator[Progress]:
        """Claim the first images, from this shard's place in their order."""
        # While shards are at work a plate lists nothing: some of its fields are begun anew.
        self._start_plates(set())
        scenes = self.plan.scenes
        self.to_claim = deque(scenes)
        self.to_claim.rotate(-(len(scenes) * (self.part.number - 1) // self.part.of))
        self._claim()
        yield from ()

    def _claim(self) -> None:
        """Claim as much as the workers need, or as there is."""
        slots = self.config.workers * self.config.in_hand(neural=self.plan.neural)
        most = slots * AHEAD if slots > 1 else 1
        while len(self.hand) < most and self._claim_one():
            pass

    def _claim_one(self) -> bool:
        """Claim the next piece of work that nobody has; return whether there was one."""
        for _ in range(len(self.to_claim)):
            scene = self.to_claim.popleft()
            if self._is_settled(scene):
                continue
            large = scene.tiles > SMALL
            taken = self._claim_part(scene) if large else self._claim_image(Prepare(scene))
            if taken and not large:
                return True
            (self.to_claim.appendleft if taken else self.to_claim.append)(scene)
            if taken:
                return True
        return False

    def _is_settled(self, scene: Scene) -> bool:
        """Whether no shard has anything left to do of an image."""
        if scene.name in self.reports or scene.name in self.hand.images:
            return True
        if scene.name in self.given_up:
            return True
        if self._is_done(scene):
            self.found.add(scene.name)
            self.tiles_done += scene.tiles - self.own_tiles[scene.name]
            return True
        return self.claims.is_left(f"{scene.name}.image", scene.key)

    def _claim_image(self, task: Prepare | Job) -> bool:
        """Claim an image, to be done from where it is; return whether nobody else has it."""
        scene = task.scene
        work = self.claims.take(f"{scene.name}.image", scene.key)
        if work is None:
            return False
        if self._is_done(scene):  # another one was quicker
            self.claims.free(work)
            return False
        self.hand.images[scene.name] = work
        if isinstance(task, Job):
            tiles = self.tiles_done
            self._set_out(task)
            self.tiles_done = tiles  # they were counted when they were done
        else:
            self.tasks.append(task)
        return True

    def _claim_part(self, scene: Scene) -> bool:
        """Claim tiles of a large image, or the rest of it once none is missing."""
        job = self.jobs.get(scene.name)
        if job is None:
            if scene.name in self.hand.looking:
                return False
            self.hand.looking.add(scene.name)
            self.tasks.append(Prepare(scene))
            return True
        if not (missing := job.missing_tiles()):
            return self._claim_image(job)
        return any(self._claim_chunk(job, number) for number in self._chunks(missing))

    def _chunks(self, missing: list[int]) -> list[int]:
        """Return the chunks with tiles that are missing, from this shard's place among them."""
        chunks = sorted({unit // CHUNK for unit in missing})
        first = len(chunks) * (self.part.number - 1) // self.part.of
        return chunks[first:] + chunks[:first]

    def _claim_chunk(self, job: Job, number: int) -> bool:
        name = job.scene.name
        if (name, number) in self.hand.chunks:
            return False
        work = self.claims.take(f"{name}.tiles-{number:07d}", job.scene.key)
        if work is None:
            return False
        # Another shard may have done some, and left it, since they were looked for.
        missing = [unit for unit in job.missing_tiles() if unit // CHUNK == number]
        if missing:
            self.hand.chunks[name, number] = Chunk(work, set(missing))
            self.tasks.extend(Unit(job, ("segment",), unit) for unit in missing)
        return bool(missing)

    def _follow(self, outcome: Outcome[Task]) -> Iterator[Progress]:
        """Settle what an outcome decides, and claim what comes next."""
        task = outcome.task
        if isinstance(task, EstimateDiameter):
            yield from super()._follow(outcome)
            return
        name = task.scene.name
        if isinstance(task, Prepare) and name in self.hand.looking:
            yield self._look_at(task, outcome)
        elif isinstance(task, Unit) and task.stages == ("segment",):
            if (name, task.number // CHUNK) in self.hand.chunks:
                yield self._add_tile(task, outcome)
        elif (work := self.hand.images.get(name)) is not None:
            if self.claims.holds(work):
                yield from super()._follow(outcome)
            else:
                self._drop(name)
        self._claim()

    def _look_at(self, task: Prepare, outcome: Outcome[Task]) -> Progress:
        """Note a large image that was looked at."""
        name = task.scene.name
        self.hand.looking.discard(name)
        if outcome.failure is None:
            self.jobs[name] = self._job(outcome.result)
        elif (work := self.claims.take(f"{name}.image", task.scene.key)) is not None:
            self.hand.images[name] = work
            return self._fail(task.scene, outcome.failure)
        else:
            self.given_up.add(name)
        return Progress(name, self.tiles_done, self.plan.tiles)

    def _add_tile(self, task: Unit, outcome: Outcome[Task]) -> Progress:
        """Note a tile of a large image that was segmented, or could not be."""
        name, number = task.scene.name, task.number // CHUNK
        chunk = self.hand.chunks[name, number]
        chunk.waiting.discard(task.number)
        if outcome.failure is None:
            spent = outcome.result["segment"]
            chunk.tiles, chunk.seconds = chunk.tiles + 1, chunk.seconds + spent.seconds
            chunk.memory_mb = max(chunk.memory_mb or 0.0, spent.memory_mb or 0.0)
            self.tiles_done, self.own_tiles[name] = self.tiles_done + 1, self.own_tiles[name] + 1
        else:
            chunk.failure = SetAside.of(task.job, task.number, outcome.failure)
        if not self.claims.holds(chunk.work):
            self._unqueue(name, chunk.waiting)
            del self.hand.chunks[name, number]
        elif not chunk.waiting:
            self._end_chunk(task.scene, number)
        return Progress(name, self.tiles_done, self.plan.tiles, "segment")

    def _end_chunk(self, scene: Scene, number: int) -> None:
        """Write down what came of some tiles of a large image."""
        chunk, failure = self.hand.chunks.pop((scene.name, number)), None
        if chunk.failure is not None:
            self.claims.set_aside(chunk.work, scene.key)
            failure = {"reason": chunk.failure.text, "traceback": chunk.failure.traceback}
        spent = {"segment": round(chunk.seconds, 3)}, {"segment": chunk.memory_mb or 0.0}
        self._add_line(scene, "failed" if failure else "part", chunk.tiles, *spent, failure or {})

    def _add_line(
        self,
        scene: Scene,
        state: str,
        tiles: int,
        seconds: dict[str, float],
        memory_mb: dict[str, float],
        more: dict[str, Any],
    ) -> None:
        self.memory = max([self.memory, *memory_mb.values()])
        self.segmented += tiles
        line = {"name": scene.name, "state": state, "tiles": tiles, "cells": 0}
        self.records.add(line | {"seconds": seconds, "memory_mb": memory_mb} | more)

    def _drop(self, name: str) -> None:
        """Leave an image to the shard that has taken it over."""
        del self.hand.images[name]
        self.waiting.pop(name, None)
        self._unqueue(name)

    def _unqueue(self, name: str, units: set[int] | None = None) -> None:
        """Take the tasks of an image, or of some of its tiles, out of the queue."""
        for task in tuple(self.tasks):
            if isinstance(task, EstimateDiameter) or task.scene.name != name:
                continue
            if units is None or (isinstance(task, Unit) and task.number in units):
                self.tasks.remove(task)

    def _settle(self, scene: Scene, state: Literal["done", "failed"], **how: Any) -> Progress:
        """Write down how it went with an image."""
        step = super()._settle(scene, state, **how)
        report, work = self.reports[scene.name], self.hand.images.pop(scene.name)
        more: dict[str, Any] = {"cells": report.cells}
        if state == "failed":
            self.claims.set_aside(work, scene.key)
            more |= {"reason": report.reason, "traceback": report.traceback}
        tiles = 0 if scene.name in self.jobs or state == "failed" else scene.tiles
        self._add_line(scene, state, tiles, report.seconds, report.memory_mb, more)
        return step

    @property
    def summary(self) -> str:
        """What it did, in words."""
        states = Counter(report.state for report in self.reports.values())
        failed = states["failed"] - len(self.plan.unreadable)
        parts = sum(self.own_tiles.values())
        said = [f"{states['done']} image{'s' * (states['done'] != 1)} done"]
        said += [f"{parts} tiles of large images"] * bool(parts) + [f"{failed} failed"] * (
            failed > 0
        )
        return ", ".join(said)

    def _leave(self) -> None:
        """Leave what is in hand to other shards."""
        if not self.mine.path.exists():
            return  # another one goes by the name of this shard
        for work in self.hand.works:
            self.claims.free(work)
        if self.estimating is not None:
            self.claims.free(self.estimating)
        self._note("stopped")

    def _tell(self, step: Progress) -> None:
        if time.monotonic() - self.told >= EVERY:
            self._note("running", at=f"{step.image} {step.stage}".strip())

    def _note(self, state: str, at: str = "") -> None:
        self.told = time.monotonic()
        scenes, started = self.plan.scenes, self.started.timestamp()
        about: dict[str, Any] = {
            "identity": self.identity,
            "started": started,
            "seconds": round(time.time() - started, 1),
            "memory_mb": round(self.memory),
            "workers": self.config.workers,
            "images": len(scenes) + len(self.plan.unreadable),
            "all_tiles": self.plan.tiles,
            "unreadable": {each.name: each.reason for each in self.plan.unreadable},
            "done": sum(report.state == "done" for report in self.reports.values()),
            "found": len(self.found),
            "tiles": self.segmented,
            "tiles_done": self.tiles_done,
            "at": at,
        }
        self.records.note(state, **about)


def _identity(plan: Plan) -> str:
    """Return what tells a workflow on some images from others, wherever its results lie."""
    output = plan.workflow.output.model_copy(update={"path": ""})
    workflow = plan.workflow.model_copy(update={"output": output})
    sources = [(scene.name, str(scene.source.path)) for scene in plan.scenes]
    return digest(workflow.toml(), sources, len(plan.unreadable))
