"""Lock: who works in a results folder, so that two that would write the same never do at once.

A claim is a small file in ``RESULTS/claims`` that says who holds it. It appears whole, by a hard
link, which of several that try at once only one can make, on shared file systems too. The name
ends with a number: who takes over the claim of somebody who is gone makes the next one, and
looks again before that counts. Holders renew the time of their file, so that other machines see
that they live.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cellseg.models.errors import CellsegError
from cellseg.pipeline.batch import batch_job, is_gone
from cellseg.pipeline.stopping import check

__all__ = ["Claim", "Holder", "alive", "claim", "holds", "write_whole"]

FOLDER = "claims"
ALONE, TOGETHER = "alone", "together"
"""Names of the claim to all of a folder, and of those that may hold at the same time."""
RENEWED, SILENT = 20.0, 300.0
"""Seconds between two signs of life, and without one, after which a claim of another machine
counts no more."""
MISSED = 3 * RENEWED
"""Seconds without a sign of life after which one of many asks SLURM whether that job is gone."""
LOOKS = 2.0
"""Seconds between two looks of one that waits for others."""
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system without hard links says."""


@dataclass(frozen=True)
class Holder:
    """Who holds a claim.

    Parameters
    ----------
    what : str
        The command, in words.
    host, pid : str, int
    since : str
        ISO time.
    machine, process : str
        What tells the machine, as far as process numbers mean the same there, and the process
        from others of that name or number.
    token : str
        Unlike that of any other claim.
    job : str
        The batch job that it is part of, if it is; see `cellseg.pipeline.batch`.
    """

    what: str
    host: str
    pid: int
    since: str
    machine: str
    process: str
    token: str
    job: str = ""

    @classmethod
    def me(cls, what: str) -> Holder:
        """Return this process."""
        now, pid = datetime.datetime.now(datetime.UTC), os.getpid()
        about = now.isoformat(timespec="seconds"), _machine(), _started(pid)
        return cls(what, socket.gethostname(), pid, *about, uuid.uuid4().hex, batch_job())

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.machine == _machine()

    @property
    def alive(self) -> bool:
        """Whether a process of this machine is still there, and no later one of its number."""
        return alive(self.pid) and self.process == _started(self.pid)

    @property
    def text(self) -> str:
        """It in words."""
        return f"{self.what} (process {self.pid} on {self.host}, since {self.since})"


@dataclass(eq=False)
class Claim:
    """A claim that this process holds; renewed until it is given back.

    Parameters
    ----------
    path : Path
        Its file.
    holder : Holder
    """

    path: Path
    holder: Holder
    _ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def take(cls, folder: Path, name: str, what: str) -> Claim:
        """Take a claim of some name, that of somebody who is gone too.

        Parameters
        ----------
        folder : Path
            Where claims lie.
        name : str
        what : str
            The command, in words.

        Raises
        ------
        CellsegError
            If somebody holds it.
        """
        holder = Holder.me(what)
        while True:
            last = _last(folder, name)
            seen = None if last is None else _refuse_if_held(last)
            path = folder / f"{name}.{_number(last) + 1}"
            # What was seen may be gone by now, and another one there in its place.
            if _make(path, holder) and _confirmed(path, last, seen):
                taken = cls(path, holder)
                threading.Thread(target=taken._renew, daemon=True).start()
                return taken

    def check(self) -> None:
        """Refuse to go on with a claim that somebody has taken over."""
        if not self.path.exists():
            raise CellsegError(
                f"{self.path.parent.parent}: this process gave no sign of life for"
                f" {SILENT / 60:.0f} minutes, and another one took its place. Do it again."
            )

    def give_back(self) -> None:
        """End it; whoever has taken it over keeps it."""
        self._ended.set()
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # others are at work there, or have ended it
            self.path.parent.rmdir()

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            with suppress(OSError):  # taken over, which `check` tells, or for a moment out of reach
                os.utime(self.path)


@contextmanager
def claim(
    results: Path,
    what: str,
    *,
    together: bool = False,
    name: str | None = None,
    wait: bool = False,
) -> Iterator[Claim]:
    """Hold a results folder: nobody else does meanwhile, here or on another machine.

    Parameters
    ----------
    results : Path
        The results folder.
    what : str
        The command, in words, for those who are refused.
    together : bool
        Whether others may hold it too that say the same.
    name : str, optional
        Of those others, nobody else may have the same.
    wait : bool
        Whether to wait until nobody holds it.

    Raises
    ------
    CellsegError
        If somebody holds it; the message says who, and what to do.
    """
    own = name or uuid.uuid4().hex[:8]
    taken = _take(results / FOLDER, f"{TOGETHER}-{own}" if together else ALONE, what, wait=wait)
    try:
        yield taken
    finally:
        taken.give_back()


def _take(folder: Path, name: str, what: str, *, wait: bool) -> Claim:
    """Take a claim to a results folder, now or once nobody stands in the way."""
    while True:
        try:
            return _take_now(folder, name, what)
        except CellsegError:
            if not wait:
                raise
        check()
        time.sleep(LOOKS)


