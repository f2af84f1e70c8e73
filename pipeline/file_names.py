"""File names: what the name and the folders of a file say of well, site, channel, z and t."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.models.errors import CellsegError, nearest

__all__ = ["GROUPS", "PRESETS", "FileName", "Pattern", "Preset", "fitting", "given"]

WELL = r"(?:[A-Z]|A[A-F])\d{2}"
TIFF = r"\.(?i:tiff?)$"
GUID = r"(?:[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})?"
PLATE = r"(?:^|/)(?:(?P<plate>[^/]*?)_)?"
SITE = r"(?i:s|f|fld|site|field)"
# A channel is a word, or a number after one: a bare number may be anything, z3 and t3 are not one.
CHANNEL = r"(?P<channel>(?![ztZT]\d)[A-Za-z][A-Za-z0-9-]*)"


@dataclass(frozen=True)
class Preset:
    """How a microscope names its files.

    Parameters
    ----------
    expressions : tuple of str
        Regular expressions, the first that is found in the path counts.
    folders : str
        A regular expression of the whole name of folders that lie between a plate
        and its files; it may have the groups z and t.
    """

    expressions: tuple[str, ...]
    folders: str = r"(?!)"


PRESETS: dict[str, Preset] = {
    # Plate_A18_s1_w1<GUID>.tif, in folders TimePoint_1 and ZStep_1 where there are several: the
    # export of MetaXpress as Bio-Formats' MetaxpressTiffReader and EZStitcher's "Microscope
    # formats" have it. Site and channel are left out where there is one. One of the two must be
    # there, or the folder: a bare T05 is as likely a time as a well. ZStep_0 is a projection.
    "imagexpress": Preset(
        (
            rf"{PLATE}(?P<well>{WELL})(?=_[sw]\d)(?:_s(?P<site>\d+))?(?:_(?P<channel>w\d{{1,2}}))?"
            rf"(?:_z(?P<z>\d+))?(?:_t(?P<t>\d+))?{GUID}{TIFF}",
            rf"(?<=/)TimePoint_\d+/(?:ZStep_\d+/)?(?:(?P<plate>[^/]*?)_)?(?P<well>{WELL}){GUID}"
            rf"{TIFF}",
        ),
        r"(?i:TimePoint)_(?P<t>\d+)|(?i:ZStep)_(?P<z>[1-9]\d*)|(?i:ZStep)_0",
    ),
    # Barcode_O01f00d2.TIF, as in the CellProfiler example plate (Cellomics).
    "cellprofiler": Preset(
        (rf"{PLATE}(?P<well>{WELL})f(?P<site>\d+)(?P<channel>d\d+){TIFF}",),
    ),
    # Images/r02c03f01p02-ch1sk1fk1fl1.tiff of Opera Phenix and Operetta (Bio-Formats'
    # OperettaReader); since Harmony 5.2 it ends in -ch01t01.tiff.
    "harmony": Preset(
        (
            r"(?:^|/)r(?P<row>\d+)c(?P<column>\d+)f(?P<site>\d+)p(?P<z>\d+)-(?P<channel>ch\d+)"
            rf"(?:(?:sk|t)(?P<t>\d+))?(?:fk\d+)?(?:fl\d+)?{TIFF}",
        ),
        r"(?i:Images)",
    ),
    # Plate_A01_T0001F001L01A01Z01C01.tif of CellVoyager (Bio-Formats' CV7000Reader): time, field,
    # time line, action, z, channel. The action goes with the channel.
    "cellvoyager": Preset(
        (
            rf"{PLATE}(?P<well>{WELL})_T(?P<t>\d+)F(?P<site>\d+)L\d+A\d+Z(?P<z>\d+)"
            rf"(?P<channel>C\d+){TIFF}",
        ),
    ),
    # VID123_A1_1_2023y01m01d_00h00m.tif, or with the channel and the time since the start:
    # name_phase_A1_1_00d00h00m.tif.
    "incucyte": Preset(
        (
            r"(?:^|/)(?P<plate>[^/]+?)(?:_(?P<channel>(?i:phase|ph|red|green|blue|orange|nir|r|g|b|"
            r"c\d)))?_(?P<well>[A-P]\d{1,2})_(?P<site>\d+)_"
            rf"(?P<t>\d{{4}}y\d\dm\d\dd_\d\dh\d\dm|\d+d\d\dh\d\dm){TIFF}",
        ),
    ),
    # A01_1_DAPI.tif, plate_B02_f3_ch2_z1.tif, B02_t1_... is no well and site, and is left alone.
    "generic": Preset(
        (
            rf"{PLATE}(?P<well>[A-P]\d{{1,2}})_{SITE}?(?P<site>\d+)_{CHANNEL}"
            rf"(?:_[zZ](?P<z>\d+))?(?:_[tT](?P<t>\d+))?{TIFF}",
            rf"{PLATE}(?P<well>[A-P]\d{{1,2}})_{SITE}?(?P<site>\d+)"
            rf"(?:_[tT](?P<t>\d+))?(?:_[zZ](?P<z>\d+))?_{CHANNEL}{TIFF}",
            rf"{PLATE}(?P<well>[A-P]\d{{1,2}})_{SITE}(?P<site>\d+)"
            rf"(?:_[zZ](?P<z>\d+))?(?:_[tT](?P<t>\d+))?{TIFF}",
        ),
    ),
}
"""File-name patterns by name."""

GROUPS = {
    "plate": "plate",
    "well": "well",
    "row": "row",
    "column": "column",
    "site": "site",
    "field": "site",
    "channel": "channel",
    "z": "z",
    "t": "t",
}
"""What the named groups of a pattern may be, and what each means."""
PLACES = {"channel", "z", "t"}
BRACED = {"well": r"[A-Za-z]{1,2}-?\d{1,3}", "plate": r"[^/]+?", "channel": r"[^/]+?"}
ROWS = 32
"""Those of a plate of 1536 wells: A to Z, AA to AF."""
COLUMNS = 48
LETTERS = 26
DEPTH = 4
"""Parts of a path that a preset is searched in: the file, and the folders that it may name."""


@dataclass(frozen=True)
class FileName:
    """What the name of a file says.

    Parameters
    ----------
    path : Path
    folder : Path
        That of the plate.
    plate, well, site, channel, z, t : str or None
        As in the name; a well as ``B03``.
    rest : str
        The path without channel, z and t.
    """

    path: Path
    folder: Path
    plate: str | None
    well: str | None
    site: str | None
    channel: str | None
    z: str | None
    t: str | None
    rest: str


@dataclass(frozen=True)
class Pattern:
    """A preset, or the user's own pattern, ready to be searched in paths.

    Parameters
    ----------
    name : str
        As given.
    expressions : tuple of re.Pattern
    folders : re.Pattern or None
        Folders between a plate and its files; None where `expressions` say it all.
    whole : bool
        Whether the path is searched: its end in a preset, that below the input in a pattern
        of the user's. Otherwise the file name.
    """

    name: str
    expressions: tuple[re.Pattern[str], ...]
    folders: re.Pattern[str] | None = None
    whole: bool = False

    @property
    def groups(self) -> set[str]:
        """What a name may say."""
        said = {GROUPS[name] for each in self.expressions for name in each.groupindex}
        return said | ({"well"} if "row" in said else set())

    def read(self, path: Path, root: Path | None) -> FileName | None:
        """Return what the name of a file says, or None where it does not fit.

        Parameters
        ----------
        path : Path
        root : Path or None
            The folder given as input, if there is one.
        """
        below = path.relative_to(root) if root and path.is_relative_to(root) else path
        text = path.name
        if self.whole:
            text = "/".join(path.parts[-DEPTH:]) if self.folders else below.as_posix()
        found = next((m for each in self.expressions if (m := each.search(text))), None)
        if found is None:
            return None
        said = {GROUPS[key]: value for key, value in found.groupdict().items() if value}
        folder = path.parent if not self.whole or root is None else root
        if self.folders is not None:
            folder, around = self._around(path)
            said = around | said
        if "row" in said and "column" in said:
            said["well"] = _letters(said.pop("row")) + said.pop("column")
        well = _well(said["well"]) if "well" in said else None
        site, channel, z, t = map(said.get, ("site", "channel", "z", "t"))
        rest = _without(found, text)
        return FileName(path, folder, said.get("plate"), well, site, channel, z, t, rest)

    def _around(self, path: Path) -> tuple[Path, dict[str, str]]:
        """Return the plate's folder, and what those between it and the file say."""
        assert self.folders is not None  # noqa: S101 - as the caller checks
        folder, said = path.parent, dict[str, str]()
        while (match := self.folders.fullmatch(folder.name)) is not None:
            said |= {GROUPS[key]: value for key, value in match.groupdict().items() if value}
            folder = folder.parent
        return folder, said


