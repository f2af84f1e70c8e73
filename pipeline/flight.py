"""Tasks in flight on dask workers: a few on each, all else waits here.

Which worker has which task is decided here, not by the scheduler: it never sees more than
those few, and where a worker dies it is known which tasks were on it. Tasks that take no time
are sent several at a time.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic

from distributed import Client, Future
from distributed.protocol.pickle import dumps, loads
from distributed.scheduler import KilledWorker

from cellseg.models.timing import part
from cellseg.pipeline.faults import (
    DIED,
    NO_IMAGES_FAULT,
    PAUSES,
    TRIES,
    Answer,
    Failure,
    Outcome,
    Task,
    attempt,
)
from cellseg.pipeline.logs import LOG, LogFiles
from cellseg.pipeline.stopping import asked, check

__all__ = ["Flight"]

LOOKS = 1.0
"""Seconds between two looks at which workers there are."""
GONE = 35.0
"""Seconds after which a task on a worker that is gone is taken to be lost with it. One that leaves
in order ends what it has at work, for which dask waits 30 s; nobody else may do it meanwhile."""
BUNDLE_SECONDS, BUNDLE = 0.05, 64
"""Tasks are sent together up to so much work and so many."""
LATE = 10.0
"""Seconds for a result, a few bytes, to arrive."""


@dataclass(eq=False)
class Troubled(Generic[Task]):
    """A task that has failed, or was on a worker that died.

    Parameters
    ----------
    task : Task
    failures, deaths : int
        How often.
    due : float
        When it may be tried again.
    avoid : set of str
        Workers that it failed on.
    """

    task: Task
    failures: int = 0
    deaths: int = 0
    due: float = 0.0
    avoid: set[str] = field(default_factory=set)

    @property
    def alone(self) -> bool:
        """Whether no other may be on its worker, so that it is clear who kills it."""
        return self.deaths >= TRIES - 1


@dataclass(eq=False)
class Sent(Generic[Task]):
    """Tasks that a worker has, or one that is tried again."""

    tasks: list[Task]
    worker: str
    future: Future
    troubled: Troubled[Task] | None = None
    gone_since: float | None = None

    @property
    def alone(self) -> bool:
        """Whether its worker gets nothing else meanwhile."""
        return self.troubled is not None and self.troubled.alone


class Flight:
    """The workers of a dask scheduler; see `cellseg.pipeline.execute.Engine`.

    Parameters
    ----------
    client : distributed.Client
    logs : LogFiles, optional
        Where workers write what they have to say.
    """

    def __init__(self, client: Client, logs: LogFiles | None = None) -> None:
        self.client = client
        self.logs = logs
        self.rooms: dict[str, int] = {}
        self.looked = 0.0
        self.sent: dict[str, Sent[Any]] = {}
        self.troubled: list[Troubled[Any]] = []
        self.landed: SimpleQueue[Future] = SimpleQueue()
        self.each_seconds = BUNDLE_SECONDS

    @property
    def dashboard(self) -> str | None:
        """Address of the scheduler's page; None where bokeh, which draws it, is missing."""
        from importlib.util import find_spec

        return str(self.client.dashboard_link) if find_spec("bokeh") else None

    def outcomes(self, tasks: deque[Task]) -> Iterator[Outcome[Task]]:
        """See `Engine`."""
        try:
            while tasks or self.troubled or self.sent:
                yield from self._look()
                if asked() is None:
                    self._fill(tasks)
                elif not self.sent:
                    check()
                yield from self._land()
        finally:
            self._drop(list(self.sent.values()))

    def _look(self) -> Iterator[Outcome[Any]]:
        """See which workers there are; find out which tasks went with those that are gone."""
        now = time.monotonic()
        if now - self.looked < LOOKS:
            return
        self.looked = now
        self._check_scheduler()
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        rooms = {address: 1 + int(about["nthreads"]) for address, about in found.items()}
        for address in self.rooms.keys() - rooms.keys():
            LOG.warning("worker %s is gone", address)
        for address in rooms.keys() - self.rooms.keys():
            LOG.info("worker %s is there (%s)", address, found[address]["name"])
        self.rooms = rooms
        for sent in [each for each in self.sent.values() if each.worker not in rooms]:
            sent.gone_since = sent.gone_since or now
            if now - sent.gone_since > GONE and not sent.future.done():
                self._drop([sent])
                yield from self._died(sent)

    def _check_scheduler(self) -> None:
        if self.client.status != "running":
            raise ConnectionError(None, "the dask scheduler is gone", self._address)

    @property
    def _address(self) -> str:
        return str(self.client.scheduler.addr if self.client.scheduler else "scheduler")

    def _fill(self, tasks: deque[Any]) -> None:
        """Send tasks, so that every worker has one before any has two."""
        held: Counter[str] = Counter(each.worker for each in self.sent.values())
        closed = {each.worker for each in self.sent.values() if each.alone}
        self._retry(held, closed)
        for depth in range(max(self.rooms.values(), default=0)):
            for worker, room in self.rooms.items():
                if not tasks:
                    return
                if worker not in closed and held[worker] <= depth < room:
                    count = max(1, min(BUNDLE, int(BUNDLE_SECONDS / self.each_seconds)))
                    count = min(count, max(1, len(tasks) // (2 * len(self.rooms))))
                    self._send([tasks.popleft() for _ in range(count)], worker)
                    held[worker] += 1

    def _retry(self, held: Counter[str], closed: set[str]) -> None:
        """Send what is to be tried again, and close the workers that are kept clear for some."""
        now = time.monotonic()
        for troubled in [each for each in self.troubled if each.due <= now]:
            free = [w for w, room in self.rooms.items() if held[w] < room and w not in closed]
            if not free:
                break
            worker = min(free, key=lambda w: (w in troubled.avoid, held[w]))
            if troubled.alone:
                closed.add(worker)
                if held[worker]:
                    continue
            self.troubled.remove(troubled)
            self._send([troubled.task], worker, troubled)
            held[worker] += 1

    def _send(self, tasks: list[Any], worker: str, troubled: Troubled[Any] | None = None) -> None:
        # As bytes, which the scheduler passes on without looking into them.
        packed, where = (
            dumps((self.logs, dumps(tasks))),
            {"workers": [worker], "allow_other_workers": False},
        )
        future = self.client.submit(answer, packed, pure=False, **where)
        self.sent[future.key] = Sent(tasks, worker, future, troubled)
        future.add_done_callback(self.landed.put)

    def _drop(self, some: list[Sent[Any]]) -> None:
        """Forget tasks in flight, whatever becomes of them."""
        for sent in some:
            self.sent.pop(sent.future.key, None)
        if some and self.client.status == "running":
            self.client.cancel([sent.future for sent in some], force=True)

    def _land(self) -> Iterator[Outcome[Any]]:
        """Yield what became of tasks, some time after one has come back."""
        try:
            future = self.landed.get(timeout=LOOKS)
        except Empty:
            return
        sent = self.sent.pop(future.key, None)
        if sent is None:
            return
        if future.status == "cancelled":
            self._check_scheduler()
            raise ConnectionError(None, "the dask scheduler is gone", self._address)
        try:
            answers: list[Answer] = future.result(timeout=LATE)
        except KilledWorker:
            self.looked = 0.0
            yield from self._died(sent)
        except OSError as error:
            if error.errno in NO_IMAGES_FAULT:
                raise
            # Its worker has ended before the result was fetched, which is no fault of the task.
            self._drop([sent])
            self.troubled += [sent.troubled or Troubled(task) for task in sent.tasks]
        except Exception as error:
            failure = Failure(f"{type(error).__name__}: {error}")
            for task in sent.tasks:
                yield from self._failed(sent, task, Answer(sent.worker, 0, failure=failure))
        else:
            for task, each in zip(sent.tasks, answers, strict=True):
                self.each_seconds += 0.2 * (max(each.seconds, 1e-6) - self.each_seconds)
                yield from self._failed(sent, task, each) if each.passes else [each.of(task)]

    def _failed(self, sent: Sent[Any], task: Any, answer: Answer) -> Iterator[Outcome[Any]]:
        """Try a task again that has failed, or give it up."""
        troubled = sent.troubled or Troubled(task)
        troubled.failures += 1
        if troubled.failures == TRIES:
            yield answer.of(task)
            return
        troubled.avoid.add(sent.worker)
        troubled.due = time.monotonic() + PAUSES[troubled.failures]
        self.troubled.append(troubled)

    def _died(self, sent: Sent[Any]) -> Iterator[Outcome[Any]]:
        """Try tasks again whose worker has died, or give up the one that kills it."""
        for task in sent.tasks:
            troubled = sent.troubled or Troubled(task)
            troubled.deaths += 1
            LOG.warning("a worker died (%s) with %s", sent.worker, task)
            if troubled.deaths == TRIES:
                yield Outcome(task, failure=Failure(DIED), where=sent.worker)
            else:
                troubled.avoid.add(sent.worker)
                self.troubled.append(troubled)


def answer(packed: bytes) -> list[Answer]:
    """Try some tasks; what a worker is asked for."""
    logs, packed_tasks = loads(packed)
    if logs is not None:
        logs.open()
    with part("receive"):  # the first time with all that is imported for it
        tasks = loads(packed_tasks)
    return [attempt(task) for task in tasks]
