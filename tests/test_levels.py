"""Levels: which there are, which one is read, and the same cells in it for any tiling."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_memory import ArraySource

from cellseg.models import CellsegError
from cellseg.models.scale import nearest_zoom
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.image import fingerprint, open_image
from cellseg.pipeline.keys import Keys
from cellseg.pipeline.levels import Level, coarser, factors, level_for
from cellseg.pipeline.plan import plan
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.source import Stored
from cellseg.pipeline.tiles import Box
from exact import Exact
from slides import reduced, write_pyramid
from synthetic import cells

CPU = Config(device="cpu")


@pytest.mark.parametrize(
    ("full", "shape", "found"),
    [
        ((1, 3, 1, 400, 600), (1, 3, 1, 100, 150), (4.0, 4.0)),
        # Rounded up, rounded down: whole factors all the same.
        ((1, 1, 1, 2967, 2220), (1, 1, 1, 742, 555), (4.0, 4.0)),
        ((1, 1, 1, 2967, 2223), (1, 1, 1, 741, 555), (4.0, 4.0)),
        ((1, 1, 1, 1000, 1000), (1, 1, 1, 400, 400), (2.5, 2.5)),
        ((1, 1, 1, 1000, 1000), (1, 1, 1, 1000, 1000), None),
        ((1, 1, 1, 1000, 1000), (1, 1, 1, 500, 1000), None),
        ((1, 1, 1, 1000, 1000), (1, 1, 1, 500, 250), None),
        ((1, 1, 5, 1000, 1000), (1, 1, 2, 500, 500), None),
        ((1, 3, 1, 1000, 1000), (1, 1, 1, 500, 500), None),
    ],
)
def test_a_level_is_the_whole_image_with_fewer_pixels(
    full: tuple[int, int, int, int, int],
    shape: tuple[int, int, int, int, int],
    found: tuple[float, float] | None,
) -> None:
    assert factors(full, shape) == found


def stored(*shape: int) -> Stored:
    return Stored(ArraySource(np.zeros(shape)), (1, 1, 1, 64, 64))


def levels(*reductions: float) -> tuple[Level, ...]:
    return tuple(Level(stored(1, 1, 1, 9, 9), (each, each)) for each in reductions)


@pytest.mark.parametrize(
    ("reductions", "magnification", "number"),
    [
        ((4, 16, 64), 1.0, 0),
        ((4, 16, 64), 0.3, 0),
        ((4, 16, 64), 0.25, 1),
        ((4, 16, 64), 0.26, 1),
        ((4, 16, 64), 0.07, 1),
        ((4, 16, 64), 0.06, 2),
        ((4, 16, 64), 0.001, 3),
        ((2, 4, 8), 0.6, 0),
        ((2, 4, 8), 0.5, 1),
        ((2, 4, 8), 0.25, 2),
        ((), 0.1, 0),
    ],
)
def test_the_level_is_at_or_just_above_what_the_model_sees(
    reductions: tuple[float, ...], magnification: float, number: int
) -> None:
    assert level_for(levels(*reductions), magnification) == number


@given(st.floats(0.005, 8), st.sets(st.sampled_from([1.5, 2, 3, 4, 8, 16, 32]), max_size=5))
def test_no_level_is_enlarged_and_none_is_coarser_than_it_could_be(
    magnification: float, reductions: set[float]
) -> None:
    known = levels(*sorted(reductions))
    number = level_for(known, magnification)
    seen = [nearest_zoom(magnification * level.reduction) for level in known]
    if number:
        assert seen[number - 1] <= 1
    if nearest_zoom(magnification) <= 0.5:
        assert all(zoom > 1 for zoom in seen[number:])
    else:
        assert number == 0


def test_what_is_no_coarser_copy_ends_the_pyramid() -> None:
    shapes = [(1, 1, 1, 50, 50), (1, 1, 1, 25, 25), (1, 1, 1, 25, 25), (1, 1, 1, 5, 5)]
    found = coarser((1, 1, 1, 100, 100), [stored(*shape) for shape in shapes])
    assert [level.factor for level in found] == [(2.0, 2.0), (4.0, 4.0)]


@pytest.mark.parametrize("name", ["slide.ome.tif", "slide.zarr"])
def test_levels_are_read_as_they_are_stored(tmp_path: Path, name: str) -> None:
    data = np.random.default_rng(0).integers(0, 999, (2, 301, 402)).astype(np.uint16)
    write_pyramid(tmp_path / name, data)
    image = pickle.loads(pickle.dumps(open_image(tmp_path / name)))  # noqa: S301
    assert [level.factor for level in image.levels] == [(2.0, 2.0), (4.0, 4.0)]
    for number, factor in ((0, 1), (1, 2), (2, 4)):
        level = image.at_level(number)
        assert level.voxel == (1.0, 0.5 * factor, 0.5 * factor)
        box = Box(10, 20, 70, 90)
        expected = reduced(data, factor)[[1, 0]][:, *box.slices]
        np.testing.assert_array_equal(level.read(0, 0, box, [1, 0]), expected)
    with pytest.raises(CellsegError, match=r"no level 3; there are 3: 0 \(301 x 402 px\), 1 \(151"):
        image.at_level(3)


def test_a_damaged_level_costs_the_full_resolution_nothing(tmp_path: Path) -> None:
    data = np.ones((200, 200), np.uint8)
    write_pyramid(tmp_path / "slide.zarr", data)
    (tmp_path / "slide.zarr" / "1" / "zarr.json").write_text("{")
    image = open_image(tmp_path / "slide.zarr")
    assert image.levels == ()
    assert image.read(0, 0, Box(0, 0, 9, 9), [0]).all()


def test_a_change_of_the_level_that_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "slide.zarr"
    write_pyramid(path, np.ones((200, 200), np.uint8))
    before = [fingerprint(path, level) for level in (0, 1)]
    chunk = next(each for each in (path / "1" / "c").rglob("*") if each.is_file())
    chunk.write_bytes(chunk.read_bytes() + b" ")
    after = [fingerprint(path, level) for level in (0, 1)]
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Cells whose grey levels are their labels, in a pyramid of 0.5, 1 and 2 um."""
    _, labels = cells(3, shape=(420, 500), count=90, radius=(8, 20))
    write_pyramid(tmp_path / "slide.ome.tif", labels.astype(np.uint16))
    (tmp_path / "slide.toml").write_text('images = "slide.ome.tif"\n')
    return tmp_path


