"""Tasks for the engine, importable by its workers."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from cellseg.models import CellsegError


@dataclass(frozen=True)
class Chore:
    """Does what its kind says, and leaves a line in a file each time it is tried."""

    kind: str
    number: int
    log: Path

    def __call__(self) -> int:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{self.kind}{self.number}\n")
        tries = self.log.read_text(encoding="utf-8").split().count(f"{self.kind}{self.number}")
        if self.kind == "wrong":
            raise CellsegError("always wrong")
        if self.kind == "broken" or (self.kind == "moody" and tries == 1):
            raise RuntimeError("not this time")
        if self.kind == "deadly" and tries == 1:
            os._exit(9)
        if self.kind == "poison":
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind in ("slow", "endless"):
            time.sleep(0.03 if self.kind == "slow" else 60)
        return 10 * self.number
