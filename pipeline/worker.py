"""What this process is among the workers of a run: its number, its device, its signals."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
from typing import Any

from cellseg.pipeline.config import keep_freed_memory

__all__ = ["dask_setup", "has_in_hand", "number", "of_device", "tiles", "where"]

_number = 0
_device = ""
_tiles = 1


def number() -> int:
    """Return the number of this process among the workers of its machine; 0 of any other."""
    return _number


def tiles() -> int:
    """Return how many tiles this process has in hand, in as many threads."""
    return _tiles


def has_in_hand(tiles: int) -> None:
    """Note how many tiles this process has in hand from now on."""
    global _tiles
    _tiles = tiles


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
