"""Shards that know of each other by files alone do between them what one run does."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances
from cellseg.pipeline import Config, Workflow, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.lock import claim
from cellseg.pipeline.plan import plan
from cellseg.pipeline.result import Progress
from cellseg.pipeline.shard import Shard
from cellseg.pipeline.shard_records import Part, read_shards
from cellseg.workflows import __file__ as workflows
from exact import Exact
from plates import write_plate
from shared_out import digest
from synthetic import cells

CPU = Config(device="cpu")
LARGE = "large"
DEMO = Path(workflows).parent / "quickstart.toml"
KILLED_SEEDS = (1,)
MANY = ("tiling.size=128", "tiling.halo=40")
"""Tiles of this size make each image of the demo plate a large one, of 30 tiles."""


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Three small images, a large one and a broken one, with a workflow beside them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate(("a", "b", "c", LARGE)):
        shape = (260, 300) if name == LARGE else (100, 120)
        labels = cells(seed, shape, 12 if name != LARGE else 90, radius=(3, 12))[1]
        tifffile.imwrite(folder / f"{name}.tif", labels.astype(np.uint16))
    (folder / "zero.tif").write_bytes(b"")
    text = 'images = "."\n[normalise]\nmethod = "none"\n[tiling]\nsize = 64\nhalo = 26\n'
    (folder / "w.toml").write_text(text, encoding="utf-8")
    return folder


def workflow(plate: Path, name: str, *overrides: str) -> Workflow:
    return read_workflow(plate / "w.toml", overrides, output=plate.parent / name)


def shard(settings: Workflow, number: int, of: int, segmenter: Any = None) -> Shard:
    return Shard(plan(settings, CPU, segmenter or Exact()), CPU, Part(number, of))


def finished(settings: Workflow, segmenter: Any = None) -> Path:
    return run(settings, CPU, segmenter or Exact()).folder


def in_turns(*steps: Iterator[Progress]) -> None:
    """Carry out some runs, a step of each in turn."""
    going = list(steps)
    while going:
        going = [each for each in going if next(each, None) is not None]


def run_json(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_share_out_images_and_tiles_and_finish_gathers(plate: Path, count: int) -> None:
    expected = finished(workflow(plate, "expected"))
    settings = workflow(plate, "out")
    shards = [shard(settings, number, count) for number in range(1, count + 1)]
    in_turns(*(each.steps() for each in shards))
    out = plate.parent / "out"
    # A shard writes nothing that belongs to all.
    assert not [n for n in ("run.json", "cells.parquet", "report.html") if (out / n).exists()]
    states = read_shards(out)
    assert [each.state for each in states] == ["done"] * count
    assert sorted(itertools.chain(*(each.done for each in states))) == ["a", "b", "c", LARGE]
    # Every tile was segmented once.
    assert sum(each.tiles for each in states) == plan(settings, CPU, Exact()).tiles
    assert sum(each.tiles > 0 for each in states) == count
    assert digest(finished(settings)) == digest(expected)
    assert not (out / "shards").exists()
    assert not (out / "claims").exists()


def test_what_shards_have_spent_stands_in_run_json(plate: Path) -> None:
    settings = workflow(plate, "out")
    in_turns(shard(settings, 1, 2).steps(), shard(settings, 2, 2).steps())
    states = read_shards(plate.parent / "out")
    lines = [line for each in states for line in each.lines if line["name"] == LARGE]
    document = run_json(finished(settings))
    spent = {report["name"]: report["seconds"] for report in document["images"]}
    assert {"segment", "finish"} <= set(spent["a"]) | set(spent["b"])
    total = sum(line["seconds"].get("segment", 0.0) for line in lines)
    assert spent[LARGE]["segment"] == pytest.approx(total, abs=2e-3)
    assert [each["shard"] for each in document["shards"]] == ["1/2", "2/2"]


def test_a_shard_that_stops_leaves_its_work_to_others(plate: Path) -> None:
    expected = finished(workflow(plate, "expected"))
    settings = workflow(plate, "out")
    for taken in (1, 2, 4):
        stopped = shard(settings, 1, 2).steps()
        for _ in range(taken):
            next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        assert read_shards(plate.parent / "out")[0].state == "stopped"
    list(shard(settings, 2, 2).steps())
    assert set(read_shards(plate.parent / "out")[1].done) >= {LARGE, "c"}
    assert digest(finished(settings)) == digest(expected)


def test_what_was_taken_over_is_dropped(plate: Path) -> None:
    expected = finished(workflow(plate, "expected"))
    settings = workflow(plate, "out")
    silent, other = shard(settings, 1, 2), shard(settings, 2, 2)
    steps = silent.steps()
    next(steps)
    # It is taken for dead: the file by which it lives goes, then another one does all.
    path = silent.mine.path
    text = path.read_text(encoding="utf-8")
    path.unlink()
    list(other.steps())
    path.write_text(text, encoding="utf-8")  # and comes to life again
    list(steps)
    assert sorted(read_shards(plate.parent / "out")[1].done) == ["a", "b", "c", LARGE]
    assert digest(finished(settings)) == digest(expected)


def test_what_killed_shards_leave_half_written_goes(plate: Path) -> None:
    settings, out = workflow(plate, "out"), plate.parent / "out"
    list(shard(settings, 1, 2).steps())
    for name in ("shards/2-of-2.toml.partial", "claims/work/x.partial", "claims/y.partial"):
        (out / name).touch()
    finished(settings)
    assert not (out / "shards").exists()
    assert not (out / "claims").exists()
    assert not list(out.rglob("*.partial"))


def test_one_that_another_process_stands_for_ends(plate: Path) -> None:
    going = shard(workflow(plate, "out"), 1, 2)
    steps = going.steps()
    next(steps)
    going.mine.path.unlink()
    with pytest.raises(CellsegError, match="another one took its place"):
        list(steps)


class Failing(Exact):
    """Fails at every window that shows a certain grey level."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.tries = 0

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        if any((plane == self.level).any() for plane in planes):
            self.tries += 1
            raise RuntimeError("no luck")
        return super().segment(planes)


