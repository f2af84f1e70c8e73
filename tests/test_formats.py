"""The matrix of formats: same pixels, axes, channel names and pixel sizes as written, lazily.

Each file is written as a program of that name writes it: by tifffile, or by zarr with the
metadata that ome-zarr-py, ngio and bioformats2raw give it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.image import open_image
from cellseg.pipeline.ome_zarr import label_layers
from cellseg.pipeline.plate import discover
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.voxel import Voxel
from plates import noise, write_group, write_image, write_plate

Pixels = NDArray[Any]
TRIO = ("DAPI", "GFP", "Cy5")
RGB = ("red", "green", "blue")


@dataclass(frozen=True)
class Case:
    """One file: who writes it, and what must be read.

    `axes` are those of the array written, whose sizes are `SIZES`.
    """

    write: Callable[[Path, Pixels, str], None]
    axes: str
    suffix: str = ".zarr"
    dtype: str = "uint16"
    channels: tuple[str, ...] = ("0",)
    voxel: Voxel | None = (1.0, 0.5, 0.5)

    def data(self) -> Pixels:
        shape = [SIZES[axis] for axis in self.axes]
        return noise(*shape, dtype=self.dtype)


SIZES = {"t": 2, "c": 3, "z": 4, "y": 70, "x": 90, "s": 3}


def tiff(**options: Any) -> Callable[[Path, Pixels, str], None]:
    def write(path: Path, data: Pixels, axes: str) -> None:
        metadata = {"axes": axes.upper(), **options.get("metadata", {})}
        tifffile.imwrite(path, data, **(options | {"metadata": metadata}))

    return write


def plain(**options: Any) -> Callable[[Path, Pixels, str], None]:
    def write(path: Path, data: Pixels, axes: str) -> None:
        tifffile.imwrite(path, data, metadata=None, **options)

    return write


def pyramid(path: Path, data: Pixels, axes: str) -> None:
    """An OME-TIFF with SubIFDs, as QuPath and bfconvert write slides."""
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": {"Name": list(TRIO)}}
    options: dict[str, Any] = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(data, subifds=2, metadata={"axes": axes.upper(), **size}, **options)
        for step in (2, 4):
            file.write(data[..., ::step, ::step], subfiletype=1, **options)


def ngff(version: str, **options: Any) -> Callable[[Path, Pixels, str], None]:
    def write(path: Path, data: Pixels, axes: str) -> None:
        write_image(path, data, axes, version, **options)

    return write


def like_ome_zarr_py(path: Path, data: Pixels, axes: str) -> None:
    """ome-zarr-py 0.18: labels beside the image, whose group states no version in 0.5."""
    write_image(path, data, axes, channels=TRIO)
    node = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"labels": ["nuclei"]}}}
    write_image(path / "labels" / "nuclei", np.ones((70, 90), np.uint8))
    (path / "labels" / "zarr.json").write_text(json.dumps(node))


def like_ngio(path: Path, data: Pixels, axes: str) -> None:
    """ngio 1.1: a table beside the image, wavelength and range of each channel."""
    write_image(path, data, axes, channels=TRIO)
    for group, attributes in ((".", {"tables": ["rois"]}), ("rois", {"backend": "parquet"})):
        folder = path / "tables" / group
        folder.mkdir(parents=True, exist_ok=True)
        node = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (folder / "zarr.json").write_text(json.dumps(node))


def field_of_a_plate(version: str, **options: Any) -> Callable[[Path, Pixels, str], None]:
    def write(path: Path, data: Pixels, axes: str) -> None:
        fields = {"B/03/0": data, "B/03/1": data + 1}
        write_plate(path, fields, version, axes=axes, channels=TRIO, **options)

    return write


def series_of_bioformats2raw(path: Path, data: Pixels, axes: str) -> None:
    write_group(path, {"bioformats2raw.layout": 3}, "0.4")
    write_image(path / "0", data, axes, "0.4", channels=TRIO, chunks=(1, 1, 1, 64, 64))


UM = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
NM = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 500}
NM |= {"PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 2000, "PhysicalSizeZUnit": "nm"}
NAMED = {**UM, "Channel": {"Name": list(TRIO)}}
IMAGEJ: dict[str, Any] = {"imagej": True, "resolution": (2, 2)}
CASES = {
    "plain TIFF": Case(plain(), "yx", ".tif", voxel=None),
    "plain TIFF, RGB": Case(plain(photometric="rgb"), "yxs", ".tif", "uint8", RGB, None),
    "TIFF, big-endian": Case(plain(byteorder=">"), "yx", ".tiff", voxel=None),
    "TIFF, float, deflate": Case(plain(compression="zlib"), "yx", ".tif", "float32", voxel=None),
    "ImageJ TIFF": Case(tiff(**IMAGEJ, metadata={"unit": "um"}), "yx", ".tif"),
    "ImageJ hyperstack": Case(
        tiff(**IMAGEJ, metadata={"unit": "um", "spacing": 1.5}), "tzcyx", ".tif",
        channels=("0", "1", "2"), voxel=(1.5, 0.5, 0.5),
    ),
    "OME-TIFF": Case(tiff(ome=True, metadata=NAMED), "cyx", ".ome.tif", channels=TRIO),
    "OME-TIFF in nm": Case(
        tiff(ome=True, metadata=NM), "zyx", ".ome.tif", voxel=(2.0, 0.5, 0.5)
    ),
    "OME-TIFF without a size": Case(tiff(ome=True), "tyx", ".ome.tif", voxel=None),
    "OME-TIFF pyramid": Case(pyramid, "cyx", ".ome.tif", "uint8", TRIO),
    "OME-Zarr 0.4": Case(ngff("0.4", channels=TRIO), "tczyx", channels=TRIO),
    "OME-Zarr 0.5": Case(ngff("0.5", channels=TRIO), "tczyx", channels=TRIO),
    "OME-Zarr 0.5, sharded": Case(
        ngff("0.5", chunks=(1, 32, 32), shards=(1, 64, 64)), "zyx"
    ),
    "OME-Zarr 0.4, chunks named 0.0": Case(
        ngff("0.4", chunk_key_encoding={"name": "v2", "separator": "."}), "yx"
    ),
    "OME-Zarr 0.4, big-endian": Case(ngff("0.4"), "yx", dtype=">u2"),
    "OME-Zarr 0.4, float": Case(ngff("0.4"), "yx", dtype="float64"),
    "OME-Zarr 0.5, bool": Case(ngff("0.5"), "yx", dtype="bool"),
    "OME-Zarr in nm": Case(ngff("0.5", scale=500.0, unit="nanometer"), "yx"),
    "OME-Zarr without units": Case(ngff("0.5", unit=None), "yx", voxel=None),
    "OME-Zarr without omero": Case(ngff("0.4"), "cyx", channels=("0", "1", "2")),
    "as ome-zarr-py": Case(like_ome_zarr_py, "cyx", channels=TRIO),
    "as ngio": Case(like_ngio, "cyx", channels=TRIO),
    "plate 0.4": Case(field_of_a_plate("0.4"), "czyx", channels=TRIO),
    "plate 0.5": Case(field_of_a_plate("0.5"), "czyx", channels=TRIO),
    "bioformats2raw": Case(series_of_bioformats2raw, "tczyx", channels=TRIO),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_an_image_is_what_was_written(case: Case, tmp_path: Path) -> None:
    data, path = case.data(), tmp_path / f"image{case.suffix}"
    case.write(path, data, case.axes)
    first = discover([path], None)[0]
    image = open_image(first.path)
    axes = case.axes.replace("s", "c")
    order = [axes.index(axis) for axis in "tczyx" if axis in axes]
    shape = [data.shape[axes.index(axis)] if axis in axes else 1 for axis in "tczyx"]
    expected = data.transpose(order).reshape(shape)
    found = image.pixels.compute(scheduler="synchronous")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, expected)
    assert image.channels == case.channels
    assert image.voxel == (None if case.voxel is None else pytest.approx(case.voxel))


SIDE = 1536
LAZY: dict[str, tuple[str, Callable[[Path, Pixels, str], None]]] = {
    "TIFF in strips": (".tif", plain(rowsperstrip=16)),
    "TIFF of one strip": (".tif", plain(rowsperstrip=SIDE)),
    "TIFF in tiles": (".tif", plain(tile=(128, 128))),
    "OME-TIFF in tiles": (".ome.tif", tiff(ome=True, tile=(128, 128))),
    "OME-Zarr 0.4": (".zarr", ngff("0.4", chunks=(128, 128))),
    "OME-Zarr 0.5": (".zarr", ngff("0.5", chunks=(128, 128))),
    "OME-Zarr sharded": (".zarr", ngff("0.5", chunks=(128, 128), shards=(SIDE, SIDE))),
}


@pytest.mark.parametrize("case", LAZY.values(), ids=LAZY.keys())
def test_a_tile_costs_its_own_bytes(
    case: tuple[str, Callable[[Path, Pixels, str], None]], tmp_path: Path
) -> None:
    suffix, write = case
    # Random bits: what is compressed stays as large as it is.
    data = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)
    path, box = tmp_path / f"image{suffix}", Box(600, 700, 700, 800)
    write(path, data, "yx")
    write_image(tmp_path / "other.zarr", noise(64, 64))
    open_image(tmp_path / "other.zarr").read(0, 0, Box(0, 0, 9, 9), [0])  # imports read files too
    before = _bytes_read()
    image = open_image(path)
    at_opening = _bytes_read()
    np.testing.assert_array_equal(image.read(0, 0, box, [0])[0], data[box.slices])
    after = _bytes_read()
    assert at_opening - before < 50_000
    # At most the 128 rows of the strips that the box touches; of chunks and tiles, four.
    assert after - at_opening < 128 * SIDE * 2 + 50_000 < data.nbytes / 10


def _bytes_read() -> int:
    """Return the bytes that this process has asked the system for, whichever library asked."""
    return int(psutil.Process().io_counters().read_chars)


def test_zarr_files_of_both_versions_are_of_both_formats(tmp_path: Path) -> None:
    """The matrix would prove little if the two cases were one."""
    for version, number in (("0.4", 2), ("0.5", 3)):
        write_image(tmp_path / f"{number}.zarr", noise(40, 50), version=version)
        array = zarr.open_array(str(tmp_path / f"{number}.zarr" / "0"), mode="r")
        assert array.metadata.zarr_format == number


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_ngio_wrote_is_read(tmp_path: Path, version: str) -> None:
    image = open_image(unpacked(tmp_path, f"ngio_{version}.zarr"))
    expected = counting(2, 3, 24, 30)[None]
    assert np.array_equal(np.asarray(image.pixels), expected)
    assert image.channels == ("DAPI", "GFP")
    assert image.voxel == pytest.approx((1.2, 0.3, 0.3))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_ome_zarr_py_wrote_is_read(tmp_path: Path, version: str) -> None:
    path = unpacked(tmp_path, f"ome_zarr_py_{version}.zarr")
    image, expected = open_image(path), counting(3, 2, 32, 40)[:, :, None]
    assert np.array_equal(np.asarray(image.pixels), expected)
    assert image.voxel is None
    (layer,) = label_layers(path)
    labels = np.asarray(open_image(layer).pixels)
    assert np.array_equal(labels[:, 0], expected[:, 0] > 2000)


@pytest.mark.parametrize("name", ["ngio_0.4", "ngio_0.5", "ome_zarr_py_0.4", "ome_zarr_py_0.5"])
def test_labels_are_added_to_what_others_wrote(tmp_path: Path, name: str) -> None:
    path = unpacked(tmp_path, f"{name}.zarr")
    (tmp_path / "w.toml").write_text(
        f'images = "{path.name}"\n[output]\nlabels = "inside"\n[model]\nname = "threshold"\n'
    )
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "results")
    theirs = path / "labels" / "cells"
    if "ngio" in name:
        assert not run(workflow, Config(device="cpu")).failed
        assert label_layers(path) == [theirs]
        assert open_image(theirs).pixels.shape[2:] == (3, 24, 30)
    else:
        with pytest.raises(CellsegError, match="labels that cellseg did not write are not"):
            run(workflow, Config(device="cpu"))
        labels = np.asarray(open_image(theirs).pixels)
        assert np.array_equal(labels[:, 0], counting(3, 2, 32, 40)[:, :1] > 2000)


def unpacked(folder: Path, name: str) -> Path:
    """Return a file that another program wrote; see tests/data."""
    shutil.unpack_archive(Path(__file__).parent / "data" / f"{name}.zip", folder / name)
    return folder / name


def counting(*shape: int) -> Pixels:
    return (np.arange(np.prod(shape)) % 4001).astype(np.uint16).reshape(shape)
