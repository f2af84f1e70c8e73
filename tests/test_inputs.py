"""Inputs: what each kind of plane is made of, whatever window it is made in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.color import rgb2gray, rgb2hed

from cellseg.models import CellsegError, Instances
from cellseg.models.channel_settings import COMBINATIONS, Combination, Grey, MaxOf, Stain, SumOf
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.inputs import NAMES, PLANES, Inputs
from cellseg.pipeline.measured import Measured
from cellseg.pipeline.plan import plan
from cellseg.pipeline.tiles import Box
from synthetic import cells

CPU = Config(device="cpu")
RGB = ("red", "green", "blue")
KINDS: tuple[Combination, ...] = (
    MaxOf(max=("red", 2)),
    SumOf(sum=(("blue", 0.3), ("red", -1.7))),
    *(Stain(stain=stain) for stain in ("hematoxylin", "eosin", "dab")),
    Grey(grey="luminance"),
    Grey(grey="darkness"),
)


def inputs(*entries: int | str | Combination, channels: Sequence[str] = RGB) -> Inputs:
    return Inputs.of(entries, channels, "image.tif")


def coloured(dtype: str = "uint8", side: int = 40) -> NDArray[Any]:
    random = np.random.default_rng(0)
    if dtype == "float32":
        return random.random((3, side, side)).astype(np.float32)
    return random.integers(0, np.iinfo(dtype).max, (3, side, side), dtype, endpoint=True)


def test_every_kind_has_its_settings_its_function_and_its_name() -> None:
    assert set(COMBINATIONS.values()) == set(PLANES) == set(NAMES) == {type(k) for k in KINDS}


def test_channels_alone_are_seen_as_they_are_in_the_order_wanted() -> None:
    wanted = inputs("blue", 0)
    assert wanted.channels == (2, 0)
    assert wanted.plain
    pixels = coloured()[[2, 0]]
    assert wanted.see(pixels) is pixels
    assert Measured.of(None, wanted, RGB, "image.tif").see(pixels) is pixels
    assert wanted.measured_names(RGB) == RGB


def test_a_maximum_keeps_the_type_of_the_file() -> None:
    wanted, pixels = inputs("blue", MaxOf(max=("red", "blue"))), coloured()
    assert wanted.channels == (0, 2)
    seen = wanted.see(pixels[[0, 2]])
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen, [pixels[2], np.maximum(pixels[0], pixels[2])])


def test_a_sum_is_weighted_and_one_order_of_its_channels_is_as_good_as_another() -> None:
    pixels = coloured("uint16")
    one = inputs(COMBINATIONS["sum"].model_validate({"sum": {"red": 0.3, "blue": 1.1, "1": -2.0}}))
    other = inputs(
        COMBINATIONS["sum"].model_validate({"sum": {"1": -2.0, "blue": 1.1, "red": 0.3}})
    )
    seen = one.see(pixels)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(
        seen[0], np.tensordot([0.3, -2.0, 1.1], pixels, 1), rtol=1e-5, atol=0.1
    )
    np.testing.assert_array_equal(seen, other.see(pixels))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("stain", "number"), [("hematoxylin", 0), ("eosin", 1), ("dab", 2)])
def test_stains_are_those_of_scikit_image(dtype: str, stain: Any, number: int) -> None:
    pixels = coloured(dtype)
    white = 1 if dtype == "float32" else np.iinfo(dtype).max
    least = np.array(white / 255).astype(dtype)
    expected = rgb2hed(np.moveaxis(np.maximum(pixels, least), 0, -1))[..., number]
    seen = inputs(Stain(stain=stain)).see(pixels)
    np.testing.assert_allclose(seen[0], expected, atol=1e-5)


def test_white_holds_no_stain_and_black_no_spike() -> None:
    levels = np.arange(256, dtype=np.uint8)
    (amount,) = inputs(Stain(stain="hematoxylin")).see(np.broadcast_to(levels, (3, 1, 256)))
    assert amount[0, 255] == 0
    assert amount[0, 0] == amount[0, 1] == amount.max()
    assert (np.diff(amount[0].astype(float)) <= 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_darkness_is_what_luminance_lacks_to_white(dtype: str) -> None:
    pixels = coloured(dtype)
    white = 1 if dtype == "float32" else np.iinfo(dtype).max
    light, dark = inputs(Grey(grey="luminance"), Grey(grey="darkness")).see(pixels)
    expected = rgb2gray(np.moveaxis(pixels / white, 0, -1))
    np.testing.assert_allclose(light / white, expected, atol=1e-5)
    np.testing.assert_allclose((light + dark) / white, 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    corner=st.tuples(st.integers(0, 38), st.integers(0, 38)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_no_digit_depends_on_the_window(
    kind: Combination, dtype: str, corner: tuple[int, int], shape: tuple[int, int]
) -> None:
    (y, x), (h, w) = corner, shape
    box = Box(y, x, min(y + h, 40), min(x + w, 40))
    wanted = inputs(kind, "green")
    pixels = coloured(dtype)[list(wanted.channels)]
    np.testing.assert_array_equal(
        wanted.see(pixels[:, *box.slices]), wanted.see(pixels)[:, *box.slices]
    )


def test_derived_planes_are_measured_once_and_under_names_of_their_own() -> None:
    wanted = inputs(Grey(grey="darkness"), MaxOf(max=(0, 1)), Grey(grey="darkness"))
    assert wanted.measured_names(RGB) == (*RGB, "darkness", "max_0_1")
    pixels = coloured()
    measured = Measured.of(None, wanted, RGB, "image.tif").see(pixels)
    np.testing.assert_array_equal(measured[:3], pixels)
    np.testing.assert_array_equal(measured[3:], wanted.see(pixels)[:2])
    taken = ("red", "green", "blue", "darkness")
    assert (
        inputs(Grey(grey="darkness"), channels=taken).measured_names(taken)[-1] == "input_darkness"
    )
    names = inputs(
        MaxOf(max=("a", "b_c")), MaxOf(max=("a_b", "c")), channels=("a", "b_c", "a_b", "c")
    )
    assert len(set(names.measured_names(("a", "b_c", "a_b", "c")))) == 6


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (MaxOf(max=("red", "gren")), r"image\.tif: no channel 'gren'; there are 3: 'green', "),
        (SumOf(sum=(("7", 1.0),)), r"no channel 7; there are 3: .*, or by index 0 to 2"),
        (MaxOf(max=("7",)), r"no channel '7'"),
    ],
)
def test_a_channel_that_is_not_there_is_named_with_the_nearest(
    entry: Combination, line: str
) -> None:
    with pytest.raises(CellsegError, match=line):
        inputs(entry)


def test_stains_need_colours_or_to_be_told_which_they_are() -> None:
    with pytest.raises(CellsegError, match=r"hematoxylin is made of .* there are 'a', .* of = \[0"):
        inputs(Stain(stain="hematoxylin"), channels=("a", "b", "c"))
    told = inputs(Stain(stain="dab", of=("c", 1, "a")), channels=("a", "b", "c"))
    pixels = coloured()
    np.testing.assert_array_equal(told.see(pixels), inputs(Stain(stain="dab")).see(pixels[::-1]))


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (
            "[{ maximum = [0] }]",
            r"must have one of the keys max, sum, stain, grey\. Did you mean max",
        ),
        ("[{ max = [0], sum = { a = 1 } }]", "must have one of the keys max, sum, stain, grey"),
        ("[{ max = [0], of = 1 }]", r"of is not a key here\. Known: max"),
        ('[{ stain = "haematoxylin" }]', "should be 'hematoxylin', 'eosin' or 'dab'"),
        ('[{ grey = "darkness", of = [0] }]', "of is not right"),
        ('[{ sum = { a = "b" } }]', "sum is not right .*valid number.*Weight of each channel"),
        ("[{ max = [] }]", "max is not right"),
        ("[true]", "each entry is an index, a name, or a table with max or sum or stain or grey"),
        ("[-1]", r"= \[-1\] is not a list in \[ \]"),
    ],
)
def test_an_entry_that_is_wrong_is_one_line(tmp_path: Path, written: str, line: str) -> None:
    (tmp_path / "w.toml").write_text(f'images = "x"\n[model]\nchannels = {written}\n')
    with pytest.raises(CellsegError, match=rf"w\.toml: \[model\] channels.*{line}") as caught:
        read_workflow(tmp_path / "w.toml")
    assert "\n" not in str(caught.value)


def test_a_resolved_workflow_reads_back_as_equal(tmp_path: Path) -> None:
    text = '[{ sum = { B = 0.5, A = 1 } }, 0, "x", { stain = "dab" }, { max = ["A", 1] }]'
    (tmp_path / "w.toml").write_text(f'images = "x"\n[model]\nchannels = {text}\n')
    workflow = read_workflow(tmp_path / "w.toml")
    (tmp_path / "r.toml").write_text(workflow.toml())
    again = read_workflow(tmp_path / "r.toml", output=workflow.output.path)
    assert again == workflow
    assert hash(again.model) == hash(workflow.model)


@dataclass
class Sees:
    """Finds each grey level, and keeps how many planes it was shown."""

    key: str = "sees"
    counts: set[int] = field(default_factory=set)

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        self.counts |= {len(plane) for plane in planes}
        return [Instances.from_labels(plane[0].astype(np.int32)) for plane in planes]


def test_a_run_sees_the_maximum_of_two_channels_and_measures_it_too(tmp_path: Path) -> None:
    _, labels = cells(0, shape=(200, 220), count=40)
    left = np.where(labels % 2 == 0, labels, 0).astype(np.uint16)
    right = (labels - left).astype(np.uint16)
    metadata = {"axes": "CYX", "Channel": {"Name": ["A", "B"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.stack([left, right]), metadata=metadata)
    text = 'images = "a.ome.tif"\n[normalise]\nmethod = "none"\n[model]\nname = "threshold"\n'
    (tmp_path / "w.toml").write_text(text + 'channels = [{ max = ["A", "B"] }, "A"]\n')
    found = []
    for size in (64, 1024):
        sizes = (f"tiling.size={size}", "tiling.halo=32")
        workflow = read_workflow(tmp_path / "w.toml", sizes, output=tmp_path / f"out{size}")
        model = Sees()
        result = run(workflow, CPU, model)
        assert model.counts == {2}
        rows = pq.read_table(result.cells_path)
        assert result.cells == len(np.unique(labels)) - 1
        expected = np.maximum(rows["mean_A"].to_numpy(), rows["mean_B"].to_numpy())
        np.testing.assert_array_equal(rows["mean_max_A_B"].to_numpy(), expected)
        assert result.image("a").overview_path.is_file()
        found.append(
            (rows.drop_columns(["seam"]), result.image("a").labels.read(0, 0, Box(0, 0, 200, 220)))
        )
    assert found[0][0].equals(found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_other_inputs_are_other_keys(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", coloured()[0])
    (tmp_path / "w.toml").write_text('images = "a.tif"\n')
    texts = ("[0]", '["0"]', "[{max=[0]}]", '[{sum={"0"=1}}]', '[{sum={"0"=2}}]')
    chosen = [(f"model.channels={text}",) for text in texts]
    plans = [plan(read_workflow(tmp_path / "w.toml", each), CPU) for each in chosen]
    assert len({planned.scenes[0].key for planned in plans}) == len(texts)
