"""Plate: which images a workflow means, and the well, site and channel in their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import chain, count
from pathlib import Path

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.hcs import Member, members
from cellseg.pipeline.image import READERS, reader_of

__all__ = ["PATTERNS", "Field", "discover"]

PATTERNS: dict[str, str] = {
    # Plate_A18_s1_w1<GUID>.tif; site or channel are left out where there is only one. One of the
    # two must be there: a bare T05 is as likely a time as a well.
    "imagexpress": (
        r"(?:^|_)(?P<well>(?:[A-Z]|A[A-F])\d{2})(?=_[sw]\d)"
        r"(?:_s(?P<site>\d+))?(?:_(?P<channel>w\d{1,2}))?"
        r"(?:[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})?\.(?i:tiff?)$"
    ),
    # Barcode_O01f00d2.TIF, as in the CellProfiler example plate.
    "cellprofiler": (
        r"(?:^|_)(?P<well>(?:[A-Z]|A[A-F])\d{2})f(?P<site>\d+)(?P<channel>d\d+)\.(?i:tiff?)$"
    ),
}
"""File-name patterns by name: regular expressions with groups well, site and channel."""

GROUPS = {"well": "well", "site": "site", "field": "site", "channel": "channel"}
THUMBNAIL = re.compile(r"_thumb(?=[0-9A-Fa-f]{8}-|\.|$)", re.IGNORECASE)
NAMED = 3


@dataclass(frozen=True)
class Field:
    """One image of a run.

    Parameters
    ----------
    name : str
        Name of its results, unique in the run, of ``A-Za-z0-9._+-`` only.
    path : Path
        The file or OME-Zarr group.
    well, site, channel : str or None
        What the pattern found in the file name. A well is capital letters and a number of at
        least two digits, ``B03``; the channel names the image's only channel.
    plate, acquisition : str or None
        Which of several plates, and which of its acquisitions.
    group : str or None
        Its path in an OME-Zarr plate: row, column and field, ``B/03/0``.
    fault : str or None
        Why it cannot be read, where its plate shows that already.
    """

    name: str
    path: Path
    well: str | None = None
    site: str | None = None
    channel: str | None = None
    plate: str | None = None
    acquisition: str | None = None
    group: str | None = None
    fault: str | None = None


def discover(images: Sequence[Path | str], pattern: str | None) -> list[Field]:
    """Find the images of a workflow, in natural order within each input.

    Parameters
    ----------
    images : sequence of path or str
        Each a file, a folder (its images, not those of its sub-folders) or a glob
        (``**`` for any depth), absolute. Hidden files and thumbnails do not count
        in folders and globs; a file found twice counts once. An OME-Zarr plate or
        collection means the images in it, see `cellseg.pipeline.hcs`.
    pattern : str or None
        A name in `PATTERNS`, or a regular expression that is searched in each
        file name, with named groups among well, site (or field) and channel.
        None: the first of `PATTERNS` that every name has, if there is one.

    Raises
    ------
    CellsegError
        If an input is missing or holds no image, or the pattern is wrong or fits not every file.
    """
    found: dict[Path, Member] = {}
    for each in images:
        for path in _expand(each):
            for member in members(path):
                found.setdefault(member.path.resolve(), member)
    loose = [member.path for member in found.values() if member.group is None]
    matches = dict(zip(loose, _match(loose, pattern), strict=True))
    names = _names([member.path for member in found.values()])
    return [
        _in_plate(name, member)
        if member.group is not None
        else Field(name, member.path, *_parts(matches[member.path]), fault=member.fault)
        for name, member in zip(names, found.values(), strict=True)
    ]


def _in_plate(name: str, member: Member) -> Field:
    """Return a field of an OME-Zarr plate, whose metadata says what a file name would."""
    return Field(
        name,
        member.path,
        member.well,
        member.site,
        plate=member.plate,
        acquisition=member.acquisition,
        group=member.group,
        fault=member.fault,
    )


def _expand(given: Path | str) -> list[Path]:
    """Return the images that one input means."""
    path = Path(given)
    if not path.exists():
        return _in_glob(str(given)) if has_magic(str(given)) else _missing(path)
    if path.is_dir() and reader_of(path) is not READERS[".zarr"]:
        return _in_folder(path)
    if reader_of(path) is None:
        raise CellsegError(
            f"{path}: a file {f'in {path.suffix}' if path.suffix else 'without suffix'} cannot be"
            f" read as an image; readable are {', '.join(READERS)}."
        )
    return [path]


def _missing(path: Path) -> list[Path]:
    known = nearest(path.name, [each.name for each in _entries(path.parent)])
    raise CellsegError(f"{path}: no such file or folder.{known}")


def _in_folder(folder: Path) -> list[Path]:
    entries = _entries(folder)
    found = [path for path in entries if _counts(path)]
    if found:
        return found
    folders = [path.name for path in entries if path.is_dir()]
    if folders and len(folders) == len(entries):
        raise CellsegError(
            f"{folder}: holds only sub-folders ({_some(folders)}), which are not searched. Give one"
            f" of them, or the glob {folder / '**' / '*.tif'}."
        )
    raise CellsegError(
        f"{folder}: {'no image in it' if entries else 'empty'}; readable are {', '.join(READERS)}."
    )


def _in_glob(given: str) -> list[Path]:
    matched = [Path(each) for each in glob(given, recursive=True)]  # noqa: PTH207 skips hidden files
    images = {path for path in matched if _counts(path)}
    found = [path for path in images if images.isdisjoint(path.parents)]
    if not found:
        raise CellsegError(f"{given}: matches {_other_than_images(matched)}.")
    return sorted(found, key=lambda path: [_natural(part) for part in path.parts])


def _other_than_images(matched: Sequence[Path]) -> str:
    if not matched:
        return "nothing"
    if all(path.is_dir() for path in matched):
        return f"folders only ({_some([path.name for path in matched])}); end it in /*.tif"
    return f"no image; readable are {', '.join(READERS)}"


def _entries(folder: Path) -> list[Path]:
    """Return what a folder holds, hidden entries left out, in natural order of name."""
    if not folder.is_dir():
        return []
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(entries, key=lambda path: _natural(path.name))


def _counts(path: Path) -> bool:
    """Whether a path found in a folder or by a glob is an image of its own."""
    reader = reader_of(path)
    is_folder_format = reader is READERS[".zarr"]
    return (
        reader is not None and path.is_dir() == is_folder_format and not THUMBNAIL.search(path.name)
    )


def _natural(text: str) -> tuple[list[str | int], str]:
    """Order ``s2`` before ``s10``, whatever the case."""
    parts = re.split(r"(\d+)", text.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], text


def _match(paths: Sequence[Path], pattern: str | None) -> list[re.Match[str] | None]:
    """Match every file name against the pattern, or against the preset that fits them all."""
    if pattern is not None:
        return _match_given(paths, pattern)
    for preset in PATTERNS.values():
        matches = [re.search(preset, path.name) for path in paths]
        if all(matches):
            return matches
    return [None] * len(paths)


def _match_given(paths: Sequence[Path], pattern: str) -> list[re.Match[str] | None]:
    compiled = _compile(pattern)
    matches = [compiled.search(path.name) for path in paths]
    unmatched = [path.name for path, match in zip(paths, matches, strict=True) if match is None]
    if unmatched:
        raise CellsegError(
            f"pattern = {pattern!r} does not match {len(unmatched)} of {len(paths)} files:"
            f" {_some(unmatched)}. Mend it, or give the files it matches as a glob."
        )
    return matches


def _compile(pattern: str) -> re.Pattern[str]:
    """Return a preset or the user's own expression, checked."""
    allowed = (
        f"Named groups are well, site (or field) and channel; presets are {', '.join(PATTERNS)}."
    )
    hint = f"{allowed}{nearest(pattern, PATTERNS)}"
    try:
        compiled = re.compile(PATTERNS.get(pattern, pattern))
    except re.error as error:
        raise CellsegError(
            f"pattern = {pattern!r} is not a regular expression: {error}. {hint}"
        ) from error
    groups = list(compiled.groupindex)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise CellsegError(
            f"pattern = {pattern!r} has the unknown group {unknown[0]!r}."
            f"{nearest(unknown[0], GROUPS)} {allowed}"
        )
    if not groups:
        raise CellsegError(
            f"pattern = {pattern!r} has no named group such as (?P<well>...). {hint}"
        )
    if {"site", "field"} <= set(groups):
        raise CellsegError(f"pattern = {pattern!r} has both site and field, which are the same.")
    return compiled


