"""Files that are whole or not there: written under another name, then put in their place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


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


def write_json(path: Path, document: object) -> None:
    """Write a JSON document that a person can read."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def append_line(path: Path, line: str, size: int | None = None) -> int:
    """Append a line of text; it is on disk when this returns. Return the bytes of the file then.

    Parameters
    ----------
    path : Path
    line : str
        Without its end.
    size : int, optional
        Bytes to keep of what is there: a last line that was cut off goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("ab") as file:
        if size is not None:
            file.truncate(size)
        file.seek(0, os.SEEK_END)
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
        written = file.tell()
    if new:
        _sync_folder(path.parent)
    return written


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where the system can do that."""
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
