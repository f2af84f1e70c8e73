"""Plate: which images a workflow means, of which files each is made, and their wells and sites."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.models.errors import CellsegError
from cellseg.pipeline.fields import Group, LeftOver, Part, group
from cellseg.pipeline.file_names import FileName, Pattern, fitting, given
from cellseg.pipeline.found_files import Input, find_files, some
from cellseg.pipeline.hcs import Member, members
from cellseg.pipeline.image import READERS, reader_of
from cellseg.pipeline.image_names import image_names
from cellseg.pipeline.plate_index import PlateIndex, read_index
from cellseg.pipeline.voxel import Voxel

__all__ = ["Field", "Found", "disagreements", "discover", "each_file", "find"]


@dataclass(frozen=True)
class Field:
    """One image of a run.

    Parameters
    ----------
    name : str
        Name of its results, unique in the run, of ``A-Za-z0-9._+-`` only.
    path : Path
        The file or OME-Zarr group; of several files the first.
    well, site, channel : str or None
        What the pattern found in the file name. A well is capital letters and a number of at
        least two digits, ``B03``; the channel names the image's only channel.
    plate, acquisition : str or None
        Which of several plates, and which of its acquisitions.
    group : str or None
        Its path in an OME-Zarr plate: row, column and field, ``B/03/0``.
    parts : tuple of Part
        Where channels, planes or time points are files of their own: all of them.
    channels, numbering : tuple of str
        With parts: the names of its channels, and of those of all images of its plate, by
        which channels are numbered.
    spacing_um : (z, y, x) or None
        Size of a voxel, as far as the plate's index says it; the files' own does not count then.
    notes : tuple of str
        What the user should know of it.
    problem : str or None
        Why it cannot be opened, where that is known before.
    """

    name: str
    path: Path
    well: str | None = None
    site: str | None = None
    channel: str | None = None
    plate: str | None = None
    acquisition: str | None = None
    group: str | None = None
    parts: tuple[Part, ...] = ()
    channels: tuple[str, ...] = ()
    numbering: tuple[str, ...] = ()
    spacing_um: tuple[float | None, float | None, float | None] | None = None
    notes: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Found:
    """What a workflow's images are.

    Parameters
    ----------
    fields : tuple of Field
    left_over : tuple of LeftOver
        Files that are part of no image.
    pattern : str or None
        The pattern given, or the preset that fits.
    notes : tuple of str
        What concerns several images.
    """

    fields: tuple[Field, ...]
    left_over: tuple[LeftOver, ...] = ()
    pattern: str | None = None
    notes: tuple[str, ...] = ()


def find(images: Sequence[Path | str], pattern: str | None) -> Found:
    """Find the images of a workflow, in natural order within each input.

    Channels, planes and time points that the pattern tells apart are one image.

    Parameters
    ----------
    images : sequence of path or str
        Each a file, a folder or a glob (``**`` for any depth), absolute. Of a folder its
        own images count; those of its sub-folders where it has none, and a preset or a
        pattern with a ``/`` tells what the sub-folders are. Hidden files and thumbnails
        do not count in folders and globs; a file found twice counts once. An OME-Zarr
        plate or collection means the images in it, see `cellseg.pipeline.hcs`.
    pattern : str or None
        A name in `cellseg.pipeline.file_names.PRESETS`, a form such as
        ``{well}_{site}_{channel}.tif``, or a regular expression that is searched in each
        file name, with named groups among plate, well (or row and column), site (or
        field), channel, z and t. With a ``/`` it is searched in the path below the input.
        None: the preset that fits most of the files, if it fits more than half; the
        others are left over, but for files that were given one by one.

    Raises
    ------
    CellsegError
        If an input is missing or holds no image, or the pattern is wrong or fits not every file.
    """
    chosen = given(pattern) if pattern is not None else None
    every, listed = _with_members(find_files(images, chosen))
    aside = {path: None for root, paths in every for path in paths if _is_label(path, root)}
    plain = {path for _, paths in every for path in paths} - {*aside, *listed}
    inputs = [(root, [path for path in paths if path in plain]) for root, paths in every]
    if chosen is None:
        # Files and globs are one input together, each folder one of its own.
        read = [_read_automatic(root, paths) for root, paths in _together(inputs)]
    else:
        read = [(chosen, _read_given(chosen, inputs))]
    paths = [path for _, found in every for path in found if path not in aside]
    left = [LeftOver(path, "it is in a folder of labels") for path in aside]
    return _found(paths, read, left, listed)


def discover(images: Sequence[Path | str], pattern: str | None) -> list[Field]:
    """Return the fields alone that `find` finds."""
    return list(find(images, pattern).fields)


def each_file(images: Sequence[Path | str]) -> list[Field]:
    """Return every file as an image of its own, whatever its name; see `find`."""
    every, listed = _with_members(find_files(images, None))
    paths = [path for _, found in every for path in found]
    return [
        _listed(name, listed[path]) if path in listed else Field(name, path)
        for name, path in zip(image_names(paths), paths, strict=True)
    ]


def _with_members(inputs: Sequence[Input]) -> tuple[list[Input], dict[Path, Member]]:
    """Return inputs with the images of OME-Zarr plates and collections in their place, and these.

    An image that is no part of any, and without a fault, is none of these.
    """
    listed: dict[Path, Member] = {}
    every = []
    for root, paths in inputs:
        found = {member.path: member for path in paths for member in members(path)}
        every.append((root, [path for path in found if path not in listed]))
        listed |= {p: m for p, m in found.items() if m.group is not None or m.fault is not None}
    return every, listed


def _listed(name: str, member: Member) -> Field:
    """Return a field of an OME-Zarr plate, whose metadata says what a file name would."""
    return Field(
        name,
        member.path,
        member.well,
        member.site,
        plate=member.plate,
        acquisition=member.acquisition,
        group=member.group,
        problem=member.fault,
    )


LABELS = {"labels", "masks", "truth"}
Read = tuple[Pattern | None, list[tuple[Path, FileName | LeftOver | None]]]
"""A pattern, and for each file what its name says, or why it is left over, or nothing."""


def _together(inputs: Sequence[Input]) -> list[Input]:
    loose = [path for root, paths in inputs if root is None for path in paths]
    return [*((root, paths) for root, paths in inputs if root), *([(None, loose)] if loose else [])]


def _read_automatic(root: Path | None, paths: Sequence[Path]) -> Read:
    """Read the names of an input's files by the preset that fits, if there is one."""
    files = [path for path in paths if reader_of(path) is not READERS[".zarr"]]
    fits = fitting(files)
    if fits is None:
        return None, [(path, None) for path in paths]
    pattern, names = fits
    said: dict[Path, FileName | LeftOver | None] = {}
    for path, name in zip(files, names, strict=True):
        left = _unlike(path, pattern) if root is not None else None
        said[path] = left if name is None else name
    return pattern, [(path, said.get(path)) for path in paths]


