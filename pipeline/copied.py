"""An image of an output plate by copy: its pixels in a pyramid of shards, made by many workers.

A unit is one region of one plane and channel, as labels are painted: four shards of the full
resolution and the one over them, so no two writers share a file. What is there before the
group's metadata is written is no image yet, and no plate lists it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from cellseg.pipeline.files import write_json
from cellseg.pipeline.ngff import group_node
from cellseg.pipeline.pyramid import SHARD, create_level, level_sides, moved, shards
from cellseg.pipeline.source import Shape
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.voxel import Voxel

__all__ = ["CopiedImage", "halve_mean"]

Pixels = NDArray[Any]
CLAIM = "copying.json"
"""While an image is being copied: which one."""


@dataclass(frozen=True)
class CopiedImage:
    """An image with its levels in a field of a plate.

    Parameters
    ----------
    path : Path
        The field's group.
    shape : (T, C, Z, Y, X)
        Axes of length 1 but y and x are left out.
    levels : int or None
        How many; by default as many as lead to 256 px.
    """

    path: Path
    shape: Shape
    levels: int | None = None

    @property
    def axes(self) -> str:
        """Names of the axes."""
        lead = zip("tcz", self.shape[:3], strict=True)
        return "".join(name for name, length in lead if length > 1) + "yx"

    @property
    def sides(self) -> list[tuple[int, int]]:
        """Height and width of each level."""
        return level_sides((self.shape[3], self.shape[4]), self.levels)

    def start(self, dtype: np.dtype[Any]) -> None:
        """Make all arrays, without pixels."""
        self.path.mkdir(parents=True, exist_ok=True)
        lead = tuple(length for length in self.shape[:3] if length > 1)
        group = zarr.create_group(self.path, zarr_format=3)
        for level, sides in enumerate(self.sides):
            create_level(group, str(level), (*lead, *sides), self.axes, dtype.name)
        (self.path / "zarr.json").unlink()

    def claim(self, key: str) -> None:
        """Note for which image the arrays were made: the next run may bring another one here."""
        write_json(self.path / CLAIM, {"key": key})

    def claimed(self, key: str) -> bool:
        """Whether the arrays were made for this image."""
        try:
            return bool(json.loads((self.path / CLAIM).read_text("utf-8"))["key"] == key)
        except (OSError, ValueError, KeyError):
            return False

    def copy(self, t: int, c: int, z: int, region: Box, read: Callable[[Box], Pixels]) -> None:
        """Write one region of a plane of a channel: its shards, and the one over them.

        `read` gives the pixels of a box inside it.
        """
        full = self._level(0)
        half = np.zeros([-(-side // 2) for side in region.shape], full.dtype)
        for box in shards(region):
            pixels = read(box)
            full[self._index(t, c, z, box)] = pixels
            y, x = (box.y0 - region.y0) // 2, (box.x0 - region.x0) // 2
            quarter = halve_mean(pixels)
            half[y : y + quarter.shape[0], x : x + quarter.shape[1]] = quarter
        if len(self.sides) > 1:
            above = moved(Box(0, 0, *half.shape), region.y0 // 2, region.x0 // 2)
            self._level(1)[self._index(t, c, z, above)] = half

    def finish(
        self, channels: tuple[str, ...], voxel_um: Voxel | None, name: str, key: str
    ) -> None:
        """Make the upper levels, then the metadata that makes it an image."""
        for level in range(2, len(self.sides)):
            for t, c, z in np.ndindex(self.shape[:3]):
                self._halve(level, t, c, z)
        ome = {
            "multiscales": [self._multiscale(voxel_um, name)],
            "omero": {"channels": [self._channel(c, label) for c, label in enumerate(channels)]},
        }
        write_json(self.path / "zarr.json", group_node(ome, cellseg={"images": "copy", "key": key}))
        (self.path / CLAIM).unlink(missing_ok=True)

    def _level(self, level: int) -> zarr.Array[Any]:
        return zarr.open_array(self.path / str(level), mode="r+", zarr_format=3)

    def _index(self, t: int, c: int, z: int, box: Box) -> tuple[int | slice, ...]:
        lead = zip((t, c, z), self.shape[:3], strict=True)
        return *(place for place, length in lead if length > 1), *box.slices

    def _halve(self, level: int, t: int, c: int, z: int) -> None:
        """Write a plane of a level, one finer shard at a time in memory."""
        finer, coarser = self._level(level - 1), self._level(level)
        for box in shards(Box(0, 0, *self.sides[level])):
            pixels = np.zeros(box.shape, coarser.dtype)
            parts = Grid(Box(0, 0, *box.shape), SHARD // 2, 0)
            for part in map(parts.core, range(len(parts))):
                here = moved(part, box.y0, box.x0)
                height, width = self.sides[level - 1]
                ends = min(2 * here.y1, height), min(2 * here.x1, width)
                wide = Box(2 * here.y0, 2 * here.x0, *ends)
                pixels[part.slices] = halve_mean(np.asarray(finer[self._index(t, c, z, wide)]))
            coarser[self._index(t, c, z, box)] = pixels

    def _multiscale(self, voxel_um: Voxel | None, name: str) -> dict[str, Any]:
        size = dict(zip("zyx", voxel_um or (1.0, 1.0, 1.0), strict=True))
        unit = {"unit": "micrometer"} if voxel_um else {}
        kinds: dict[str, dict[str, str]] = {"t": {"type": "time"}, "c": {"type": "channel"}}
        axes = [{"name": a, **kinds.get(a, {"type": "space", **unit})} for a in self.axes]
        datasets = []
        for level in range(len(self.sides)):
            step = 2**level
            scale = [size.get(a, 1.0) * (step if a in "yx" else 1) for a in self.axes]
            # The mean of two pixels lies between them.
            shift = [size[a] * (step - 1) / 2 if a in "yx" else 0.0 for a in self.axes]
            transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
            if level:
                transforms.append({"type": "translation", "translation": shift})
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
        return {"name": name, "axes": axes, "datasets": datasets}

    def _channel(self, c: int, label: str) -> dict[str, Any]:
        """Return what a viewer wants to know of a channel, its range from the last level."""
        last = self._level(len(self.sides) - 1)
        height, width = self.sides[-1]
        found = np.asarray(last[self._index(0, c, 0, Box(0, 0, height, width))])
        low, high = float(found.min()), float(found.max())
        window = {"start": low, "end": max(high, low + 1), "min": low, "max": max(high, low + 1)}
        return {"label": label, "color": "FFFFFF", "active": True, "window": window}


def halve_mean(pixels: Pixels) -> Pixels:
    """Return the mean of each 2 x 2 px, of what is there at an odd edge; in the type given."""
    height, width = pixels.shape
    odd = ((0, height % 2), (0, width % 2))
    even = np.pad(pixels, odd, mode="edge") if height % 2 or width % 2 else pixels
    # A type in which no sum is cut off.
    wide = even.astype(np.float64 if even.dtype.kind == "f" else np.int64)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    mean: Pixels = total / 4 if even.dtype.kind == "f" else (total + 2) // 4
    return mean.astype(pixels.dtype)
