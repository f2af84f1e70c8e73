"""TIFF: every kind of file gives the pixels that were written, and only those under a box."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline import tiff_layout
from cellseg.pipeline.image import Image, open_image
from cellseg.pipeline.tiles import Box

REAL = Path(__file__).parents[1] / "workflows" / "demo_plate"


def noise(*shape: int, dtype: str = "uint16", seed: int = 0) -> NDArray[Any]:
    values = np.random.default_rng(seed).integers(0, 120, shape)
    return values.astype(dtype)


@dataclass
class Case:
    """How a file is written, and what must be read from it."""

    axes: str
    shape: tuple[int, ...]
    dtype: str = "uint16"
    suffix: str = ".tif"
    options: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ("0",)
    voxel: tuple[float, float, float] | None = None

    def write(self, folder: Path) -> tuple[Path, NDArray[Any]]:
        data = noise(*self.shape, dtype=self.dtype)
        path = folder / f"image{self.suffix}"
        tifffile.imwrite(path, data, **{"photometric": "minisblack"} | self.options)
        return path, as_tczyx(data, self.axes)


def as_tczyx(data: NDArray[Any], axes: str) -> NDArray[Any]:
    """Reorder by axis letters; S counts as part of C."""
    order = [axis for axis in "TCSZYX" if axis in axes]
    data = data.transpose([axes.index(axis) for axis in order])
    sizes = dict(zip(order, data.shape, strict=True))
    channels = sizes.get("C", 1) * sizes.get("S", 1)
    return data.reshape(sizes.get("T", 1), channels, sizes.get("Z", 1), *data.shape[-2:])


def ome(axes: str, **more: Any) -> dict[str, Any]:
    return {"ome": True, "metadata": {"axes": axes, **more}}


def imagej(axes: str, unit: str | None = None, spacing: float | None = None) -> dict[str, Any]:
    metadata = {"axes": axes, "unit": unit, "spacing": spacing}
    return {
        "imagej": True,
        "metadata": {key: value for key, value in metadata.items() if value is not None},
    }


UM = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
RGB_NAMES = ("red", "green", "blue")

CASES = {
    "uint8": Case("YX", (40, 50), "uint8"),
    "int8": Case("YX", (40, 50), "int8"),
    "int16": Case("YX", (40, 50), "int16"),
    "float32": Case("YX", (40, 50), "float32"),
    "float64": Case("YX", (40, 50), "float64"),
    "bilevel": Case("YX", (40, 50), "bool", options={"metadata": None}),
    "big endian": Case("YX", (40, 50), options={"byteorder": ">"}),
    "BigTIFF": Case("YX", (40, 50), suffix=".btf", options={"bigtiff": True}),
    "suffix in capitals": Case("YX", (40, 50), suffix=".TIF"),
    "strips": Case("YX", (40, 50), options={"rowsperstrip": 7}),
    "strips, deflate": Case("YX", (40, 50), options={"rowsperstrip": 7, "compression": "zlib"}),
    "one strip, LZW": Case("YX", (40, 50), options={"rowsperstrip": 40, "compression": "lzw"}),
    "tiles": Case("YX", (90, 70), options={"tile": (32, 16)}),
    "tiles, zstd, predictor": Case(
        "YX", (90, 70), options={"tile": (32, 16), "compression": "zstd", "predictor": True}
    ),
    "pages of unknown axis": Case("ZYX", (5, 40, 50), options={"metadata": None}),
    "pages of unknown axis, deflate": Case(
        "ZYX", (5, 40, 50), options={"metadata": None, "compression": "zlib"}
    ),
    "tifffile's axes": Case(
        "CYX", (3, 40, 50), options={"metadata": {"axes": "CYX"}}, channels=("0", "1", "2")
    ),
    "tifffile's unknown axis": Case("ZYX", (5, 40, 50), options={"photometric": "minisblack"}),
    "RGB, interleaved": Case(
        "YXS", (40, 50, 3), "uint8", options={"photometric": "rgb"}, channels=RGB_NAMES
    ),
    "RGB, interleaved, tiles": Case(
        "YXS",
        (90, 70, 3),
        "uint8",
        options={"photometric": "rgb", "tile": (32, 16), "compression": "zlib"},
        channels=RGB_NAMES,
    ),
    "RGB, planar": Case(
        "SYX",
        (3, 40, 50),
        "uint8",
        options={"photometric": "rgb", "planarconfig": "separate"},
        channels=RGB_NAMES,
    ),
    "RGB, planar, tiles": Case(
        "SYX",
        (3, 90, 70),
        "uint8",
        options={"photometric": "rgb", "planarconfig": "separate", "tile": (32, 16)},
        channels=RGB_NAMES,
    ),
    "RGBA stack": Case(
        "ZYXS",
        (4, 40, 50, 4),
        "uint8",
        options={"photometric": "rgb", "metadata": {"axes": "ZYXS"}},
        channels=("red", "green", "blue", "alpha"),
    ),
    "OME, all axes": Case(
        "TZCYX",
        (2, 3, 4, 40, 50),
        suffix=".ome.tif",
        options=ome("TZCYX", Channel={"Name": ["DAPI", "GFP", "Cy5", "01"]}),
        channels=("DAPI", "GFP", "Cy5", "01"),
    ),
    "OME, other order, tiles": Case(
        "CTZYX",
        (2, 3, 4, 90, 70),
        suffix=".ome.tiff",
        options=ome("CTZYX") | {"tile": (32, 16), "compression": "zlib"},
        channels=("0", "1"),
    ),
    "OME, um": Case("YX", (40, 50), options=ome("YX", **UM), voxel=(1.0, 0.5, 0.25)),
    "OME, stack in nm": Case(
        "ZYX",
        (3, 40, 50),
        options=ome(
            "ZYX",
            **{f"PhysicalSize{axis}": 300.0 for axis in "ZYX"},
            **{f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"},
        ),
        voxel=(0.3, 0.3, 0.3),
    ),
    "OME, stack of unknown depth": Case("ZYX", (3, 40, 50), options=ome("ZYX", **UM)),
    "OME, unit without a scale": Case(
        "YX",
        (40, 50),
        options=ome(
            "YX",
            PhysicalSizeX=1.0,
            PhysicalSizeXUnit="pixel",
            PhysicalSizeY=1.0,
            PhysicalSizeYUnit="pixel",
        ),
    ),
    "OME, names alike": Case(
        "CYX",
        (3, 40, 50),
        options=ome("CYX", Channel={"Name": ["TRITC", "TRITC", "DAPI"]}),
        channels=("TRITC_0", "TRITC_1", "DAPI"),
    ),
    "OME, RGB": Case(
        "YXS",
        (40, 50, 3),
        "uint8",
        options=ome("YXS") | {"photometric": "rgb"},
        channels=RGB_NAMES,
    ),
    "ImageJ, all axes": Case(
        "TZCYX",
        (2, 3, 4, 40, 50),
        options=imagej("TZCYX"),
        channels=("0", "1", "2", "3"),
    ),
    "ImageJ, time": Case("TYX", (5, 40, 50), options=imagej("TYX")),
    "ImageJ, micron": Case(
        "ZYX",
        (3, 40, 50),
        options=imagej("ZYX", "micron", 2.0) | {"resolution": (4.0, 2.0)},
        voxel=(2.0, 0.5, 0.25),
    ),
    "ImageJ, µm": Case(
        "YX",
        (40, 50),
        options=imagej("YX", "\\u00B5m") | {"resolution": (4.0, 4.0)},
        voxel=(1, 0.25, 0.25),
    ),
    "ImageJ, um": Case(
        "YX",
        (40, 50),
        options=imagej("YX", "um") | {"resolution": (4.0, 4.0)},
        voxel=(1, 0.25, 0.25),
    ),
    "ImageJ, mm": Case(
        "YX",
        (40, 50),
        options=imagej("YX", "mm") | {"resolution": (4000.0, 4000.0)},
        voxel=(1, 0.25, 0.25),
    ),
    "ImageJ, pixel": Case(
        "YX", (40, 50), options=imagej("YX", "pixel") | {"resolution": (1.0, 1.0)}
    ),
    "ImageJ, no unit": Case("YX", (40, 50), options=imagej("YX") | {"resolution": (4.0, 4.0)}),
    "px per cm": Case(
        "YX",
        (40, 50),
        options={"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"},
        voxel=(1.0, 0.25, 0.5),
    ),
    "px per inch": Case(
        "YX",
        (40, 50),
        options={"resolution": (50_800, 50_800), "resolutionunit": "INCH"},
        voxel=(1.0, 0.5, 0.5),
    ),
    **{
        f"a printer's {dpi} dpi": Case(
            "YX", (40, 50), options={"resolution": (dpi, dpi), "resolutionunit": "INCH"}
        )
        for dpi in (1, 72, 96, 300, 1200)
    },
}

named = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@named
def test_pixels_and_metadata_are_those_written(case: Case, tmp_path: Path) -> None:
    path, expected = case.write(tmp_path)
    image = open_image(path)
    pixels = image.pixels.compute(scheduler="synchronous")
    assert pixels.dtype == (np.uint8 if case.dtype == "bool" else np.dtype(case.dtype))
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, expected)
    assert image.channels == case.channels
    assert image.source == str(path)
    if case.voxel is None:
        assert image.voxel is None
    else:
        assert image.voxel == pytest.approx(case.voxel)


@named
def test_any_box_of_a_pickled_image_is_that_part_of_the_plane(case: Case, tmp_path: Path) -> None:
    path, expected = case.write(tmp_path)
    image: Image = pickle.loads(pickle.dumps(open_image(path)))  # noqa: S301
    t, channels, z, height, width = expected.shape
    backwards = list(range(channels))[::-1]
    for box in (Box(0, 0, height, width), Box(13, 17, 14, 18), Box(31, 9, height - 1, 49)):
        read = image.read(t - 1, z - 1, box, backwards)
        np.testing.assert_array_equal(read, expected[-1, ::-1, -1, *box.slices])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_storage_any_box(data: st.DataObject, tmp_path: Path) -> None:
    draw = data.draw
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    colours = draw(st.booleans())
    planar = colours and draw(st.booleans())
    options: dict[str, Any] = {
        "compression": draw(st.sampled_from([None, "zlib", "lzw"])),
        "byteorder": draw(st.sampled_from("<>")),
        "photometric": "rgb" if colours else "minisblack",
        "planarconfig": ("separate" if planar else "contig") if colours else None,
        "metadata": None,
    }
    if draw(st.booleans()):
        options["tile"] = (draw(st.sampled_from([16, 48])), draw(st.sampled_from([16, 32])))
    else:
        options["rowsperstrip"] = draw(st.integers(1, height))
    axes = {(True, True): "SYX", (True, False): "YXS", (False, False): "YX"}[colours, planar]
    sizes = {"S": 3, "Y": height, "X": width}
    pixels = noise(*(sizes[axis] for axis in axes))
    path = tmp_path / "any.tif"
    tifffile.imwrite(path, pixels, **options)
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    box = Box(y0, x0, draw(st.integers(y0 + 1, height)), draw(st.integers(x0 + 1, width)))
    channels = draw(st.lists(st.integers(0, 2 if colours else 0), min_size=1, max_size=4))
    read = open_image(path).read(0, 0, box, channels)
    np.testing.assert_array_equal(read, as_tczyx(pixels, axes)[0, channels, 0, *box.slices])


def pyramid(path: Path, compression: str | None = "zlib") -> NDArray[Any]:
    """Write a tiled pyramidal OME-TIFF of two channels and 1536 px, tiles of 256 px."""
    data = noise(2, 1536, 1536)
    options: dict[str, Any] = {"tile": (256, 256), "compression": compression}
    with tifffile.TiffWriter(path) as tif:
        tif.write(data, subifds=2, metadata={"axes": "CYX", **UM}, **options)
        for step in (2, 4):
            tif.write(data[:, ::step, ::step], subfiletype=1, **options)
    return data


def test_pyramid_is_read_at_full_resolution(tmp_path: Path) -> None:
    data = pyramid(tmp_path / "slide.ome.tif")
    image = open_image(tmp_path / "slide.ome.tif")
    assert image.pixels.shape == (1, 2, 1, 1536, 1536)
    assert image.pixels.chunksize == (1, 1, 1, 1024, 1024)
    assert image.voxel == (1.0, 0.5, 0.25)
    box = Box(250, 1000, 600, 1536)
    np.testing.assert_array_equal(image.read(0, 0, box, [1]), data[1:2, *box.slices])


def segments(path: Path) -> tuple[list[int], list[int]]:
    """Return offsets and byte counts of the segments of the first page."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        return list(page.dataoffsets), list(page.databytecounts)


