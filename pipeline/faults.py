"""What becomes of a task that fails: what may pass is tried again, up to three times in all."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cellseg.models.errors import CellsegError, DeviceError
from cellseg.models.timing import Noted, drain
from cellseg.pipeline.logs import LOG
from cellseg.pipeline.worker import at_work, where

__all__ = ["Answer", "Failure", "Outcome", "Task", "attempt", "persist"]

Task = TypeVar("Task", bound=Callable[[], Any])

TRIES = 3
"""Of a task whose error may pass, or whose worker dies."""
PAUSES = (0.0, 0.0, 1.0)
"""Seconds before each of them: what another worker cannot do either may need some time to pass."""
NO_IMAGES_FAULT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""What ends the run: no other image would fare better."""
DIED = (
    f"a worker process died on it {TRIES} times (killed, or out of memory)."
    " Use fewer workers or a smaller [tiling] size, and run again."
)


@dataclass(frozen=True)
class Failure:
    """Why a task failed, in words: an exception itself may not survive the way from a worker."""

    reason: str
    traceback: str | None = None


@dataclass(frozen=True)
class Outcome(Generic[Task]):
    """What became of a task: its result, or why its last try failed; and which process did it.

    `noted` are the parts of its work that this process has noted by then, of other tasks too.
    """

    task: Task
    result: Any = None
    failure: Failure | None = None
    where: str = ""
    noted: Sequence[Noted] = ()


@dataclass(frozen=True)
class Answer:
    """What came of one try.

    Parameters
    ----------
    where : str
        Host, process and GPU.
    seconds : float
        It took.
    result : object
    failure : Failure or None
    passes : bool
        Whether another try may fare better.
    noted : sequence of Noted
        What the process has noted of its work, see `cellseg.models.timing`.
    """

    where: str
    seconds: float
    result: Any = None
    failure: Failure | None = None
    passes: bool = False
    noted: Sequence[Noted] = ()

    def of(self, task: Task) -> Outcome[Task]:
        """Return it as what became of the task."""
        return Outcome(task, self.result, self.failure, self.where, self.noted)


def attempt(task: Callable[[], Any]) -> Answer:
    """Try a task once.

    Raises
    ------
    OSError
        If the disk is full or read-only.
    """
    start = time.perf_counter()
    result, failure, passes = None, None, False
    try:
        with at_work():
            result = task()
    except DeviceError as error:
        failure, passes = Failure(str(error)), True
    except CellsegError as error:
        failure = Failure(str(error))
    # Whatever a model or a file raises belongs to one image and must not stop the others.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_IMAGES_FAULT:
            raise
        failure = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        passes = True
    if failure is not None:
        LOG.info("%s failed: %s", task, failure.traceback or failure.reason)
    # What a try has noted that is followed by another goes with that one's.
    noted = [] if passes else drain()
    return Answer(where(), time.perf_counter() - start, result, failure, passes, noted)


def persist(task: Task) -> Outcome[Task]:
    """Try a task here until it succeeds, or need not be tried again."""
    for pause in PAUSES:
        time.sleep(pause)
        answer = attempt(task)
        if not answer.passes:
            break
    return answer.of(task)
