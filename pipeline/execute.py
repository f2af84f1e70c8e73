"""The engine: where tasks run, in this process, in its threads or on workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from cellseg.pipeline import worker
from cellseg.pipeline.config import Config, keep_freed_memory
from cellseg.pipeline.faults import Failure, Outcome, Task, persist
from cellseg.pipeline.logs import LogFiles
from cellseg.pipeline.stopping import asked, check

__all__ = ["Engine", "Failure", "Outcome", "Task", "execute", "started"]

LOOKS = 1.0
"""Seconds between two looks at whether the run is to stop, where nothing else happens."""


class Engine(Protocol):
    """Where tasks run.

    Attributes
    ----------
    dashboard : str or None
        Address of a page that shows the workers, if there is one.
    """

    @property
    def dashboard(self) -> str | None: ...  # noqa: D102 - above

    def outcomes(self, tasks: deque[Task]) -> Iterator[Outcome[Task]]:
        """Run tasks and yield their outcomes as they come.

        The caller may put more tasks into the queue, or take some out, between
        outcomes. A task that raises is tried again, up to three times in all and if it can be
        by another worker, unless the error is one that the input makes every time. So is one
        whose worker dies; the third time it is alone on its worker, so that no other
        is blamed.

        Parameters
        ----------
        tasks : deque of callables without arguments
            Emptied from the left. With workers each must pickle, and a
            task's result too.

        Raises
        ------
        OSError
            If the disk is full or read-only, or a scheduler is gone.
        Stopped
            If that was asked and tasks are left; those in flight have ended.
        """
        ...


@contextmanager
def started(
    config: Config,
    logs: LogFiles | None = None,
    *,
    neural: bool = False,
    tiles: int | None = None,
) -> Iterator[Engine]:
    """Start what a configuration asks for, and end it afterwards.

    Parameters
    ----------
    config : Config
        ``engine``, ``workers``, ``tiles_at_once`` and ``[cluster]`` of it.
    logs : LogFiles, optional
        Where workers write what they have to say.
    neural : bool
        Whether torch computes, on a GPU perhaps.
    tiles : int, optional
        How many there are to segment, if that is known.

    Raises
    ------
    CellsegError
        If it cannot be started.
    """
    at_once = config.in_hand(neural=neural, tiles=tiles)
    if config.engine == "local" and config.workers == 1:
        if neural:
            keep_freed_memory()
        worker.has_in_hand(at_once, config.torch_threads(at_once))
        try:
            yield Here() if at_once == 1 else Threads(at_once)
        finally:
            worker.has_in_hand(1)
    else:
        from cellseg.pipeline.dask_cluster import connected
        from cellseg.pipeline.flight import Flight

        with connected(config, at_once, logs) as client:
            yield Flight(client, logs)


def execute(
    tasks: deque[Task], config: Config, logs: LogFiles | None = None
) -> Iterator[Outcome[Task]]:
    """Run tasks as a configuration asks for; see `Engine.outcomes`."""
    with started(config, logs) as engine:
        yield from engine.outcomes(tasks)


@dataclass(frozen=True)
class Here:
    """One task after the other, in this process."""

    dashboard: str | None = None

    def outcomes(self, tasks: deque[Task]) -> Iterator[Outcome[Task]]:
        """See `Engine`."""
        while tasks:
            check()
            yield persist(tasks.popleft())


@dataclass(frozen=True)
class Threads:
    """Threads of this process, which share one model.

    Parameters
    ----------
    count : int
    """

    count: int
    dashboard: str | None = None

    def outcomes(self, tasks: deque[Task]) -> Iterator[Outcome[Task]]:
        """See `Engine`."""
        running: set[Future[Outcome[Task]]] = set()
        pool = ThreadPoolExecutor(self.count)
        try:
            while tasks or running:
                while tasks and len(running) < self.count and asked() is None:
                    running.add(pool.submit(persist, tasks.popleft()))
                if not running:
                    check()
                # No longer than that, as a signal is only heard between two waits.
                done, running = wait(running, LOOKS, FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
