"""A pyramid: one label image on disk, an OME-Zarr 0.5 image with levels, sharded.

It is painted region by region, each the work of one process: a region is four
shards of the full resolution and the one shard of the next level that lies over
them, so no two writers ever share a file. The levels above are made at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from cellseg.pipeline.ngff import Version, node_attributes, zarr_format
from cellseg.pipeline.nodes import Files, described, write_hierarchy
from cellseg.pipeline.paint import LabelImage, halve
from cellseg.pipeline.tiles import Box, Grid
from cellseg.pipeline.voxel import Voxel
from cellseg.pipeline.worker import side_by_side

CHUNK = 512
SHARD = 4096
"""Px on a side at most; a shard is one file."""
SMALLEST = 256
"""The pyramid ends where both sides are at most this many px."""

Shape = tuple[int, int, int, int]
"""(T, Z, Y, X)."""
Change = Callable[[LabelImage, Box], object]


@dataclass(frozen=True)
class Pyramid:
    """A label image with its levels.

    Parameters
    ----------
    path : Path
        Its folder.
    """

    path: Path

    def start(
        self,
        shape: Shape,
        voxel_um: Voxel | None,
        levels: int | None = None,
        ngff: Version = "0.5",
        **own: Any,
    ) -> None:
        """Make all arrays, without pixels; see `cellseg.pipeline.labels.LabelStore.start`.

        `own` are attributes beside those of OME-Zarr.
        """
        sides, name = (CHUNK, SHARD), self.path.name
        files = _described(tuple(shape), levels, sides, voxel_um=voxel_um, ngff=ngff, name=name)
        write_hierarchy(self.path, files, own)

    def rescale(self, voxel_um: Voxel | None) -> None:
        """Write another size of a voxel into the metadata; the pixels stay."""
        old = node_attributes(self.path)
        ngff: Version = "0.5" if "ome" in old else "0.4"
        (multiscale,) = old.get("ome", old)["multiscales"]
        axes = "".join(axis["name"] for axis in multiscale["axes"])
        ome = _metadata(axes, len(multiscale["datasets"]), voxel_um, multiscale["name"])
        new = old | _versioned(ome, ngff)
        if new != old:
            zarr.open_group(self.path, mode="r+").attrs.put(new)

    def read(self, t: int, z: int, box: Box, level: int) -> LabelImage:
        """Return the labels in a box of a plane, uint32 (h, w)."""
        files = (self.path / name for name in ("zarr.json", ".zattrs"))
        changed = next(file.stat().st_mtime_ns for file in files if file.is_file())
        array = _opened(self.path / str(level), changed)
        return np.asarray(array[_index(array.ndim, array.shape, t, z, box)], np.uint32)

    def note(self, **own: Any) -> None:
        """Write attributes beside those of OME-Zarr."""
        group = zarr.open_group(self.path, mode="r+")
        group.attrs.put({**group.attrs.asdict(), **own})

    @property
    def shape(self) -> Shape:
        """Its (T, Z, Y, X) at full resolution."""
        attributes = node_attributes(self.path)
        (multiscale,) = attributes.get("ome", attributes)["multiscales"]
        full = self._level(0)
        assert full is not None  # noqa: S101 - `start` has made it
        names = [axis["name"] for axis in multiscale["axes"]]
        lengths = dict(zip(names, full.shape, strict=True))
        return lengths.get("t", 1), lengths.get("z", 1), lengths["y"], lengths["x"]

    def change(self, t: int, z: int, boxes: Sequence[Box], change: Change) -> None:
        """Change parts of a plane, and what lies over them in the levels above.

        One shard is in memory at a time, and each is written at once.

        Parameters
        ----------
        t, z : int
        boxes : sequence of Box
            What may be other pixels afterwards.
        change : callable
            Given the labels of a box, uint32 (h, w), and that box; changes them in place.
        """
        level, finer = 0, None
        while (array := self._level(level)) is not None:
            rewrite = change if finer is None else _halved(finer, t, z)
            _change_level(array, t, z, boxes, rewrite)
            boxes = [_half(box) for box in boxes]
            level, finer = level + 1, array

    def copy_empty(self, path: Path) -> None:
        """Make a label image like this one elsewhere, without cells."""
        shutil.rmtree(path, ignore_errors=True)
        for file in sorted(self.path.rglob("*")):
            if file.name in ("zarr.json", ".zgroup", ".zattrs", ".zarray"):
                copy = path / file.relative_to(self.path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        group = zarr.open_group(path, mode="r+")
        attributes: dict[str, Any] = group.attrs.asdict()
        attributes.get("ome", attributes)["multiscales"][0]["name"] = path.name
        group.attrs.put(attributes)

    def paint(self, t: int, z: int, region: Box, labels: Callable[[Box], LabelImage]) -> None:
        """Write one region of a plane: its shards, and the one over them."""
        full, coarser = self._level(0), self._level(1)
        half = np.zeros([-(-side // 2) for side in region.shape], np.uint32)

        def shard(box: Box) -> None:
            painted = labels(box)
            _put(full, t, z, box, painted)
            y, x = (box.y0 - region.y0) // 2, (box.x0 - region.x0) // 2
            quarter = halve(painted)
            half[y : y + quarter.shape[0], x : x + quarter.shape[1]] = quarter

        side_by_side(shard, shards(region))
        if coarser is not None:
            above = moved(Box(0, 0, *half.shape), region.y0 // 2, region.x0 // 2)
            _put(coarser, t, z, above, half)

    def finish(self, times: int, depth: int) -> None:
        """Make the upper levels; `times` and `depth` are T and Z."""
        finer, level = self._level(1), 2
        while (coarser := self._level(level)) is not None:
            for plane in range(times * depth):
                _halve_level(finer, coarser, *divmod(plane, depth))
            finer, level = coarser, level + 1

    def _level(self, level: int) -> zarr.Array[Any] | None:
        """Return the array of a level, or None beyond the last."""
        path = self.path / str(level)
        found = zarr_format(path)
        if found is None:
            return None
        return zarr.open_array(path, mode="r+", zarr_format=3 if found == 3 else 2)


@lru_cache(maxsize=64)
def _described(
    shape: Shape,
    levels: int | None,
    _sides: tuple[int, int],
    voxel_um: Voxel | None,
    ngff: Version,
    name: str,
) -> Files:
    """Return the metadata of a label image without pixels, as all fields of a plate have it.

    `_sides` are those of chunks and shards, by which `create_level` makes them.
    """
    axes = "".join(a for a, length in zip("tz", shape[:2], strict=True) if length > 1) + "yx"
    all_sides = level_sides(shape[2:], levels)

    def make(group: zarr.Group) -> None:
        for level, sides in enumerate(all_sides):
            create_level(group, str(level), (*_lead(shape), *sides), axes, "uint32")
        group.attrs.put(_versioned(_metadata(axes, len(all_sides), voxel_um, name), ngff))

    return described(make, ngff)


def regions(plane: Box) -> Grid:
    """Return the regions in which a plane is painted: two shards on a side."""
    return Grid(plane, 2 * SHARD, 0)


def shards(region: Box) -> list[Box]:
    """Return the parts of a region that lie in one file each."""
    grid = Grid(Box(0, 0, *region.shape), SHARD, 0)
    return [moved(grid.core(position), region.y0, region.x0) for position in range(len(grid))]


@lru_cache(maxsize=16)
def _opened(path: Path, _changed: int) -> zarr.Array[Any]:
    return zarr.open_array(path, mode="r")


def moved(box: Box, y: int, x: int) -> Box:
    """Return a box further down and to the right."""
    return Box(box.y0 + y, box.x0 + x, box.y1 + y, box.x1 + x)


def level_sides(sides: tuple[int, int], count: int | None) -> list[tuple[int, int]]:
    """Return height and width of each level; of as many as lead to 256 px if `count` is None."""
    levels = [sides]
    while max(levels[-1]) > SMALLEST if count is None else len(levels) < count:
        height, width = levels[-1]
        levels.append((-(-height // 2), -(-width // 2)))
    return levels


def _lead(shape: Shape) -> tuple[int, ...]:
    return tuple(length for length in shape[:2] if length > 1)


def create_level(
    group: zarr.Group, name: str, shape: tuple[int, ...], axes: str, dtype: str
) -> zarr.Array[Any]:
    """Make the array of a level, in a group of zarr v2 without shards."""
    lead = (1,) * (len(shape) - 2)
    chunks = [_chunk(length) for length in shape[-2:]]
    if group.metadata.zarr_format == 2:
        return group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(*lead, *chunks),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0,
        )
    sides = [
        min(chunk * -(-length // chunk), SHARD)
        for chunk, length in zip(chunks, shape[-2:], strict=True)
    ]
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(*lead, *chunks),
        shards=(*lead, *sides),
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
        fill_value=0,
        dimension_names=list(axes),
    )


def _chunk(length: int) -> int:
    """Return the side of the chunks of an axis; where one shard holds all of it, none is empty."""
    return -(-length // -(-length // CHUNK)) if length <= SHARD else CHUNK


def _index(ndim: int, shape: tuple[int, ...], t: int, z: int, box: Box) -> tuple[int | slice, ...]:
    """Return the index of a box of plane t, z in an array without axes of length 1."""
    # With one leading axis the other of t and z is 0, so their sum is the place on it.
    lead = {2: (), 3: (t + z,), 4: (t, z)}[ndim]
    return *lead, slice(box.y0, min(box.y1, shape[-2])), slice(box.x0, min(box.x1, shape[-1]))


def _put(array: zarr.Array[Any] | None, t: int, z: int, box: Box, labels: LabelImage) -> None:
    """Write a whole shard; one without cells needs no file."""
    assert array is not None  # noqa: S101 - `start` has made it
    if labels.any():
        array[_index(array.ndim, array.shape, t, z, box)] = labels


def _halve_level(finer: zarr.Array[Any] | None, coarser: zarr.Array[Any], t: int, z: int) -> None:
    """Write a plane of a level, one finer shard at a time in memory."""
    assert finer is not None  # noqa: S101 - levels have no gaps
    for box in shards(Box(0, 0, *coarser.shape[-2:])):
        labels = np.zeros(box.shape, np.uint32)
        parts = Grid(Box(0, 0, *box.shape), SHARD // 2, 0)
        for part in map(parts.core, range(len(parts))):
            wide = moved(part, box.y0, box.x0)
            wide = Box(2 * wide.y0, 2 * wide.x0, 2 * wide.y1, 2 * wide.x1)
            found: NDArray[Any] = np.asarray(finer[_index(finer.ndim, finer.shape, t, z, wide)])
            labels[part.slices] = halve(found.astype(np.uint32, copy=False))
        _put(coarser, t, z, box, labels)


def _change_level(
    array: zarr.Array[Any], t: int, z: int, boxes: Sequence[Box], change: Change
) -> None:
    """Change parts of a plane of one level, file by file."""
    height, width = (array.shards or array.chunks)[-2:]
    plane = Box(0, 0, *array.shape[-2:])
    parts: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        for y in range(box.y0 // height, -(-box.y1 // height)):
            for x in range(box.x0 // width, -(-box.x1 // width)):
                parts.setdefault((y, x), []).append(box)
    for (y, x), inside in sorted(parts.items()):
        file = Box(y * height, x * width, (y + 1) * height, (x + 1) * width).intersect(plane)
        if file is None:
            continue
        # All of a file at once: each write of a part would read and write all of it.
        index = _index(array.ndim, array.shape, t, z, file)
        labels = np.array(array[index], np.uint32)
        before = labels.copy()
        for box in inside:
            if (part := box.intersect(file)) is not None:
                change(labels[part.within(file).slices], part)
        if not np.array_equal(labels, before):
            array[index] = labels


def _halved(finer: zarr.Array[Any], t: int, z: int) -> Change:
    """Return what takes the labels of a level from the one below."""

    def change(labels: LabelImage, box: Box) -> None:
        wide = Box(2 * box.y0, 2 * box.x0, 2 * box.y1, 2 * box.x1)
        found: NDArray[Any] = np.asarray(finer[_index(finer.ndim, finer.shape, t, z, wide)])
        labels[:] = halve(found.astype(np.uint32, copy=False))

    return change


def _half(box: Box) -> Box:
    """Return the pixels of the next level that lie on those of a box."""
    return Box(box.y0 // 2, box.x0 // 2, -(-box.y1 // 2), -(-box.x1 // 2))


def _versioned(ome: dict[str, Any], ngff: Version) -> dict[str, Any]:
    """Return the attributes of a group from its OME-Zarr 0.5 metadata."""
    if ngff == "0.5":
        return {"ome": ome}
    (multiscale,) = ome["multiscales"]
    return {"multiscales": [{"version": ngff, **multiscale}], "image-label": {"version": ngff}}


def _metadata(axes: str, levels: int, voxel_um: Voxel | None, name: str) -> dict[str, Any]:
    """Return the OME-Zarr 0.5 metadata of a label image with its levels."""
    size = dict(zip("zyx", voxel_um or (1.0, 1.0, 1.0), strict=True))
    unit = {"unit": "micrometer"} if voxel_um else {}
    space: dict[str, Any] = {a: {"name": a, "type": "space", **unit} for a in "zyx"}
    described = space | {"t": {"name": "t", "type": "time"}}

    def scale(level: int) -> list[float]:
        return [size.get(a, 1.0) * (2**level if a in "yx" else 1) for a in axes]

    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": scale(level)}],
        }
        for level in range(levels)
    ]
    multiscale = {"name": name, "axes": [described[a] for a in axes], "datasets": datasets}
    return {"version": "0.5", "multiscales": [multiscale], "image-label": {"version": "0.5"}}
