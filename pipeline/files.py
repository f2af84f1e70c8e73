"""Files that are whole or not there: written under another name, then put in their place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path

DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
"""What reading a file that is missing, empty or cut off raises."""


def replace_file(path: Path, write: Callable[[Path], object], writer: str = "") -> None:
    """Write a file under a temporary name beside `path`, then put it in its place.

    Parameters
    ----------
    path : Path
    write : callable
        Given the temporary path.
    writer : str
        Tells apart those that may write the same file at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{writer}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        partial.unlink(missing_ok=True)
        # Writing to an open file does not say which.
        error.filename = error.filename or str(path)
        raise
    partial.replace(path)


def own_name() -> str:
    """Return what tells this process and thread, as a `writer`, from any other anywhere."""
    return f".{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"


def write_json(path: Path, document: object) -> None:
    """Write a JSON document that a person can read."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes the place of `path` once written, or goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.writing")
    try:
        yield written
        replace_file(path, written.replace)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        written.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a folder to write in, which takes the place of `path` once written, or goes.

    Parameters
    ----------
    path : Path
    ours : callable
        Says whether what is there already may go.
    """
    if path.exists() and not ours(path):
        raise FileExistsError(
            errno.EEXIST, "is there already and was not written by cellseg", str(path)
        )
    written, old = (path.with_name(f"{path.name}.{word}") for word in ("writing", "old"))
    shutil.rmtree(written, ignore_errors=True)
    try:
        written.mkdir(parents=True)
        yield written
        if path.exists():
            path.replace(old)
        written.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for left in (written, old):
            shutil.rmtree(left, ignore_errors=True)


def append_line(path: Path, line: str) -> int:
    """Append a line of text; it is on disk when this returns. Return the bytes of the file then.

    A last line that was cut off, by a crash of whoever wrote it, goes; whole lines stay.

    Parameters
    ----------
    path : Path
    line : str
        Without its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a+b", buffering=0) as file:
        whole = _whole_lines(file)
        file.truncate(whole)
        file.seek(0, os.SEEK_END)
        try:
            _write_all(file, f"{line}\n".encode())
            os.fsync(file.fileno())
        except OSError as error:  # a full disk: nothing of the line stays
            file.truncate(whole)
            error.filename = error.filename or str(path)
            raise
        written = file.tell()
    if new:
        _sync_folder(path.parent)
    return written


def _write_all(file: RawIOBase, content: bytes) -> None:
    """Write bytes to a file that may take a part of them at a time."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _whole_lines(file: RawIOBase, block: int = 2**16) -> int:
    """Return the bytes of a file up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - block, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where the system can do that."""
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
