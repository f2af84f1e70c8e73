"""Background is skipped: only where nothing is, and without a trace in the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances, Segmenter
from cellseg.models.settings import ThresholdSettings
from cellseg.models.threshold import Threshold
from cellseg.pipeline import Config, Workflow, read_workflow, run
from cellseg.pipeline.background import Background, Floor, find_background, side_at, square_sums
from cellseg.pipeline.estimate import estimate
from cellseg.pipeline.plan import plan
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import Tiling
from exact import Exact
from synthetic import cells

CPU = Config(device="cpu")
DEMO = Path(__file__).parent.parent / "workflows" / "demo_plate"
KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass
class Counting:
    """Another segmenter, and how many planes it was asked about."""

    inner: Any
    asked: list[tuple[int, ...]] = field(default_factory=list)
    key = "counting"

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        self.asked += [plane.shape for plane in planes]
        return list(self.inner.segment(planes))

    def fit_image(self, sample: Sequence[NDArray[np.float32]]) -> Counting:
        fit = getattr(self.inner, "fit_image", None)
        return self if fit is None else Counting(fit(sample), self.asked)


class Ghosts:
    """Returns a square of 8 px in each corner of what it sees, whatever that is."""

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        square = np.ones((8, 8), bool)
        found = []
        for plane in planes:
            bottom, right = plane.shape[1] - 8, plane.shape[2] - 8
            corners = [(y, x) for y in (0, bottom) for x in (0, right)]
            found.append(Instances.stack([(corner, square, 0.5, 1) for corner in corners]))
        return found


def noise(seed: int, shape: tuple[int, ...], level: float = 200, sigma: float = 10) -> Any:
    """Return what a camera shows of nothing, as float64."""
    return np.random.default_rng(seed).normal(level, sigma, shape)


def as_pixels(values: Any, kind: str = "uint16") -> Any:
    """Return values as a camera of a type would, cut at its ends."""
    if np.dtype(kind).kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.rint(values), limits.min, limits.max).astype(kind)


def spots(shape: tuple[int, int], places: Sequence[tuple[int, int, float]], radius: int = 9) -> Any:
    """Return discs, each at (y, x) and of a height, as float64."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    drawn = np.zeros(shape)
    for cy, cx, height in places:
        drawn[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = height
    return drawn


def workflow(folder: Path, pixels: Any, *overrides: str) -> Workflow:
    """Write an image (H, W) or (C, H, W) and return a workflow for it."""
    folder.mkdir(exist_ok=True)
    axes = "YX" if pixels.ndim == 2 else "CYX"
    tifffile.imwrite(folder / "i.ome.tif", pixels, metadata={"axes": axes}, tile=(64, 64))
    (folder / "w.toml").write_text('images = "i.ome.tif"\n[output]\noverview = false\n')
    return read_workflow(folder / "w.toml", overrides, output=folder / "out")


def scene(folder: Path, pixels: Any, segmenter: Any = None, *overrides: str) -> Scene:
    """Return the scene of an image, ready for its tiles."""
    chosen: Segmenter = segmenter or Ghosts()
    return plan(workflow(folder, pixels, *overrides), CPU, chosen).scenes[0].prepare()


def skipped(of: Scene) -> list[bool]:
    """Return for each tile whether the model is not asked."""
    return [of.look(0, of.grid.read(i)) is None for i in range(len(of.grid))]


def result(flow: Workflow, segmenter: Any = None) -> tuple[NDArray[np.uint32], list[Any]]:
    """Return labels and rows of a run."""
    done = run(flow, CPU, segmenter)
    (report,) = done.images
    assert report.state == "done"
    labels = done.image(report.name).labels
    rows = pq.read_table(done.cells_path).drop_columns(["seam"]).to_pylist()
    height, width = tifffile.imread(report.source).shape[-2:]
    return labels.read(0, 0, Box(0, 0, height, width)), rows


SMALL_TILES = ("tiling.size=64", "tiling.halo=32", "normalise.method=none")


def test_most_of_a_nearly_empty_image_is_skipped_and_no_cell_lost(tmp_path: Path) -> None:
    heights = (400.0, 60.0, 25.0, 25.0, 18.0)  # the last ones in the noise of 10 by eye
    ys, xs = (40, 250, 258, 480, 490), (60, 190, 209, 290, 490)
    image = noise(0, (512, 512)) + spots((512, 512), list(zip(ys, xs, heights, strict=True)))
    # A level that is given, so that an image has no say in it, and low enough for all of them.
    model = Threshold(ThresholdSettings(threshold=0.5), level=212.0)
    runs = {}
    for name in ("true", "false"):
        counting = Counting(model)
        flow = workflow(
            tmp_path / name, as_pixels(image), *SMALL_TILES, f"tiling.skip_background={name}"
        )
        runs[name] = (*result(flow, counting), len(counting.asked))
    assert np.array_equal(runs["true"][0], runs["false"][0])
    assert runs["true"][1] == runs["false"][1]
    assert len(runs["true"][1]) == len(heights)
    assert runs["false"][2] >= 64  # larger windows are asked for too
    assert runs["true"][2] <= 24


def test_labels_are_the_same_for_any_tiling_with_and_without(tmp_path: Path) -> None:
    _, truth = cells(0, shape=(300, 340), count=8, radius=(3, 25))
    truth[120:260, 220:330][truth[120:260, 220:330] == 0] = truth.max() + 1  # larger than a tile
    image = truth.astype(np.uint16)
    assert 2 <= sum(skipped(scene(tmp_path / "tiles", image, Exact(), *SMALL_TILES))) <= 20
    wanted = None
    for size in (64, 128, 256):
        for skip in ("true", "false"):
            overrides = (f"tiling.size={size}", *SMALL_TILES[1:], f"tiling.skip_background={skip}")
            flow = workflow(tmp_path / f"{size}{skip}", image, *overrides)
            got = result(flow, Exact())
            wanted = wanted or got
            assert np.array_equal(got[0], wanted[0])
            assert got[1] == wanted[1]
    assert wanted is not None
    assert np.array_equal(wanted[0] > 0, truth > 0)


@pytest.mark.parametrize(("model", "tiles"), [("threshold", 30), ("mask_rcnn", 1)])
def test_the_demo_plate_is_as_it_was(tmp_path: Path, model: str, tiles: int) -> None:
    fields = [DEMO / f"IXMtest_{name}_w1.tif" for name in ("F08_s7", "B21_s4")]
    (tmp_path / "w.toml").write_text(f'images = "x"\n[model]\nname = "{model}"\n')
    flow = read_workflow(tmp_path / "w.toml", ["tiling.size=128"], fields, tmp_path / "out")
    count = 0
    for one in plan(flow, CPU).scenes:
        ready = one.prepare()
        assert ready.background is not None
        for window in map(ready.grid.read, range(tiles)):
            with_skip = ready.segment(0, window).to_arrays()
            without = replace(ready, background=None).segment(0, window).to_arrays()
            assert all(np.array_equal(with_skip[key], without[key]) for key in without)
            count += len(without["scores"])
    assert count > 0


def test_an_image_full_of_cells_skips_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    y, x = np.mgrid[:512, :512]
    wave = np.sin(y / 5) * np.sin(x / 5)  # cells 16 px apart, and no place between them
    image = random.poisson(400 + 300 * wave).astype(np.uint16)
    ready = scene(tmp_path, image, None, "tiling.size=64", "tiling.halo=8")
    assert ready.background is None
    assert not any(skipped(ready))


def test_cells_on_a_slope_of_light_are_all_looked_at() -> None:
    places = [(y, x, 20.0) for y in range(30, 512, 90) for x in range(30, 512, 90)]
    drawn = spots((512, 512), places, 7)
    light = np.linspace(0, 40, 512)[None]
    image = as_pixels(noise(2, (1, 512, 512)) + light + drawn)
    background = find_background([image])
    assert background is not None
    signal = background.signal(image, Box(0, 0, 512, 512))
    assert all(signal[y - 7 : y + 8, x - 7 : x + 8].any() for y, x, _ in places)
    # Light itself is more than noise: where it is not the commonest, all is looked at.
    bare = background.signal(as_pixels(noise(15, (1, 512, 512)) + light), Box(0, 0, 512, 512))
    assert 0.5 < bare.mean() < 0.99
    # A slope that shows within a patch leaves nothing that is flat.
    assert find_background([as_pixels(noise(2, (1, 512, 512)) + 4 * light)]) is None


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_brightfield_is_skipped_where_it_is_empty(tmp_path: Path, kind: str) -> None:
    dark = spots((512, 512), [(100, 100, -12.0), (400, 410, -90.0)])
    image = as_pixels(noise(3, (512, 512), 225, 3) + dark, kind)
    ready = scene(tmp_path, image, None, "tiling.size=64", "tiling.halo=16")
    empty = [not dark[ready.grid.read(i).slices].any() for i in range(len(ready.grid))]
    near = [not dark[ready.grid.read(i).grow(4, ready.grid.plane).slices].any() for i in range(64)]
    got = skipped(ready)
    assert all(e or not s for e, s in zip(empty, got, strict=True))
    assert all(s for n, s in zip(near, got, strict=True) if n)


def test_an_image_without_noise_is_background_only_where_nothing_was_recorded(
    tmp_path: Path,
) -> None:
    for kind in ("uint8", "float32"):
        black = np.zeros((128, 128), kind)
        assert all(skipped(scene(tmp_path / kind, black)))
        assert not any(skipped(scene(tmp_path / kind, black + np.asarray(7, kind))))
    white = np.full((128, 128), 255, np.uint8)
    assert all(skipped(scene(tmp_path / "white", white)))
    # Overexposed cells are no padding.
    white[:, :90] = 20
    assert find_background([white[None]]) is None


def test_where_nothing_was_recorded_the_least_grey_level_is_signal() -> None:
    image = np.zeros((1, 96, 96), np.uint16)
    image[0, 40, 50] = 1
    background = find_background([image])
    assert background == Background((Floor(0.0),))
    around = np.zeros((96, 96), bool)
    around[36:45, 46:55] = True
    assert np.array_equal(background.signal(image, Box(0, 0, 96, 96)), around)


def test_padding_beside_a_noisy_background_is_background_too() -> None:
    image = as_pixels(noise(4, (1, 256, 256)))
    image[:, :, :100] = 0
    background = find_background([image])
    assert background is not None
    (floor,) = background.floors
    assert floor.blank == 0
    assert floor.level == pytest.approx(200, abs=0.5)
    assert floor.noise == pytest.approx(10, rel=0.05)
    signal = background.signal(image, Box(0, 0, 256, 256))
    assert signal[:, 96:104].all()
    assert not signal[:, :96].any()
    assert not signal[:, 104:].any()


def test_one_channel_with_something_in_it_is_enough(tmp_path: Path) -> None:
    image = np.stack([noise(5, (256, 256)), noise(6, (256, 256), 300, 20)])
    image[1] += spots((256, 256), [(60, 60, 100.0)])
    chosen = "model.channels=[0, 1]", "tiling.size=128", "tiling.halo=16", "model.name=threshold"
    assert skipped(scene(tmp_path, as_pixels(image), None, *chosen)) == [False, True, True, True]


def test_a_channel_without_background_leaves_nothing_out() -> None:
    y, x = np.mgrid[:128, :128]
    full = 300 + 100 * np.sin(y / 4) * np.sin(x / 4)
    assert find_background([np.stack([noise(7, (128, 128)), full])]) is None
    assert find_background([noise(7, (1, 128, 128))]) is not None
    assert find_background([noise(7, (1, 31, 500))]) is None  # no patch to judge by


def test_an_object_on_nothing_is_left_out_where_the_model_is_asked_too(tmp_path: Path) -> None:
    image = as_pixels(noise(8, (128, 256)) + spots((128, 256), [(20, 20, 300.0)], 15))
    ready = scene(tmp_path, image, None, "tiling.size=128", "tiling.halo=16", "tiling.margin=4")
    seen = ready.look(0, Box(0, 0, 128, 144))
    assert seen is not None
    assert seen.boxes.tolist() == [[0, 0, 8, 8]]
    assert ready.look(0, Box(0, 112, 128, 256)) is None
    assert len(ready.segment(0, Box(0, 112, 128, 256))) == 0
    assert len(replace(ready, background=None).segment(0, Box(0, 112, 128, 256))) == 4


def test_a_hot_pixel_is_no_cell_and_three_are() -> None:
    background = Background((Floor(None, 200.0, 10.0),))
    image = as_pixels(noise(9, (1, 300, 300)))
    image[0, 150, 150] = 60_000
    assert not background.signal(image, Box(0, 0, 300, 300)).any()
    image[0, 150, 151:153] = 60_000
    assert background.signal(image, Box(0, 0, 300, 300)).any()


def test_noise_alone_is_not_signal() -> None:
    image = as_pixels(noise(10, (1, 1500, 1500)))
    background = find_background([image])
    assert background is not None
    assert not background.signal(image, Box(0, 0, 1500, 1500)).any()


def plane_of(kind: str, seed: int = 11) -> Any:
    """Return a small image (2, H, W) of a type with noise, padding and something in it."""
    level = {"uint8": 20, "int8": -20, "uint32": 2**32 - 500, "int32": -(2**31) + 500}
    centre = level.get(kind, 400)
    image = noise(seed, (2, 70, 90), centre, 6) + spots((70, 90), [(30, 40, 5.0)], 12)
    image[1, 40:, :30] = 0
    return as_pixels(image, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [3, 5, 9])
def test_signal_is_the_deviation_of_a_squares_mean(kind: str, side: int) -> None:
    image, reach = plane_of(kind), side // 2
    level, sigma = float(np.median(image[0])) + 0.3, 1.5
    signal = Background((Floor(0.0, level, sigma),), side).signal(image[1:], Box(0, 0, 70, 90))
    low, high = level - 3 * sigma * side, level + 3 * sigma * side
    if image.dtype.kind != "f":
        low, high = np.floor(low), np.ceil(high)
    squares = sliding_window_view(image[1].astype(np.float64), (side, side))
    means = squares.clip(low, high).mean((2, 3))
    wanted = (abs(means - level) > 6 * sigma / side) & (squares != 0).any((2, 3))
    assert np.array_equal(signal, np.pad(wanted, reach, mode="edge"))
    assert 0.001 < signal.mean() < 0.999


@given(kind=st.sampled_from(KINDS), data=st.data())
def test_signal_at_a_pixel_does_not_depend_on_the_window(kind: str, data: st.DataObject) -> None:
    image, plane = plane_of(kind), Box(0, 0, 70, 90)
    # Low, so that it is decided by the last digits of a mean at many pixels.
    level = float(np.median(image[0]))
    background = Background((Floor(None, level, 0.3), Floor(0.0, level, 0.1)))
    y0, x0 = data.draw(st.integers(0, 69)), data.draw(st.integers(0, 89))
    window = Box(y0, x0, data.draw(st.integers(y0 + 1, 70)), data.draw(st.integers(x0 + 1, 90)))
    around = window.grow(background.reach, plane)
    got = background.signal(image[:, *around.slices], window.within(around))
    assert np.array_equal(got, background.signal(image, plane)[window.slices])


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_no_digit_of_a_sum_depends_on_the_window(kind: str) -> None:
    plane = noise(16, (60, 80), 1000, 300).astype(kind)
    plane[10, 5], plane[40, 70] = 1e12, -1e-12  # what a running sum carries along
    whole = square_sums(plane, 9)
    for y, x in ((0, 0), (1, 0), (11, 6), (17, 33), (51, 71)):
        assert np.array_equal(square_sums(plane[y:, x:], 9), whole[y:, x:])
        alone = square_sums(plane[y : y + 9, x : x + 9], 9)
        assert alone == whole[y, x]


def test_small_cells_are_judged_by_a_smaller_square() -> None:
    assert [side_at(zoom) for zoom in (0.125, 1, 1.5, 2, 4, 8)] == [9, 9, 9, 5, 3, 3]


def test_the_workflow_can_turn_it_off(tmp_path: Path) -> None:
    empty = as_pixels(noise(12, (128, 128)))
    assert scene(tmp_path / "on", empty).background is not None
    off = scene(tmp_path / "off", empty, None, "tiling.skip_background=false")
    assert off.background is None
    assert len(off.segment(0, Box(0, 0, 128, 128))) == 4
    assert not Tiling(skip_background=False).at_zoom(2.5).skip_background


def test_a_broken_pixel_is_told_wherever_it_is(tmp_path: Path) -> None:
    image = noise(13, (128, 128)).astype(np.float32)
    ready = scene(tmp_path, image)
    broken = image.copy()
    broken[50, 60] = np.nan
    elsewhere = plan(workflow(tmp_path / "b", broken), CPU, Ghosts()).scenes[0]
    elsewhere = replace(elsewhere, background=ready.background, normalisation=ready.normalisation)
    with pytest.raises(CellsegError, match="1 NaN or infinite pixels in t=0, z=0, y=32:96"):
        elsewhere.look(0, Box(32, 32, 96, 96))
    assert elsewhere.look(0, Box(60, 64, 128, 128)) is None


def test_what_a_run_takes_is_judged_by_the_model_even_on_nothing(tmp_path: Path) -> None:
    counting = Counting(Ghosts())
    planned = plan(workflow(tmp_path, as_pixels(noise(14, (600, 600)))), CPU, counting)
    text = estimate(planned, CPU).text()
    assert [shape[1:] for shape in counting.asked] == [(64, 64), (512, 512)]
    assert "in 1 tiles" in text
