"""NGFF metadata: the JSON of OME-Zarr groups and arrays, read without opening a store.

A plate of thousands of fields is planned from it: to open each of its arrays would take
most of a minute.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellseg.pipeline.source import naming

Version = Literal["0.4", "0.5"]


@dataclass(frozen=True)
class Layout:
    """What the metadata of a zarr array says of it.

    Parameters
    ----------
    shape : tuple of int
    chunks : tuple of int
        What is decoded together; of a sharded array the chunks inside its shards.
    dtype : dtype
        As stored, byte order included where zarr v2 says it.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]


def zarr_format(path: Path) -> int | None:
    """Return 3 or 2, or None where a folder is no zarr group or array of its own."""
    if (path / "zarr.json").is_file():
        return 3
    v2 = any((path / name).is_file() for name in (".zgroup", ".zattrs", ".zarray"))
    return 2 if v2 else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict):
        raise TypeError(f"{path.name} is not a JSON object")
    return found


def attributes(path: Path) -> Mapping[str, Any]:
    """Return the OME metadata of a group: ``ome`` of a zarr.json (0.5), or a .zattrs (0.4).

    Raises
    ------
    CellsegError
        If it cannot be read. A folder without any has none.
    """
    with naming(path):
        found = node_attributes(path)
        return dict(found.get("ome", {})) if (path / "zarr.json").is_file() else found


def node_attributes(path: Path) -> dict[str, Any]:
    """Return all attributes of a group or array of zarr v3 or v2; none where there is no such.

    Raises
    ------
    OSError, ValueError, TypeError
        If they cannot be read.
    """
    if (path / "zarr.json").is_file():
        return dict(read_json(path / "zarr.json").get("attributes", {}))
    if (path / ".zattrs").is_file():
        return read_json(path / ".zattrs")
    return {}


def level_count(path: Path) -> int | None:
    """Return how many levels an image has; None where the path is no OME-Zarr image."""
    if zarr_format(path) is None:
        return None
    with naming(path):
        return len(attributes(path)["multiscales"][0]["datasets"])


def group_node(ome: Mapping[str, Any], **attributes: Any) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group with OME metadata of 0.5 and other attributes."""
    stated = {"ome": {"version": "0.5", **ome}} if ome else {}
    return {"zarr_format": 3, "node_type": "group", "attributes": {**stated, **attributes}}


def layout(path: Path) -> Layout | None:
    """Return what the metadata of an array says; None where only zarr itself can tell."""
    try:
        found = _v3(path) if (path / "zarr.json").is_file() else _v2(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    same = len(found.shape) == len(found.chunks)
    return found if same and prod(found.chunks) > 0 else None


def _v3(path: Path) -> Layout:
    node = read_json(path / "zarr.json")
    if node["node_type"] != "array" or node["chunk_grid"]["name"] != "regular":
        raise ValueError("not a regular array")
    chunks: Sequence[int] = node["chunk_grid"]["configuration"]["chunk_shape"]
    first = node["codecs"][0]
    if first["name"] == "sharding_indexed":
        chunks = first["configuration"]["chunk_shape"]
    return Layout(tuple(node["shape"]), tuple(chunks), np.dtype(node["data_type"]))


def _v2(path: Path) -> Layout:
    node = read_json(path / ".zarray")
    return Layout(tuple(node["shape"]), tuple(node["chunks"]), np.dtype(str(node["dtype"])))
