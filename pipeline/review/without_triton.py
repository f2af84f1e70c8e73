"""Networks beside a window: torch without triton, whose LLVM and that of Mesa's OpenGL collide."""

from __future__ import annotations

import sys

__all__ = ["spare_triton"]


def spare_triton() -> None:
    """Keep torch from loading triton, which cellseg never uses, in the process of a viewer.

    Loaded after a window has drawn in software, it ends the process. To be called before torch is
    first used there; where triton is loaded already, it stays.
    """
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
