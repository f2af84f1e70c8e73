"""Cells are measured again as their labels are, and nothing is segmented."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline import Config, Result, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.remeasure import RunAgain
from exact import Exact, Known
from synthetic import cells, discs

CPU = Config(device="cpu")
EXACT = '[normalise]\nmethod = "none"\n[tiling]\nsize = 64\nhalo = 32\n'


def image_of(labels: NDArray[Any], folder: Path, name: str = "one") -> None:
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / f"{name}.tif", labels.astype(np.uint16))


def first_run(folder: Path, *overrides: str) -> Result:
    (folder / "w.toml").write_text(f'images = "in"\n{EXACT}', encoding="utf-8")
    workflow = read_workflow(folder / "w.toml", overrides, output=folder / "out")
    return run(workflow, CPU, Exact())


def again(folder: Path, *overrides: str, labels: Path | None = None) -> RunAgain:
    going = RunAgain(folder / "out", CPU, overrides, labels)
    for _ in going.steps():
        pass
    return going


def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "out" / "cells.parquet")


def painted(folder: Path, name: str = "one") -> zarr.Array[Any]:
    path = folder / "out" / "images" / name / "labels.zarr" / "cells" / "0"
    array = zarr.open_array(path, mode="r+")
    assert isinstance(array, zarr.Array)
    return array


def edit(folder: Path, change: Callable[[NDArray[Any]], None]) -> NDArray[Any]:
    """Change the labels on disk, as any editor of zarr would."""
    array = painted(folder)
    pixels = np.asarray(array[:])
    change(pixels)
    array[:] = pixels
    return pixels


@pytest.fixture
def results(tmp_path: Path) -> Path:
    image_of(cells(3, (200, 170), 24)[1], tmp_path / "in")
    first_run(tmp_path)
    return tmp_path


def test_untouched_labels_give_the_same_table(results: Path) -> None:
    before = table(results)
    again(results)
    pd.testing.assert_frame_equal(table(results), before)


def test_other_measurements_change_the_columns_and_no_value(results: Path) -> None:
    before = table(results)
    again(results, 'measure.groups=["shape"]')
    fewer = table(results)
    assert set(fewer) < set(before)
    pd.testing.assert_frame_equal(fewer, before[list(fewer)])
    assert 'groups = [\n    "shape",' in (results / "out" / "workflow.toml").read_text("utf-8")


def test_corrected_labels_keep_their_ids_and_say_that_they_were_edited(results: Path) -> None:
    before = table(results).set_index("label")
    removed, fused, into = 3, 7, 8

    def change(pixels: NDArray[Any]) -> None:
        pixels[pixels == removed] = 0
        pixels[pixels == fused] = into
        y, x = np.argwhere(pixels == 0)[0]
        pixels[y, x] = 900

    pixels = edit(results, change)
    again(results)
    after = table(results).set_index("label")
    assert after.index.tolist() == sorted(set(np.unique(pixels).tolist()) - {0})
    untouched = after.index.difference([into, 900])
    pd.testing.assert_frame_equal(after.loc[untouched], before.loc[untouched])
    assert after.loc[[into, 900], "seam"].tolist() == ["edited", "edited"]
    assert after.loc[[into, 900], "score"].isna().all()
    assert after.loc[into, "area_px"] == before.loc[[fused, into], "area_px"].sum()
    assert after.loc[900, "area_px"] == 1
    y, x = np.argwhere(pixels == into).mean(axis=0)
    assert (after.loc[into, "y_px"], after.loc[into, "x_px"]) == pytest.approx((y, x))


def test_neighbours_of_corrected_cells_are_those_that_are_there(results: Path) -> None:
    def change(pixels: NDArray[Any]) -> None:
        pixels[pixels == 2] = 0
        pixels[60:64, 60:64] = 700  # a high label among low ones

    edit(results, change)
    again(results, 'measure.groups=["neighbours"]')
    after = table(results)
    centres = after[["y_px", "x_px"]].to_numpy()
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)
    nearest = np.sort(apart, axis=1)[:, 1]
    np.testing.assert_allclose(after["nearest_px"], nearest, rtol=1e-12)


def test_a_run_keeps_corrected_labels_with_the_same_and_with_other_measurements(
    results: Path,
) -> None:
    pixels = edit(results, lambda pixels: pixels.__setitem__(pixels == 5, 0))
    again(results)
    corrected = table(results)
    first_run(results)
    pd.testing.assert_frame_equal(table(results), corrected)
    first_run(results, 'measure.groups=["shape"]')
    fewer = table(results)
    pd.testing.assert_frame_equal(fewer, corrected[list(fewer)])
    assert np.array_equal(np.asarray(painted(results)[:]), pixels)


def test_nothing_is_measured_twice(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(results)
    first = table(results)
    monkeypatch.setattr("cellseg.pipeline.tasks.cell_table", None)
    again(results)
    pd.testing.assert_frame_equal(table(results), first)


def test_corrected_label_images_take_the_place_of_those_in_the_results(tmp_path: Path) -> None:
    image_of(cells(1, (40, 300), 9)[1], tmp_path / "in")
    first_run(tmp_path)
    mine = np.asarray(painted(tmp_path)[:]).astype(np.uint16)
    mine[mine == 4] = 0
    mine[:6, :6] = 4000
    (tmp_path / "corrected").mkdir()
    tifffile.imwrite(tmp_path / "corrected" / "one.tif", mine)
    again(tmp_path, labels=tmp_path / "corrected")
    assert np.array_equal(np.asarray(painted(tmp_path)[:]), mine)
    assert table(tmp_path)["label"].tolist() == sorted(set(np.unique(mine).tolist()) - {0})
    half = zarr.open_array(tmp_path / "out/images/one/labels.zarr/cells/1", mode="r")
    assert np.array_equal(np.asarray(half[:]), mine[::2, ::2])


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.ones((9, 9), np.uint16), r"one channel and \(T, Z, Y, X\) = \(1, 1, 200, 170\)"),
        (np.ones((200, 170), np.float32), "labels need integers"),
        (np.full((200, 170), -1, np.int16), "labels below 0"),
    ],
)
def test_labels_that_do_not_fit_cost_nothing(
    results: Path, pixels: NDArray[Any], said: str
) -> None:
    before, labels = table(results), np.asarray(painted(results)[:])
    (results / "corrected").mkdir()
    tifffile.imwrite(results / "corrected" / "one.tif", pixels)
    going = again(results, labels=results / "corrected")
    (kept,) = going.unmeasured
    assert re.search(said, str(kept.reason))
    pd.testing.assert_frame_equal(table(results), before)
    assert np.array_equal(np.asarray(painted(results)[:]), labels)


def test_overlapping_cells_are_found_in_their_layers(tmp_path: Path) -> None:
    truth = discs(5, (120, 130), 30)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "one.tif", np.full((120, 130), 9, np.uint16))
    (tmp_path / "w.toml").write_text(
        f'images = "in"\n{EXACT}skip_background = false\n', encoding="utf-8"
    )
    run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Known(truth))
    before = table(tmp_path)
    assert before["layer"].max() > 1
    again(tmp_path)
    pd.testing.assert_frame_equal(table(tmp_path), before)


@pytest.mark.parametrize("linked", [True, False])
def test_stacks_and_time_series(tmp_path: Path, linked: bool) -> None:
    volume = np.zeros((2, 3, 60, 60), np.uint16)
    for t in range(2):
        volume[t, :2, 5:15, 5 + t : 15 + t] = 1
        volume[t, 1:, 30:44, 30:40] = 2
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "one.tif", volume, imagej=True, metadata={"axes": "TZYX"})
    first_run(tmp_path, f"link.z={str(linked).lower()}", "track.enabled=true")
    before = table(tmp_path)
    assert before["track"].notna().all()
    again(tmp_path)
    pd.testing.assert_frame_equal(table(tmp_path), before)


def test_a_label_in_two_planes_that_are_not_linked_is_told(tmp_path: Path) -> None:
    stack = np.zeros((2, 40, 40), np.uint16)
    stack[0, 5:15, 5:15], stack[1, 20:30, 20:30] = 1, 2
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "one.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    first_run(tmp_path, "link.z=false")
    edit(tmp_path, lambda pixels: pixels.__setitem__(pixels == 2, 1))
    (kept,) = again(tmp_path).unmeasured
    assert "label 1 lies in planes 0 and 1" in str(kept.reason)


def test_an_image_that_is_gone_keeps_its_rows(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        image_of(cells(seed, (90, 90), 8)[1], tmp_path / "in", name)
    first_run(tmp_path)
    before = table(tmp_path)
    (tmp_path / "in" / "two.tif").unlink()
    outcome = CliRunner().invoke(main, ["measure", str(tmp_path / "out")])
    assert outcome.exit_code == 1
    assert "no longer found" in outcome.output
    pd.testing.assert_frame_equal(table(tmp_path), before)
    document = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert [image["state"] for image in document["images"]] == ["done", "done"]


def test_what_would_give_other_cells_is_refused(results: Path) -> None:
    for override in ("tiling.size=64", "output.path=x", "mesure.groups=[]"):
        with pytest.raises(CellsegError, match="Use cellseg run"):
            RunAgain(results / "out", CPU, [override])
    with pytest.raises(CellsegError, match="no results folder"):
        RunAgain(results, CPU)
    (results / "corrected").mkdir()
    tifffile.imwrite(results / "corrected" / "ones.tif", np.ones((9, 9), np.uint8))
    with pytest.raises(CellsegError, match=r"ones is not the name .* Did you mean one\?"):
        RunAgain(results / "out", CPU, corrected=results / "corrected")