def test_what_fails_is_listed_and_not_tried_by_each_shard(plate: Path) -> None:
    level = int(tifffile.imread(plate / f"{LARGE}.tif").max())  # only there are so many cells
    settings, failing = workflow(plate, "out"), Failing(level)
    list(shard(settings, 1, 3, failing).steps())
    tries = failing.tries
    assert tries
    in_turns(*(shard(settings, number, 3, failing).steps() for number in (2, 3)))
    assert failing.tries == tries
    states = read_shards(plate.parent / "out")
    assert set(states[0].failed) == {LARGE}
    assert set(states[0].done) == {"a", "b", "c"}
    # A run tries again what failed, and finish is one.
    result = run(settings, CPU, failing)
    assert failing.tries > tries
    assert {report.name for report in result.failed} == {LARGE, "zero"}
    assert digest(finished(settings)) == digest(finished(workflow(plate, "expected")))


def test_shards_of_another_workflow_are_refused(plate: Path) -> None:
    going = shard(workflow(plate, "out"), 1, 2).steps()
    next(going)
    other = shard(workflow(plate, "out", "stitch.overlap=0.6"), 2, 2)
    with pytest.raises(CellsegError, match="shard 1/2 is at work there with another workflow"):
        next(other.steps())
    list(going)
    list(shard(workflow(plate, "out", "stitch.overlap=0.6"), 2, 2).steps())


def test_nobody_works_alone_beside_a_shard_nor_a_shard_beside_who_does(plate: Path) -> None:
    settings, out = workflow(plate, "out"), plate.parent / "out"
    going = shard(settings, 1, 2).steps()
    next(going)
    with pytest.raises(CellsegError, match="at work there: cellseg run --shard 1/2"):
        finished(settings)
    with pytest.raises(CellsegError, match="at work there: cellseg run --shard 1/2"):
        next(shard(settings, 1, 2).steps())
    found = CliRunner().invoke(main, ["finish", str(out)])
    assert found.exit_code == 2
    assert re.fullmatch(
        r"cellseg: \S+: at work there: cellseg run --shard 1/2 \(.*\n", found.output
    )
    list(going)
    with (
        claim(out, "cellseg finish"),
        pytest.raises(CellsegError, match="at work there: cellseg finish"),
    ):
        next(shard(settings, 2, 2).steps())