def _parts(match: re.Match[str] | None) -> tuple[str | None, str | None, str | None]:
    """Return well, site and channel."""
    found = {GROUPS[group]: text for group, text in (match.groupdict() if match else {}).items()}
    well = found.get("well")
    return _well(well) if well else None, found.get("site"), found.get("channel")


def _well(text: str) -> str:
    """Return ``B03`` for b3, B3 or B003; anything that is no letter and number as it is."""
    match = re.fullmatch(r"([A-Za-z]{1,2})[-_ ]?(\d+)", text)
    return f"{match[1].upper()}{int(match[2]):02d}" if match else text


def _names(paths: Sequence[Path]) -> list[str]:
    """Name each file by its stem; where stems are alike, by as many folders as tell them apart."""
    stems = _numbered([_stem(path) for path in paths], [path.parent for path in paths])
    names = stems
    for depth in range(1, max((len(path.parts) for path in paths), default=0)):
        counts = Counter(name.lower() for name in names)
        if max(counts.values()) == 1:
            break
        names = [
            _plain("_".join([*path.parent.parts[1:][-depth:], stem]))
            if counts[name.lower()] > 1
            else name
            for path, stem, name in zip(paths, stems, names, strict=True)
        ]
    return _numbered(names, [None] * len(names))


def _stem(path: Path) -> str:
    if path.suffix.lower() not in READERS:
        # Fields of an OME-Zarr plate are called 0, 1, ...: the plate and the well say more.
        groups = [each for each in path.parents if each.suffix.lower() == ".zarr"]
        within = [_stem(groups[0]), *path.relative_to(groups[0]).parts] if groups else [path.name]
        return _plain("_".join(within))
    return _plain(re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE))


def _plain(text: str) -> str:
    """Return the text in characters that every file system and address takes."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text).lstrip(".") or "image"


def _numbered(names: Sequence[str], scopes: Sequence[Path | None]) -> list[str]:
    """Append -2, -3, ... where a name was used before in its scope, in whatever case."""
    taken: set[tuple[Path | None, str]] = set()
    unique = []
    for name, scope in zip(names, scopes, strict=True):
        tries = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(each for each in tries if (scope, each.lower()) not in taken)
        taken.add((scope, free.lower()))
        unique.append(free)
    return unique


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
