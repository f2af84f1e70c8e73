"""Files that are whole or not there: written under another name, then put in their place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