def test_a_plate_lists_its_fields_when_it_is_finished(tmp_path: Path) -> None:
    fields = {
        group: cells(number, (120, 140), 20)[1].astype(np.uint16)
        for number, group in enumerate(("B/03/0", "B/03/1", "C/3/0"))
    }
    write_plate(tmp_path / "in.zarr", fields, "0.5")
    text = 'images = "in.zarr"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 96\nhalo = 30\n'
    (tmp_path / "w.toml").write_text(text, encoding="utf-8")

    def settings(name: str, *overrides: str) -> Workflow:
        return read_workflow(tmp_path / "w.toml", overrides, output=tmp_path / name)

    expected = digest(finished(settings("expected")))
    finished(settings("out", "tiling.size=64", "stitch.overlap=0.6"))
    in_turns(*(shard(settings("out"), number, 2).steps() for number in (1, 2)))
    assert not (tmp_path / "out" / "plate.zarr" / "zarr.json").exists()
    assert digest(finished(settings("out"))) == expected


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/", "a/b", "-1/4"])
def test_a_shard_that_there_cannot_be(plate: Path, text: str) -> None:
    found = CliRunner().invoke(main, ["run", str(plate / "w.toml"), "--shard", text])
    assert found.exit_code == 2
    assert f"--shard {text}: give its number, from 1, and how many there are" in found.output


def test_shards_do_not_start_afresh(plate: Path) -> None:
    command = ["run", str(plate / "w.toml"), "--shard", "1/2", "--fresh"]
    found = CliRunner().invoke(main, command)
    assert (found.exit_code, found.output.count("\n")) == (2, 1)


def test_the_command_line_with_images_of_its_own(tmp_path: Path) -> None:
    image = DEMO.parent / "demo_plate" / "IXMtest_A18_s1_w1.tif"
    command = ["run", str(DEMO), str(image), "-o", str(tmp_path / "out"), "--shard", "1/1"]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    assert "shard 1/1: 1 image done, " in found.output
    assert f"cellseg finish {tmp_path / 'out'}" in found.output
    found = CliRunner().invoke(main, ["finish", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    assert pq.read_table(tmp_path / "out" / "cells.parquet").num_rows
    found = CliRunner().invoke(main, ["finish", str(tmp_path)])
    assert found.exit_code == 2
    assert "no shard has worked there" in found.output


def work(out: Path, part: str) -> None:
    """Be a shard, as the command is."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        suppress(SystemExit),
    ):
        sets = [word for each in MANY for word in ("--set", each)]
        main(["run", str(DEMO), *sets, "-o", str(out), "--shard", part])


def has_begun(out: Path, number: int) -> bool:
    return (out / "shards" / f"{number}-of-16.json").exists()


def has_claimed(out: Path, number: int) -> bool:
    said = f'"together-shard-{number}-of-16.1"'
    return any(
        said in path.read_text("utf-8") for path in (out / "claims" / "work").glob("*.[1-9]")
    )


@pytest.mark.parametrize("seed", KILLED_SEEDS)
def test_sixteen_shards_of_which_a_third_are_killed(tmp_path: Path, seed: int) -> None:
    expected = run(read_workflow(DEMO, MANY, output=tmp_path / "expected"), CPU).folder
    out, chosen = tmp_path / "out", np.random.default_rng(seed)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["cellseg.pipeline.shard", "cellseg.pipeline.cli"])
    shards = [forks.Process(target=work, args=(out, f"{n}/16")) for n in range(1, 17)]
    for process in shards:
        process.start()
    victims = chosen.choice(16, 16 // 3 + 1, replace=False).tolist()
    for place, number in enumerate(victims):
        # Some as they begin, some with work in hand; when after that, is chance.
        begun = has_begun if place % 3 == 0 else has_claimed
        while shards[number].is_alive() and not begun(out, number + 1):
            time.sleep(0.01)
        time.sleep(chosen.uniform(0, 0.1))
        shards[number].kill()
    for process in shards:
        process.join()
    states = {each.about["shard"]: each.state for each in read_shards(out)}
    dead = {f"{n + 1}/16" for n in victims if shards[n].exitcode == -signal.SIGKILL}
    assert len(dead) >= 4
    assert {part for part, state in states.items() if state == "dead"} == dead
    claims = [json.loads(path.read_text("utf-8")) for path in (out / "claims" / "work").iterdir()]
    assert [each for each in claims if each["deaths"]], "nobody was killed at work"
    found = CliRunner().invoke(main, ["finish", str(out)])
    assert found.exit_code == 0, found.output
    assert digest(out) == digest(expected)