def spoil(path: Path, keep: set[int]) -> None:
    """Overwrite all segments of the first page but those to keep."""
    with path.open("r+b") as file:
        for index, (offset, count) in enumerate(zip(*segments(path), strict=True)):
            if index not in keep:
                file.seek(offset)
                file.write(b"\xff" * count)


def test_a_box_touches_only_the_tiles_under_it(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    data = pyramid(path)
    # Columns of 6 tiles; the box lies on tiles (1, 2), (1, 3), (2, 2) and (2, 3).
    spoil(path, keep={8, 9, 14, 15})
    image = open_image(path)
    box = Box(300, 600, 700, 1000)
    np.testing.assert_array_equal(image.read(0, 0, box, [0]), data[:1, *box.slices])
    with pytest.raises(CellsegError, match=r"slide\.ome\.tif: cannot be read"):
        image.read(0, 0, Box(0, 0, 10, 10), [0])


def test_a_box_touches_only_the_strips_under_it(tmp_path: Path) -> None:
    path = tmp_path / "strips.tif"
    data = noise(100, 60)
    tifffile.imwrite(path, data, rowsperstrip=10, compression="zlib")
    spoil(path, keep={3, 4})
    box = Box(32, 5, 48, 9)
    np.testing.assert_array_equal(open_image(path).read(0, 0, box, [0])[0], data[box.slices])


def count_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the size of each piece read."""
    counts: list[int] = []
    read: Callable[..., bytes] = tiff_layout._read

    def counting(file: Any, path: Path, offset: int, count: int) -> bytes:
        counts.append(count)
        return read(file, path, offset, count)

    monkeypatch.setattr(tiff_layout, "_read", counting)
    return counts


def test_an_uncompressed_file_of_one_strip_is_read_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(3, 500, 700)
    tifffile.imwrite(tmp_path / "raw.tif", data, imagej=True, metadata={"axes": "TYX"})
    image = open_image(tmp_path / "raw.tif")
    counts = count_bytes(monkeypatch)
    box = Box(100, 200, 140, 230)
    np.testing.assert_array_equal(image.read(2, 0, box, [0]), data[2:, *box.slices])
    assert sum(counts) == 40 * 30 * 2


def test_one_large_compressed_strip_is_decoded_once_for_its_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.tile(noise(150, 150, dtype="uint8"), (10, 10))
    path = tmp_path / "strip.tif"
    tifffile.imwrite(path, data, rowsperstrip=1500, compression="zlib")
    monkeypatch.setattr(tiff_layout, "LARGE_PX", 1_000_000)
    counts = count_bytes(monkeypatch)
    image = open_image(path)
    assert image.pixels.chunksize[3:] == (1500, 1500)
    for x in (0, 400, 800):
        box = Box(x, x, x + 300, x + 300)
        np.testing.assert_array_equal(image.read(0, 0, box, [0])[0], data[box.slices])
    assert len(counts) == 1


def test_tiles_never_written_are_blank(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    tile = noise(32, 32)

    tifffile.imwrite(
        path, iter([tile, None, None, tile]), shape=(64, 64), dtype="uint16", tile=(32, 32)
    )
    plane = open_image(path).read(0, 0, Box(0, 0, 64, 64), [0])[0]
    np.testing.assert_array_equal(plane[:32, :32], tile)
    np.testing.assert_array_equal(plane[32:, 32:], tile)
    assert not plane[:32, 32:].any()


def test_a_page_never_written_is_blank(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, noise(32, 32), tile=(32, 32), metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        for tag in ("TileOffsets", "TileByteCounts"):
            tif.pages.first.tags[tag].overwrite(0)
    assert not open_image(path).read(0, 0, Box(0, 0, 32, 32), [0]).any()


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp"])
def test_colour_compression_is_undone_as_tifffile_does(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "stain.tif"
    smooth = np.add.outer(np.arange(200), np.arange(150))[..., None] // np.array([2, 3, 4])
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": compression}
    tifffile.imwrite(path, smooth.astype(np.uint8), **options)
    image = open_image(path)
    assert image.channels == RGB_NAMES
    box = Box(50, 60, 200, 150)
    expected = np.moveaxis(tifffile.imread(path), 2, 0)[:, *box.slices]
    np.testing.assert_array_equal(image.read(0, 0, box, [0, 1, 2]), expected)


def test_planes_spread_over_files_are_one_image(tmp_path: Path) -> None:
    data = noise(2, 40, 50)
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{i}" for i in range(2)]
    places = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="c{i}.ome.tif">{uuid}</UUID>'
        "</TiffData>"
        for i, uuid in enumerate(uuids)
    )
    for i, uuid in enumerate(uuids):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
            f' UUID="{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT"'
            ' Type="uint16" SizeX="50" SizeY="40" SizeZ="1" SizeC="2" SizeT="1">'
            f'<Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/>{places}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / f"c{i}.ome.tif", data[i], description=xml, metadata=None)
    image = open_image(tmp_path / "c0.ome.tif")
    np.testing.assert_array_equal(image.read(0, 0, Box(3, 4, 30, 40), [0, 1]), data[:, 3:30, 4:40])
    (tmp_path / "c1.ome.tif").unlink()
    (tmp_path / "c0.ome.tif").rename(tmp_path / "alone.ome.tif")
    with pytest.raises(CellsegError, match=r"alone\.ome\.tif: pages .* missing"):
        open_image(tmp_path / "alone.ome.tif")


def test_a_large_strip_is_read_again_when_the_file_is_another(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, noise(40, 50))
    image = open_image(path)
    image.read(0, 0, Box(0, 0, 9, 9), [0])
    tifffile.imwrite(path, noise(60, 50, seed=1))
    with pytest.raises(CellsegError, match=r"image\.tif: changed since it was opened"):
        image.read(0, 0, Box(0, 0, 9, 9), [0])
    assert open_image(path).pixels.shape == (1, 1, 1, 60, 50)


CUT = (
    "strips",
    "strips, deflate",
    "tiles",
    "pages of unknown axis",
    "pages of unknown axis, deflate",
    "tifffile's unknown axis",
    "RGB, planar",
    "OME, all axes",
    "OME, other order, tiles",
    "ImageJ, all axes",
    "ImageJ, micron",
)


@pytest.mark.parametrize("name", CUT)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_an_error_or_loses_nothing(
    name: str, fraction: float, tmp_path: Path
) -> None:
    path, expected = CASES[name].write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    try:
        pixels = open_image(path).pixels.compute(scheduler="synchronous")
    except CellsegError as error:
        refused = str(error)
    else:
        refused = ""
        np.testing.assert_array_equal(pixels, expected)
    assert not refused or (refused.startswith(f"{path}: ") and "\n" not in refused)


def test_pixels_cut_off_are_found_at_opening(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, noise(200, 200), tile=(32, 32), compression="zlib")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CellsegError, match=r"cut\.tif: truncated: page 1 of 1 ends at byte \d+"):
        open_image(path)


@pytest.mark.parametrize("dtype", ["uint64", "int64", "float16", "complex64"])
def test_other_pixel_types_are_refused(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, noise(20, 20, dtype=dtype))
    with pytest.raises(CellsegError, match=rf"image\.tif: .*({dtype}|not supported)"):
        open_image(path)


def test_axes_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, noise(2, 3, 20, 20), photometric="minisblack")
    with pytest.raises(CellsegError, match=r"image\.tif: axes \(Q: 2, Q: 3\) cannot be told apart"):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"II*\x00", b"<html>not found</html>", bytes(500)])
def test_what_is_no_tiff_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(content)
    with pytest.raises(CellsegError, match=r"image\.tif: "):
        open_image(path)


def test_of_several_series_the_first_is_read(tmp_path: Path) -> None:
    path = tmp_path / "series.ome.tif"
    first, second = noise(3, 40, 50), noise(20, 30)
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(first, metadata={"axes": "ZYX"})
        tif.write(second, metadata={"axes": "YX"})
    pixels = open_image(path).pixels.compute(scheduler="synchronous")
    np.testing.assert_array_equal(pixels[0, 0], first)


def test_the_demo_plate_opens() -> None:
    files = sorted(REAL.glob("*.tif"))
    assert len(files) == 12
    for file in files:
        image = open_image(file)
        assert image.pixels.shape == (1, 1, 1, 520, 696)
        assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(
        image.read(0, 0, Box(100, 200, 300, 400), [0])[0], tifffile.imread(file)[100:300, 200:400]
    )
