"""OME-Zarr written for the tests as others write it: images, plates, collections."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

KINDS = {"t": "time", "c": "channel"}


def write_group(path: Path, metadata: dict[str, Any], version: str = "0.5") -> None:
    """Write a group's metadata: of a plate, a well, an image."""
    path.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(metadata))
        return
    ome = {"ome": {"version": version, **metadata}} if metadata else {}
    node = {"zarr_format": 3, "node_type": "group", "attributes": ome}
    (path / "zarr.json").write_text(json.dumps(node))


def write_image(
    path: Path,
    data: NDArray[Any],
    axes: str = "yx",
    version: str = "0.5",
    *,
    channels: Sequence[str] = (),
    scale: float | None = 0.5,
    unit: str | None = "micrometer",
    levels: int = 2,
    **options: Any,
) -> None:
    """Write an image with some levels; `options` go to zarr's ``create_array``."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    options = {"chunks": tuple(min(size, 32) for size in data.shape)} | options
    if version == "0.4":
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} | options
    else:
        options = {"dimension_names": list(axes)} | options
    datasets = []
    for level in range(levels):
        own = data[..., :: 2**level, :: 2**level]
        group.create_array(str(level), shape=own.shape, dtype=own.dtype, **options)[:] = own
        factors = [(scale or 1.0) * 2**level if axis in "yx" else 1.0 for axis in axes]
        transform = [{"type": "scale", "scale": factors}]
        datasets.append({"path": str(level), "coordinateTransformations": transform})
    described: list[dict[str, str]] = [{"name": a, "type": KINDS.get(a, "space")} for a in axes]
    for axis in described:
        if unit and axis["type"] == "space":
            axis["unit"] = unit
    multiscale: dict[str, Any] = {"axes": described, "datasets": datasets, "name": path.name}
    if version == "0.4":
        multiscale["version"] = "0.4"
    metadata: dict[str, Any] = {"multiscales": [multiscale]}
    if channels:
        window = {"start": 0, "end": 255, "min": 0, "max": 255}
        metadata["omero"] = {
            "channels": [{"label": name, "color": "FFFFFF", "window": window} for name in channels]
        }
    write_group(path, metadata, version)


def write_plate(
    path: Path,
    fields: Mapping[str, NDArray[Any]],
    version: str = "0.5",
    *,
    acquisitions: Mapping[str, int] | None = None,
    axes: str = "yx",
    **options: Any,
) -> None:
    """Write a plate of fields by their path in it, as ``B/03/0``; see `write_image`.

    `acquisitions` gives some fields by the same path an acquisition.
    """
    wells: dict[str, list[str]] = {}
    for group in fields:
        well, _, field = group.rpartition("/")
        wells.setdefault(well, []).append(field)
    rows = sorted({well.split("/")[0] for well in wells})
    columns = sorted({well.split("/")[1] for well in wells})
    versioned = {"version": version}
    plate: dict[str, Any] = {
        "name": path.stem,
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {
                "path": well,
                "rowIndex": rows.index(well.split("/")[0]),
                "columnIndex": columns.index(well.split("/")[1]),
            }
            for well in wells
        ],
        "field_count": max(map(len, wells.values())),
        **versioned,
    }
    if acquisitions:
        plate["acquisitions"] = [{"id": number} for number in sorted({*acquisitions.values()})]
    write_group(path, {"plate": plate}, version)
    for row in rows:
        write_group(path / row, {}, version)
    for well, names in wells.items():
        images = [
            {"path": name}
            | ({"acquisition": acquisitions[f"{well}/{name}"]} if acquisitions else {})
            for name in names
        ]
        write_group(path / well, {"well": {"images": images, **versioned}}, version)
    for group, data in fields.items():
        write_image(path / group, data, axes, version, **options)


def noise(*shape: int, dtype: str = "uint16", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)
