"""Jobs of a real SLURM as workers: the bytes of a run in this process, whatever becomes of jobs."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cellseg.models import CellsegError
from cellseg.pipeline import Config, run
from cellseg.pipeline.config import Cluster
from cellseg.pipeline.dask_cluster import job_options
from cellseg.pipeline.logs import LogFiles
from cellseg.pipeline.plan import plan
from cellseg.pipeline.stages import Run
from engines import demo, digest
from slurm import slurm

__all__ = ["slurm"]

JOB = Cluster(queue="cpu", cores=1, memory="1GB", interface="lo", walltime="00:20:00")


def jobs() -> list[str]:
    """The ids of the jobs that run."""
    call = ["squeue", "-h", "-o", "%i", "-n", "cellseg", "-t", "running"]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_jobs_are_workers_and_one_that_is_cancelled_is_followed_by_another(tmp_path: Path) -> None:
    expected = run(demo(tmp_path, "expected"), Config(device="cpu"))
    config = Config(device="cpu", engine="slurm", workers=2, cluster=JOB)
    going, cancelled = Run(plan(demo(tmp_path, "out"), config), config), ""
    for step in going.steps():
        if not cancelled and step.tiles > 20:
            cancelled = jobs()[0]
            subprocess.run(["scancel", cancelled], check=True)  # noqa: S607
    result = going.result()
    assert cancelled
    assert not result.failed
    assert digest(result.folder) == digest(expected.folder)
    places = {place for report in result.images for place in report.workers}
    assert len(places) >= 2
    last = time.monotonic() + 20
    while jobs() and time.monotonic() < last:
        time.sleep(0.2)
    assert not jobs()


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_a_job_that_is_refused_is_one_line(tmp_path: Path) -> None:
    cluster = JOB.model_copy(update={"queue": "nowhere"})
    config = Config(device="cpu", engine="slurm", workers=2, cluster=cluster)
    with pytest.raises(CellsegError, match="invalid partition specified: nowhere") as caught:
        run(demo(tmp_path, "out"), config)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("[cluster]: sbatch refuses the job: ")


def test_without_a_batch_system_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CellsegError, match=r'^engine = "lsf" but there is no bsub here\. Start'):
        run(demo(tmp_path, "out"), Config(device="cpu", engine="lsf"))


def test_where_no_scheduler_answers_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellseg.pipeline.dask_cluster.CONNECTS", 1)
    config = Config(device="cpu", engine="tcp://127.0.0.1:9")
    with pytest.raises(CellsegError, match=r'^engine = "tcp://127\.0\.0\.1:9": no dask scheduler'):
        run(demo(tmp_path, "out"), config)
    config = Config(device="cpu", engine=str(tmp_path / "none.json"))
    with pytest.raises(CellsegError, match="no such file"):
        run(demo(tmp_path, "out"), config)


@pytest.mark.parametrize(
    ("engine", "lines"),
    [
        ("slurm", ["#SBATCH -p gpu", "-A lab", "--cpus-per-task=6", "--gres=gpu:1", "-t 02:00:00"]),
        ("pbs", ["#PBS -q gpu", "-A lab", "-l select=1:ncpus=6:ngpus=1:mem=16gb"]),
        ("lsf", ["#BSUB -q gpu", '-P "lab"', "#BSUB -n 6", "#BSUB -gpu num=1"]),
        ("sge", ["#$ -q gpu", "#$ -P lab", "#$ -l gpu=1", "h_rt=02:00:00"]),
    ],
)
def test_each_batch_system_is_asked_for_what_the_keys_say(
    tmp_path: Path, engine: str, lines: list[str]
) -> None:
    import dask_jobqueue

    cluster = Cluster(
        queue="gpu",
        account="lab",
        cores=6,
        memory="16GB",
        gpus=1,
        walltime="02:00:00",
        directives=("--exclusive",),
        prologue=("module load cuda",),
    )
    config = Config(device="cpu", engine=engine, workers=2, cluster=cluster)
    options = job_options(config, 1, LogFiles(tmp_path / "logs"))
    del options["scheduler_options"], options["silence_logs"]
    job = getattr(dask_jobqueue, f"{engine}").__dict__[f"{engine.upper()}Job"]
    script = job(scheduler="tcp://head:1", name="w0", **options).job_script()
    assert all(line in script for line in lines), script
    assert "--exclusive" in script
    assert script.index("module load cuda") < script.index("distributed.cli.dask_worker")
    assert script.index("MALLOC_ARENA_MAX=1") < script.index("distributed.cli.dask_worker")
    # Two minutes before its end a job takes no new tile.
    assert "--lifetime 7080s" in script
    assert script.rindex("--nthreads 1") > script.index("--nthreads 6")
