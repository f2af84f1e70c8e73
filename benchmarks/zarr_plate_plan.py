"""How long a plate of OME-Zarr takes to plan, and how much memory: 384 wells x 9 fields.

    python -m benchmarks.zarr_plate_plan --wells 384 --fields 9 --json plan.json

The plates are made of metadata as bioformats2raw writes it; the arrays of every field are
links to those of one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellseg.pipeline import Config, Workflow
from cellseg.pipeline.plan import plan
from cellseg.pipeline.settings import check

ROWS = "ABCDEFGHIJKLMNOP"
SIDE, LEVELS = 2160, 4


def write_field(path: Path, version: str) -> None:
    """Write one field; the others are copies of it."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    levels: list[dict[str, Any]] = []
    for level in range(LEVELS):
        side = -(-SIDE // 2**level)
        options: dict[str, Any] = {"chunks": (1, 1, 1, 1024, 1024)}
        if version == "0.4":
            options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
        shape = (1, 2, 1, side, side)
        array = group.create_array(str(level), shape=shape, dtype="uint16", **options)
        array[:, :, :, :64, :64] = np.ones((1, 2, 1, 64, 64), np.uint16)
        scale = [1.0, 1.0, 1.0, 0.325 * 2**level, 0.325 * 2**level]
        transform = [{"type": "scale", "scale": scale}]
        levels.append({"path": str(level), "coordinateTransformations": transform})
    kinds = {"t": "time", "c": "channel"}
    axes: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in "tczyx"]
    for axis in axes[2:]:
        axis["unit"] = "micrometer"
    window = {"start": 0, "end": 65535, "min": 0, "max": 65535}
    channels = [{"label": n, "color": "FFFFFF", "window": window} for n in ("DAPI", "GFP")]
    multiscale = {"name": "0", "axes": axes, "datasets": levels}
    metadata: dict[str, Any] = {"multiscales": [multiscale], "omero": {"channels": channels}}
    _write_metadata(path, metadata, version)


def _write_metadata(path: Path, metadata: dict[str, Any], version: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        for part in metadata.values():
            (part[0] if isinstance(part, list) else part)["version"] = "0.4"
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(metadata))
        return
    node = {"zarr_format": 3, "node_type": "group"}
    attributes = {"ome": {"version": "0.5", **metadata}}
    (path / "zarr.json").write_text(json.dumps({**node, "attributes": attributes}))


def write_plate(path: Path, wells: int, fields: int, version: str) -> None:
    """Write a plate of so many wells, row by row, with so many fields each."""
    write_field(path.parent / f"field_{version}", version)
    names = [(row, str(column)) for row in ROWS for column in range(1, 25)][:wells]
    listed = [
        {"path": f"{row}/{column}", "rowIndex": ROWS.index(row), "columnIndex": int(column) - 1}
        for row, column in names
    ]
    plate = {
        "name": path.stem,
        "rows": [{"name": row} for row in ROWS],
        "columns": [{"name": str(column)} for column in range(1, 25)],
        "wells": listed,
    }
    _write_metadata(path, {"plate": plate}, version)
    for row, column in names:
        images = [{"path": str(field)} for field in range(fields)]
        _write_metadata(path / row / column, {"well": {"images": images}}, version)
        for field in range(fields):
            _link_field(path.parent / f"field_{version}", path / row / column / str(field))


def _link_field(source: Path, path: Path) -> None:
    path.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            (path / entry.name).symlink_to(entry)
        else:
            shutil.copy(entry, path)


def measure(path: Path, folder: Path) -> dict[str, Any]:
    """Plan it twice, with a clock and with a scale."""
    raw = {
        "images": [str(path)],
        "output": {"path": str(folder / "results")},
        "model": {"name": "threshold", "channels": ["DAPI"]},
    }
    workflow = check(Workflow, raw, "benchmark")
    start, worked = time.perf_counter(), time.process_time()
    planned = plan(workflow, Config(device="cpu"))
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    tracemalloc.start()
    again = plan(workflow, Config(device="cpu"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(again.scenes) == len(planned.scenes)
    return {
        "plate": path.stem,
        "fields": len(planned.scenes),
        "unreadable": len(planned.unreadable),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "mb": round(peak / 1e6, 1),
    }


def main() -> None:
    """Print one table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wells", type=int, default=384)
    parser.add_argument("--fields", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, rows = Path(temporary), []
        for version in ("0.4", "0.5"):
            path = folder / f"plate_{version}.zarr"
            write_plate(path, arguments.wells, arguments.fields, version)
            rows.append(measure(path, folder))
    for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]:
        print("  ".join(str(value).rjust(12) for value in row.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