def _take_now(folder: Path, name: str, what: str) -> Claim:
    """Take a claim to a results folder, then look whether one of the other kind stands."""
    together = name != ALONE
    taken = Claim.take(folder, name, what)
    try:
        for path in _files(folder, ALONE if together else TOGETHER):
            _refuse_if_held(path)
            if not together:
                path.unlink(missing_ok=True)
    except BaseException:
        taken.give_back()
        raise
    return taken


def _files(folder: Path, name: str) -> list[Path]:
    """Return the claims whose name begins so."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - all at once
    except FileNotFoundError:  # it goes with the last claim in it
        return []
    paths = [folder / each for each in names if each.startswith(name)]
    return [path for path in paths if path.suffix[1:].isdecimal()]


def _number(path: Path | None) -> int:
    return 0 if path is None else int(path.suffix[1:])


def _last(folder: Path, name: str) -> Path | None:
    """Return the latest claim of a name."""
    paths = [path for path in _files(folder, name) if path.stem == name]
    return max(paths, key=_number, default=None)


def _holder(path: Path) -> Holder | None:
    """Return who holds a claim; None if it is gone, or cannot be told."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def holds(path: Path, token: str) -> bool:
    """Whether a claim that was seen before is still there, and its holder, or may be, at work."""
    holder = _holder(path)
    if holder is not None and holder.token != token:
        return False
    return _at_work(path, holder, MISSED)


def _at_work(path: Path, holder: Holder | None, missed: float = 0.0) -> bool:
    """Whether a holder is, or may be, at work; its job is asked for only when it is that silent."""
    if holder is not None and holder.here:
        return holder.alive
    silent = _silent(path)
    if silent is None or silent >= SILENT:
        return False
    return holder is None or silent < missed or not is_gone(holder.job)


def _refuse_if_held(path: Path) -> Holder | None:
    """Raise where the holder of a claim is, or may be, at work; else return it."""
    holder, results = _holder(path), path.parent.parent
    if not _at_work(path, holder):
        return holder
    if holder is not None and holder.here:
        raise CellsegError(f"{results}: at work there: {holder.text}. Wait until it is done.")
    who = holder.text if holder is not None else "somebody"
    raise CellsegError(
        f"{results}: at work there: {who}, last sign of life {max(_silent(path) or 0, 0):.0f} s"
        f" ago. Wait until it is done; if you know that it is gone, remove {path}, or wait until"
        f" {SILENT / 60:.0f} minutes have passed."
    )


def _silent(path: Path) -> float | None:
    """Return how long ago a claim was renewed, by the clock of its file system; None: it is gone.

    In seconds.
    """
    now = path.with_name(f"now-{uuid.uuid4().hex}")
    try:
        now.touch()
        return now.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    finally:
        now.unlink(missing_ok=True)


def _make(path: Path, holder: Holder) -> bool:
    """Write a claim, whole; return whether it was this process that made it."""
    with suppress(FileExistsError):  # even where it goes again at this moment
        path.parent.mkdir()
    return write_whole(path, json.dumps(asdict(holder)))


def write_whole(path: Path, text: str) -> bool:
    """Make a file that is not there, whole at once; return whether it was this process that did.

    Of several that try at once, on machines that share the folder too, only one does.
    """
    written = path.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        written.write_text(text, encoding="utf-8")
        os.link(written, path)
    except FileNotFoundError:  # the folder went with the last claim in it
        return False
    except OSError as error:
        if error.errno in NO_LINKS:
            return _make_without_links(path, text)
        # Over a network a link may be made, and its answer be lost.
        return (written.exists() and written.stat().st_nlink == 2) or _exists(error)
    finally:
        written.unlink(missing_ok=True)
    return True


def _exists(error: OSError) -> bool:
    """Return False for a file that is there already; raise any other error."""
    if error.errno == errno.EEXIST:
        return False
    raise error


def _make_without_links(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _confirmed(path: Path, last: Path | None, seen: Holder | None) -> bool:
    """Whether a claim that was just made follows on the one that was seen; else remove it.

    That one and those before it go.
    """
    others = [each for each in _files(path.parent, path.stem) if each.stem == path.stem]
    others = sorted((each for each in others if each != path), key=_number)
    follows = others[-1:] == ([] if last is None else [last])
    if not follows or (last is not None and _holder(last) != seen):
        path.unlink(missing_ok=True)
        return False
    for each in others:
        each.unlink(missing_ok=True)
    return True


def alive(pid: int) -> bool:
    """Whether there is a process of some number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there, and another user's
        return True
    return True


def _machine() -> str:
    """Return what tells this machine, and where in it process numbers mean the same."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> str:
    """Return when a process began, in ticks since its machine did; nothing if it is not told.

    Nor of one that has ended and is only waited for.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    state, *numbers = text.rpartition(")")[2].split()  # behind the name, which may hold anything
    return "" if state in "ZX" else numbers[18]
