"""Tiles that cannot be done are set aside and listed; the rest is kept, a rerun does them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline import Config, Workflow, read_workflow, run
from cellseg.pipeline.cli_said import print_summary
from cellseg.pipeline.faults import DIED
from cellseg.pipeline.set_aside import SetAside
from exact import Counting, Exact
from synthetic import cells

CPU = Config(device="cpu")
MARK = 999
"""A grey level, in a corner of no other tile's window, that marks a tile."""


class Failing(Counting):
    """Fails on windows with the mark until told not to."""

    mended = False

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        if not self.mended and any((plane == MARK).any() for plane in planes):
            raise RuntimeError("not this tile")
        return super().segment(planes)


class Poisoned(Exact):
    """Takes its process down on windows with the mark."""

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        if any((plane == MARK).any() for plane in planes):
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().segment(planes)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """An image of 4 x 4 tiles, one of them marked, beside one of a tile."""
    labels = cells(0, shape=(240, 240), count=60)[1].astype(np.uint16)
    labels[208:212, 28:32] = MARK
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "slide.tif", labels)
    tifffile.imwrite(tmp_path / "in" / "small.tif", cells(1, shape=(50, 50), count=6)[1])
    text = 'images = "in"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 60\nhalo = 20\n'
    (tmp_path / "w.toml").write_text(text)
    return tmp_path


def workflow(folder: Path, name: str) -> Workflow:
    return read_workflow(folder / "w.toml", output=folder / name)


def test_the_others_are_kept_and_a_rerun_does_that_tile_alone(slide: Path) -> None:
    failing = Failing()
    result = run(workflow(slide, "out"), CPU, failing)
    assert failing.windows == 16
    assert [report.name for report in result.failed] == ["slide"]
    (aside,) = result.failed[0].tiles_set_aside
    assert (aside.t, aside.z, aside.y, aside.x) == (0, 0, (180, 240), (0, 60))
    assert "not this tile" in str(aside.traceback)
    reason = str(result.failed[0].reason)
    assert reason.startswith("1 of 16 tiles could not be done; the others are kept. The first, ")
    assert reason.endswith("tile t=0, z=0, y=180:240, x=0:60: RuntimeError: not this tile")
    assert not result.image("slide").cells_path.exists()
    (line,) = [
        each
        for each in json.loads((result.folder / "run.json").read_text())["images"]
        if each["state"] == "failed"
    ]
    assert SetAside.read(line["tiles_set_aside"][0]) == aside
    failing.mended = True
    again = run(workflow(slide, "out"), CPU, failing)
    assert not again.failed
    assert failing.windows == 17
    expected = run(workflow(slide, "expected"), CPU, Counting())
    assert expected.cells_path.read_bytes() == again.cells_path.read_bytes()


def test_an_image_with_many_such_tiles_is_given_up(slide: Path) -> None:
    labels = tifffile.imread(slide / "in" / "slide.tif")
    labels[::30, ::30] = MARK
    tifffile.imwrite(slide / "in" / "slide.tif", labels)
    result = run(workflow(slide, "out"), CPU, Failing())
    assert len(result.failed[0].tiles_set_aside) == 10
    assert "10 of 16 tiles could not be done, which is where it was given up" in str(
        result.failed[0].reason
    )


def test_a_tile_that_kills_its_workers_is_found_and_costs_nothing_else(slide: Path) -> None:
    config = Config(device="cpu", workers=2, threads=1)
    result = run(workflow(slide, "out"), config, Poisoned())
    assert [report.name for report in result.failed] == ["slide"]
    (aside,) = result.failed[0].tiles_set_aside
    assert (aside.y, aside.x, aside.reason) == ((180, 240), (0, 60), DIED)
    assert sum(result.failed[0].workers.values()) == 15
    logs = "".join(path.read_text() for path in (result.folder / "logs").glob("*.log"))
    assert "with segment 12 of slide" in logs


def test_each_tile_is_listed_in_the_last_lines_and_in_the_report(
    slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tifffile.imread(slide / "in" / "slide.tif")
    labels[90, 90] = MARK
    tifffile.imwrite(slide / "in" / "slide.tif", labels)
    result = run(workflow(slide, "out"), CPU, Failing())
    print_summary(result, 1.0)
    said = capsys.readouterr().err
    assert "failed: slide: 2 of 16 tiles could not be done; the others are kept." in said
    assert "The first, tile t=0, z=0, y=60:120, x=60:120: " in said
    assert "\n    tile t=0, z=0, y=180:240, x=0:60: RuntimeError: not this tile\n" in said
    assert "y=180:240, x=0:60: " in (slide / "out" / "report.html").read_text()