def fitting(paths: Sequence[Path]) -> tuple[Pattern, list[FileName | None]] | None:
    """Return the preset that fits more than half of the files and more than any other, if any.

    Returns
    -------
    tuple of Pattern and list of (FileName or None), or None
        The preset, and what it says of each file.
    """
    best, most = None, len(paths) // 2
    for name in PRESETS:
        pattern = given(name)
        names = [pattern.read(path, None) for path in paths]
        count = len(names) - names.count(None)
        if count > most:
            best, most = (pattern, names), count
        if count == len(names):
            break
    return best


def given(pattern: str) -> Pattern:
    """Return a preset by name, a form in braces or a regular expression, checked.

    Raises
    ------
    CellsegError
        If it is no regular expression, has no named group or an unknown one.
    """
    if pattern in PRESETS:
        preset = PRESETS[pattern]
        compiled = tuple(map(re.compile, preset.expressions))
        return Pattern(pattern, compiled, re.compile(preset.folders), whole=True)
    allowed = (
        "Named groups are plate, well (or row and column), site (or field), channel, z and t;"
        f" presets are {', '.join(PRESETS)}."
    )
    hint = f"{allowed}{nearest(pattern, PRESETS)}"
    braced = re.search(r"\{[A-Za-z_]+\}", pattern)
    try:
        expression = re.compile(_expanded(pattern) if braced else pattern)
    except re.error as error:
        what = "has a group twice" if braced else f"is not a regular expression: {error}"
        raise CellsegError(f"pattern = {pattern!r} {what}. {hint}") from error
    _check_groups(pattern, list(expression.groupindex), allowed, hint)
    # A slash within [ ] is a letter like others.
    whole = "/" in re.sub(r"\[[^\]]*\]", "", pattern)
    return Pattern(pattern, (expression,), whole=whole)


