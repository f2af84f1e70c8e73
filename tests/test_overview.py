"""The overview shows the image and the outline of every cell, touching ones apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tifffile
from in_memory import ArraySource
from numpy.typing import NDArray

from cellseg.pipeline import Config, overview, read_workflow, run
from cellseg.pipeline.image import Image as LazyImage
from cellseg.pipeline.inputs import Inputs, Plane
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.overview import LARGEST, OUTLINE, TICK, TICK_PX, outlines, ticks
from cellseg.pipeline.pictures import read_picture
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.tiles import Box, Grid
from exact import Exact


def test_outlines_keep_touching_cells_apart_and_stay_on_cells() -> None:
    labels = np.zeros((8, 12), np.uint32)
    labels[1:7, 1:6], labels[1:7, 6:11] = 1, 2
    lines = outlines(labels)
    assert lines[3, 5]
    assert lines[3, 6]
    assert not lines[3, 3]
    assert not lines[labels == 0].any()


def test_a_large_image_is_shown_small_with_its_cells(tmp_path: Path) -> None:
    labels = np.zeros((300, LARGEST + 500), np.uint16)
    labels[100:160, 1000:1100] = 500
    tifffile.imwrite(tmp_path / "wide.tif", labels)
    (tmp_path / "w.toml").write_text('images = "wide.tif"\n[normalise]\nmethod = "none"\n')
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "out")
    result = run(workflow, Config(device="cpu"), Exact())
    picture = read_picture(result.image("wide").overview_path)
    assert picture.shape[0] >= 150  # a caption is under it
    assert picture.shape[1:] == (LARGEST // 2 + 250, 3)
    assert tuple(picture[65, 500]) == OUTLINE
    assert tuple(picture[65, 525]) == (255, 255, 255)
    assert not picture[10].any()


def scene_of(pixels: NDArray[Any], size: int = 10**6, chunk: int = 64) -> Scene:
    """Return as much of a scene as the overview looks at."""
    source = ArraySource(pixels[None, None, None])
    image = LazyImage.from_source(source, (1, 1, 1, chunk, chunk), ("0",), None)
    grid = Grid(Box(0, 0, *pixels.shape), size, 16)
    about = SimpleNamespace(
        image=image, shape=image.shape, grid=grid, inputs=Inputs((Plane("0", (0,)),))
    )
    about.region = None
    return cast(Scene, about)


class NoCells:
    """Labels without cells."""

    layers = 1

    def read(self, t: int, z: int, box: Box, level: int = 0, layer: int = 0) -> NDArray[np.uint32]:
        return np.zeros(box.shape, np.uint32)


def picture_of(scene: Scene) -> NDArray[np.uint8]:
    return overview.overview(scene, cast(LabelStore, NoCells()))


@pytest.fixture
def boxes_read(monkeypatch: pytest.MonkeyPatch) -> list[Box]:
    """Boxes that were read from any image."""
    read, boxes = LazyImage.read, []

    def noted(image: LazyImage, t: int, z: int, box: Box, channels: Any) -> NDArray[Any]:
        boxes.append(box)
        return read(image, t, z, box, channels)

    monkeypatch.setattr(LazyImage, "read", noted)
    return boxes


def grey_levels(shape: tuple[int, int]) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 4000, shape, np.uint16)


def test_a_picture_shows_every_pixel_of_a_small_image() -> None:
    pixels = grey_levels((300, 200))
    low, high = np.percentile(pixels, (1, 99.8))
    expected = np.clip((pixels - low) / (high - low), 0, 1) ** overview.GAMMA * 255
    picture = picture_of(scene_of(pixels)).astype(float)
    assert picture.shape == (300, 200, 3)
    assert np.abs(picture - np.floor(expected)[..., None]).max() <= 1  # float32 before rounding


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane of 1000 px is to the overview what one of a few gigapixels is."""
    for name, value in (("LARGEST", 128), ("WINDOW", 128), ("WINDOWS", 16)):
        monkeypatch.setattr(overview, name, value)


@pytest.mark.usefixtures("small_limits")
def test_up_to_a_limit_every_few_th_pixel_is_shown(boxes_read: list[Box]) -> None:
    pixels = grey_levels((512, 512))
    picture = picture_of(scene_of(pixels))
    alone = picture_of(scene_of(pixels[::4, ::4]))
    # The sample that decides contrast is another, so compare the order of the greys.
    assert picture.shape == alone.shape
    assert np.corrcoef(picture.ravel(), alone.ravel())[0, 1] > 0.999
    assert max(box.shape[0] for box in boxes_read[1:-1]) == 128


@pytest.mark.usefixtures("small_limits")
def test_of_a_very_large_plane_few_rows_are_read(boxes_read: list[Box]) -> None:
    y, x = np.ogrid[:1000, :900]
    pixels = (y + 2 * x).astype(np.uint16)
    picture = picture_of(scene_of(pixels))[:, :, 0]
    sampled, *rows = boxes_read
    assert sampled == Box(0, 0, 1000, 900)
    assert {box.shape for box in rows} == {(1, 900)}
    assert len({box.y0 // 64 for box in rows}) == len(rows) == 16
    assert picture.shape == (125, 113)
    # A ramp is a ramp, between what was read too; only the outermost halves of blocks are flat.
    low, high = np.percentile(pixels, (1, 99.8))
    expected = np.clip((pixels[::8, ::8] - low) / (high - low), 0, 1) ** overview.GAMMA * 255
    assert np.abs(picture - expected)[16:-16, 16:-16].max() < 4


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("shape", [(5, 6000), (6000, 5), (129, 3000), (3000, 129), (1, 9000)])
def test_planes_of_any_shape_have_a_picture(shape: tuple[int, int]) -> None:
    picture = picture_of(scene_of(grey_levels(shape), size=64))
    step = 1
    while max(shape) // step > 128:
        step *= 2
    assert picture.shape == (-(-shape[0] // step), -(-shape[1] // step), 3)


def test_ticks_mark_where_tiles_meet() -> None:
    picture = np.zeros((250, 400, 3), np.uint8)
    ticks(picture, Grid(Box(0, 0, 500, 800), 256, 16), 2)
    marked = (picture == TICK).all(axis=2)
    assert marked.any(axis=1).nonzero()[0].tolist() == [*range(TICK_PX), 128, *range(242, 250)]
    assert marked[20:-20].any(axis=1).nonzero()[0].tolist() == [128 - 20]
    assert marked[:, 10:-10].any(axis=0).nonzero()[0].tolist() == [118, 246, 374]
    assert marked[128].nonzero()[0].tolist() == [*range(8), *range(392, 400)]
    assert (picture.any(axis=2) == marked).all()


@pytest.mark.parametrize(("size", "step"), [(800, 1), (256, 128)])
def test_no_ticks_for_one_tile_or_where_they_would_be_a_line(size: int, step: int) -> None:
    picture = np.zeros((250, 400, 3), np.uint8)
    ticks(picture, Grid(Box(0, 0, 250 * step, 400 * step), size, 16), step)
    assert not picture.any()


def test_a_picture_has_its_ticks() -> None:
    picture = picture_of(scene_of(np.zeros((300, 300), np.uint8), size=128))
    assert tuple(picture[128, 0]) == tuple(picture[0, 256]) == TICK
    assert not picture[10:-10, 10:-10].any()
