"""OME-Zarr 0.4 and 0.5: pixels, axes, names and sizes as written; anything else refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.image import fingerprint, open_image
from cellseg.pipeline.ome_zarr import label_layers
from cellseg.pipeline.tiles import Box

KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
VERSIONS = ("0.4", "0.5")

versions = pytest.mark.parametrize("version", VERSIONS)


def write(
    path: Path,
    data: NDArray[Any],
    axes: str,
    version: str,
    unit: str | None = "micrometer",
    names: tuple[str, ...] = (),
    scale: float = 0.5,
    whole_scale: float | None = None,
    **options: Any,
) -> None:
    """Write two levels with metadata, as ome-zarr-py and bioformats2raw do."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    levels = []
    options = {"chunks": tuple(min(size, 32) for size in data.shape)} | options
    if version == "0.5":
        options = {"dimension_names": list(axes)} | options
    else:
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} | options
    for level, step in enumerate((1, 2)):
        own = data[..., ::step, ::step]
        array = group.create_array(str(level), shape=own.shape, dtype=own.dtype, **options)
        array[:] = own
        factors = [scale * step if axis in "yx" else 2.0 if axis == "z" else 1.0 for axis in axes]
        levels.append(
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": factors}],
            }
        )
    described = [
        {"name": axis, "type": KINDS[axis]}
        | ({"unit": unit} if unit and KINDS[axis] == "space" else {})
        for axis in axes
    ]
    multiscale: dict[str, Any] = {"name": "image", "axes": described, "datasets": levels}
    if whole_scale is not None:
        factors = [whole_scale if KINDS[axis] == "space" else 1.0 for axis in axes]
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": factors}]
    metadata: dict[str, Any] = {"multiscales": [multiscale]}
    if names:
        window = {"start": 0, "end": 255, "min": 0, "max": 255}
        metadata["omero"] = {
            "channels": [{"label": name, "color": "FFFFFF", "window": window} for name in names]
        }
    if version == "0.4":
        multiscale["version"] = "0.4"
        group.attrs.update(metadata)
    else:
        group.attrs["ome"] = {"version": "0.5", **metadata}


def noise(*shape: int, dtype: str = "uint16") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 120, shape).astype(dtype)


CASES: dict[str, tuple[str, tuple[int, ...]]] = {
    "plane": ("yx", (50, 70)),
    "channels": ("cyx", (3, 50, 70)),
    "stack": ("zyx", (4, 50, 70)),
    "time": ("tyx", (4, 50, 70)),
    "all": ("tczyx", (2, 3, 4, 50, 70)),
    "channels last": ("yxc", (50, 70, 3)),
}


def as_tczyx(data: NDArray[Any], axes: str) -> NDArray[Any]:
    order = [axes.index(axis) for axis in "tczyx" if axis in axes]
    sizes = dict(zip(axes, data.shape, strict=True))
    return data.transpose(order).reshape([sizes.get(axis, 1) for axis in "tczyx"])


@versions
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_pixels_and_metadata_are_those_written(
    case: tuple[str, tuple[int, ...]], version: str, tmp_path: Path
) -> None:
    axes, shape = case
    path = tmp_path / "image.ome.zarr"
    data = noise(*shape)
    names = ("DAPI", "GFP", "Cy5") if "c" in axes else ()
    write(path, data, axes, version, names=names)
    image = pickle.loads(pickle.dumps(open_image(path)))  # noqa: S301
    expected = as_tczyx(data, axes)
    np.testing.assert_array_equal(image.pixels.compute(scheduler="synchronous"), expected)
    assert image.channels == (names or ("0",))
    assert image.voxel == (2.0 if "z" in axes else 1.0, 0.5, 0.5)
    box = Box(10, 20, 45, 70)
    read = image.read(len(expected) - 1, 0, box, range(expected.shape[1]))
    np.testing.assert_array_equal(read, expected[-1, :, 0, *box.slices])


@versions
def test_what_these_tests_write_is_valid(version: str, tmp_path: Path) -> None:
    write(tmp_path / "image.zarr", noise(2, 3, 50, 70), "czyx", version, names=("a", "b"))
    group = zarr.open_group(str(tmp_path / "image.zarr"), mode="r")
    model = ome_zarr_models.v04.Image if version == "0.4" else ome_zarr_models.v05.Image
    model.from_zarr(group)