def _unlike(path: Path, pattern: Pattern) -> LeftOver:
    return LeftOver(path, f"its name is not like the others' (preset {pattern.name})")


def _read_given(
    pattern: Pattern, inputs: Sequence[Input]
) -> list[tuple[Path, FileName | LeftOver | None]]:
    """Read all names by the pattern that was given."""
    read = [(path, pattern.read(path, root)) for root, paths in inputs for path in paths]
    unmatched = [path.name for path, name in read if name is None]
    if pattern.folders is not None and 2 * len(unmatched) < len(read):
        # Microscopes leave other files among the images; a pattern of the user's means every file.
        return [(path, name or _unlike(path, pattern)) for path, name in read]
    if unmatched:
        raise CellsegError(
            f"pattern = {pattern.name!r} does not match {len(unmatched)} of {len(read)} files:"
            f" {some(unmatched)}. Mend it, or give the files it matches as a glob."
        )
    return [*read]


def _is_label(path: Path, root: Path | None) -> bool:
    """Whether a file lies in a sub-folder of labels, as many data sets keep beside their images."""
    return root is not None and not LABELS.isdisjoint(
        folder.lower() for folder in path.relative_to(root).parts[:-1]
    )


def _found(
    paths: Sequence[Path],
    read: Sequence[Read],
    aside: Sequence[LeftOver],
    listed: Mapping[Path, Member],
) -> Found:
    """Return the images of which the files are, in the order of their first files."""
    groups: dict[Path, Group | None] = dict.fromkeys(listed)
    left = [*aside]
    indexes: dict[Path, PlateIndex] = {}
    for pattern, said in read:
        names = [name for _, name in said if isinstance(name, FileName)]
        left += [name for _, name in said if isinstance(name, LeftOver)]
        groups |= {path: None for path, name in said if name is None}
        if pattern is not None:
            known = {
                folder: read_index(folder, pattern.name) for folder in {n.folder for n in names}
            }
            indexes |= {folder: index for folder, index in known.items() if index is not None}
            found, more = group(names, pattern.groups, indexes)
            groups |= {each.first.path: each for each in found}
            left += more
    order = [path for path in paths if path in groups]
    fields = _fields(order, [groups[path] for path in order], indexes, listed)
    patterns = {pattern.name for pattern, _ in read if pattern is not None}
    notes = [index.note for index in indexes.values() if index.note is not None]
    return Found(
        fields, tuple(left), ", ".join(sorted(patterns)) or None, (*notes, *_notes(fields, left))
    )


