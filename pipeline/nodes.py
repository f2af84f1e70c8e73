"""The metadata of a zarr hierarchy, made by zarr once and written for many images.

Zarr takes a millisecond or more for each node that it makes, every field of a plate has
some of them, and they are the same in all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from cellseg.pipeline.ngff import Version

__all__ = ["Files", "described", "write_hierarchy"]

Files = Mapping[str, bytes]
"""Files of metadata, by their path within a hierarchy."""
_ROOTS = ("zarr.json", ".zattrs")
"""Where the attributes of the first group lie, in zarr v3 and v2."""


def described(make: Callable[[zarr.Group], object], ngff: Version) -> Files:
    """Return the metadata of the group that `make` fills, given an empty one."""
    files: dict[str, Buffer] = {}
    make(zarr.create_group(MemoryStore(files), zarr_format=2 if ngff == "0.4" else 3))
    return {name: content.to_bytes() for name, content in files.items()}


def write_hierarchy(folder: Path, files: Files, own: Mapping[str, Any]) -> None:
    """Write a hierarchy, the attributes of its first group last.

    Parameters
    ----------
    folder : Path
    files : Files
        What `described` has returned.
    own : mapping
        Further attributes of the first group.
    """
    root = next(name for name in _ROOTS if name in files)
    for name, content in files.items():
        if name != root:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    document = json.loads(files[root])
    (document["attributes"] if root == "zarr.json" else document).update(own)
    (folder / root).write_text(json.dumps(document, indent=2), encoding="utf-8")
