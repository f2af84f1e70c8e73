"""Fields: which files are one image, what each holds of it, and what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from pathlib import Path

from cellseg.pipeline.file_names import PLACES, FileName, natural, off_plate
from cellseg.pipeline.plate_index import PlateIndex

__all__ = ["Group", "LeftOver", "Part", "group"]

Plane = tuple[str | None, str | None]
"""t and z, as the names have them."""
Files = dict[tuple[str | None, str | None, str | None], FileName]
"""The files of an image by t, z and channel."""
NAMED = 3


@dataclass(frozen=True)
class Part:
    """A file of an image, and its place in it.

    Parameters
    ----------
    path : Path
    t, c, z : int
        Which time point, channel and plane of the image's, from 0.
    """

    path: Path
    t: int
    c: int
    z: int


@dataclass(frozen=True)
class LeftOver:
    """A file that is no part of any image, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Group:
    """The files of one image.

    Parameters
    ----------
    names : tuple of FileName
        Of all its files, in natural order of path.
    parts : tuple of Part
        Where each lies in the image; empty where one file is the image.
    channels, numbering : tuple of str
        Its own channels, and those of all images of its plate.
    notes : tuple of str
        What the user should know of it.
    problem : str or None
        Why it cannot be an image.
    """

    names: tuple[FileName, ...]
    parts: tuple[Part, ...] = ()
    channels: tuple[str, ...] = ()
    numbering: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def first(self) -> FileName:
        """What the name of its first file says."""
        return self.names[0]


@dataclass
class _Plate:
    """What the files of one plate have: channels, planes, and each image's files."""

    index: PlateIndex | None
    images: dict[tuple[str | None, ...], list[FileName]] = field(
        default_factory=lambda: defaultdict(list)
    )
    known: dict[str, list[str]] = field(default_factory=dict)

    def all(self, what: str) -> list[str]:
        """Return all values of `what`, in natural order; found out once."""
        if what not in self.known:
            found = {getattr(name, what) for names in self.images.values() for name in names}
            self.known[what] = sorted(found - {None}, key=natural)
        return self.known[what]

    def named(self, channels: Iterable[str | None]) -> tuple[str, ...]:
        """Return the names of channels, as the index has them, or else the files."""
        names = self.index.channels if self.index else {}
        return tuple(names.get(channel or "", channel or "") for channel in channels)


def group(
    names: Sequence[FileName], groups: set[str], indexes: Mapping[Path, PlateIndex]
) -> tuple[list[Group], list[LeftOver]]:
    """Return which files are one image, in the order of their first files.

    Files of one plate, well and site are one image where the pattern tells them
    apart by channel, z or t; without well and site those are whose names are
    the same but for that.

    Parameters
    ----------
    names : sequence of FileName
    groups : set of str
        What the pattern could say.
    indexes : dict of Path to PlateIndex
        What is known of the plates from their index files, by their folders.
    """
    plates: dict[tuple[Path, str | None], _Plate] = {}
    for name in names:
        plate = plates.setdefault((name.folder, name.plate), _Plate(indexes.get(name.folder)))
        plate.images[_own(name, groups)].append(name)
    found, left = [], []
    for plate in plates.values():
        if any(len({(n.channel, n.z, n.t) for n in image}) > 1 for image in plate.images.values()):
            left += _drop_projections(plate)
            found += [_assembled(plate, image) for image in plate.images.values() if image]
        else:
            found += _single(plate)
    order = {name.path: number for number, name in enumerate(names)}
    return sorted(found, key=lambda each: order[each.first.path]), left


def _own(name: FileName, groups: set[str]) -> tuple[str | None, ...]:
    """Return what tells an image from the others of its plate."""
    if not groups & PLACES and not {"well", "site"} <= groups:
        return (str(name.path),)
    if name.well is None and name.site is None:
        return (name.rest,)
    return name.well, name.site


def _drop_projections(plate: _Plate) -> list[LeftOver]:
    """Leave out files without z or t where others of the same image and channel have one."""
    left = []
    for key, image in plate.images.items():
        for what, word in (("z", "plane"), ("t", "time point")):
            numbered = {n.channel for n in image if getattr(n, what) is not None}
            odd = [n for n in image if getattr(n, what) is None and n.channel in numbered]
            reason = f"no {word} ({what}), where other files of its field have one: a projection?"
            left += [LeftOver(name.path, reason) for name in odd]
            image = [name for name in image if name not in odd]
        plate.images[key] = image
    return left


def _single(plate: _Plate) -> Iterable[Group]:
    """Yield the images of a plate that has one file for each."""
    for image in plate.images.values():
        first = image[0]
        if first.channel is not None:
            (channel,) = plate.named([first.channel])
            image = [replace(first, channel=channel), *image[1:]]
        yield Group(tuple(image), problem=_twice(image) or _off_plate(first))


