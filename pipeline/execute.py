"""The engine: where tasks run, in this process or in several workers."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cellseg.models import CellsegError
from cellseg.pipeline.config import Config

Task = TypeVar("Task", bound=Callable[[], Any])

IN_FLIGHT = 2
"""Tasks given to each worker at a time: one at work, one waiting."""
TRIES = 2


@dataclass(frozen=True)
class Outcome(Generic[Task]):
    """What became of a task: its result, or the error of its last try."""

    task: Task
    result: Any = None
    error: BaseException | None = None


def execute(tasks: deque[Task], config: Config) -> Iterator[Outcome[Task]]:
    """Run tasks and yield their outcomes as they come.

    The caller may put more tasks into the queue, or take some out, between
    outcomes. A task that raises is tried again, unless the error is one that
    the input makes every time.

    Parameters
    ----------
    tasks : deque of callables without arguments
        Emptied from the left. With several workers each must pickle, and a
        task's result too.
    config : Config
        ``workers`` of it.
    """
    if config.workers == 1:
        yield from _here(tasks)
    else:
        yield from _workers(tasks, config.workers)


def _attempt(task: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Run a task, and once more if it fails for a reason that may pass."""
    error: Exception | None = None
    for _ in range(TRIES):
        try:
            return task(), None
        except CellsegError as final:
            return None, final
        # Whatever a model or a file raises belongs to one image and must not stop the others.
        except Exception as failed:
            # A traceback does not survive the way from a worker, a note does.
            failed.add_note(traceback.format_exc())
            error = failed
    return None, error


def _here(tasks: deque[Task]) -> Iterator[Outcome[Task]]:
    while tasks:
        task = tasks.popleft()
        yield Outcome(task, *_attempt(task))


def _workers(tasks: deque[Task], workers: int) -> Iterator[Outcome[Task]]:
    """Keep a bounded number of tasks in flight on local processes."""
    from distributed import Client, LocalCluster, as_completed

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        running: dict[Any, Task] = {}
        done = as_completed()

        def fill() -> None:
            while tasks and len(running) < IN_FLIGHT * workers:
                task = tasks.popleft()
                future = client.submit(_attempt, task, pure=False)
                running[future] = task
                done.add(future)

        fill()
        while running:
            future = next(done)
            task = running.pop(future)
            lost = future.exception()
            yield Outcome(task, error=lost) if lost else Outcome(task, *future.result())
            fill()
