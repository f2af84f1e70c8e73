"""OpenVINO itself, imported late and without its telemetry."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from typing import Any

from cellseg.models.errors import CellsegError

TELEMETRY = "openvino_telemetry"


@lru_cache(maxsize=1)
def openvino() -> Any:
    """Return the package.

    Importing it counts the use in a file in the user's home and tells it to Google Analytics,
    unasked. Without the part that does so nothing else changes: OpenVINO is written to be
    installed without it, too.

    Raises
    ------
    CellsegError
        If it is not installed.
    """
    blocked = not {"openvino", TELEMETRY} & set(sys.modules)
    if blocked:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return import_module("openvino")
    except ImportError as error:
        raise CellsegError(missing()) from error
    finally:
        if blocked:
            del sys.modules[TELEMETRY]


def missing() -> str:
    """Return what to do where it is not installed."""
    return (
        'inference = "openvino", but OpenVINO is not installed. pip install "cellseg[cpu]",'
        ' or set inference = "torch".'
    )
