"""Loading: libraries without what cellseg never uses of them, so that a run starts soon."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["quick"]

COMPILER = "torch._dynamo.utils"
"""What torchvision asks one question of, under a setting that cellseg never uses; with it come
torch's compiler and sympy, a second of a core."""


@contextmanager
def quick() -> Iterator[None]:
    """Import torch and torchvision in here in about half the time.

    Imports make hundreds of thousands of objects and no garbage; looking for it
    among them takes a fifth of the time. Torch's compiler is imported when it is
    first asked for. Where it is there already, it stays.
    """
    collecting, stands_in = gc.isenabled(), COMPILER not in sys.modules
    gc.disable()
    if stands_in:
        sys.modules[COMPILER] = _stand_in()
    try:
        yield
    finally:
        if stands_in:
            del sys.modules[COMPILER]
        if collecting:
            gc.enable()


def _stand_in() -> ModuleType:
    """Return a module with the one function that torchvision wants, which asks the real one."""
    module = ModuleType(COMPILER)

    def is_compile_supported(device: str) -> Any:
        from torch._dynamo import utils

        return utils.is_compile_supported(device)

    module.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    return module
