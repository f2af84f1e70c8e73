"""A plate whose channels are files of their own, from the command to the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from click.testing import CliRunner, Result

from cellseg.pipeline.cli import main
from synthetic import cells


def write(path: Path, seed: int, shape: tuple[int, int] = (96, 100)) -> None:
    image, _ = cells(seed, shape=shape, count=8)
    tifffile.imwrite(path, image.astype(np.uint16))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three wells of two channels, and a workflow; the current directory."""
    (tmp_path / "plate").mkdir()
    for seed, well in enumerate(("A01", "A02", "A03")):
        for channel in (1, 2):
            write(tmp_path / "plate" / f"x_{well}_s1_w{channel}.tif", seed)
    text = 'images = "plate"\noutput = "out"\n[model]\nname = "threshold"\nsmooth_px = 1.0\n'
    (tmp_path / "w.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cellseg(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def images(folder: Path) -> dict[str, dict[str, Any]]:
    document = json.loads((folder / "out" / "run.json").read_text())
    return {image["name"]: image for image in document["images"]}


def test_channels_are_measured_together_and_a_second_run_has_nothing_to_do(folder: Path) -> None:
    first = cellseg("run", "w.toml")
    assert first.exit_code == 0, first.output
    assert "3 images, 3 tiles" in first.output
    table = pq.read_table(folder / "out" / "cells.parquet").to_pandas()
    assert set(table["image"]) == {"x_A01_s1", "x_A02_s1", "x_A03_s1"}
    assert set(table["plate"]) == {"x"}
    assert (table["mean_w1"] == table["mean_w2"]).all()
    written = (folder / "out" / "images" / "x_A01_s1" / "cells.parquet").stat().st_mtime_ns
    assert cellseg("run", "w.toml").exit_code == 0
    again = (folder / "out" / "images" / "x_A01_s1" / "cells.parquet").stat().st_mtime_ns
    assert again == written
    write(folder / "plate" / "x_A01_s1_w2.tif", 7)
    assert cellseg("run", "w.toml").exit_code == 0
    changed = (folder / "out" / "images" / "x_A01_s1" / "cells.parquet").stat().st_mtime_ns
    assert changed != written


def test_faults_of_an_image_are_listed_and_cost_no_other(folder: Path) -> None:
    (folder / "plate" / "x_A02_s1_w2.tif").unlink()
    write(folder / "plate" / "x_A03_s1_w2.tif", 2, (96, 96))
    write(folder / "plate" / "x_A49_s1_w1.tif", 0)
    write(folder / "plate" / "x_A49_s1_w2.tif", 0)
    for name in ("x_A05_s1_w1.tif", "x_A05_s1_w2.tif", "y_x_A05_s1_w2.tif"):
        write(folder / "plate" / name, 0)
    (folder / "plate" / "y_x_A05_s1_w2.tif").rename(folder / "plate" / "x_A05_s1_w2.tiff")
    (folder / "plate" / "overview.tif").touch()
    shown = cellseg("run", "w.toml")
    assert shown.exit_code == 1, shown.output
    assert "cells in 2 of 5 images" in shown.output
    assert "note: no file of channel w2: in 1 image (x_A02_s1)" in shown.output
    assert "note: 1 file left over (overview.tif); `cellseg inspect` says why" in shown.output
    found = images(folder)
    reasons = {name: image["reason"] for name, image in found.items()}
    assert reasons["x_A01_s1"] is reasons["x_A02_s1"] is None
    assert "x_A03_s1_w2.tif: its shape (T, C, Z, Y, X)" in reasons["x_A03_s1"]
    assert "x_A05_s1_w2.tif and " in reasons["x_A05_s1"]
    assert "x_A05_s1_w2.tiff are both well A05, site 1, channel w2" in reasons["x_A05_s1"]
    assert "well A49 is on no plate" in reasons["x_A49_s1"]
    assert found["x_A02_s1"]["warnings"] == ["no file of channel w2"]
    table = pq.read_table(folder / "out" / "cells.parquet").to_pandas()
    lacking = table["image"] == "x_A02_s1"
    assert table.loc[lacking, "mean_w2"].isna().all()
    assert table.loc[~lacking, "mean_w2"].notna().all()


@pytest.mark.parametrize("channel", ["1", '"w2"'])
def test_an_image_without_the_models_channel_is_listed(channel: str, folder: Path) -> None:
    (folder / "plate" / "x_A02_s1_w2.tif").unlink()
    shown = cellseg("run", "w.toml", "--set", f"model.channels=[{channel}]")
    assert shown.exit_code == 1
    assert "cells in 2 of 3 images" in shown.output
    assert "channel 'w2' is missing or lacks planes here" in images(folder)["x_A02_s1"]["reason"]


def test_pixel_sizes_that_disagree_are_told_before_the_run(folder: Path) -> None:
    for channel in (1, 2):
        path = folder / "plate" / f"x_A03_s1_w{channel}.tif"
        image = tifffile.imread(path)
        tifffile.imwrite(path, image, resolution=(2e4, 2e4), resolutionunit=3)
    shown = cellseg("run", "w.toml", "--dry-run")
    assert "note: plate x: pixel sizes differ: unknown in 2, 0.5 um in 1." in shown.output
