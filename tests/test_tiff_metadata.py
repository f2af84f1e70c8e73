"""What slides and other TIFFs say of themselves: which picture is the image, its pixel size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellseg.pipeline.image import open_image
from cellseg.pipeline.tiles import Box
from slides import stained, write_ndpi, write_scn, write_svs


def test_an_aperio_slide_is_its_baseline_with_its_levels(tmp_path: Path) -> None:
    data = stained()
    write_svs(tmp_path / "slide.svs", data)
    image = open_image(tmp_path / "slide.svs")
    assert image.pixels.shape == (1, 3, 1, 256, 384)
    assert image.channels == ("red", "green", "blue")
    assert image.voxel == (1.0, 0.25, 0.25)
    assert [level.factor for level in image.levels] == [(4.0, 4.0)]
    # JPEG keeps noise in colour to a few grey levels only.
    read = image.read(0, 0, Box(30, 40, 130, 140), [0, 1, 2]).astype(int)
    assert abs(read - np.moveaxis(data, 2, 0)[:, 30:130, 40:140]).mean() < 5


def test_an_aperio_slide_that_does_not_say_so_has_pixels_of_unknown_size(tmp_path: Path) -> None:
    write_svs(tmp_path / "slide.svs", stained(), mpp=None)
    assert open_image(tmp_path / "slide.svs").voxel is None


def test_a_hamamatsu_slide_is_its_baseline_with_its_levels(tmp_path: Path) -> None:
    data = stained(1)
    write_ndpi(tmp_path / "slide.ndpi", data)
    image = open_image(tmp_path / "slide.ndpi")
    assert image.pixels.shape == (1, 3, 1, 256, 384)
    assert image.voxel == pytest.approx((1.0, 0.5, 0.5))
    box = Box(60, 70, 64, 90)
    coarse = image.at_level(1)
    assert coarse.voxel == pytest.approx((1.0, 2.0, 2.0))
    np.testing.assert_array_equal(image.read(0, 0, box, [2])[0], data[60:64, 70:90, 2])
    np.testing.assert_array_equal(coarse.read(0, 0, box, [0])[0], data[240:256:4, 280:360:4, 0])


def test_of_a_leica_slide_the_largest_area_is_read_and_the_others_are_told(tmp_path: Path) -> None:
    macro, small, large = stained(0, 80, 40), stained(1, 100, 120), stained(2, 200, 160)
    write_scn(tmp_path / "one.scn", [large], macro)
    write_scn(tmp_path / "two.scn", [small, large], macro)
    for name in ("one", "two"):
        image = open_image(tmp_path / f"{name}.scn")
        assert image.pixels.shape == (1, 3, 1, 200, 160)
        assert image.voxel == pytest.approx((1.0, 0.5, 0.5))
        assert [level.factor for level in image.levels] == [(4.0, 4.0)]
        box = Box(10, 20, 30, 50)
        np.testing.assert_array_equal(image.read(0, 0, box, [1])[0], large[*box.slices, 1])
    assert not open_image(tmp_path / "one.scn").remarks
    (remark,) = image.remarks
    assert remark.startswith("holds 3 images, of which the largest (area 1) is read")


def imagej(unit: str, resolution: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        options: dict[str, Any] = {"imagej": True, "resolution": (resolution, resolution)}
        tifffile.imwrite(path, np.zeros((9, 9), np.uint8), metadata={"unit": unit}, **options)

    return write


def tags(unit: int, resolution: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        options: dict[str, Any] = {"resolution": (resolution, resolution), "resolutionunit": unit}
        tifffile.imwrite(path, np.zeros((9, 9), np.uint8), metadata=None, **options)

    return write


@pytest.mark.parametrize(
    ("write", "side_um"),
    [
        (imagej("um", 2), 0.5),
        (imagej("micron", 1), 1.0),
        (imagej("mm", 1000), 1.0),
        (imagej("inch", 25_400), 1.0),
        (imagej("inch", 72), None),
        (imagej("inch", 96), None),
        (imagej("inch", 1), None),
        (imagej("pixel", 1), None),
        (tags(2, 72), None),
        (tags(2, 300), None),
        (tags(3, 1), None),
        (tags(1, 1), None),
        (tags(3, 20_000), 0.5),
    ],
)
def test_the_defaults_of_programs_for_pictures_are_no_size(
    tmp_path: Path, write: Callable[[Path], None], side_um: float | None
) -> None:
    write(tmp_path / "image.tif")
    voxel = open_image(tmp_path / "image.tif").voxel
    assert voxel == (None if side_um is None else pytest.approx((1.0, side_um, side_um)))
