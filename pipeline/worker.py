"""What this process is among the workers of a run: its number, its device, its signals."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
from typing import Any

__all__ = ["dask_setup", "number", "of_device", "where"]

_number = 0
_device = ""


def number() -> int:
    """Return the number of this process among the workers of its machine; 0 of any other."""
    return _number


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
    if threading.current_thread() is not threading.main_thread():
        return
    for each in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, each):
            signal.signal(getattr(signal, each), signal.SIG_IGN)
