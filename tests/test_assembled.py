"""Assembled: files that are channels, planes and time points of one image, read lazily."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline import Config, read_workflow
from cellseg.pipeline.assembled import fingerprints, open_field
from cellseg.pipeline.fields import Part
from cellseg.pipeline.image import Image
from cellseg.pipeline.plan import plan
from cellseg.pipeline.plate import Field, discover
from cellseg.pipeline.tiles import Box

WHOLE = Box(0, 0, 20, 30)


def pixels(shape: tuple[int, ...] = (2, 3, 4, 20, 30), dtype: str = "uint16") -> NDArray[Any]:
    random = np.random.default_rng(0)
    return (random.random(shape) * 200).astype(dtype)


def written(folder: Path, whole: NDArray[Any], **how: Any) -> Field:
    """Write every plane of (T, C, Z, Y, X) to a file of its own."""
    names = [f"w{c + 1}" for c in range(whole.shape[1])]
    parts = []
    for t, c, z in np.ndindex(whole.shape[:3]):
        path = folder / f"p_A01_s1_{names[c]}_z{z}_t{t}.tif"
        tifffile.imwrite(path, whole[t, c, z], **how)
        parts.append(Part(path, t, c, z))
    return Field("p_A01_s1", parts[0].path, parts=tuple(parts), channels=tuple(names))


def all_of(image: Image) -> NDArray[Any]:
    return np.asarray(image.pixels.compute(scheduler="synchronous"))


def test_planes_in_files_are_one_image(tmp_path: Path) -> None:
    whole = pixels()
    field = written(tmp_path, whole)
    image = open_field(field)
    assert image.channels == ("w1", "w2", "w3")
    assert image.pixels.shape == whole.shape
    assert (all_of(image) == whole).all()
    assert (image.read(1, 2, Box(3, 5, 9, 8), [2, 0]) == whole[1, [2, 0], 2, 3:9, 5:8]).all()
    assert image.source == f"{field.path} (and 23 more files)"
    # It goes to workers.
    again: Image = pickle.loads(pickle.dumps(image))  # noqa: S301 - of our own
    assert (all_of(again) == whole).all()


def test_discovered_files_of_any_order_are_the_same_image(tmp_path: Path) -> None:
    whole = pixels()
    written(tmp_path, whole)
    (field,) = discover([tmp_path], None)
    assert (all_of(open_field(field)) == whole).all()


@pytest.mark.parametrize("inner", ["z", "t", "c"])
def test_files_may_hold_what_their_names_do_not_tell_apart(inner: str, tmp_path: Path) -> None:
    whole = pixels()
    axis = "tcz".index(inner)
    parts = []
    for place in np.ndindex(*(1 if at == axis else whole.shape[at] for at in range(3))):
        path = tmp_path / f"{place}.tif"
        chosen = tuple(slice(None) if at == axis else place[at] for at in range(3))
        axes = {"axes": f"{inner.upper()}YX"}
        tifffile.imwrite(path, whole[chosen], imagej=True, metadata=axes)
        parts.append(Part(path, *place))
    names = ("",) if inner == "c" else ("a", "b", "c")
    image = open_field(Field("x", parts[0].path, parts=tuple(parts), channels=names))
    assert (all_of(image) == whole).all()
    assert image.channels == (("0", "1", "2") if inner == "c" else ("a", "b", "c"))


def test_reading_touches_only_the_files_asked_for(tmp_path: Path) -> None:
    whole = pixels()
    image = open_field(written(tmp_path, whole))
    kept = tmp_path / "p_A01_s1_w2_z3_t1.tif"
    for path in tmp_path.iterdir():
        if path != kept:
            path.unlink()
    assert (image.read(1, 3, WHOLE, [1])[0] == whole[1, 1, 3]).all()
    with pytest.raises(CellsegError, match=r"p_A01_s1_w1_z3_t1\.tif: cannot be read"):
        image.read(1, 3, WHOLE, [0])


def test_a_file_that_changes_is_noticed_and_identifies_another_input(tmp_path: Path) -> None:
    field = written(tmp_path, pixels((1, 2, 2, 20, 30)))
    before, image = fingerprints(field.parts), open_field(field)
    assert fingerprints(field.parts) == before
    last = field.parts[-1].path
    os.utime(last, ns=(1, 1))
    assert fingerprints(field.parts) != before
    with pytest.raises(CellsegError, match=r"w2_z1_t0\.tif: changed since it was opened"):
        image.read(0, 1, WHOLE, [1])
    last.unlink()
    with pytest.raises(CellsegError, match=r"w2_z1_t0\.tif: no such file"):
        fingerprints(field.parts)
    with pytest.raises(CellsegError, match=r"w2_z1_t0\.tif: cannot be read"):
        open_field(field)


def test_channels_of_different_types_are_promoted_without_loss(tmp_path: Path) -> None:
    whole = pixels((1, 2, 1, 20, 30))
    field = written(tmp_path, whole)
    tifffile.imwrite(field.path, whole[0, 0, 0].astype(np.uint8))
    image = open_field(field)
    assert image.pixels.dtype == np.uint16
    assert (all_of(image) == whole).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "how", "reason"),
    [
        ((20, 31), "uint16", {}, "its shape .* is .1, 1, 1, 20, 31., that of p_A01"),
        ((20, 30), "uint8", {}, "pixels are uint8, those of p_A01_s1_w2_z0_t0.tif uint16"),
        ((20, 30, 3), "uint16", {"photometric": "rgb"}, "its shape .* is .1, 3, 1, 20"),
        ((5, 20, 30), "uint16", {}, "its shape .* is .1, 1, 5, 20, 30."),
    ],
)
def test_a_file_unlike_the_others_is_named(
    shape: tuple[int, ...], dtype: str, how: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    field = written(tmp_path, pixels((1, 2, 2, 20, 30)))
    bad = np.ones(shape, dtype)
    tifffile.imwrite(field.parts[-1].path, bad, **({"photometric": "minisblack"} | how))
    with pytest.raises(CellsegError, match=rf"p_A01_s1_w2_z1_t0\.tif: {reason}"):
        open_field(field)


@pytest.mark.parametrize("length", [-1, 5, 0])
def test_a_damaged_file_is_named(length: int, tmp_path: Path) -> None:
    field = written(tmp_path, pixels((1, 2, 1, 20, 30)))
    last = field.parts[-1].path
    last.write_bytes(last.read_bytes()[:length])
    with pytest.raises(CellsegError, match=r"p_A01_s1_w2_z0_t0\.tif: "):
        open_field(field)


def test_planes_in_files_and_in_names_do_not_go_together(tmp_path: Path) -> None:
    parts = []
    for z in range(2):
        path = tmp_path / f"{z}.tif"
        tifffile.imwrite(path, np.ones((3, 20, 30), "uint8"), photometric="minisblack")
        parts.append(Part(path, 0, 0, z))
    with pytest.raises(CellsegError, match="holds 3 planes, and 2 of them are files of their own"):
        open_field(Field("x", parts[0].path, parts=tuple(parts), channels=("",)))


def test_numbers_of_channels_are_those_of_the_plate(tmp_path: Path) -> None:
    field = written(tmp_path, pixels((1, 2, 1, 20, 30)))
    field = replace(field, channels=("w1", "w3"), numbering=("w1", "w2", "w3"))
    image = open_field(field)
    assert image.channels == ("w1", "w3")
    assert [image.channel_index(c) for c in (0, 2, "w3")] == [0, 1, 1]
    for channel in (1, "w2"):
        with pytest.raises(CellsegError, match="channel 'w2' is missing or lacks planes here"):
            image.channel_index(channel)
    with pytest.raises(CellsegError, match="no channel 3; there are 2"):
        image.channel_index(3)


def test_the_index_of_a_plate_says_how_large_a_voxel_is(tmp_path: Path) -> None:
    one_um = {"resolution": (1e4, 1e4), "resolutionunit": 3}
    field = written(tmp_path, pixels((1, 1, 2, 20, 30)), **one_um)
    assert open_field(field).voxel is None  # planes of unknown distance
    known = replace(field, spacing_um=(0.5, 0.3, 0.3))
    assert open_field(known).voxel == (0.5, 0.3, 0.3)
    alone = Field("x", field.path, spacing_um=(None, 0.3, 0.3))
    assert open_field(alone).voxel == (1.0, 0.3, 0.3)
    assert open_field(replace(alone, spacing_um=(None, None, None))).voxel == (1.0, 1.0, 1.0)


def test_a_problem_that_is_known_is_raised() -> None:
    with pytest.raises(CellsegError, match=r"^why$"):
        open_field(Field("x", Path("/nowhere"), problem="why"))


def test_a_number_that_comes_to_mean_another_channel_makes_the_cells_anew(tmp_path: Path) -> None:
    def key() -> str:
        settings = ['model.name="threshold"', "model.channels=[1]"]
        workflow = read_workflow(tmp_path / "w.toml", settings, output=tmp_path / "results")
        return plan(workflow, Config(device="cpu")).scenes[0].key

    (tmp_path / "w.toml").write_text('images = "*.tif"\n')
    for name in ("A01_s1_w2", "A01_s1_w3"):
        tifffile.imwrite(tmp_path / f"p_{name}.tif", np.zeros((20, 30), np.uint8))
    before = key()
    assert key() == before
    for name in ("A02_s1_w1", "A02_s1_w2", "A02_s1_w3"):
        tifffile.imwrite(tmp_path / f"p_{name}.tif", np.zeros((20, 30), np.uint8))
    assert key() != before


def test_files_that_state_other_sizes_of_pixels_are_told(tmp_path: Path) -> None:
    for number, um in enumerate((0.5, 0.5, 0.9), 1):
        tifffile.imwrite(
            tmp_path / f"p_A01_s1_w{number}.tif",
            np.zeros((20, 30), np.uint8),
            resolution=(1e4 / um, 1e4 / um),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    (field,) = discover([tmp_path], None)
    image = open_field(field)
    assert image.voxel == pytest.approx((1.0, 0.5, 0.5))
    (remark,) = image.remarks
    assert "p_A01_s1_w1.tif; p_A01_s1_w3.tif says another" in remark
    (tmp_path / "p_A01_s1_w3.tif").unlink()
    assert not open_field(discover([tmp_path], None)[0]).remarks
