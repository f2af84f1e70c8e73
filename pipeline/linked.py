"""An image of an output plate by reference: its own metadata over the input's chunks.

Of a zarr v3 array the whole folder is a link. A zarr v2 array gets metadata of v3, and its
chunks are linked: as ``c``, where v3 expects them, for both versions name them alike from there
on. Source: https://zarr-specs.readthedocs.io/en/latest/v3/chunk-key-encodings.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.models.errors import CellsegError
from cellseg.pipeline.files import write_json
from cellseg.pipeline.ngff import attributes, group_node, read_json
from cellseg.pipeline.source import naming

__all__ = ["check_linkable", "clear_image", "link_pixels"]

KEPT = ("labels", "tables")
SHUFFLES = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}


def check_linkable(source: Path) -> None:
    """Refuse an image whose chunks zarr v3 could not decode where they are.

    Raises
    ------
    CellsegError
        If a zarr v2 array has filters, or another compressor than zarr v3 knows.
    """
    for level in _levels(source)["datasets"]:
        if not (source / level["path"] / "zarr.json").is_file():
            _as_v3(source / level["path"], ())


def link_pixels(source: Path, field: Path, key: str) -> None:
    """Make a field of an OME-Zarr 0.5 plate whose pixels are those of an input image.

    Parameters
    ----------
    source : Path
        An OME-Zarr image, 0.4 or 0.5.
    field : Path
        The group to write; its labels and tables stay.
    key : str
        Kept in its attributes; see `image_key`.
    """
    clear_image(field)
    multiscale = _levels(source)
    axes = [str(axis["name"]) for axis in multiscale["axes"]]
    for level in multiscale["datasets"]:
        _link_level(source / level["path"], field / level["path"], axes)
    ome: dict[str, Any] = {"multiscales": [multiscale]}
    if "omero" in (found := attributes(source)):
        ome["omero"] = {name: value for name, value in found["omero"].items() if name != "version"}
    own = {"images": "link", "source": str(source), "key": key}
    write_json(field / "zarr.json", group_node(ome, cellseg=own))


def clear_image(field: Path) -> None:
    """Remove the image of a field, linked or copied, first what makes it one."""
    (field / "zarr.json").unlink(missing_ok=True)
    for entry in field.iterdir() if field.is_dir() else ():
        if entry.is_symlink() or entry.is_file():
            entry.unlink()
        elif entry.name not in KEPT:
            # Does not follow links: what they lead to is the input.
            shutil.rmtree(entry)


def _levels(source: Path) -> dict[str, Any]:
    """Return the first multiscale image of a group, as 0.5 has it."""
    with naming(source):
        multiscale = dict(attributes(source)["multiscales"][0])
        multiscale.pop("version", None)
        count = len(multiscale["axes"])
        plain = [{"type": "scale", "scale": [1.0] * count}]
        multiscale["datasets"] = [
            {"coordinateTransformations": plain} | level for level in multiscale["datasets"]
        ]
        return multiscale


def _link_level(source: Path, place: Path, axes: Sequence[str]) -> None:
    if (source / "zarr.json").is_file():
        _link(source, place)
        return
    node, separator = _as_v3(source, axes)
    if separator == "/":
        _link(source, place / "c")
    else:
        for chunk in source.iterdir():
            if not chunk.name.startswith("."):
                _link(chunk, place / chunk.name)
    write_json(place / "zarr.json", node)


def _link(target: Path, place: Path) -> None:
    """Link to a file or folder: relative on one disk, so that both may move together."""
    place.parent.mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    near = target.stat().st_dev == place.parent.stat().st_dev
    place.symlink_to(os.path.relpath(target, place.parent.resolve()) if near else target)


def _as_v3(source: Path, axes: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the metadata of a zarr v2 array as v3, and the separator in its chunks' names."""
    with naming(source):
        node = read_json(source / ".zarray")
        dtype = np.dtype(str(node["dtype"]))
        separator = str(node.get("dimension_separator", "."))
        encoding = "default" if separator == "/" else "v2"
        fill = node.get("fill_value")
        fill = (False if dtype.kind == "b" else 0) if fill is None else fill
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": node["shape"],
            "data_type": dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": node["chunks"]}},
            "chunk_key_encoding": {"name": encoding, "configuration": {"separator": separator}},
            "fill_value": bool(fill) if dtype.kind == "b" else fill,
            "codecs": _codecs(source, node, dtype),
            "dimension_names": list(axes) or None,
            "attributes": {},
        }, separator


def _codecs(source: Path, node: Mapping[str, Any], dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    codecs: list[dict[str, Any]] = []
    if node.get("order") == "F":
        order = list(range(len(node["shape"])))[::-1]
        codecs.append({"name": "transpose", "configuration": {"order": order}})
    endian = {"configuration": {"endian": "big" if dtype.byteorder == ">" else "little"}}
    codecs.append({"name": "bytes", **(endian if dtype.itemsize > 1 else {})})
    if (compressor := node.get("compressor")) is not None:
        codecs.append(_compressor(source, compressor, dtype.itemsize))
    if node.get("filters"):
        raise _unlinkable(source, f"the filter {node['filters'][0].get('id')!r}")
    return codecs


def _compressor(source: Path, stated: Mapping[str, Any], itemsize: int) -> dict[str, Any]:
    if stated.get("id") == "blosc":
        shuffle = stated.get("shuffle", 1)
        shuffle = SHUFFLES[(2 if itemsize == 1 else 1) if shuffle == -1 else shuffle]
        names = ("cname", "clevel", "blocksize")
        own = {name: stated[name] for name in names if name in stated}
        own = {"cname": "lz4", "clevel": 5, "blocksize": 0} | own
        return {"name": "blosc", "configuration": {**own, "shuffle": shuffle, "typesize": itemsize}}
    if stated.get("id") == "zstd":
        own = {"level": stated.get("level", 0), "checksum": bool(stated.get("checksum", False))}
        return {"name": "zstd", "configuration": own}
    if stated.get("id") == "gzip":
        return {"name": "gzip", "configuration": {"level": stated.get("level", 5)}}
    raise _unlinkable(source, f"the compressor {stated.get('id')!r}")


def _unlinkable(source: Path, what: str) -> CellsegError:
    return CellsegError(
        f"{source}: has {what}, which zarr v3 does not read, so it cannot be linked into"
        ' plate.zarr. Set [output] images to "copy".'
    )
