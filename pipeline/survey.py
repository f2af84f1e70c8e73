"""Survey: what the images of an input were understood to be, before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from cellseg.models.channel_settings import Combination
from cellseg.models.errors import CellsegError
from cellseg.pipeline.file_names import place
from cellseg.pipeline.inputs import Inputs
from cellseg.pipeline.plate import Field, Found, disagreements, find
from cellseg.pipeline.segment import opened
from cellseg.pipeline.voxel import Voxel
from cellseg.pipeline.workflow import read_workflow

__all__ = ["Survey", "survey"]

PLATES = ((8, 12), (16, 24), (32, 48))
"""Rows and columns of plates of 96, 384 and 1536 wells: fewer are shown as a part of 96."""
LISTED = 10

Entry = int | str | Combination
"""One of `[model] channels`."""


@dataclass(frozen=True)
class Sight:
    """What is known of one image.

    Parameters
    ----------
    field : Field
    shape : (T, C, Z, Y, X) or None
    dtype : str or None
    channels : tuple of str
    voxel_um : (z, y, x) or None
    problem : str or None
        Why it cannot be used.
    """

    field: Field
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    channels: tuple[str, ...] = ()
    voxel_um: Voxel | None = None
    problem: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The same for programs."""
        said = asdict(self)
        field = said.pop("field")
        files = [str(part["path"]) for part in field.pop("parts")] or [str(field["path"])]
        known = {key: field[key] for key in ("name", "plate", "acquisition", "well", "site")}
        return known | {"files": files} | said | {"notes": list(field["notes"])}


@dataclass(frozen=True)
class Survey:
    """What the images of an input are.

    Parameters
    ----------
    inputs : tuple of str
    found : Found
    sights : tuple of Sight
        One for each of the fields found.
    """

    inputs: tuple[str, ...]
    found: Found
    sights: tuple[Sight, ...]

    @property
    def problems(self) -> tuple[Sight, ...]:
        """The images that cannot be used."""
        return tuple(sight for sight in self.sights if sight.problem is not None)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is odd, if no reason to stop."""
        sizes = disagreements((each.field.plate, each.voxel_um) for each in self._usable)
        return (*self.found.notes, *sizes)

    @property
    def _usable(self) -> list[Sight]:
        return [sight for sight in self.sights if sight.problem is None]

    @property
    def document(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        left = self.found.left_over
        return {
            "inputs": list(self.inputs),
            "pattern": self.found.pattern,
            "images": [sight.document for sight in self.sights],
            "left_over": [{"path": str(each.path), "reason": each.reason} for each in left],
            "notes": list(self.notes),
        }

    @property
    def text(self) -> str:
        """All of it, to be read in a terminal."""
        files = sum(len(sight.field.parts) or 1 for sight in self.sights)
        pattern = f"pattern {self.found.pattern}" if self.found.pattern else "no pattern fits"
        images = _count(len(self.sights), "image")
        lines = [*self.inputs, f"  {_count(files, 'file')} in {images}, {pattern}"]
        in_plates = [sight for sight in self.sights if sight.field.well is not None]
        for plate, sights in _by_plate(in_plates):
            lines += ["", *_plate_text(plate, sights)]
        others = [sight for sight in self.sights if sight.field.well is None]
        if others:
            lines += ["", _count(len(others), "image"), *_facts(others), *_listed(others)]
        lines += _section("left over", [f"{e.path}: {e.reason}" for e in self.found.left_over])
        lines += _section("problems", [f"{e.field.name}: {e.problem}" for e in self.problems])
        notes = [note for note in self.notes if "left over (" not in note]
        return "\n".join([*lines, *_section("notes", notes)])


def survey(inputs: Sequence[str | Path], pattern: str | None = None) -> Survey:
    """Look at what the images of an input are; their pixels are not read.

    Parameters
    ----------
    inputs : sequence of path
        Files, folders and globs, or one workflow file: its images are looked at then,
        and whether they have the channels that its model sees.
    pattern : str, optional
        See `cellseg.pipeline.plate.find`; in place of the workflow's.

    Raises
    ------
    CellsegError
        If there is no image, or the pattern is wrong.
    """
    entries: tuple[Entry, ...] = ()
    paths = [Path(each).absolute() for each in inputs]
    if len(paths) == 1 and paths[0].suffix.lower() == ".toml":
        workflow = read_workflow(paths[0])
        paths = [Path(each) for each in workflow.images]
        pattern, entries = pattern or workflow.pattern, workflow.model.channels
    found = find(paths, pattern)
    opened.cache_clear()  # a file may have changed since
    sights = tuple(_look(field, entries) for field in found.fields)
    return Survey(tuple(map(str, paths)), found, sights)


def _look(field: Field, entries: Sequence[Entry]) -> Sight:
    """Open an image."""
    try:
        image = opened(field)
        Inputs.of(entries, image.channels, image.source, image.numbering)
    except CellsegError as error:
        return Sight(field, problem=str(error))
    return Sight(field, image.shape, str(image.dtype), image.channels, image.voxel)


def _by_plate(sights: Sequence[Sight]) -> Iterable[tuple[str, list[Sight]]]:
    """Yield the images of each plate and acquisition."""

    def key(sight: Sight) -> tuple[str, str]:
        return sight.field.plate or "", sight.field.acquisition or ""

    for (plate, acquisition), images in groupby(sorted(sights, key=key), key):
        yield f"{plate}{f' acquisition {acquisition}' if acquisition else ''}", list(images)


def _plate_text(plate: str, sights: Sequence[Sight]) -> list[str]:
    """Return what is known of a plate: its wells, and what its images are."""
    wells = Counter(sight.field.well or "" for sight in sights)
    places = {well: at for well in wells if (at := place(well)) is not None}
    on_plate = {well: at for well, at in places.items() if at[0] < 32 and 0 <= at[1] < 48}
    rows, columns = _size(on_plate.values())
    fewest, most = min(wells.values()), max(wells.values())
    each = f"{fewest} to {most}" if fewest < most else str(most)
    head = (
        f"plate {plate}: {len(wells)} of {rows * columns} wells,"
        f" {_count(len(sights), 'field')} ({each} a well)"
    )
    grid = _grid({at: wells[well] for well, at in on_plate.items()}, rows, columns)
    others = sorted(set(wells) - set(on_plate))
    elsewhere = [f"  not in the grid: {', '.join(others)}"] if others else []
    return [head, *grid, *elsewhere, *_facts(sights)]


def _size(places: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return rows and columns of the smallest plate that has all places."""
    rows, columns = (max(axis) + 1 for axis in zip((0, 0), *places, strict=True))
    return next(size for size in PLATES if size[0] >= rows and size[1] >= columns)