@versions
@pytest.mark.parametrize(
    ("unit", "scale", "um"),
    [
        ("micrometer", 0.5, 0.5),
        ("nanometer", 500.0, 0.5),
        ("millimeter", 0.0005, 0.5),
        ("parsec", 1.0, None),
        (None, 1.0, None),
    ],
)
def test_pixel_size_is_in_um(
    unit: str | None, scale: float, um: float | None, version: str, tmp_path: Path
) -> None:
    write(tmp_path / "image.zarr", noise(50, 70), "yx", version, unit=unit, scale=scale)
    voxel = open_image(tmp_path / "image.zarr").voxel
    assert voxel == (None if um is None else pytest.approx((1.0, um, um)))


@versions
def test_the_scales_of_level_and_image_multiply(version: str, tmp_path: Path) -> None:
    write(tmp_path / "image.zarr", noise(3, 50, 70), "zyx", version, scale=0.5, whole_scale=0.1)
    assert open_image(tmp_path / "image.zarr").voxel == pytest.approx((0.2, 0.05, 0.05))


def test_big_endian_pixels_are_read_in_native_order(tmp_path: Path) -> None:
    data = noise(50, 70, dtype=">u2")
    write(tmp_path / "image.zarr", data, "yx", "0.4")
    pixels = open_image(tmp_path / "image.zarr").pixels.compute(scheduler="synchronous")
    assert pixels.dtype == np.uint16
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels[0, 0, 0], data)


def test_small_chunks_are_merged_and_large_ones_kept(tmp_path: Path) -> None:
    data = noise(2, 2, 1500, 1500, dtype="uint8")
    write(tmp_path / "small.zarr", data, "czyx", "0.5", chunks=(1, 1, 300, 300))
    assert open_image(tmp_path / "small.zarr").pixels.chunksize == (1, 1, 1, 900, 900)
    write(tmp_path / "large.zarr", data, "czyx", "0.4", chunks=(2, 2, 1400, 1500))
    assert open_image(tmp_path / "large.zarr").pixels.chunksize == (1, 2, 2, 1400, 1500)
    shards = (1, 2, 1536, 1536)
    write(tmp_path / "sharded.zarr", data, "czyx", "0.5", chunks=(1, 1, 256, 256), shards=shards)
    image = open_image(tmp_path / "sharded.zarr")
    assert image.pixels.chunksize == (1, 1, 1, 1024, 1024)
    box = Box(1000, 1000, 1100, 1500)
    np.testing.assert_array_equal(image.read(0, 1, box, [1])[0], data[1, 1][box.slices])


@versions
def test_a_box_touches_only_the_chunks_under_it(version: str, tmp_path: Path) -> None:
    path = tmp_path / "image.zarr"
    data = noise(100, 100)
    write(path, data, "yx", version)
    keep = {Path("1") / "1", Path("1") / "2"}
    chunks = path / "0" / "c" if version == "0.5" else path / "0"
    for file in chunks.glob("[0-9]*/[0-9]*"):
        if file.relative_to(chunks) not in keep:
            file.write_bytes(b"spoiled")
    image = open_image(path)
    box = Box(40, 50, 60, 90)
    np.testing.assert_array_equal(image.read(0, 0, box, [0])[0], data[box.slices])
    with pytest.raises(CellsegError, match=r"image\.zarr: cannot be read"):
        image.read(0, 0, Box(0, 0, 5, 5), [0])


def edit(path: Path, ngff: str, **changes: Any) -> None:
    """Replace keys of the OME metadata; None removes one."""
    group = zarr.open_group(str(path), mode="r+")
    attributes: dict[str, Any] = dict(group.attrs)
    metadata = attributes if ngff == "0.4" else attributes["ome"]
    metadata = {key: value for key, value in (metadata | changes).items() if value is not None}
    group.attrs.put(metadata if ngff == "0.4" else {"ome": metadata})


@versions
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"multiscales": None}, "not an OME-Zarr image: a zarr without"),
        ({"multiscales": []}, "not an OME-Zarr image: a zarr without"),
        ({"multiscales": [{}]}, "not an OME-Zarr image: a zarr without"),
        ({"multiscales": None, "plate": {"wells": []}}, "an OME-Zarr plate; give its fields"),
        ({"multiscales": None, "well": {"images": []}}, "a well of an OME-Zarr plate; give"),
        ({"multiscales": None, "bioformats2raw.layout": 3}, "a collection of OME-Zarr images"),
        ({"multiscales": [{"datasets": [{"path": "none"}]}]}, "cannot be read"),
        ({"multiscales": ["image"]}, "cannot be read"),
    ],
)
def test_other_groups_are_refused(
    changes: dict[str, Any], reason: str, version: str, tmp_path: Path
) -> None:
    write(tmp_path / "image.zarr", noise(20, 20), "yx", version)
    edit(tmp_path / "image.zarr", version, **changes)
    with pytest.raises(CellsegError, match=rf"image\.zarr: {reason}") as caught:
        open_image(tmp_path / "image.zarr")
    assert "\n" not in str(caught.value)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "image.zarr", noise(20, 20), "yx", "0.5")
    edit(tmp_path / "image.zarr", "0.5", version="0.6")
    with pytest.raises(CellsegError, match=r"version 0\.6; readable are 0\.4 and 0\.5"):
        open_image(tmp_path / "image.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_other_zarrs_are_refused(zarr_format: Any, tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "array.zarr"), data=noise(9, 9), zarr_format=zarr_format)
    zarr.create_group(str(tmp_path / "group.zarr"), zarr_format=zarr_format)
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / ".zattrs").write_text("{")
    (tmp_path / "file.zarr").write_text("")
    for name in ("array", "group", "empty", "broken", "file"):
        with pytest.raises(CellsegError, match=rf"{name}\.zarr: "):
            open_image(tmp_path / f"{name}.zarr")


