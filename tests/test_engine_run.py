"""A run on any engine, with workers that are killed, writes the bytes of one in this process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cellseg.pipeline import Config, run
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run
from engines import demo, digest


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run in this process writes."""
    result = run(demo(tmp_path_factory.mktemp("here"), "out"), Config(device="cpu"))
    assert not result.failed
    return digest(result.folder)


@pytest.mark.parametrize(("workers", "tiles"), [(1, 2), (1, 4), (4, 1), (2, 2)])
def test_any_workers_write_the_same_bytes(
    tmp_path: Path, expected: dict[str, str], workers: int, tiles: int
) -> None:
    config = Config(device="cpu", workers=workers, tiles_at_once=tiles, threads=1)
    result = run(demo(tmp_path, "out"), config)
    assert not result.failed
    assert digest(result.folder) == expected
    places = {place for report in result.images for place in report.workers}
    assert len(places) == workers


def test_workers_killed_at_random_moments_cost_no_byte(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    chance = random.Random(9)  # noqa: S311
    config = Config(device="cpu", workers=2, threads=1)
    going = Run(plan(demo(tmp_path, "out"), config), config)
    killed, due = 0, time.monotonic()
    for step in going.steps():
        if time.monotonic() < due or not step.stage or killed == 5:
            continue
        victims = [each for each in psutil.Process().children() if "spawn_main" in _command(each)]
        if victims:
            chance.choice(victims).send_signal(signal.SIGKILL)
            killed, due = killed + 1, time.monotonic() + chance.uniform(0.2, 1.5)
    result = going.result()
    assert killed >= 3
    assert not result.failed
    assert digest(result.folder) == expected
    logs = "".join(path.read_text() for path in (result.folder / "logs").glob("*.log"))
    assert "is gone" in logs


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


SCHEDULER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Give a scheduler with a worker, and its address; it ends with its standard input."""
    (folder / "scheduler.py").write_text(SCHEDULER)
    with subprocess.Popen(
        [sys.executable, folder / "scheduler.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()


def test_workers_of_a_scheduler_that_is_up_already_do_the_same(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    with scheduler(tmp_path) as (_, address):
        result = run(demo(tmp_path, "out"), Config(device="cpu", engine=address))
    assert not result.failed
    assert digest(result.folder) == expected


def command(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start ``cellseg run`` of the demo plate."""
    demo(folder, "out")
    call = "from cellseg.pipeline.cli import main; main()"
    arguments = ["run", str(folder / "w.toml"), "--output", str(folder / "out"), *options]
    return subprocess.Popen(
        [sys.executable, "-c", call, *arguments, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_tiles(folder: Path, count: int) -> None:
    """Wait until so many tiles are done."""
    while len(list(folder.glob("out/images/*/*.parquet"))) < count:
        time.sleep(0.01)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_says_continue_me_and_the_same_command_does(
    tmp_path: Path, expected: dict[str, str], workers: str
) -> None:
    with command(tmp_path, "--workers", workers) as process:
        wait_for_tiles(tmp_path, 1)
        # To all its processes, as a batch system does at the end of a job's time.
        os.killpg(process.pid, signal.SIGTERM)
        said, _ = process.communicate()
    assert process.returncode == 75, said
    last = said.strip().splitlines()[-1]
    assert last == "cellseg: asked to stop by SIGTERM. The same command goes on from here."
    with command(tmp_path, "--workers", workers) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert digest(tmp_path / "out") == expected


def test_the_end_of_the_scheduler_is_told_in_one_line(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    with (
        scheduler(tmp_path) as (its_process, address),
        command(tmp_path, "--engine", address) as process,
    ):
        wait_for_tiles(tmp_path, 1)
        its_process.kill()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert said.strip().splitlines()[-1] == (
        f"cellseg: {address}: the dask scheduler is gone."
        " Mend that, and the same command goes on from here."
    )
    with command(tmp_path) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert digest(tmp_path / "out") == expected
