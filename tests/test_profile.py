"""`cellseg run --profile`: its trace and its table say what this run did, in any processes."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from cellseg.models.timing import part, recorded
from cellseg.pipeline import Config, read_workflow
from cellseg.pipeline.cli import main
from cellseg.pipeline.plan import plan
from cellseg.pipeline.profile import process_began, read_summary
from cellseg.pipeline.profile_table import ProfileTable, Row
from cellseg.pipeline.stages import Run
from synthetic import cells

TILE_PARTS = {"read", "background", "normalise", "model", "describe", "write"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images of 3 x 3 tiles with background between cells, and a workflow."""
    (tmp_path / "images").mkdir()
    for seed in range(2):
        image, _ = cells(seed, shape=(200, 240), count=25)
        wide = np.full((300, 300), 200, np.uint16)
        wide[:200, :240] = image
        tifffile.imwrite(tmp_path / "images" / f"f{seed}.tif", wide)
    text = 'images = "images"\n[model]\nname = "threshold"\n'
    text += '[tiling]\nsize = 128\nhalo = 32\n[output]\npath = "out"\nreport = false\n'
    (tmp_path / "w.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def profiled(*more: str) -> Result:
    result = CliRunner().invoke(main, ["run", "w.toml", "--profile", *more])
    assert result.exit_code == 0, result.output
    return result


def bars(path: Path = Path("out/profile.json")) -> list[dict[str, Any]]:
    """The events of a trace that are no names."""
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [event for event in events if event["ph"] == "X"]


def rows_of(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in summary["rows"]}


def test_without_it_nothing_of_it_is_written(folder: Path) -> None:
    result = CliRunner().invoke(main, ["run", "w.toml"])
    assert result.exit_code == 0
    assert "of a core" not in result.output
    assert not list((folder / "out").glob("profile*"))


@pytest.mark.parametrize("at_once", ["1", "3"])
def test_every_unit_and_its_parts_are_in_the_trace(
    folder: Path, at_once: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLSEG_TILES_AT_ONCE", at_once)
    profiled()
    tiles = [bar for bar in bars() if bar["name"] == "segment"]
    units = {(bar["args"]["image"], bar["args"]["unit"]) for bar in tiles}
    assert len(units) == len(tiles) == 18
    for tile in tiles:
        inside = [bar for bar in bars() if bar["cat"] == "segment" and lies_in(bar, tile)]
        names = [bar["name"] for bar in inside]
        assert len(names) == len(set(names))
        assert {"read", "background", "describe", "write"} <= set(names) <= TILE_PARTS
    assert {bar["name"] for bar in bars()} > {"plan", "look", "paint", "measure", "gather"}


def lies_in(bar: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a bar is drawn below another; times are rounded to tenths of a microsecond."""
    same = (bar["pid"], bar["tid"]) == (other["pid"], other["tid"])
    before = other["ts"] - 0.2 <= bar["ts"]
    return bool(same and before and bar["ts"] + bar["dur"] <= other["ts"] + other["dur"] + 0.2)


def test_several_workers_are_several_processes_of_one_trace(folder: Path) -> None:
    profiled("--workers", "2")
    tiles = [bar for bar in bars() if bar["name"] == "segment"]
    assert len(tiles) == 18
    (here,) = {bar["pid"] for bar in bars() if bar["name"] == "gather"}
    assert here not in {bar["pid"] for bar in tiles}
    assert {bar["pid"] for bar in bars() if bar["name"] == "receive"} >= {b["pid"] for b in tiles}
    summary = read_summary(folder / "out" / "profile.json")
    assert summary["processes"] == 1 + len({bar["pid"] for bar in bars()} - {here})
    named = json.loads((folder / "out" / "profile.json").read_text(encoding="utf-8"))
    names = [e["args"]["name"] for e in named if e["name"] == "process_name"]
    assert len(names) == len(set(names)) == summary["processes"]
    # They began after this command, on one clock.
    assert all(0 <= bar["ts"] <= summary["wall_seconds"] * 1e6 for bar in bars())


def test_the_table_adds_up_and_is_printed_and_kept(folder: Path) -> None:
    output = profiled().output
    text = (folder / "out" / "profile.txt").read_text(encoding="utf-8")
    assert text in output
    summary = read_summary(folder / "out" / "profile.json")
    rows = rows_of(summary)
    assert rows["segment"]["units"] == 18
    assert summary["megapixels"] == pytest.approx(2 * 0.09)
    found = json.loads((folder / "out" / "run.json").read_text(encoding="utf-8"))["cells"]
    assert summary["cells"] == found > 0
    shares = [row["share"] for path, row in rows.items() if "/" not in path]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    inside = [row for path, row in rows.items() if path.startswith("segment/")]
    assert sum(row["seconds"] for row in inside) == pytest.approx(rows["segment"]["seconds"], 0.02)
    assert rows["measure"]["cells_s"] == pytest.approx(
        found / rows["measure"]["core_seconds"], 1e-3
    )
    assert 0 < summary["start_seconds"] < summary["wall_seconds"]
    of_trace = sum(bar["dur"] for bar in bars() if bar["name"] == "paint") / 1e6
    assert rows["paint"]["seconds"] == pytest.approx(of_trace, abs=1e-4)


def test_a_run_that_goes_on_profiles_what_was_left(folder: Path) -> None:
    going = Run(plan(read_workflow("w.toml"), Config()), Config(), profile=True)
    with recorded():
        steps = going.steps()
        while going.tiles_done < 11:
            next(steps)
        # Killed here, this is what there is: no end, but each line by itself.
        lines = Path("out/profile.json").read_text(encoding="utf-8").splitlines()
        assert isinstance(steps, Generator)
        steps.close()
    assert lines[0] == "["
    assert all(json.loads(line.rstrip(",")) for line in lines[1:])
    stopped = read_summary(folder / "out" / "profile.json")
    assert rows_of(stopped)["segment"]["units"] == 11
    profiled()
    summary = read_summary(folder / "out" / "profile.json")
    assert rows_of(summary)["segment"]["units"] == 7
    assert summary["megapixels"] == pytest.approx(7 / 9 * 0.09)
    assert "no tile was computed" in profiled().output
    assert "segment" not in rows_of(read_summary(folder / "out" / "profile.json"))


def test_a_network_is_told_from_its_masks(folder: Path) -> None:
    profiled("images/f0.tif", "--set", 'model.name="mask_rcnn"', "--set", "tiling.size=1024")
    rows = rows_of(read_summary(folder / "out" / "profile.json"))
    assert {"segment/model/network", "segment/model/paste", "segment/model/masks"} <= set(rows)
    assert "look/load model" in rows


def test_a_shard_has_no_profile(folder: Path) -> None:
    result = CliRunner().invoke(main, ["run", "w.toml", "--profile", "--shard", "1/2"])
    assert result.exit_code == 2
    assert result.output.startswith("cellseg: --profile with --shard")


def test_nothing_is_noted_behind_a_run(folder: Path) -> None:
    profiled()
    assert part("a") is part("b")


def test_a_process_has_begun_before_now() -> None:
    assert time.time() - process_began() >= time.process_time() - 0.02


def test_of_a_table_each_row_stands_below_what_it_lies_in() -> None:
    rows = (
        Row(("plan",), 1, 1.0, 0.5),
        Row(("segment",), 4, 8.0, 4.0, 8.0, 4000),
        Row(("segment", "read"), 4, 2.0, 1.0, 8.0, 4000),
        Row(("paint",), 1, 0.5, 0.5, 8.0, 4000),
        Row(("segment", "model"), 3, 5.97, 2.99, 8.0, 4000),
        Row(("segment", "model", "network"), 3, 3.0, 2.0, 8.0, 4000),
    )
    table = ProfileTable(rows, 10.0, 2.0, 8.0, 4000, 3)
    lines = [line.split("  ")[0] or line.strip().split("  ")[0] for line in table.text.split("\n")]
    assert lines[:8] == ["stage", "plan", "segment", "read", "model", "network", "other", "paint"]
    assert "wall time 10.00 s, 0.50 cores at work on average, 3 processes" in table.text
    assert "from then on 1 Mpx/s, 500 cells/s" in table.text
    shares = {row["path"]: row["share"] for row in table.document["rows"]}
    assert shares["segment"] == pytest.approx(0.8)
    # Under a hundredth of a stage is no row of its own.
    assert "segment/other" not in shares
    assert shares["segment/model/other"] == pytest.approx(0.198)
