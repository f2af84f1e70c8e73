"""TIFF header: shape and type of a file of one plane, read in microseconds.

tifffile takes 1 to 2 ms to parse a file, and a plate has tens of thousands; where
the first file of a field is known, of the others this is all that matters.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cellseg.models.errors import CellsegError

WIDTH, HEIGHT, BITS, DESCRIPTION, SAMPLES, FORMAT = 256, 257, 258, 270, 277, 339
RESOLUTION = (282, 283, 296)
OFFSETS, COUNTS = (273, 324), (279, 325)
CODES = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 16: "Q"}
KINDS = {1: "u", 2: "i", 3: "f"}
LONGEST = 1 << 20
"""Bytes of a tag's value: beyond it the file is for tifffile."""


@dataclass(frozen=True)
class Header:
    """What a TIFF of one plane and one channel says of its pixels.

    `resolution` is what its tags state, to be compared: along x and y as fractions, and the unit.
    """

    height: int
    width: int
    dtype: np.dtype[Any]
    resolution: tuple[tuple[Any, ...] | None, ...] = ()


def read_header(path: Path) -> Header | None:
    """Return shape and type of a plain TIFF, or None for one that only tifffile can judge.

    Plain is a single page of a single sample without OME-XML or ImageJ's
    description, which may say that there is more.

    Raises
    ------
    CellsegError
        If the file ends before its pixels do.
    """
    with path.open("rb") as file:
        tags, following = _tags(file)
    if following or tags is None or not _is_one_plane(tags):
        return None
    bits, kind = _one(tags, BITS, 1), KINDS.get(_one(tags, FORMAT, 1))
    starts, counts = ([*map(tags.get, codes)] for codes in (OFFSETS, COUNTS))
    offsets, lengths = starts[0] or starts[1], counts[0] or counts[1]
    known = kind is not None and bits in (8, 16, 32, 64) and _one(tags, SAMPLES, 1) == 1
    if not known or not offsets or not lengths or (kind == "f" and bits < 32):
        return None
    end, size = max(map(sum, zip(offsets, lengths, strict=False))), path.stat().st_size
    if end > size:
        raise CellsegError(
            f"{path}: truncated: its pixels end at byte {end}, the file at {size}. Copy it again."
        )
    dtype, resolution = np.dtype(f"{kind}{bits // 8}"), tuple(map(tags.get, RESOLUTION))
    return Header(_one(tags, HEIGHT, 0), _one(tags, WIDTH, 0), dtype, resolution)


Tags = dict[int, tuple[Any, ...]]


def _one(tags: Tags, code: int, default: int) -> int:
    return int(tags.get(code, (default,))[0])


def _tags(file: BinaryIO) -> tuple[Tags | None, int]:
    """Return the tags of the first page that matter here, and where the next page begins."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    version = struct.unpack(f"{order}H", start[2:4])[0] if order and len(start) > 7 else 0
    if version not in (42, 43):
        return None, 0
    # Number of tags; code, type, count, value; next page.
    number, entry, pointer = ("H", "HHI4s", "I") if version == 42 else ("Q", "HHQ8s", "Q")
    (first,) = struct.unpack_from(f"{order}{pointer}", start, 4 if version == 42 else 8)
    file.seek(first)
    (count,) = struct.unpack(f"{order}{number}", file.read(struct.calcsize(f"<{number}")))
    length = struct.calcsize(f"<{entry}")
    table = file.read(count * length + struct.calcsize(f"<{pointer}"))
    tags: Tags = {}
    wanted = {WIDTH, HEIGHT, BITS, DESCRIPTION, SAMPLES, FORMAT, *RESOLUTION, *OFFSETS, *COUNTS}
    for at in range(0, count * length, length):
        code, kind, items, value = struct.unpack_from(f"{order}{entry}", table, at)
        if code in wanted:
            found = _value(file, f"{order}{pointer}", order, kind, items, value)
            if found is None:
                return None, 0
            tags[code] = found
    (following,) = struct.unpack_from(f"{order}{pointer}", table, count * length)
    return tags, int(following)


def _value(
    file: BinaryIO, pointer: str, order: str | None, kind: int, items: int, value: bytes
) -> tuple[Any, ...] | None:
    """Return the value of a tag, or None if it is none of those expected."""
    letter = CODES.get(kind)
    if letter is None or not 0 < items * struct.calcsize(f"<{letter}") <= LONGEST:
        return None
    size = items * struct.calcsize(f"<{letter}")
    if size > len(value):
        file.seek(struct.unpack(pointer, value)[0])
        value = file.read(size)
    if len(value) < size:
        return None
    if letter == "c":
        return (value[:size],)
    return struct.unpack(f"{order}{items}{letter}", value[:size])


def _is_one_plane(tags: Tags) -> bool:
    """Whether the description says nothing of other planes."""
    (text,) = tags.get(DESCRIPTION, (b"",))
    if text.startswith(b'{"shape"'):
        try:
            shape = json.loads(text.rstrip(b"\0"))["shape"]
        except ValueError:
            return False
        return bool(np.prod(shape) == _one(tags, HEIGHT, 0) * _one(tags, WIDTH, 0))
    return b"OME" not in text and not text.startswith((b"ImageJ", b"SCANIMAGE", b"<FluoView"))
