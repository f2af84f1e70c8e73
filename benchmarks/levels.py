"""What it takes to read a slide for a model that sees it at a quarter, at each of its levels.

    python benchmarks/levels.py --side 4096 --json levels.json

The slide is made up: the SVS of a scanner, JPEG tiles of 256 px, with levels of a half and a
quarter. All its tiles are read and brought to the size that the model sees; no model looks.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cellseg.models.scale import magnify
from cellseg.pipeline.image import open_image
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.workflow import Tiling

SEEN = 0.25
"""Magnification at which the model sees the full resolution."""


def tissue(side: int) -> NDArray[np.uint8]:
    """Return a picture as soft as tissue under a lens, uint8 (side, side, 3)."""
    noise = np.random.default_rng(0).normal(size=(1024, 1024, 3)).astype(np.float32)
    soft = gaussian_filter(noise, (4, 4, 0), mode="wrap")
    block = np.clip(160 + 40 * soft / soft.std(), 0, 255).astype(np.uint8)
    return np.tile(block, (-(-side // 1024), -(-side // 1024), 1))[:side, :side]


def write_slide(path: Path, side: int) -> None:
    """Write the slide with its levels."""
    full = tissue(side)
    options: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as tif:
        said = "Aperio Image Library|MPP = 0.25"
        tif.write(full, description=said, metadata=None, **options)
        tif.write(full[::16, ::16], metadata=None, photometric="rgb")
        for factor in (2, 4):
            tif.write(full[::factor, ::factor], metadata=None, **options)


def read_bytes() -> int:
    """Return the bytes that this process has asked files for."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def measure(path: Path, level: int) -> dict[str, Any]:
    """Read all tiles of a level, as the model sees them."""
    image = open_image(path).at_level(level)
    zoom = SEEN * 2**level
    tiling = Tiling().at_zoom(zoom)
    height, width = image.pixels.shape[3:]
    grid = Grid(Box(0, 0, height, width), tiling.size, tiling.halo)
    before, start, cpu = read_bytes(), time.perf_counter(), time.process_time()
    for position in range(len(grid)):
        pixels = image.read(0, 0, grid.read(position), [0, 1, 2])
        magnify(pixels.astype(np.float32), zoom)
    return {
        "level": level,
        "zoom": zoom,
        "tiles": len(grid),
        "megapixels": round(height * width / 1e6, 1),
        "mb_read": round((read_bytes() - before) / 1e6, 1),
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }


def main() -> None:
    """Run the benchmark, print its table, write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "slide.svs"
        write_slide(path, arguments.side)
        measure(path, 1)  # what happens once is not timed
        rows = [measure(path, level) for level in (0, 1, 2)]
    print("  ".join(f"{key:>10}" for key in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>10}" for value in row.values()))
    if arguments.json:
        document = {"machine": platform.processor() or platform.machine(), "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
