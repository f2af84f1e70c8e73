"""Sizes of pixels and of cells that cannot be right are told, before a run and after it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.pixel_size import area_counts, median_diameter_px
from cellseg.pipeline.plan import plan
from exact import Exact
from synthetic import cells

CPU = Config(device="cpu")


def write(path: Path, y_um: float, x_um: float) -> None:
    _, labels = cells(0, shape=(160, 180), count=20, radius=(6, 12))
    size = {"PhysicalSizeY": y_um, "PhysicalSizeX": x_um}
    tifffile.imwrite(path, labels.astype(np.uint16), metadata={"axes": "YX", **size})


def notes(folder: Path, *overrides: str) -> tuple[str, ...]:
    (folder / "w.toml").write_text('images = "*.ome.tif"\n')
    return plan(read_workflow(folder / "w.toml", overrides, output=folder / "out"), CPU).notes


@pytest.mark.parametrize(
    ("size", "overrides", "line"),
    [
        ((0.5, 0.5), (), None),
        ((0.01, 0.01), (), None),
        ((50, 50), (), None),
        ((0.65, 0.651), (), None),
        ((265, 265), (), "a: a pixel of 265 um is none of a microscope.*: set pixel_size_um"),
        ((0.005, 0.005), (), "a pixel of 0.005 um is none of a microscope"),
        ((265, 265), ("pixel_size_um=0.5",), None),
        ((0.5, 0.5), ("pixel_size_um=500",), r"mend pixel_size_um = 500"),
        ((0.5, 0.65), (), "0.5 um high and 0.65 um wide.*set pixel_size_um"),
        ((0.5, 0.5), ("model.diameter_px=30",), None),
        ((10, 10), ("model.diameter_px=30",), r"to be 300 um across \(30 px of 10 um\).*diameter"),
        ((0.05, 0.05), ("model.diameter_px=10",), "to be 0.5 um across"),
    ],
)
def test_what_cannot_be_right_is_said_before_the_run(
    tmp_path: Path, size: tuple[float, float], overrides: tuple[str, ...], line: str | None
) -> None:
    write(tmp_path / "a.ome.tif", *size)
    found = notes(tmp_path, *overrides)
    if line is None:
        assert found == ()
    else:
        (said,) = found
        with pytest.raises(AssertionError, match=line):
            raise AssertionError(said)


def test_images_with_the_same_fault_share_a_line(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.ome.tif", 265, 265)
    write(tmp_path / "d.ome.tif", 0.5, 0.5)
    (said,) = notes(tmp_path)
    assert said.startswith("a and 2 more: a pixel of 265 um")


@pytest.mark.parametrize(("side", "right"), [(0.5, True), (20.0, False), (0.01, False)])
def test_cells_of_a_size_that_no_cell_has_are_told_after_the_run(
    tmp_path: Path, side: float, right: bool
) -> None:
    write(tmp_path / "a.ome.tif", side, side)
    (tmp_path / "w.toml").write_text('images = "a.ome.tif"\n[normalise]\nmethod = "none"\n')
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Exact())
    (report,) = result.images
    assert report.state == "done"
    assert report.warnings == () if right else "the median cell is" in report.warnings[0]
    # The pixel size is mended without finding the cells anew.
    mended = read_workflow(tmp_path / "w.toml", ["pixel_size_um=0.5"], output=tmp_path / "out")
    assert run(mended, CPU, Exact()).images[0].warnings == ()


def test_the_terminal_and_run_json_say_it(tmp_path: Path) -> None:
    write(tmp_path / "a.ome.tif", 20.0, 20.0)
    (tmp_path / "w.toml").write_text(
        'images = "a.ome.tif"\n[model]\nname = "threshold"\nmin_area_px = 1\n'
    )
    options = ["run", str(tmp_path / "w.toml"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    shown = CliRunner().invoke(main, options)
    assert shown.exit_code == 0
    assert "um across" in shown.output
    assert "set pixel_size_um" in shown.output
    document = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "set pixel_size_um" in document["images"][0]["warnings"][0]


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.integers(0, 60))
def test_the_median_is_right_to_a_percent_whatever_the_parts(areas: list[int], cut: int) -> None:
    parts = np.array(areas[:cut], np.int64), np.array(areas[cut:], np.int64)
    counts = area_counts(parts[0]) + area_counts(parts[1])
    middle = sorted(areas)[(len(areas) - 1) // 2]
    found = median_diameter_px(counts)
    assert found == pytest.approx(2 * np.sqrt(middle / np.pi), rel=0.01)


def test_no_cells_have_no_median() -> None:
    assert median_diameter_px(area_counts(np.zeros(0, np.int64))) is None
