"""What this process is among the workers of a run: its number, its device, its signals."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from cellseg.models.timing import here, joined
from cellseg.pipeline.config import keep_freed_memory

__all__ = [
    "at_work",
    "dask_setup",
    "has_in_hand",
    "number",
    "of_device",
    "side_by_side",
    "tiles",
    "where",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_number = 0
_device = ""
_tiles = 1
_cores = threading.Semaphore(0)


def number() -> int:
    """Return the number of this process among the workers of its machine; 0 of any other."""
    return _number


def tiles() -> int:
    """Return how many tiles this process has in hand, in as many threads."""
    return _tiles


def has_in_hand(tiles: int, threads: int = 1) -> None:
    """Note how many tiles this process has in hand from now on, and the threads for each."""
    global _tiles, _cores
    _tiles, _cores = tiles, threading.Semaphore(tiles * threads)


@contextmanager
def at_work() -> Iterator[None]:
    """Take one of the cores that this process has, as long as a task of its engine runs."""
    cores = _cores
    taken = cores.acquire(blocking=False)
    try:
        yield
    finally:
        if taken:
            cores.release()


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what a function makes of each item, in threads of their own on cores that are idle.

    Of a single image the last stages are one task each, while other cores wait.

    Raises
    ------
    Exception
        What the function raises, of the first such item.
    """
    work = _Work(function, list(items))
    cores, helpers, path = _cores, list[threading.Thread](), here()

    def help_out() -> None:
        with joined(path):
            work.carry_on()

    while len(helpers) < len(work.items) - 1 and cores.acquire(blocking=False):
        helpers.append(threading.Thread(target=help_out, daemon=True))
    for each in helpers:
        each.start()
    try:
        work.carry_on()
    finally:
        for each in helpers:
            each.join()
            cores.release()
    return work.results()


class _Work(Generic[Item, Result]):
    """Items that threads take one after the other."""

    def __init__(self, function: Callable[[Item], Result], items: list[Item]) -> None:
        self.function = function
        self.items = items
        self.waiting = deque(enumerate(items))
        self.done: dict[int, Result] = {}
        self.failed: dict[int, BaseException] = {}

    def carry_on(self) -> None:
        """Take items as long as there are some, and none has failed."""
        while not self.failed:
            try:
                number, item = self.waiting.popleft()
            except IndexError:
                return
            try:
                self.done[number] = self.function(item)
            except BaseException as error:
                self.failed[number] = error

    def results(self) -> list[Result]:
        """Return the results, in order, once all have ended."""
        if self.failed:
            raise self.failed[min(self.failed)]
        return [self.done[number] for number in range(len(self.items))]


def of_device(name: str) -> None:
    """Note on which device this process computes; nothing for the CPU."""
    global _device
    _device = name


def where() -> str:
    """Return host, process and, if it has one, GPU: ``node7:4211 cuda:1 NVIDIA H100``."""
    return f"{socket.gethostname()}:{os.getpid()} {_device}".rstrip()


def dask_setup(worker: Any) -> None:
    """Set up a dask worker process of ours; ``--preload`` of a worker on a cluster.

    Signals are left to the process that has started the worker, which ends it in
    order: a batch system and a terminal send them to all processes at once.
    """
    global _number
    # What is in its memory needs no tidying up, which takes seconds.
    atexit.register(os._exit, 0)
    name = str(getattr(worker, "name", ""))
    _number = int(name) if name.isdecimal() else 0
    has_in_hand(int(getattr(getattr(worker, "state", None), "nthreads", 1)))
    keep_freed_memory()
    if threading.current_thread() is not threading.main_thread():
        return
    for each in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, each):
            signal.signal(getattr(signal, each), signal.SIG_IGN)