def _fields(
    paths: Sequence[Path],
    groups: Sequence[Group | None],
    indexes: dict[Path, PlateIndex],
    listed: Mapping[Path, Member],
) -> tuple[Field, ...]:
    plates = [_plate(each, indexes) if each else None for each in groups]
    named = [
        _called(each, plate) if each and each.parts else path
        for path, each, plate in zip(paths, groups, plates, strict=True)
    ]
    fields = []
    for name, path, each, plate in zip(image_names(named), paths, groups, plates, strict=True):
        if each is None:
            found = _listed(name, listed[path]) if path in listed else Field(name, path)
            fields.append(found)
            continue
        first, index = each.first, indexes.get(each.first.folder)
        channel = None if each.parts else first.channel
        spacing_um = index.spacing_um if index else None
        about = each.parts, each.channels, each.numbering, spacing_um, each.notes, each.problem
        fields.append(Field(name, path, first.well, first.site, channel, plate, None, None, *about))
    return tuple(fields)


def _plate(each: Group, indexes: dict[Path, PlateIndex]) -> str | None:
    """Return the name of an image's plate: in its file names, its index, or that of its folder."""
    first, index = each.first, indexes.get(each.first.folder)
    known = first.plate or (index.plate if index else None)
    return known or (first.folder.name or None if first.well else None)


def _called(each: Group, plate: str | None) -> Path:
    """Return the file that an image of several files would be by name."""
    first = each.first
    site = f"s{first.site}" if first.site and first.site.isdecimal() else first.site
    words = [word for word in (plate, first.well, site) if word]
    if not first.well and not first.site:
        stem = Path(first.rest).stem
        words = [re.sub(r"[-_. ]{2,}", "_", stem).strip("-_. ") or "image"]
    return first.folder / f"{'_'.join(words).replace('/', '_')}.tif"


def _notes(fields: Sequence[Field], left: Sequence[LeftOver]) -> list[str]:
    """Return what concerns several images: what they lack, and the files left over."""
    lacking: dict[str, list[str]] = {}
    for each in fields:
        for note in each.notes:
            lacking.setdefault(note, []).append(each.name)
    notes = [
        f"{note}: in {len(names)} image{'s' * (len(names) != 1)} ({some(names)})"
        for note, names in lacking.items()
    ]
    if left:
        files = f"{len(left)} file{'s' * (len(left) != 1)}"
        few = some([each.path.name for each in left])
        notes.append(f"{files} left over ({few}); `cellseg inspect` says why")
    return notes


def disagreements(known: Iterable[tuple[str | None, Voxel | None]]) -> list[str]:
    """Say in which plates images have pixels of different sizes.

    Parameters
    ----------
    known : iterable of (plate, voxel)
        Of each image the plate and the size of a voxel (z, y, x) in um.
    """
    sizes: dict[str, Counter[str]] = {}
    for plate, voxel in known:
        if plate is not None:
            text = "unknown" if voxel is None else f"{voxel[2]:.4g} um"
            sizes.setdefault(plate, Counter())[text] += 1
    return [
        f"plate {plate}: pixel sizes differ: "
        + ", ".join(f"{size} in {count}" for size, count in found.most_common())
        + ". Set pixel_size_um if one of them is wrong"
        for plate, found in sizes.items()
        if len(found) > 1
    ]
