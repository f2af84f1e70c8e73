"""A mask lies over its image at any scale, read where it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline.mask_image import open_mask
from cellseg.pipeline.tiles import Box


def written(folder: Path, mask: NDArray[np.generic]) -> Path:
    path = folder / "mask.tif"
    tifffile.imwrite(path, mask, compression="zlib", tile=(32, 32))
    return path


def blocks(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
@pytest.mark.parametrize("plane", [Box(0, 0, 96, 120), Box(0, 0, 97, 123)])
def test_a_pyramid_level_lies_over_its_image_pixel_by_pixel(
    tmp_path: Path, factor: int, plane: Box
) -> None:
    height, width = plane.shape
    for sides in ((-(-height // factor), -(-width // factor)), (height // factor, width // factor)):
        mask = blocks(sides)
        found = open_mask(written(tmp_path, mask), plane)
        large = mask.repeat(factor, 0).repeat(factor, 1)
        large = np.pad(large, ((0, factor), (0, factor)), "edge")[:height, :width]
        assert np.array_equal(found.numbers(plane), large)
        window = Box(5, 30, 61, 93)
        assert np.array_equal(found.numbers(window), large[window.slices])
        assert np.array_equal(found.numbers(window, 7), large[window.slices][::7, ::7])
        assert found.name(3) == "3"


def test_a_mask_of_another_scale_gives_each_pixel_the_value_its_middle_lies_in(
    tmp_path: Path,
) -> None:
    plane, mask = Box(0, 0, 100, 150), blocks((40, 60))
    found = open_mask(written(tmp_path, mask), plane).numbers(plane)
    y, x = np.indices(plane.shape)
    assert np.array_equal(found, mask[((y + 0.5) / 2.5).astype(int), ((x + 0.5) / 2.5).astype(int)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, -3], [2, 0]], np.int16), [[0, 3], [2, 0]]),
        (np.array([[0, 0.5], [np.nan, -2]], np.float32), [[0, 1], [0, 2]]),
    ],
)
def test_whatever_is_not_0_is_inside(
    tmp_path: Path, values: NDArray[np.generic], expected: list[list[int]]
) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, values)
    assert open_mask(path, Box(0, 0, 2, 2)).numbers(Box(0, 0, 2, 2)).tolist() == expected


def test_an_ome_zarr_is_read_too(tmp_path: Path) -> None:
    mask = blocks((50, 60))
    group = zarr.create_group(tmp_path / "m.zarr", zarr_format=2)
    group.create_array("0", data=mask, chunks=(16, 16))
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    axes = [{"name": name, "type": "space"} for name in "yx"]
    datasets: Any = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    found = open_mask(tmp_path / "m.zarr", Box(0, 0, 50, 60))
    assert np.array_equal(found.numbers(Box(10, 20, 30, 50)), mask[10:30, 20:50])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((50, 50), r"50 x 50 px, has other proportions than the image, 100 x 150 px"),
        ((200, 300), "larger than the image"),
        ((100, 150, 3), "3 channels"),
        ((1, 1, 4, 100, 150), "a mask has one plane"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(
    tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    path = tmp_path / "mask.tif"
    rgb = shape[-1] == 3
    tifffile.imwrite(path, np.ones(shape, np.uint8), photometric="rgb" if rgb else "minisblack")
    with pytest.raises(CellsegError, match=message):
        open_mask(path, Box(0, 0, 100, 150))


def test_a_mask_of_the_full_resolution_lies_over_a_level_of_it(tmp_path: Path) -> None:
    plane, mask = Box(0, 0, 25, 40), blocks((100, 120))
    found = open_mask(written(tmp_path, mask), plane, (4.0, 3.0))
    assert np.array_equal(found.numbers(plane), mask[2::4, 1::3])
    with pytest.raises(CellsegError, match="larger than the image"):
        open_mask(tmp_path / "mask.tif", plane)
