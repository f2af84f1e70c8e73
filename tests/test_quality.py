"""Quality: what blurred, saturated and empty images are said to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.pipeline import Config, Result, read_workflow, run
from cellseg.pipeline.quality import (
    Quality,
    channel_quality,
    half_sample_mode,
    quality_warnings,
)
from exact import Exact
from synthetic import cells

ROOT = Path(__file__).parent.parent
PLATE = sorted((ROOT / "workflows" / "demo_plate").glob("*.tif"))
SHAPE = (520, 696)
random = np.random.default_rng


def of(image: NDArray[Any]) -> Quality:
    return channel_quality([image])


def power_slope(image: NDArray[np.float64]) -> float:
    """The slope as the paper and CellProfiler define it, for a square image."""
    spectrum = np.abs(np.fft.fft2(image - image.mean())) ** 2
    along = np.minimum(np.arange(len(image)), len(image) - np.arange(len(image)))
    ring = np.floor(np.hypot(along[:, None], along)).astype(int) + 1
    rings = np.arange(2, len(image) // 8)
    power = [spectrum[ring == number].sum() for number in rings]
    return float(np.polyfit(np.log(rings), np.log(power), 1)[0])


def test_focus_is_the_power_log_log_slope() -> None:
    image = tifffile.imread(PLATE[0])[:256, :256].astype(float)
    hann = np.hanning(257)[:-1]
    expected = power_slope((image - image.mean()) * hann[:, None] * hann)
    assert of(image).focus == pytest.approx(expected, abs=2e-3)


def test_noise_has_the_slope_of_its_rings() -> None:
    # A ring's length goes with its radius, and white noise has the same power anywhere.
    noise = random(0).normal(1000, 10, (1024, 1024))
    focus = of(noise).focus
    assert focus is not None
    assert 0.9 < focus < 1.2


@pytest.mark.parametrize("path", PLATE[::3], ids=lambda path: path.stem)
def test_real_fields_are_fine_and_their_blurred_and_saturated_copies_are_not(path: Path) -> None:
    image = tifffile.imread(path)
    found = of(image)
    assert found.flags == ()
    assert found.background is not None
    assert np.percentile(image, 1) < found.background < np.median(image) * 1.05
    blurred = np.rint(ndimage.gaussian_filter(image.astype(float), 5)).astype(np.uint16)
    noisy = random(1).poisson(blurred).astype(np.uint16)
    assert of(blurred).flags == of(noisy).flags == ("out of focus",)
    top = np.percentile(image, 99)
    clipped = np.clip(image * (4095 / top), 0, 4095).astype(np.uint16)
    assert of(clipped).flags == ("saturated",)
    assert of(clipped).saturated == pytest.approx(np.mean(clipped == 4095), abs=1e-6)


def vignetted(level: float) -> NDArray[np.uint16]:
    y, x = np.indices(SHAPE)
    light = np.exp(-((y - 260) ** 2 + (x - 348) ** 2) / 4e5)
    return random(2).poisson(level * light).astype(np.uint16)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(SHAPE, np.uint8),
        np.full((20, 30), 7, np.uint16),
        random(3).poisson(100, SHAPE).astype(np.uint16),
        random(4).poisson(0.2, SHAPE).astype(np.uint8),
        random(5).normal(0, 1, SHAPE).astype(np.float32),
        vignetted(200),
        vignetted(5000),
    ],
)
def test_nothing_but_noise_is_empty(image: NDArray[Any]) -> None:
    assert of(image).flags == ("empty",)


def test_hot_pixels_leave_an_image_empty_and_one_cell_does_not() -> None:
    image = random(6).poisson(100, SHAPE).astype(np.uint16)
    hot = image.copy()
    hot[random(7).integers(0, 520, 60), random(8).integers(0, 696, 60)] = 20000
    assert of(hot).flags == ("empty",)
    y, x = np.indices(SHAPE)
    image[(y - 200) ** 2 + (x - 300) ** 2 < 64] += 60
    assert of(image).flags == ()


def test_an_image_that_is_all_white_is_saturated_and_white_around_tissue_is_not() -> None:
    assert of(np.full(SHAPE, 255, np.uint8)).flags == ("saturated",)
    tissue = np.full(SHAPE, 255, np.uint8)
    tissue[100:300, 100:300] = 200 - tifffile.imread(PLATE[0])[100:300, 100:300] // 32
    assert tissue.min() < 180
    assert "saturated" not in of(tissue).flags
    assert of(tissue).saturated > 0.5


def test_small_and_odd_images_have_what_can_be_said() -> None:
    assert channel_quality([]) == Quality(None, 0.0, None, ("empty",))
    small = of(np.arange(35, dtype=np.uint8).reshape(5, 7))
    assert (small.background, small.focus, small.flags) == (0, None, ())
    holes = tifffile.imread(PLATE[0]).astype(np.float32)
    holes[:40] = np.nan
    assert of(holes).flags == ()
    assert of(np.full((40, 40), np.nan, np.float32)).flags == ("empty",)


def test_a_level_far_above_the_noise_costs_no_digits() -> None:
    noise = random(9).normal(0, 3, SHAPE)
    low, high = of(noise + 100), of(noise + 1e6)
    assert low.focus == high.focus
    assert high.flags == ("empty",)
    assert high.background == pytest.approx(1e6, abs=5)


def test_the_background_is_where_most_pixels_are_alike() -> None:
    values = np.concatenate([random(0).normal(10, 1, 4000), random(1).uniform(0, 500, 6000)])
    assert half_sample_mode(values) == pytest.approx(10, abs=1)
    assert half_sample_mode(np.array([3.0])) == 3
    assert half_sample_mode(np.zeros(100)) == 0


def test_warnings_name_each_flag_once() -> None:
    full, fine = Quality(1, 0.5, -2, ("saturated",)), Quality(1, 0, -2, ())
    assert quality_warnings({"a": fine}) == []
    (said,) = quality_warnings({"a": full, "b": fine, "c": full})
    assert said.startswith("channels a, c: saturated pixels")


def test_a_run_reports_every_channel_whatever_its_tiles(tmp_path: Path) -> None:
    image, labels = cells(0, shape=(300, 320), count=40)
    stack = np.stack([labels.astype(np.uint16), image, np.full_like(image, 9)])
    metadata = {"axes": "CYX"}
    tifffile.imwrite(tmp_path / "A01_1.tif", stack, imagej=True, metadata=metadata)
    text = 'images = "*.tif"\npattern = "{well}_{site}.tif"\n[normalise]\nmethod = "none"\n'
    (tmp_path / "w.toml").write_text(text)

    def go(name: str, *overrides: str) -> Result:
        workflow = read_workflow(tmp_path / "w.toml", overrides, output=tmp_path / name)
        return run(workflow, Config(device="cpu"), Exact())

    whole, tiled = go("whole"), go("tiled", "tiling.size=64", "tiling.halo=32")
    report = json.loads((tmp_path / "whole" / "run.json").read_text())["images"][0]
    assert report["quality"] == tiled.images[0].quality == whole.images[0].quality
    assert report["quality"]["1"] == of(image).document
    assert report["quality"]["2"]["flags"] == ["empty"]
    assert any("channel 2: nothing but background" in said for said in report["warnings"])
    assert report["shape"] == [1, 3, 1, 300, 320]
    assert report["channels"] == ["0", "1", "2"]
    assert (report["plate"], report["well"], report["site"]) == (tmp_path.name, "A01", "1")
    again = go("whole")
    assert again.images[0].quality == whole.images[0].quality
