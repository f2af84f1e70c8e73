"""A log of each process under the results folder; nothing in it is needed to follow a run."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellseg.models.timing import record

__all__ = ["LOG", "LogFiles"]

LOG = logging.getLogger("cellseg")
"""Where the pipeline notes what went wrong and was tried again (info) and each unit (debug)."""
LOG.addHandler(logging.NullHandler())
OTHERS = ("distributed", "dask_jobqueue")
"""Libraries whose warnings belong there too, and not in front of the user."""
FORM = "%(asctime)s %(levelname)s %(message)s"


@dataclass(frozen=True)
class LogFiles:
    """Where processes leave their logs, one file each: ``<host>-<process id>.log``.

    Parameters
    ----------
    folder : Path
    level : "info" or "debug"
    profile : bool
        Whether they note what takes how long, see `cellseg.models.timing`.
    """

    folder: Path
    level: Literal["info", "debug"] = "info"
    profile: bool = False

    @property
    def path(self) -> Path:
        """The log of this process; it appears with its first line."""
        return self.folder / f"{socket.gethostname()}-{os.getpid()}.log"

    def open(self) -> None:
        """Have this process write its log here, in place of where it did before."""
        record(self.profile)
        if any(getattr(each, "belongs_to", None) == self for each in LOG.handlers):
            return
        self.close()
        handler = _LogFile(self)
        LOG.setLevel(self.level.upper())
        LOG.addHandler(handler)
        for name in OTHERS:
            logging.getLogger(name).addHandler(handler)

    @staticmethod
    def close() -> None:
        """Have this process write no log any more."""
        for logger in (LOG, *map(logging.getLogger, OTHERS)):
            for handler in [each for each in logger.handlers if isinstance(each, _LogFile)]:
                logger.removeHandler(handler)
                handler.close()


class _LogFile(logging.Handler):
    """The log of this process. No stream: those are what dask silences."""

    def __init__(self, files: LogFiles) -> None:
        self.belongs_to = files
        super().__init__()
        self.setFormatter(logging.Formatter(FORM))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; of other libraries, what is a warning at least."""
        if not record.name.startswith("cellseg") and record.levelno < logging.WARNING:
            return
        self.belongs_to.folder.mkdir(parents=True, exist_ok=True)
        with self.belongs_to.path.open("a", encoding="utf-8") as file:
            file.write(f"{self.format(record)}\n")
