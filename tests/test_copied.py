"""Copies of images in a plate: every pixel once, whoever writes it, whatever was killed."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v05
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellseg.pipeline import Config, Result, copied, pyramid, read_workflow, run
from cellseg.pipeline.copied import CopiedImage, halve_mean
from cellseg.pipeline.image import open_image
from cellseg.pipeline.plan import plan
from cellseg.pipeline.pyramid import regions
from cellseg.pipeline.stages import Run
from cellseg.pipeline.tiles import Box
from exact import Exact
from plates import noise, write_plate
from synthetic import cells

CPU = Config(device="cpu")
TEXT = '[normalise]\nmethod = "none"\n[output]\nimages = "copy"\n'


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.float32]),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.integers(0, 127),
    )
)
def test_the_next_level_is_the_mean_of_what_is_there(pixels: Any) -> None:
    half = halve_mean(pixels)
    assert half.dtype == pixels.dtype
    assert half.shape == tuple(-(-side // 2) for side in pixels.shape)
    for (y, x), value in np.ndenumerate(half):
        # An edge pixel counts twice, so the mean is that of the pixels there are.
        mean = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(np.float64).mean()
        assert value == (mean if half.dtype.kind == "f" else np.floor(mean + 0.5))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "uint32"])
def test_large_values_are_not_cut_off(dtype: str) -> None:
    most = np.finfo(dtype).max / 8 if dtype == "float32" else np.iinfo(dtype).max
    assert (halve_mean(np.full((4, 4), most, dtype)) == np.asarray(most, dtype)).all()


def test_regions_in_any_order_give_every_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "SHARD", 512)
    monkeypatch.setattr(copied, "SHARD", 512)
    data = noise(2, 2, 1, 2100, 1300)
    image = CopiedImage(tmp_path / "B" / "03" / "0", data.shape)
    image.start(data.dtype)
    grid = regions(Box(0, 0, *data.shape[3:]))
    for position in reversed(range(len(grid))):
        for t, c in np.ndindex(2, 2):
            plane = data[t, c, 0]
            image.copy(t, c, 0, grid.core(position), lambda box, p=plane: p[box.slices])  # type: ignore[misc]
    image.finish(("DAPI", "GFP"), (1.0, 0.5, 0.25), "field", "k")
    group = zarr.open_group(str(image.path), mode="r")
    model = ome_zarr_models.v05.Image.from_zarr(group)
    assert len(model.ome_attributes.multiscales[0].datasets) == len(image.sides) == 5
    level = data[:, :, 0]
    for number in range(5):
        np.testing.assert_array_equal(group[str(number)][:], level)  # type: ignore[index]
        level = np.stack([np.stack([halve_mean(plane) for plane in time]) for time in level])
    opened = open_image(image.path)
    assert (opened.channels, opened.voxel) == (("DAPI", "GFP"), (1.0, 0.5, 0.25))


def truth(number: int) -> Any:
    return cells(number, shape=(120, 140), count=20)[1].astype(np.uint16)


def done(folder: Path, *overrides: str) -> Result:
    workflow = read_workflow(folder / "w.toml", overrides, output=folder / "results")
    return run(workflow, CPU, Exact())


def check(folder: Path, expected: dict[str, Any]) -> None:
    """Validate the plate in the results, and compare the pixels of its fields."""
    path = folder / "results" / "plate.zarr"
    assert not any(each.is_symlink() for each in path.rglob("*"))
    model = ome_zarr_models.v05.HCS.from_zarr(zarr.open_group(str(path), mode="r"))
    wells = [well.path for well in model.ome_attributes.plate.wells]
    assert wells == sorted({group.rpartition("/")[0] for group in expected})
    for group, pixels in expected.items():
        image = open_image(path / group)
        np.testing.assert_array_equal(np.asarray(image.pixels)[0, :, 0], np.atleast_3d(pixels.T).T)
        labels = open_image(path / group / "labels" / "cells")
        assert labels.pixels.shape[3:] == image.pixels.shape[3:]


@pytest.fixture
def tiffs(tmp_path: Path) -> dict[str, Any]:
    """A plate of TIFF files and its workflow; returns the fields that it must become."""
    expected = {}
    for number, (well, site) in enumerate((("B03", 1), ("B03", 2), ("C11", 1))):
        tifffile.imwrite(tmp_path / f"X_{well}_s{site}_w1.tif", truth(number))
        expected[f"{well[0]}/{well[1:]}/{site - 1}"] = truth(number)
    (tmp_path / "w.toml").write_text(f'images = "*.tif"\npattern = "imagexpress"\n{TEXT}')
    return expected


def test_a_plate_of_tiffs_becomes_one_of_zarr(tmp_path: Path, tiffs: dict[str, Any]) -> None:
    result = done(tmp_path)
    assert not result.failed
    check(tmp_path, tiffs)
    assert not (result.folder / "images").exists()
    image = open_image(result.folder / "plate.zarr" / "B" / "03" / "0")
    assert image.channels == ("w1",)
    # Again, nothing is done; linked, TIFFs have folders of their own as ever.
    before = {p: p.lstat().st_mtime_ns for p in result.folder.joinpath("plate.zarr").rglob("*")}
    done(tmp_path)
    after = {p: p.lstat().st_mtime_ns for p in result.folder.joinpath("plate.zarr").rglob("*")}
    assert before == after
    done(tmp_path, "output.images=link")
    assert len(list((result.folder / "images").iterdir())) == 3


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_of_zarr_is_complete_by_itself(tmp_path: Path, version: str) -> None:
    fields = {f"B/03/{number}": np.stack([truth(number)] * 2) for number in range(2)}
    write_plate(tmp_path / "in.zarr", fields, version, axes="cyx", channels=("DAPI", "GFP"))
    (tmp_path / "w.toml").write_text(f'images = "in.zarr"\n{TEXT}')
    linked = done(tmp_path, "output.images=link")
    first = (linked.folder / "plate.zarr" / "B" / "03" / "0" / "labels" / "cells").stat()
    # A change of mind keeps the labels.
    assert not done(tmp_path).failed
    check(tmp_path, fields)
    again = (linked.folder / "plate.zarr" / "B" / "03" / "0" / "labels" / "cells").stat()
    assert first.st_mtime_ns == again.st_mtime_ns
    assert done(tmp_path, "output.images=link").cells
    source = np.asarray(open_image(tmp_path / "in.zarr" / "B" / "03" / "1").pixels)
    field = tmp_path / "results" / "plate.zarr" / "B" / "03" / "1"
    np.testing.assert_array_equal(np.asarray(open_image(field).pixels), source)
    assert (field / "0").is_symlink() or (field / "0" / "c").is_symlink()


def test_stopped_anywhere_the_next_run_ends_the_same(tmp_path: Path, tiffs: dict[str, Any]) -> None:
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "results")
    # Each run goes one step further than the one before.
    for stop in range(1, 30):
        steps = Run(plan(workflow, CPU, Exact()), CPU).steps()
        whole = sum(1 for _ in islice(steps, stop)) < stop
        del steps  # ends the run where it is
        if whole:
            break
    assert 2 < stop < 29
    check(tmp_path, tiffs)
    assert not (tmp_path / "results" / "work").exists()


def test_other_workers_write_the_same_bytes(tmp_path: Path, tiffs: dict[str, Any]) -> None:
    def content() -> dict[str, bytes]:
        folder = tmp_path / "results" / "plate.zarr"
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    done(tmp_path)
    before = content()
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "results")
    assert not run(workflow, Config(device="cpu", workers=2), Exact(), fresh=True).failed
    assert content() == before


def test_a_place_of_another_image_is_made_anew(tmp_path: Path, tiffs: dict[str, Any]) -> None:
    done(tmp_path)
    first, second = (tmp_path / f"X_B03_s{site}_w1.tif" for site in (1, 2))
    # Of the same size and time of change, as copies of copies may be.
    stamp = first.stat()
    assert first.stat().st_size == second.stat().st_size
    os.utime(second, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    first.unlink()
    assert not done(tmp_path).failed
    check(tmp_path, {"B/03/0": tiffs["B/03/1"], "C/11/0": tiffs["C/11/0"]})


def test_arrays_that_were_filled_for_another_image_are_not_taken(
    tmp_path: Path, tiffs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CopiedImage.finish

    def broken(self: CopiedImage, channels: Any, voxel: Any, name: str, key: str) -> None:
        if "_s2_" in name:
            raise OSError("no space left")
        whole(self, channels, voxel, name, key)

    monkeypatch.setattr(CopiedImage, "finish", broken)
    assert [report.name for report in done(tmp_path).failed] == ["X_B03_s2_w1"]
    monkeypatch.undo()
    # Now the second image is the first of its well, and then again the second.
    first = tmp_path / "X_B03_s1_w1.tif"
    first.rename(tmp_path / "kept")
    assert not done(tmp_path).failed
    check(tmp_path, {"B/03/0": tiffs["B/03/1"], "C/11/0": tiffs["C/11/0"]})
    (tmp_path / "kept").rename(first)
    assert not done(tmp_path).failed
    check(tmp_path, tiffs)


def test_arrays_say_for_which_image_they_were_made(tmp_path: Path) -> None:
    image = CopiedImage(tmp_path / "0", (1, 1, 1, 40, 50))
    assert not image.claimed("a")
    image.start(np.dtype(np.uint8))
    image.claim("a")
    assert image.claimed("a")
    assert not image.claimed("b")
    image.finish(("0",), None, "field", "a")
    assert not image.claimed("a")


def test_a_plate_that_is_written_elsewhere_now_is_none_any_more(
    tmp_path: Path, tiffs: dict[str, Any]
) -> None:
    result = done(tmp_path)
    assert (result.folder / "plate.zarr" / "zarr.json").is_file()
    done(tmp_path, "output.images=link")
    assert not (result.folder / "plate.zarr" / "zarr.json").exists()
