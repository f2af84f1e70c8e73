"""Claims: which shard of a run does which piece of its work, told by files alone.

A shard is alive as long as its claim to the results folder is, see `cellseg.pipeline.lock`. What
it has claimed of the work lies in ``RESULTS/claims/work``: for each piece a chain of small files,
``<what>.1``, ``<what>.2``, ..., of which the last one counts. Each appears whole, by a hard link
that only one of several can make, and none is removed while shards may be at work: so whoever
adds the next one has seen the last. A claim of a shard that is gone is taken over by adding one.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from cellseg.pipeline.lock import FOLDER, Claim, holds, write_whole

__all__ = ["Claims", "Work", "clear_claims", "have_died"]

WORK = "work"
KNOWN = 2.0
"""Seconds for which another shard that was alive is taken to be."""
DEATHS = 3
"""Shards that died at a piece of work, one after the other, after which none tries it."""
State = Literal["taken", "free", "failed"]


@dataclass(frozen=True)
class Work:
    """A piece of work that this shard has claimed.

    Parameters
    ----------
    what : str
    number : int
        Of the claim in its chain.
    deaths : int
        How many shards have died at it.
    """

    what: str
    number: int
    deaths: int = 0


@dataclass
class Claims:
    """The claims to the work of a run, as one of its shards sees and makes them.

    Parameters
    ----------
    results : Path
        The results folder.
    mine : Claim
        This shard's to that folder.
    """

    results: Path
    mine: Claim
    _seen: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def _folder(self) -> Path:
        return self.results / FOLDER / WORK

    def take(self, what: str, key: str = "") -> Work | None:
        """Claim a piece of work; return None where another shard has it, or had it in vain.

        Parameters
        ----------
        what : str
            Name of it, fit for a file's.
        key : str
            What its outcome depends on: one that failed is tried again with another key.
        """
        number, last = self._last(what)
        deaths = 0
        if number:
            known = self._deaths(last, key)
            if known is None or known >= DEATHS:
                return None
            deaths = known
        work = Work(what, number + 1, deaths)
        return work if self._add(work, "taken", key) else None

    def holds(self, work: Work) -> bool:
        """Whether nobody has taken it over."""
        return self._path(work).exists() and not self._path(work, 1).exists()

    def free(self, work: Work) -> None:
        """Leave a piece of work to other shards."""
        self._add(Work(work.what, work.number + 1, work.deaths), "free")

    def set_aside(self, work: Work, key: str = "") -> None:
        """Note that a piece of work failed, so that no shard tries it again with that key."""
        self._add(Work(work.what, work.number + 1), "failed", key)

    def is_left(self, what: str, key: str = "") -> bool:
        """Whether no shard will do it: it failed, or too many have died at it."""
        number, last = self._last(what)
        if not number or last is None:
            return False
        if last["state"] == "failed":
            return bool(last["key"] == key)
        return bool(last["deaths"] + (last["state"] == "taken" and not self._alive(last)) >= DEATHS)

    def _last(self, what: str) -> tuple[int, dict[str, Any] | None]:
        """Return the number of the last claim in a chain, 0 if there is none, and what it says."""
        number = next(n for n in count() if not self._path(Work(what, n + 1)).exists())
        if not number:
            return 0, None
        try:
            return number, dict(json.loads(self._path(Work(what, number)).read_text("utf-8")))
        except (OSError, ValueError):
            return number, None

    def _deaths(self, last: dict[str, Any] | None, key: str) -> int | None:
        """Return how many shards died at what the last claim says is not done; None if it stands.

        One that cannot be read stands.
        """
        if last is None or (last["state"] == "failed" and last["key"] == key):
            return None
        if last["state"] != "taken":
            return int(last["deaths"])
        return None if self._alive(last) else int(last["deaths"]) + 1

    def _alive(self, claim: dict[str, Any]) -> bool:
        """Whether the shard of a claim is, or may be, at work."""
        who = str(claim["by"]), str(claim["token"])
        if time.monotonic() - self._seen.get(who, -KNOWN) < KNOWN:
            return True
        alive = holds(self.mine.path.with_name(who[0]), who[1])
        if alive:
            self._seen[who] = time.monotonic()
        return alive

    def _add(self, work: Work, state: State, key: str = "") -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        by, token = self.mine.path.name, self.mine.holder.token
        about = {"state": state, "key": key, "deaths": work.deaths, "by": by, "token": token}
        return write_whole(self._path(work), json.dumps(about))

    def _path(self, work: Work, later: int = 0) -> Path:
        return self._folder / f"{work.what}.{work.number + later}"


def have_died(results: Path) -> bool:
    """Whether shards have died, one after the other, at the same piece of work."""
    for path in (results / FOLDER / WORK).glob("*.*"):
        try:
            if int(json.loads(path.read_text("utf-8"))["deaths"]) >= DEATHS - 1:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def clear_claims(results: Path) -> None:
    """Forget which shard did what; for who has the results folder alone."""
    shutil.rmtree(results / FOLDER / WORK, ignore_errors=True)
    for left in (results / FOLDER).glob("*.partial"):  # of shards that were killed
        left.unlink(missing_ok=True)
