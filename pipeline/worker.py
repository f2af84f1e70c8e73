"""What a dask worker process of ours does at its start; ``--preload`` of a worker on a cluster."""

from __future__ import annotations

import signal
import threading
from typing import Any

__all__ = ["dask_setup"]


def dask_setup(_worker: Any) -> None:
    """Leave signals to the process that has started the worker: it ends the worker in order.

    A batch system and a terminal send them to all processes at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