def _assembled(plate: _Plate, image: list[FileName]) -> Group:
    """Return an image of several files, or of the one that is left of them."""
    ts, zs = _order(image, "t"), _order(image, "z")
    files: Files = {(name.t, name.z, name.channel): name for name in image}
    planes = list(product(ts, zs))
    channels = [c for c in _channels(plate) if all((t, z, c) in files for t, z in planes)]
    parts = tuple(
        Part(files[t, z, c].path, ts.index(t), channels.index(c), zs.index(z))
        for t, z in planes
        for c in channels
    )
    notes, reasons = _lacking(plate, files, planes), _gaps(plate, image)
    problem = _twice(image) or _off_plate(image[0]) or "; ".join(reasons) or None
    if problem is None and not channels:
        problem = f"{_where(image)}: {'; '.join(notes)}. Add the files, or take this field out."
    own, every = plate.named(channels), plate.named(_channels(plate))
    return Group(tuple(image), parts, own, every, (*notes, *_ends(plate, image)), problem)


def _channels(plate: _Plate) -> list[str | None]:
    return [*plate.all("channel")] or [None]


def _order(image: Iterable[FileName], what: str) -> list[str | None]:
    found = {getattr(name, what) for name in image} - {None}
    return sorted(found, key=natural) or [None]


def _twice(image: Sequence[FileName]) -> str | None:
    """Say which files claim the same place."""
    places: dict[tuple[str | None, ...], FileName] = {}
    for name in image:
        other = places.setdefault((name.channel, name.z, name.t), name)
        if other is not name:
            of = [f"{what} {getattr(name, what)}" for what in ("channel", "z", "t")]
            said = ", ".join(each for each in of if not each.endswith("None"))
            where = " and ".join(str(path) for path in (other.path, name.path))
            return (
                f"{where} are both {_place(name)}{', ' if said else ''}{said}. Take one of them"
                " out, or give the pattern a group for what tells them apart."
            )
    return None


def _off_plate(name: FileName) -> str | None:
    if not off_plate(name.well):
        return None
    return (
        f"{name.path}: well {name.well} is on no plate; rows are A to AF, columns 1 to 48."
        " Rename the file, or mend the pattern."
    )


def _place(name: FileName) -> str:
    return ", ".join(
        f"{word} {text}" for word, text in (("well", name.well), ("site", name.site)) if text
    )


def _where(image: Sequence[FileName]) -> str:
    return f"{image[0].folder}: {_place(image[0]) or image[0].path.name}"


def _lacking(
    plate: _Plate,
    files: Files,
    planes: Sequence[Plane],
) -> tuple[str, ...]:
    """Say which channels an image lacks, in all planes or in some."""
    notes = []
    for channel, name in zip(_channels(plate), plate.named(_channels(plate)), strict=True):
        missing = [(t, z) for t, z in planes if (t, z, channel) not in files]
        if len(missing) == len(planes):
            notes.append(f"no file of channel {name}")
        elif missing:
            some = ", ".join(_plane(plane) for plane in missing[:NAMED])
            what = f"channel {name} is left out: no file for" if channel else "no file for"
            notes.append(f"{what} {some}{', ...' if len(missing) > NAMED else ''}")
    return tuple(notes)


def _plane(plane: Plane) -> str:
    said = [f"{what} {text}" for what, text in zip("tz", plane, strict=True) if text is not None]
    return " ".join(said) or "this plane"


def _gaps(plate: _Plate, image: Sequence[FileName]) -> list[str]:
    """Say which planes and time points an image lacks between those it has.

    What follows a gap would stand at a wrong place, and a volume with a plane
    missing has wrong cells.
    """
    reasons = []
    for what, word in (("z", "plane z"), ("t", "time point t")):
        own = [text for text in _order(image, what) if text is not None]
        if len(own) < 2 or not all(text.isdecimal() for text in own):
            continue
        inside = [
            text
            for text in plate.all(what)
            if text.isdecimal() and int(own[0]) < int(text) < int(own[-1]) and text not in own
        ]
        if not inside and what == "z":
            inside = _holes(own)
        if inside:
            reasons.append(
                f"{_where(image)}: {word} {', '.join(inside[:NAMED])} is missing among"
                f" {own[0]} to {own[-1]}. Add the files, or take this field out."
            )
    return reasons


def _holes(own: Sequence[str]) -> list[str]:
    """Return numbers that are skipped, where most or those in a row are evenly spaced."""
    numbers = [int(text) for text in own]
    steps = [after - before for before, after in pairwise(numbers)]
    usual = min(steps)
    if usual > 1 and steps.count(usual) <= len(steps) // 2:
        return []
    return [
        str(number)
        for before, step in zip(numbers, steps, strict=False)
        for number in range(before + usual, before + step, usual)
    ]


def _ends(plate: _Plate, image: Sequence[FileName]) -> list[str]:
    """Say where an image has fewer planes or time points than its plate."""
    notes = []
    for what, word in (("z", "planes"), ("t", "time points")):
        own, every = _order(image, what), plate.all(what)
        if len(own) < len(every):
            notes.append(f"{len(own)} {word} ({what}), where its plate has {len(every)}")
    return notes