def test_an_axis_without_a_meaning_is_refused_unless_it_is_flat(tmp_path: Path) -> None:
    path = tmp_path / "image.zarr"
    data = noise(1, 50, 70)
    write(path, data, "zyx", "0.4")
    metadata = json.loads((path / ".zattrs").read_text())
    metadata["multiscales"][0]["axes"][0] = {"name": "phase"}
    (path / ".zattrs").write_text(json.dumps(metadata))
    np.testing.assert_array_equal(open_image(path).read(0, 0, Box(0, 0, 50, 70), [0]), data)
    write(path, noise(2, 50, 70), "zyx", "0.4")
    (path / ".zattrs").write_text(json.dumps(metadata))
    with pytest.raises(CellsegError, match=r"image\.zarr: axes phase, y, x; readable are y and x"):
        open_image(path)


def test_pixel_types_are_those_of_every_reader(tmp_path: Path) -> None:
    write(tmp_path / "image.zarr", noise(20, 20, dtype="int64"), "yx", "0.5")
    with pytest.raises(CellsegError, match=r"image\.zarr: pixels are int64; readable are uint8"):
        open_image(tmp_path / "image.zarr")


@versions
def test_a_fingerprint_follows_the_pixels_alone(version: str, tmp_path: Path) -> None:
    path = tmp_path / "image.zarr"
    write(path, noise(100, 100), "yx", version)
    before = fingerprint(path)
    labels = zarr.open_group(str(path), mode="r+").create_group("labels")
    labels.create_array("cells", data=noise(9, 9))
    path = Path(shutil.move(path, tmp_path / "moved.zarr"))
    assert fingerprint(path) == before
    zarr.open_array(str(path / "0"), mode="r+")[40:50, 40:50] = 7
    assert fingerprint(path) != before
    after = fingerprint(path)
    edit(path, version, name="renamed")
    assert fingerprint(path) != after


def label_group(path: Path, names: list[str], version: str) -> None:
    """Write a group of label images whose only value is their number."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    listed = {"labels": names}
    group.attrs.update(listed if version == "0.4" else {"ome": {"version": "0.5", **listed}})
    for number, name in enumerate(names, 1):
        write(path / name, np.full((40, 50), number, np.uint32), "yx", version)


@versions
def test_of_a_group_of_labels_the_first_image_opens_and_each_has_its_path(
    tmp_path: Path, version: str
) -> None:
    path = tmp_path / "labels.zarr"
    label_group(path, ["cells", "another"], version)
    assert label_layers(path) == [path / "cells", path / "another"]
    whole = Box(0, 0, 40, 50)
    for opened, value in ((path, 1), (path / "cells", 1), (path / "another", 2)):
        assert set(open_image(opened).read(0, 0, whole, [0]).ravel().tolist()) == {value}
    before = fingerprint(path)
    shutil.rmtree(path / "cells")
    write(path / "cells", np.full((40, 50), 9, np.uint32), "yx", version)
    assert fingerprint(path) != before


@versions
def test_labels_beside_an_image_are_found_and_an_image_is_its_own(
    tmp_path: Path, version: str
) -> None:
    path = tmp_path / "image.zarr"
    write(path, noise(40, 50), "yx", version)
    assert label_layers(path) == [path]
    label_group(path / "labels", ["nuclei"], version)
    assert label_layers(path) == [path / "labels" / "nuclei"]
    assert open_image(path).pixels.dtype == np.uint16


@versions
def test_a_label_image_that_is_listed_and_missing_is_named(tmp_path: Path, version: str) -> None:
    path = tmp_path / "labels.zarr"
    label_group(path, ["cells", "cells_2"], version)
    shutil.rmtree(path / "cells_2")
    with pytest.raises(CellsegError, match=r"labels\.zarr: lists .* cells_2, which is not there"):
        label_layers(path)
