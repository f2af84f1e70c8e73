"""Found files: the images that a file, a folder or a glob of the user's means."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from cellseg.models.errors import CellsegError, nearest
from cellseg.pipeline.file_names import PRESETS, Pattern, fitting, natural
from cellseg.pipeline.image import READERS, reader_of

__all__ = ["Input", "find_files", "some"]

Input = tuple[Path | None, list[Path]]
"""A folder, or None for a file or glob, and what was found in it."""
THUMBNAIL = re.compile(r"_thumb(?=[0-9A-Fa-f]{8}-|\.|$)", re.IGNORECASE)
NAMED = 3


def find_files(images: Sequence[Path | str], pattern: Pattern | None) -> list[Input]:
    """Return what each input means; a file that an earlier one has found does not count again.

    Parameters
    ----------
    images : sequence of path or str
        Files, folders and globs; see `cellseg.pipeline.plate.find`.
    pattern : Pattern or None
        Says whether sub-folders are searched.

    Raises
    ------
    CellsegError
        If an input is missing or holds no image.
    """
    seen: set[Path] = set()
    found = []
    for each in images:
        path = Path(each)
        root = path if path.is_dir() and reader_of(path) is not READERS[".zarr"] else None
        paths = _in_folder(path, pattern) if root else _expand(each)
        if len(images) > 1:
            # Within one input, links to one file are so many files: a plate of links is one.
            targets = [(one.resolve(), one) for one in paths]
            paths = [one for target, one in targets if target not in seen]
            seen |= {target for target, _ in targets}
        found.append((root, paths))
    return found


def _expand(given: Path | str) -> list[Path]:
    """Return the images that a file or a glob means."""
    path = Path(given)
    if not path.exists():
        return _in_glob(str(given)) if has_magic(str(given)) else _missing(path)
    if reader_of(path) is None:
        raise CellsegError(
            f"{path}: a file {f'in {path.suffix}' if path.suffix else 'without suffix'} cannot be"
            f" read as an image; readable are {', '.join(READERS)}."
        )
    return [path]


def _missing(path: Path) -> list[Path]:
    known = nearest(path.name, [each.name for each in _entries(path.parent)])
    raise CellsegError(f"{path}: no such file or folder.{known}")


def _in_folder(folder: Path, pattern: Pattern | None) -> list[Path]:
    entries = _entries(folder)
    found = [path for path in entries if _counts(path)]
    folders = [path.name for path in entries if path.is_dir() and path not in found]
    below = _below(folder, pattern, bool(found)) if folders else []
    if found or below:
        return [*found, *below]
    if folders and len(folders) == len(entries):
        raise CellsegError(
            f"{folder}: holds only sub-folders ({some(folders)}), which are not searched. Give one"
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
    return sorted(found, key=lambda path: [natural(part) for part in path.parts])


def _other_than_images(matched: Sequence[Path]) -> str:
    if not matched:
        return "nothing"
    if all(path.is_dir() for path in matched):
        return f"folders only ({some([path.name for path in matched])}); end it in /*.tif"
    return f"no image; readable are {', '.join(READERS)}"


def _entries(folder: Path) -> list[Path]:
    """Return what a folder holds, hidden entries left out, in natural order of name."""
    if not folder.is_dir():
        return []
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(entries, key=lambda path: natural(path.name))


def _counts(path: Path) -> bool:
    """Whether a path found in a folder or by a glob is an image of its own."""
    reader = reader_of(path)
    is_folder_format = reader is READERS[".zarr"]
    return (
        reader is not None and path.is_dir() == is_folder_format and not THUMBNAIL.search(path.name)
    )


def _below(folder: Path, pattern: Pattern | None, has_own: bool) -> list[Path]:
    """Return the images in sub-folders, where the pattern or a preset says what those are."""
    if pattern is None or pattern.folders is not None:
        searched = not has_own or _is_plate(folder)
    else:
        searched = pattern.whole
    if not searched:
        return []
    found = []
    for where, folders, files in os.walk(folder):
        here = Path(where)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and reader_of(here / name) is not READERS[".zarr"]
        ]
        if here != folder:
            found += [here / name for name in files if not name.startswith(".")]
    found = [path for path in found if _counts(path)]
    found.sort(key=lambda path: [natural(part) for part in path.relative_to(folder).parts])
    return found if pattern is not None or fitting(found) is not None else []


def _is_plate(folder: Path) -> bool:
    """Whether sub-folders have names that a preset knows, as TimePoint_1."""
    known = re.compile("|".join(preset.folders for preset in PRESETS.values()))
    return any(known.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())


def some(names: Sequence[str]) -> str:
    """Return the first names of many."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