def _grid(counts: dict[tuple[int, int], int], rows: int, columns: int) -> list[str]:
    """Return a plate, with the number of fields of each well or a dot; all wells but of 1536."""
    if not counts:
        return []
    down, across = range(rows), range(columns)
    if rows > PLATES[-2][0]:
        down, across = (range(min(axis), max(axis) + 1) for axis in zip(*counts, strict=True))
    width = 1 + max(2, *(len(str(count)) for count in counts.values()))
    lines = ["     " + "".join(f"{column + 1:{width}}" for column in across)]
    for row in down:
        letter = ("A" if row >= 26 else "") + chr(ord("A") + row % 26)
        fields = "".join(f"{counts.get((row, column), '.'):>{width}}" for column in across)
        lines.append(f"  {letter:>2} {fields}")
    return lines


def _facts(sights: Sequence[Sight]) -> list[str]:
    """Return the shapes, channels and pixel sizes of images, each with how many have it."""
    usable = [sight for sight in sights if sight.problem is None]
    if not usable:
        return []
    shapes = Counter(f"{' x '.join(map(str, sight.shape or ()))} {sight.dtype}" for sight in usable)
    channels = Counter(", ".join(sight.channels) for sight in usable)
    sizes = Counter(_size_text(sight) for sight in usable)
    return [
        *_fact("shape", "T x C x Z x Y x X: ", shapes),
        *_fact("channels", "", channels),
        *_fact("pixels", "", sizes),
    ]


def _fact(word: str, before: str, found: Counter[str]) -> list[str]:
    lines = []
    for number, (text, count) in enumerate(found.most_common(LISTED)):
        much = f"  in {_count(count, 'image')}" if len(found) > 1 else ""
        lines.append(f"  {word if not number else '':9} {before}{text}{much}")
    more = [f"  {'':9} and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return lines + more


def _size_text(sight: Sight) -> str:
    if sight.voxel_um is None:
        return "of unknown size"
    z, y, x = sight.voxel_um
    planes = sight.shape[2] if sight.shape else 1
    apart = f", planes {z:.4g} um apart" if planes > 1 else ""
    return f"{x:.4g} um" + (f" x {y:.4g} um" if y != x else "") + apart


def _listed(sights: Sequence[Sight]) -> list[str]:
    """Return the names of the first images, with all that is known of each."""
    lines = [
        f"  {each.field.name}: {' x '.join(map(str, each.shape or ()))} {each.dtype},"
        f" {', '.join(each.channels)}, {_size_text(each)}"
        for each in sights
        if each.problem is None
    ]
    return [*lines[:LISTED], *([f"  and {len(lines) - LISTED} more"] if lines[LISTED:] else [])]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  and {len(lines) - LISTED} more; --json lists all"] if lines[LISTED:] else []
    return ["", f"{title}: {len(lines)}", *(f"  {line}" for line in lines[:LISTED]), *more]


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"
