"""What takes how long: the parts of the work in this process, noted where somebody has asked.

    with part("network"):
        ...

Nothing is noted, and nothing else done, unless `record` was told to. Parts may lie in each
other, in any number of threads. On a GPU a part ends when its work is queued, unless it waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

__all__ = ["Noted", "drain", "here", "joined", "noted", "part", "record", "recorded"]

Given = ParamSpec("Given")
Made = TypeVar("Made")

_EPOCH = time.time() - time.perf_counter()
"""Moment from which `time.perf_counter` counts: no clock that is set meanwhile matters."""


class Noted(NamedTuple):
    """A part that has ended.

    Attributes
    ----------
    path : tuple of str
        Its name, behind those of the parts that it lies in.
    start : float
        Seconds since 1970.
    seconds : float
        It took.
    core_seconds : float
        Of the processor: of all threads of this process where no other one had a part at the
        time, else of its own thread.
    thread : int
        Identifies the thread in this process.
    about : dict of str
        What else is known of it.
    """

    path: tuple[str, ...]
    start: float
    seconds: float
    core_seconds: float
    thread: int
    about: dict[str, Any]


class _Recorder:
    """What is noted in this process, and which parts are open."""

    def __init__(self) -> None:
        self.on = False
        self.noted: deque[Noted] = deque()
        self.lock = threading.Lock()
        self.threads = 0
        self.entries = 0
        self.own = threading.local()

    @property
    def open(self) -> list[str]:
        """Names of the open parts of this thread."""
        names: list[str] | None = getattr(self.own, "names", None)
        if names is None:
            names = self.own.names = []
        return names


_RECORDER = _Recorder()
_NOTHING = nullcontext()


class _Part:
    """One part; see `part`."""

    def __init__(self, name: str, about: dict[str, Any]) -> None:
        self.name = name
        self.about = about

    def __enter__(self) -> None:
        names = _RECORDER.open
        with _RECORDER.lock:
            if not names:
                _RECORDER.threads += 1
                _RECORDER.entries += 1
            self.alone, self.entries = _RECORDER.threads == 1, _RECORDER.entries
        names.append(self.name)
        self.thread_start, self.process_start = time.thread_time(), time.process_time()
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self.start
        of_thread = time.thread_time() - self.thread_start
        of_process = time.process_time() - self.process_start
        names = _RECORDER.open
        path = tuple(names)
        names.pop()
        with _RECORDER.lock:
            alone = self.alone and self.entries == _RECORDER.entries
            _RECORDER.threads -= not names
        core_seconds = of_process if alone else of_thread
        thread, start = threading.get_ident(), _EPOCH + self.start
        _RECORDER.noted.append(Noted(path, start, seconds, core_seconds, thread, self.about))


def part(name: str, **about: Any) -> AbstractContextManager[None]:
    """Note what is done under ``with`` as a part of that name, if anybody asked.

    Parameters
    ----------
    name : str
        A word; parts with one name and in the same parts are added up.
    **about
        What else to say of this one, as an image or a number; plain values.
    """
    return _Part(name, about) if _RECORDER.on else _NOTHING


def here() -> tuple[str, ...]:
    """Return the parts that this thread is in, the innermost last; see `joined`."""
    return tuple(_RECORDER.open)


@contextmanager
def joined(path: Sequence[str]) -> Iterator[None]:
    """Add what this thread does to a part that another one is in, as `here` has named it there."""
    if not (_RECORDER.on and path):
        yield
        return
    *outer, name = path
    if outer:
        with _RECORDER.lock:
            _RECORDER.threads += 1
            _RECORDER.entries += 1
    _RECORDER.open.extend(outer)
    try:
        with part(name):
            yield
    finally:
        _RECORDER.open.clear()
        if outer:
            with _RECORDER.lock:
                _RECORDER.threads -= 1


def noted(name: str) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """Have every call of a function noted as a part of that name; a decorator."""

    def decorate(function: Callable[Given, Made]) -> Callable[Given, Made]:
        @wraps(function)
        def within(*args: Given.args, **named: Given.kwargs) -> Made:
            with part(name):
                return function(*args, **named)

        return within

    return decorate


def record(on: bool) -> None:
    """Have parts noted in this process from now on, or no more."""
    _RECORDER.on = on


@contextmanager
def recorded(on: bool = True) -> Iterator[None]:
    """Have parts noted under ``with``, if `on`, and not behind it; what is left then is dropped."""
    record(on)
    try:
        yield
    finally:
        record(False)
        drain()


def drain() -> list[Noted]:
    """Return what was noted in this process since this was last asked, and forget it."""
    noted: list[Noted] = []
    with suppress(IndexError):  # empty; another thread may be at it too
        while True:
            noted.append(_RECORDER.noted.popleft())
    return noted
