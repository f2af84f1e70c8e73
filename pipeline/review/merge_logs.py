"""Merging the logs of several reviewers of the same labels: what they agree on, and conflicts.

Edits of two logs are a conflict if they touch the same cell, or change the same pixel, in ways
that differ; neither is chosen. Two lines that one log holds are none: who wrote the second one has
seen the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cellseg.models import CellsegError
from cellseg.pipeline.change import MOST, Change
from cellseg.pipeline.overlay import squares_of
from cellseg.pipeline.review.edit import Edit
from cellseg.pipeline.review.edit_log import EditLog, read_log

__all__ = ["Conflict", "Merged", "merge", "merge_logs"]


@dataclass(frozen=True)
class Conflict:
    """Edits of two logs that cannot both be carried out.

    Parameters
    ----------
    one, other : Edit
    labels : tuple of int
        Cells that both touch; empty where it is only pixels.
    follows : bool
        Whether `one` is of the same log as `other`, which is left out, and builds on it.
    """

    one: Edit
    other: Edit
    labels: tuple[int, ...]
    follows: bool = False

    @property
    def text(self) -> str:
        """It in one line."""
        one, other = (f"{edit.text} ({edit.who}, {edit.when})" for edit in (self.one, self.other))
        if self.follows:
            return f"{one} builds on {other}, which is left out"
        where = f"both touch cell {', '.join(map(str, self.labels))}" if self.labels else ""
        return f"{one} and {other}: {where or 'both change the same pixels'}"


class Merged(NamedTuple):
    """What logs come to.

    Parameters
    ----------
    edits : list of Edit
        Those to be carried out, in order; of a log that is settled, only what is new.
    conflicts : list of Conflict
        Of each, what is not settled is left out.
    """

    edits: list[Edit]
    conflicts: list[Conflict]


@dataclass(eq=False)
class _Item:
    """An edit, and the logs that hold it, or one that comes to the same."""

    edit: Edit
    sources: set[int]
    settled: bool = False


def merge_logs(paths: Sequence[Path]) -> Merged:
    """Merge logs of the same labels.

    Parameters
    ----------
    paths : sequence of Path
        ``edits.jsonl`` files.

    Returns
    -------
    Merged

    Raises
    ------
    CellsegError
        If one is missing or damaged, or they are about other labels.
    """
    logs = [read_edits(path) for path in paths]
    for path, log in zip(paths, logs, strict=True):
        if log.header != logs[0].header:
            raise CellsegError(
                f"{path}: made for labels {log.header.labels} of {log.header.image}, and"
                f" {paths[0]} for labels {logs[0].header.labels} of {logs[0].header.image}. Only"
                " logs of the same labels can be merged."
            )
    return merge(logs)


def read_edits(path: Path) -> EditLog:
    """Return a log that must be there; see `read_log`."""
    log = read_log(path)
    if log is None:
        raise CellsegError(f"{path}: no log of edits. Give the edits.jsonl of an image.")
    return log


def merge(logs: Sequence[EditLog], settled: EditLog | None = None) -> Merged:
    """Merge what several logs of the same labels say.

    Parameters
    ----------
    logs : sequence of EditLog
    settled : EditLog, optional
        That of the results: its edits stay, whatever the others say.
    """
    items = _items([settled, *logs] if settled else list(logs), settled)
    near = _Near(items)
    pairs = [(one, other) for one in items for other in near.before(one)]
    left_out: set[_Item] = set()
    conflicts = []
    for one, other in pairs:
        if not one.sources & other.sources:
            left_out |= {item for item in (one, other) if not item.settled}
            shared = _shared(one.edit, other.edit)
            conflicts.append(Conflict(one.edit, other.edit, shared))
    for one, other in pairs:
        # In order: what builds on an edit that builds on one left out is found, too.
        if (
            one.sources & other.sources
            and other in left_out
            and not one.settled | (one in left_out)
        ):
            left_out.add(one)
            shared = _shared(one.edit, other.edit)
            conflicts.append(Conflict(one.edit, other.edit, shared, follows=True))
    new = [item.edit for item in items if item not in left_out and not item.settled]
    return Merged(new, conflicts)


def _items(logs: Sequence[EditLog], settled: EditLog | None) -> list[_Item]:
    """Return the edits of all logs, each once; of two that come to the same, the first."""
    items: list[_Item] = []
    known: dict[str, _Item] = {}
    used = {change.label for log in logs for edit in log.edits for change in edit.changes}
    taken: set[int] = set()
    holders: dict[str, set[int]] = defaultdict(set)
    for source, log in enumerate(logs):
        for edit in log.edits:
            holders[edit.id].add(source)
    for source, log in enumerate(logs):
        names: dict[int, int] = {}
        for line in _net(log, holders):
            edit = _with_labels(line, names)
            same = known.get(edit.id) or _equal(edit, items, source)
            if same is not None:
                same.sources.add(source)
                names |= _renamed(line, same.edit)
            else:
                names |= {label: _free(used) for label in _created(edit) if label in taken}
                edit = _with_labels(line, names)
                taken |= set(_created(edit))
                same = _Item(edit, {source}, log is settled)
                items.append(same)
            known[edit.id] = same
    return items


def _net(log: EditLog, holders: Mapping[str, set[int]]) -> Iterator[Edit]:
    """Yield what a log says; of edits that it takes back itself, nothing.

    Where another log holds an edit, but not that it was taken back, both are said.
    """
    surviving = {edit.id for edit in log.surviving}
    mixed = {
        edit.target
        for edit in log.edits
        if edit.target and holders[edit.id] != holders[edit.target]
    }
    for edit in log.edits:
        if (edit.target or edit.id) in mixed or edit.id in surviving:
            yield edit


def _equal(edit: Edit, items: Iterable[_Item], source: int) -> _Item | None:
    """Return an edit of another log that comes to the same."""
    others = (item for item in items if source not in item.sources)
    return next((item for item in others if item.edit.changes == edit.changes), None)


def _created(edit: Edit) -> list[int]:
    """Return the labels that an edit is the first to use."""
    if edit.what in ("undo", "redo"):
        return []
    return sorted({c.label for c in edit.changes if c.class_before is None})


def _free(used: set[int]) -> int:
    """Return a label that none of the logs uses, and use it."""
    label = max(used) + 1
    if label > MOST:
        raise CellsegError("there are no labels left to tell new cells of the logs apart.")
    used.add(label)
    return label


def _renamed(edit: Edit, known: Edit) -> dict[int, int]:
    """Return which labels an edit of a log has got when it was merged before."""
    pairs = zip(edit.changes, known.changes, strict=False)
    return {one.label: other.label for one, other in pairs if one.label != other.label}


def _with_labels(edit: Edit, names: dict[int, int]) -> Edit:
    """Return an edit of cells by other labels."""
    if not names:
        return edit
    changes = (replace(c, label=names.get(c.label, c.label)) for c in edit.changes)
    return replace(edit, changes=tuple(changes))


def _shared(one: Edit, other: Edit) -> tuple[int, ...]:
    return tuple(sorted(set(one.labels) & set(other.labels)))


class _Near:
    """Finds which of earlier edits touch a cell, or change a pixel, that an edit does."""

    def __init__(self, items: Sequence[_Item]) -> None:
        self._items = items
        self._place = {item: number for number, item in enumerate(items)}
        self._by: dict[Any, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            for key in _keys(item.edit):
                self._by[key].append(number)

    def before(self, item: _Item) -> list[_Item]:
        """Return them, in order."""
        place = self._place[item]
        numbers = {number for key in _keys(item.edit) for number in self._by[key]}
        others = [self._items[number] for number in sorted(numbers) if number < place]
        return [
            other
            for other in others
            if _shared(item.edit, other.edit) or _meet(item.edit.changes, other.edit.changes)
        ]


def _keys(edit: Edit) -> set[Any]:
    """Return by what an edit is found: its cells, and squares of planes."""
    drawn = [change for change in edit.changes if change.drawn]
    squares = {(change.plane, square) for change in drawn for square in squares_of(change.region)}
    return {*edit.labels, *squares}


def _meet(some: Iterable[Change], others: Iterable[Change]) -> bool:
    """Whether changes are of a common pixel."""
    by_plane: dict[tuple[int, int, int], list[Change]] = defaultdict(list)
    for change in others:
        by_plane[change.plane].append(change)
    return any(_meets(one, other) for one in some for other in by_plane[one.plane])


def _meets(one: Change, other: Change) -> bool:
    shared = one.region.intersect(other.region)
    if shared is None:
        return False
    changed = [
        (change.was != change.becomes)[shared.within(change.region).slices]
        for change in (one, other)
    ]
    return bool(np.any(changed[0] & changed[1]))