def _check_groups(pattern: str, groups: Sequence[str], allowed: str, hint: str) -> None:
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
    if ("row" in groups) != ("column" in groups) or {"well", "row"} <= set(groups):
        raise CellsegError(f"pattern = {pattern!r} needs row and column, or well alone. {allowed}")


def _expanded(form: str) -> str:
    """Return ``{well}_{site}_{channel}.tif`` as a regular expression; ``*`` is any text."""
    parts = re.split(r"\{([A-Za-z_]+)\}", form)
    text = "".join(
        f"(?P<{part}>{BRACED.get(part, r'[^/_]+?')})"
        if index % 2
        else re.escape(part).replace(r"\*", "[^/]*")
        for index, part in enumerate(parts)
    )
    suffix = re.search(r"\\\.[A-Za-z]+$", text)
    if suffix is None:
        return rf"(?:^|/){text}(?:\.[A-Za-z]+)*$"
    return rf"(?:^|/){text[: suffix.start()]}(?i:{suffix.group()})$"


def _without(match: re.Match[str], text: str) -> str:
    """Return a path without its channel, z and t."""
    spans = [match.span(key) for key in match.groupdict() if GROUPS[key] in PLACES]
    for start, end in sorted(spans, reverse=True):
        text = text[: max(start, 0)] + text[max(end, 0) :]
    return text


def _letters(row: str) -> str:
    """Return ``C`` for row 3."""
    if not row.isdecimal() or not 1 <= int(row) <= ROWS:
        return row if row.isalpha() else f"row {row} column "
    number = int(row) - 1
    return ("A" if number >= LETTERS else "") + chr(ord("A") + number % LETTERS)


def _well(text: str) -> str:
    """Return ``B03`` for b3, B3 or B003; anything that is no letter and number as it is."""
    match = re.fullmatch(r"([A-Za-z]{1,2})[-_ ]?(\d+)", text)
    return f"{match[1].upper()}{int(match[2]):02d}" if match else text


def place(well: str) -> tuple[int, int] | None:
    """Return row and column, from 0, of a well such as ``B03``; None where it is no such text."""
    match = re.fullmatch(r"([A-Z]{1,2})(\d+)", well)
    if match is None:
        return None
    row = 0
    for letter in match[1]:
        row = row * LETTERS + ord(letter) - ord("A") + 1
    return row - 1, int(match[2]) - 1


def off_plate(well: str | None) -> bool:
    """Whether a well is on no plate: 1536 wells are rows A to AF and columns 1 to 48."""
    if well is None:
        return False
    if well.startswith("row "):
        return True
    at = place(well)
    return at is not None and not (0 <= at[0] < ROWS and 0 <= at[1] < COLUMNS)


def natural(text: str) -> tuple[list[str | int], str]:
    """Order ``s2`` before ``s10``, whatever the case."""
    parts = re.split(r"(\d+)", text.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], text
