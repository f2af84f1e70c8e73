"""Jobs of a real SLURM: whatever becomes of them, the results are those of a run here."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.shard_records import read_shards
from cellseg.workflows import __file__ as workflows
from shared_out import digest
from slurm import call, slurm, state_of, wait_for

__all__ = ["slurm"]

pytestmark = pytest.mark.slurm
DEMO = Path(workflows).parent / "quickstart.toml"
MANY = ("tiling.size=96", "tiling.halo=40", "output.overview=false")
"""So that the plate takes its jobs some seconds: each image has 48 tiles."""
SMALL = ("--cpus", "1", "--memory", "500M")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("here") / "out"
    return digest(run(read_workflow(DEMO, MANY, output=output), Config(device="cpu")).folder)


@pytest.fixture
def out(slurm: str, tmp_path: Path) -> Iterator[Path]:
    """A results folder, of a name of its own; its jobs end with the test."""
    yield tmp_path / tmp_path.name
    call("scancel", f"--name=cellseg-{tmp_path.name}")


def submit(out: Path, *options: str) -> tuple[str, str]:
    """Submit the demo plate; return the array and the job that finishes it."""
    sets = [word for each in MANY for word in ("--set", each)]
    command = ["submit", str(DEMO), "-o", str(out), *sets, *SMALL, *options]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    numbers = re.search(r"submitted: \d+ jobs as array (\d+), then (\d+) to finish", found.output)
    assert numbers is not None
    assert f"scancel {numbers[1]} {numbers[2]}" in found.output
    return numbers[1], numbers[2]


def printed(out: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted((out / "jobs").glob("*.out")))


def wait_for_the_end(out: Path, last: str) -> None:
    # A job that was queued again waits two minutes, unless SLURM is told otherwise.
    wait_for(lambda: state_of(last) not in ("PENDING", "RUNNING", "COMPLETING"), 400)
    assert state_of(last) == "COMPLETED", printed(out)


def at_work(out: Path, number: int) -> bool:
    """Whether a shard has done something and goes on."""
    return any(
        each.about["shard"].startswith(f"{number}/") and each.alive and each.lines
        for each in read_shards(out)
    )


def test_an_array_and_its_end_while_the_node_is_drained(
    slurm: str, out: Path, expected: dict[str, str]
) -> None:
    array, last = submit(out, "--jobs", "2", "--time", "5")
    wait_for(lambda: at_work(out, 1) or at_work(out, 2))
    call("scontrol", "update", f"NodeName={slurm}", "State=DRAIN", "Reason=test")
    try:
        # What is at work there goes on to its end; what comes after waits.
        wait_for(lambda: "RUNNING" not in state_of(array))
        assert state_of(last) == "PENDING"
        assert read_shards(out)
    finally:
        call("scontrol", "update", f"NodeName={slurm}", "State=RESUME")
    wait_for_the_end(out, last)
    assert digest(out) == expected
    assert "shard 1/2: " in printed(out)


def test_jobs_that_are_cancelled_queued_again_or_told_that_time_is_over(
    slurm: str, out: Path, expected: dict[str, str]
) -> None:
    array, last = submit(out, "--jobs", "4", "--time", "5")
    wait_for(lambda: at_work(out, 1))
    call("scancel", f"{array}_1")
    wait_for(lambda: at_work(out, 2))
    call("scontrol", "requeue", f"{array}_2")
    wait_for(lambda: at_work(out, 3))
    # As SLURM does itself two minutes before the end of a job's time.
    call("scancel", "--batch", "--signal=USR1", f"{array}_3")
    wait_for(lambda: "asked to stop by SIGUSR1" in printed(out))
    wait_for_the_end(out, last)
    assert digest(out) == expected
    assert "CANCELLED" in state_of(f"{array}_1")
    for again in (2, 3):
        about = call("scontrol", "show", "job", f"{array}_{again}")
        assert re.search(r"JobState=COMPLETED .*Restarts=1 ", about.replace("\n", " ")), about


def test_a_job_whose_time_is_over(slurm: str, out: Path, expected: dict[str, str]) -> None:
    array, last = submit(out, "--jobs", "2", "--time", "1", "--sbatch", "--signal=B:CONT@5")
    wait_for(lambda: at_work(out, 1))
    # It makes no step more, and hears nothing: SLURM ends it, and its work is done at the end.
    for process in psutil.process_iter(["cmdline"]):
        if {str(out), "1/2"} <= set(process.info["cmdline"] or ()):
            process.send_signal(signal.SIGSTOP)
    wait_for(lambda: "TIMEOUT" in state_of(f"{array}_1"), 200)
    wait_for_the_end(out, last)
    assert digest(out) == expected
