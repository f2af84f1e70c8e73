"""Stopping when asked: no new work, what is at work ends, and the same command goes on later."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["CONTINUE", "Stopped", "asked", "check", "heeding"]

CONTINUE = 75
"""Exit code that says "continue me" to a batch system: EX_TEMPFAIL of sysexits.h."""
SIGNALS = ("SIGTERM", "SIGUSR1")
"""What batch systems send before they kill; by name, as not every system has both."""
SAME = 1.0
"""Seconds within which a second signal of a kind is the first one again."""
_asked: list[str] = []
_heard: list[float] = []


class Stopped(BaseException):
    """The run was asked to stop, and has; the same command goes on from there.

    No error, which somebody might take for that of an image.
    """


def asked() -> str | None:
    """Return the name of the signal that has asked to stop; None where none has."""
    return _asked[0] if _asked else None


def check() -> None:
    """Stop here if that was asked.

    Raises
    ------
    Stopped
    """
    if _asked:
        raise Stopped(f"asked to stop by {_asked[0]}")


@contextmanager
def heeding() -> Iterator[None]:
    """Take a signal as a wish to stop soon, and a second one as an order to stop at once.

    Only the first thread of a process can; in another one this does nothing.
    """
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, _note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()
        _heard.clear()


def _note(number: int, _frame: FrameType | None) -> None:
    name, now = signal.Signals(number).name, time.monotonic()
    if _asked and name == _asked[-1] and now - _heard[-1] < SAME:
        return  # a batch system tells the process, and so does the script that started it
    _asked.append(name)
    _heard.append(now)
    if len(_asked) > 1:
        check()
