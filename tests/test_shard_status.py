"""What is said of shards while they are at work, dead, stopped or done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from cellseg.pipeline import Config, Workflow, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.plan import plan
from cellseg.pipeline.shard import Shard
from cellseg.pipeline.shard_records import Part
from cellseg.pipeline.shard_status import ShardsStatus, shards_status
from cellseg.pipeline.stages import Run
from exact import Exact
from synthetic import cells

CPU = Config(device="cpu")


@pytest.fixture
def settings(tmp_path: Path) -> Workflow:
    """A workflow of three images of 4 tiles, one of 25 and a broken one."""
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("a", "b", "c", "large")):
        shape = (260, 300) if name == "large" else (100, 120)
        labels = cells(seed, shape, 8)[1]
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", labels.astype(np.uint16))
    (tmp_path / "in" / "zero.tif").write_bytes(b"")
    text = 'images = "in"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 64\nhalo = 26\n'
    (tmp_path / "w.toml").write_text(text, encoding="utf-8")
    return read_workflow(tmp_path / "w.toml", output=tmp_path / "out")


def shard(settings: Workflow, number: int) -> Shard:
    return Shard(plan(settings, CPU, Exact()), CPU, Part(number, 2))


def status(settings: Workflow) -> ShardsStatus:
    found = shards_status(Path(settings.output.path))
    assert found is not None
    return found


def test_shards_that_go_on(settings: Workflow) -> None:
    one, two = shard(settings, 1), shard(settings, 2)
    first, second = one.steps(), two.steps()
    for step in range(20):
        next(first if step % 2 else second)
        one.told = two.told = -1e9  # every step is told, however fast it was
    found = status(settings)
    assert found.state == "running"
    assert found.images == 5
    done, whole = found.tiles
    assert 0 < done < whole == sum(scene.tiles for scene in one.plan.scenes)
    assert set(found.failed) == {"zero"}
    assert ": 2 shards: 2 at work\n  images    5: " in found.text
    assert "  at work   1/2 " in found.text
    assert found.seconds_left is not None
    list(first)
    found = status(settings)
    assert ": 2 shards: 1 at work, 1 ended\n" in found.text
    list(second)
    found = status(settings)
    assert (found.state, found.done, found.tiles) == ("stopped", 4, (whole, whole))
    assert f"  images    5: 4 done, 1 failed, 0 to do\n  tiles     {whole} of" in found.text
    assert f"Now cellseg finish {found.folder} gathers all." in found.text


def test_shards_that_died_or_were_stopped(settings: Workflow) -> None:
    first, second = shard(settings, 1), shard(settings, 2).steps()
    steps = first.steps()
    next(steps), next(second)
    first.mine.path.unlink()  # as it is when the next one has looked for it
    second.close()  # type: ignore[attr-defined]
    found = status(settings)
    assert ": 2 shards: 1 stopped, 1 dead\n" in found.text
    assert "No shard is at work. Start shards again, or cellseg finish " in found.text


def test_the_command_line(settings: Workflow) -> None:
    out = settings.output.path
    list(shard(settings, 1).steps())
    outcome = CliRunner().invoke(main, ["status", out])
    assert outcome.exit_code == 0
    assert outcome.output.startswith(f"{out}: 1 shard: 1 ended\n")
    document = json.loads(CliRunner().invoke(main, ["status", out, "--json"]).output)
    assert (document["done"], document["tiles"]) == (4, document["all_tiles"])
    assert [each["shard"] for each in document["shards"]] == ["1/2"]
    # What was done before shards began counts as done, too.
    list(shard(settings, 2).steps())
    assert status(settings).done == 4


def test_once_they_are_finished_the_run_is_told(settings: Workflow) -> None:
    out = settings.output.path
    list(shard(settings, 1).steps())
    steps = Run(plan(settings, CPU, Exact()), CPU).steps()
    next(steps)
    assert "running\n  images    " in CliRunner().invoke(main, ["status", out]).output
    steps.close()  # type: ignore[attr-defined]
    run(settings, CPU, Exact())
    assert CliRunner().invoke(main, ["status", out]).output.startswith(f"{out}: done, in ")
