"""The one error that a user of cellseg meets."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CellsegError(ValueError):
    """Something the user can mend: bad input, a bad setting, a missing file.

    The message is one line: where, what was got, what is allowed, what to do.
    The command line prints it and exits with code 2; nothing else catches it
    but the run, which lists it beside the image it belongs to.
    """


class DeviceError(CellsegError):
    """What another machine, or the same one in a moment, may bear: no GPU, or too little memory."""


def nearest(got: str, known: Iterable[str]) -> str:
    """Return `` Did you mean X?`` for the known word closest to `got`, or nothing."""
    close = get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""
