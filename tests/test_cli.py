"""The command line as a user meets it: help at once, one line for a mistake, true exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from click.testing import CliRunner, Result

from cellseg.pipeline.cli import main
from synthetic import cells


def cellseg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images, their truth, and a workflow; the current directory."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    for seed in range(2):
        image, labels = cells(seed, shape=(200, 240), count=40)
        tifffile.imwrite(tmp_path / "images" / f"f{seed}.tif", image)
        tifffile.imwrite(tmp_path / "truth" / f"f{seed}.tif", labels.astype(np.uint16))
    text = 'images = "images"\noutput = "out"\n[model]\nname = "threshold"\nsmooth_px = 1.0\n'
    (tmp_path / "w.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_is_there_at_once_and_names_every_command() -> None:
    script = (
        "import sys\n"
        "from cellseg.pipeline.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'dask', 'zarr', 'skimage', 'pandas') if m in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    for command in ("run", "inspect", "train", "evaluate", "export", "models", "review"):
        assert f"  {command} " in found.stdout
    assert found.stdout.endswith("[]\n")
    for command in ("run", "inspect", "train", "evaluate", "export", "models", "review"):
        assert cellseg(command, "--help").exit_code == 0


@pytest.mark.parametrize(("weights", "code"), [("nuclei", 0), ("no_such", 2)])
def test_a_program_that_ends_at_once_has_said_all_and_how_it_went(
    folder: Path, weights: str, code: int
) -> None:
    """With torch in memory nothing is tidied up behind the last line; nothing of it may be lost."""
    script = "import torch; from cellseg.pipeline.cli import command; command()"
    text = f'images = "images/f0.tif"\noutput = "out"\n[model]\nweights = "{weights}"\n'
    (folder / "w.toml").write_text(text + 'name = "mask_rcnn"\n')
    words = ["run", "w.toml"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=folder
    )
    assert ended.returncode == code, ended.stderr
    if code:
        assert ended.stderr.startswith("cellseg: ")
        assert ended.stderr.endswith("\n")
    else:
        assert "report    out" in ended.stdout.splitlines()[-1]


def test_run_writes_what_its_summary_says(folder: Path) -> None:
    result = cellseg("run", "w.toml", "--set", "output.csv=true")
    assert result.exit_code == 0, result.output
    assert "2 images, 2 tiles, model threshold" in result.output
    rows = pq.read_table(folder / "out" / "cells.parquet").num_rows
    assert f"{rows} cells in 2 of 2 images" in result.output
    assert rows > 60
    csv = (folder / "out" / "cells.csv").read_text().splitlines()
    assert len(csv) == rows + 1
    assert csv[0].startswith('"image","plate","well","site","label"')
    written = {path.name for path in (folder / "out" / "images" / "f0").iterdir()}
    assert written == {"labels.zarr", "cells.parquet", "overview.png"}
    document = json.loads((folder / "out" / "run.json").read_text())
    assert document["state"] == "done"
    assert [image["name"] for image in document["images"]] == ["f0", "f1"]
    again = cellseg("run", "out/workflow.toml", "-o", "again")
    assert again.exit_code == 0
    assert f"{rows} cells" in again.output


def test_inputs_and_output_of_the_command_line_replace_the_workflows(folder: Path) -> None:
    result = cellseg("run", "w.toml", "images/f1.tif", "--output", "elsewhere")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (folder / "elsewhere" / "images").iterdir()] == ["f1"]


def test_dry_run_prints_a_plan_and_writes_nothing(folder: Path) -> None:
    result = cellseg("run", "w.toml", "--dry-run", "--set", "tiling.size=128")
    assert result.exit_code == 0, result.output
    assert "2 images, 0.1 Mpx in 8 tiles" in result.output
    assert not (folder / "out").exists()


def test_evaluate_compares_a_results_folder_with_truth(folder: Path) -> None:
    cellseg("run", "w.toml")
    shown = cellseg("evaluate", "out", "truth")
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[0].split()[:2] == ["image", "iou"]
    document = json.loads(cellseg("evaluate", "out", "truth", "--json").output)
    assert document["pooled"][0]["ap"] > 0.7
    (folder / "images" / "f0.tif").unlink()
    cellseg("run", "w.toml")
    assert len(json.loads(cellseg("evaluate", "out", "truth", "--json").output)["images"]) == 1
    (folder / "names.txt").write_text("f1.tif\n")
    chosen = cellseg("evaluate", "out", "truth", "--names", "names.txt")
    assert "f1" in chosen.output
    assert "f0" not in chosen.output


def test_models_lists_what_can_be_named_in_a_workflow() -> None:
    shown = cellseg("models").output
    for word in ("threshold", "mask_rcnn", "nuclei", "CC0", "ap_0.5"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.toml",), "missing.toml: no such file"),
        (("w.toml", "nowhere.tif"), "nowhere.tif"),
        (("w.toml", "empty"), "empty"),
        (("w.toml", "--set", "tiling.siz=3"), "Did you mean size?"),
        (("w.toml", "--set", "tiling.size=big"), "is not a whole number"),
        (("w.toml", "--set", "tiling.halo=3"), "Set halo to"),
        (("w.toml", "--set", "model.name=treshold"), "Did you mean threshold?"),
        (("w.toml", "--set", "model.channels=['DAPI']"), "DAPI"),
        (("w.toml", "--set", "model={name='mask_rcnn',weights='w.toml'}"), "w.toml"),
        (("w.toml", "--set", "model={name='mask_rcnn',channels=[0,0]}"), "channel"),
        (("w.toml", "--set", "measure.groups=['shapes']"), "shape"),
        (("w.toml", "--workers", "0"), "workers"),
        (("w.toml", "--device", "gpu"), "device"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_before_any_compute(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    (folder / "empty").mkdir()
    result = cellseg("run", *arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 1, result.output
    assert lines[0].startswith("cellseg: ")
    assert message in lines[0]
    assert not (folder / "out").exists()


def test_a_truncated_image_among_good_ones_gives_exit_code_1(folder: Path) -> None:
    whole = (folder / "images" / "f0.tif").read_bytes()
    (folder / "images" / "f2.tif").write_bytes(whole[: len(whole) // 2])
    result = cellseg("run", "w.toml")
    assert result.exit_code == 1
    assert "cells in 2 of 3 images" in result.output
    assert "failed: f2: " in result.output
    document = json.loads((folder / "out" / "run.json").read_text())
    assert [image["state"] for image in document["images"]] == ["done", "done", "failed"]


def test_the_shipped_workflows_run_from_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = resources.files("cellseg.workflows")
    with resources.as_file(shipped / "quickstart.toml") as path:
        result = cellseg("run", path)
    assert result.exit_code == 0, result.output
    assert "in 12 of 12 images" in result.output
    with resources.as_file(shipped / "plate.toml") as path:
        demo = path.parent / "demo_plate"
        result = cellseg("run", path, demo / "IXMtest_A18_s1_w1.tif", "--device", "cpu")
    assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "results" / "plate" / "cells.parquet").to_pandas()
    assert 70 <= len(table) <= 110
    assert set(table["well"]) == {"A18"}
    assert table["score"].between(0.5, 1).all()
