"""What the images of a run are called: short names, all different, that every file system takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from cellseg.pipeline.image import READERS


def image_names(paths: Sequence[Path]) -> list[str]:
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
