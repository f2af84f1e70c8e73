"""The engine: where tasks run, in this process or in several workers."""

from __future__ import annotations

import errno
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any, Generic, TypeVar

from cellseg.models import CellsegError
from cellseg.pipeline.config import Config

Task = TypeVar("Task", bound=Callable[[], Any])

IN_FLIGHT = 2
"""Tasks given to each worker at a time: one at work, one waiting."""
TRIES = 2
NO_IMAGES_FAULT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""What ends the run: no other image would fare better."""
DIED = (
    "a worker process died on it (killed, or out of memory)."
    " Use fewer workers or a smaller [tiling] size, and run again."
)


@dataclass(frozen=True)
class Failure:
    """Why a task failed, in words: an exception itself may not survive the way from a worker."""

    reason: str
    traceback: str | None = None


@dataclass(frozen=True)
class Outcome(Generic[Task]):
    """What became of a task: its result, or why its last try failed."""

    task: Task
    result: Any = None
    failure: Failure | None = None


def execute(tasks: deque[Task], config: Config) -> Iterator[Outcome[Task]]:
    """Run tasks and yield their outcomes as they come.

    The caller may put more tasks into the queue, or take some out, between
    outcomes. A task that raises is tried again, unless the error is one that
    the input makes every time. One that takes its process down is tried again
    alone.

    Parameters
    ----------
    tasks : deque of callables without arguments
        Emptied from the left. With several workers each must pickle, and a
        task's result too.
    config : Config
        ``workers`` of it.

    Raises
    ------
    OSError
        If the disk is full or read-only.
    """
    if config.workers == 1:
        yield from _here(tasks)
    else:
        yield from _workers(tasks, config.workers)


def _attempt(task: Callable[[], Any]) -> tuple[Any, Failure | None]:
    """Run a task, and once more if it fails for a reason that may pass."""
    failure = None
    for _ in range(TRIES):
        try:
            return task(), None
        except CellsegError as error:
            return None, Failure(str(error))
        # Whatever a model or a file raises belongs to one image and must not stop the others.
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_IMAGES_FAULT:
                raise
            failure = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
    return None, failure


def _here(tasks: deque[Task]) -> Iterator[Outcome[Task]]:
    while tasks:
        task = tasks.popleft()
        yield Outcome(task, *_attempt(task))


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _pool(workers: int) -> ProcessPoolExecutor:
    # Started afresh, not forked: torch's threads do not survive a fork.
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker)


def _workers(tasks: deque[Task], workers: int) -> Iterator[Outcome[Task]]:
    """Keep a bounded number of tasks in flight on local processes."""
    pool = _pool(workers)
    running: dict[Future[Any], Task] = {}
    try:
        while tasks or running:
            lost: list[Task] = []
            while tasks and len(running) < IN_FLIGHT * workers and not lost:
                task = tasks.popleft()
                try:
                    running[pool.submit(_attempt, task)] = task
                except BrokenProcessPool:
                    lost.append(task)
            done = wait(running, return_when=FIRST_COMPLETED).done if not lost else set()
            for future in done:
                task = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(task)
                else:
                    yield Outcome(task, *future.result())
            if lost:
                lost += running.values()
                running.clear()
                pool.shutdown(cancel_futures=True)
                for task in lost:
                    yield _alone(task)
                pool = _pool(workers)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(task: Task) -> Outcome[Task]:
    """Run a task in a process of its own, to find out whether it is the one that kills."""
    with _pool(1) as pool:
        try:
            return Outcome(task, *pool.submit(_attempt, task).result())
        except BrokenProcessPool:
            return Outcome(task, failure=Failure(DIED))