def scene(slide: Path, *overrides: str) -> Scene:
    workflow = read_workflow(slide / "slide.toml", overrides, output=slide / "out")
    (found,) = plan(workflow, CPU).scenes
    return found


TRAINED_PX = 20.8


@pytest.mark.parametrize(
    ("overrides", "level", "zoom"),
    [
        ((), 0, 1.0),
        (("model.diameter_px=30",), 0, 0.75),
        (("model.diameter_px=45",), 1, 0.875),
        (("model.diameter_um=22.5",), 1, 0.875),
        (("model.diameter_px=84",), 2, 1.0),
        (("model.diameter_px=300",), 2, 0.25),
        (("model.diameter_px=300", "level=0"), 0, 0.125),
        (("model.diameter_px=300", "level=1"), 1, 0.125),
        (("level=2",), 2, 1.0),
        (("model.diameter_px=auto",), 0, 1.0),
        (("model.name=threshold",), 0, 1.0),
        # A pixel of 1 um makes 45 px of what is said in um.
        (("model.diameter_um=45", "pixel_size_um=1.0"), 1, 0.875),
    ],
)
def test_image_and_workflow_choose_the_level(
    slide: Path, overrides: tuple[str, ...], level: int, zoom: float
) -> None:
    found = scene(slide, *overrides)
    factor = 2**level
    assert (found.level, found.zoom) == (level, zoom)
    assert found.shape[3:] == (math.ceil(420 / factor), math.ceil(500 / factor))
    side = 1.0 if "pixel_size_um=1.0" in overrides else 0.5
    assert found.voxel_um == (1.0, side * factor, side * factor)
    small = scene(slide, *overrides, "tiling.size=64", "tiling.halo=32")
    assert (small.level, small.zoom) == (level, zoom)


def test_the_level_is_part_of_every_key(slide: Path) -> None:
    names = [("level=0",), ("level=1",), ("level=2",)]
    keys = [Keys.of(scene(slide, *each, "model.diameter_px=100")) for each in names]
    assert len({key.tiles for key in keys}) == len({key.cells for key in keys}) == 3
    assert Keys.of(scene(slide)) == Keys.of(scene(slide, "level=0"))


def test_a_level_that_is_not_there_fails_its_image(slide: Path) -> None:
    with pytest.raises(
        CellsegError, match=r'no level 7; there are 3: .* Set level to one .* "auto"'
    ):
        scene(slide, "level=7")


@pytest.mark.parametrize("level", [0, 1])
def test_the_cells_of_a_level_are_the_same_for_any_tiling(slide: Path, level: int) -> None:
    found = []
    for size in (64, 96, 1024):
        set_ = (f"level={level}", f"tiling.size={size}", "tiling.halo=24", "normalise.method=none")
        workflow = read_workflow(slide / "slide.toml", set_, output=slide / f"{level}-{size}")
        result = run(workflow, CPU, Exact())
        (report,) = result.images
        assert (report.level, report.pixel_um) == (level, (0.5 * 2**level, 0.5 * 2**level))
        image = result.image("slide")
        shape = open_image(slide / "slide.ome.tif").at_level(level).shape
        labels = image.labels.read(0, 0, Box(0, 0, *shape[3:]))
        table = pq.read_table(result.cells_path)
        found.append((labels, table.select(["y_um", "x_um", "area_um2", "mean_0"])))
    labels, table = found[0]
    shown = open_image(slide / "slide.ome.tif").at_level(level)
    whole = shown.read(0, 0, Box(0, 0, *labels.shape), [0])[0]
    assert np.array_equal(labels > 0, whole > 0)
    for others, rows in found[1:]:
        np.testing.assert_array_equal(others, labels)
        assert rows.equals(table)
    # Of cells of some size, the places in um are those of the full resolution.
    truth = open_image(slide / "slide.ome.tif").read(0, 0, Box(0, 0, 420, 500), [0])[0]
    for grey, y_um in zip(table["mean_0"].to_pylist(), table["y_um"].to_pylist(), strict=True):
        assert np.argwhere(truth == grey)[:, 0].mean() * 0.5 == pytest.approx(y_um, abs=1.0)
