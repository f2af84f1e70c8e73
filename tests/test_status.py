"""What `cellseg status` says of runs that go on, were killed, or are done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from cellseg.pipeline import Config, read_workflow
from cellseg.pipeline.cli import main
from cellseg.pipeline.plan import ImageReport, plan
from cellseg.pipeline.result import Progress
from cellseg.pipeline.results import Results
from cellseg.pipeline.stages import Run
from cellseg.pipeline.status import Heartbeat, read_status
from exact import Exact
from synthetic import cells

CPU = Config(device="cpu")


@pytest.fixture
def going(tmp_path: Path) -> Run:
    """A run of two images of four tiles, one file broken."""
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("one", "two")):
        labels = cells(seed, (120, 120), 8)[1]
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", labels.astype(np.uint16))
    (tmp_path / "in" / "zero.tif").write_bytes(b"")
    text = 'images = "in"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 64\nhalo = 32\n'
    (tmp_path / "w.toml").write_text(text, encoding="utf-8")
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "out")
    return Run(plan(workflow, CPU, Exact()), CPU)


def test_a_run_that_goes_on(going: Run) -> None:
    steps = going.steps()
    for _ in range(3):
        next(steps)
        going.heartbeat.written = 0.0  # every step is told, however fast it was
    status = read_status(going.plan.results.folder)
    assert (status.state, status.images, status.done) == ("running", 3, 0)
    assert (status.tiles, status.all_tiles) == (3, 8)
    assert set(status.failed) == {"zero"}
    assert status.at.startswith("one ")
    assert status.seconds_left is not None
    assert "running\n  images    3: 1 failed, 2 to do\n  tiles     3 of 8 (38%)" in status.text
    assert f"process {os.getpid()} on" in status.text
    list(steps)


def test_a_run_that_is_done(going: Run) -> None:
    list(going.steps())
    folder = going.plan.results.folder
    status = read_status(folder)
    assert (status.state, status.done, status.cells) == ("done", 2, going.cells)
    assert not Results(folder).progress_path.exists()
    outcome = CliRunner().invoke(main, ["status", str(folder)])
    assert outcome.exit_code == 0
    assert "3: 2 done, 1 failed" in outcome.output
    assert "failed    zero: " in outcome.output
    document = json.loads(CliRunner().invoke(main, ["status", str(folder), "--json"]).output)
    assert document["failed"] == status.failed


def test_a_run_that_was_killed(going: Run) -> None:
    steps = going.steps()
    for _ in range(2):
        next(steps)
    results = going.plan.results
    beat = results.read_progress()
    assert beat is not None
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    results.write_progress({**beat, "pid": ended.pid})
    status = read_status(results.folder)
    assert status.state == "stopped"
    assert "stopped before its end" in status.text
    assert "The same `cellseg run` goes on from there." in status.text


@pytest.mark.parametrize(("silent", "state"), [(30, "running"), (3600, "stopped")])
def test_a_run_on_another_machine_is_believed_for_a_while(
    going: Run, silent: float, state: str
) -> None:
    next(going.steps())
    results = going.plan.results
    beat = results.read_progress()
    assert beat is not None
    results.write_progress({**beat, "host": "elsewhere", "updated": time.time() - silent})
    assert read_status(results.folder).state == state


def test_the_time_left_follows_from_the_tiles_of_this_run_alone(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_run({"state": "running", "images": []})
    heart = Heartbeat(results, 4)
    heart.beat(Progress("a", 91, 100), [])
    heart.started, heart.written = time.time() - 50, 0.0
    report = ImageReport("a", "a.tif", "done", cells=7)
    heart.beat(Progress("a", 95, 100), [report])
    status = read_status(tmp_path)
    assert status.seconds_left == pytest.approx(50, rel=0.05)  # 5 tiles in 50 s, 5 to do
    assert (status.done, status.cells) == (1, 7)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert outcome.exit_code == 2
    assert "no results folder of cellseg" in outcome.output
