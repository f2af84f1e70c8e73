"""Submit: a run as a SLURM job array of shards, and a job that finishes it once they have ended.

What each job is given, memory and time too, is said on the command line, else in ``[cluster]``
of the configuration, else judged as ``cellseg run --dry-run`` does. The scripts are kept beside
the results, to look at and to submit by hand.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cellseg.models.errors import CellsegError
from cellseg.pipeline.config import Config
from cellseg.pipeline.estimate import Estimate, estimate
from cellseg.pipeline.files import replace_file
from cellseg.pipeline.plan import Plan

__all__ = ["Asked", "Submission", "submission"]

WARNING = 120
"""Seconds before its time is over that a job is told, so that it ends its tile and is queued
again."""
MARGIN, LEAST = 3.0, 15
"""How much longer than judged a job may take, and the least that it is given, in minutes: of the
images nothing but the model is judged, and nodes differ."""
MEMORY_MARGIN = 1.25
THREADS = 4
"""Cores of a worker where a network segments and nothing else is said."""
ARRAY, FINISH = "array.sbatch", "finish.sbatch"
SCRIPT = """\
#!/bin/bash
# Written by cellseg submit; to submit it by hand: {by_hand}
{directives}

export CELLSEG_THREADS={threads}
{prologue}{command} &
job=$!
# The batch system says that time is nearly over: what is at work ends, and the job is queued again.
trap 'late=yes; kill -USR1 $job' USR1
trap 'kill -TERM $job' TERM
wait $job
while kill -0 $job 2> /dev/null; do wait $job; done
wait $job
code=$?
if [ $code = 75 ] && [ -n "$late" ]; then scontrol requeue "{me}"; fi
exit $code
"""


@dataclass(frozen=True)
class Asked:
    """What the command line asks of SLURM; None and 0 where it says nothing.

    Parameters
    ----------
    jobs : int
        Shards.
    partition, account : str, optional
    gpus, cpus : int, optional
        Of each job.
    time, memory : str, optional
        As SLURM has them: ``02:00:00``, ``8G``.
    more : sequence of str
        Further options of sbatch.
    """

    jobs: int
    partition: str | None = None
    account: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    time: str | None = None
    memory: str | None = None
    more: Sequence[str] = ()


@dataclass(frozen=True)
class Submission:
    """Two scripts, for the shards and for what finishes them.

    Parameters
    ----------
    folder : Path
        Where they go, and what the jobs print.
    array, finish : str
    jobs : int
        Shards.
    """

    folder: Path
    array: str
    finish: str
    jobs: int

    def write(self) -> None:
        """Write the scripts."""
        for name, text in ((ARRAY, self.array), (FINISH, self.finish)):
            replace_file(self.folder / name, partial(Path.write_text, data=text, encoding="utf-8"))

    def submit(self) -> tuple[str, str]:
        """Submit them, and return the numbers of the jobs.

        Raises
        ------
        CellsegError
            If there is no SLURM, or it refuses.
        """
        array = _sbatch(str(self.folder / ARRAY))
        after = f"--dependency=afterany:{array}"
        try:
            return array, _sbatch(after, str(self.folder / FINISH))
        except CellsegError as error:
            raise CellsegError(
                f"{error} The array is submitted: scancel {array} ends it."
            ) from None


def submission(plan: Plan, config: Config, asked: Asked, config_path: Path | None) -> Submission:
    """Return the scripts for a plan.

    Parameters
    ----------
    plan : Plan
    config : Config
        Its ``[cluster]`` counts for what is not asked for; ``workers``, ``threads`` and ``device``
        are those of each job.
    asked : Asked
    config_path : Path, optional
        The configuration that the jobs read.

    Raises
    ------
    CellsegError
        If the device does not go with the GPUs, or the model cannot be timed.
    """
    cluster, said = config.cluster, config.cluster.model_fields_set
    gpus = asked.gpus if asked.gpus is not None else cluster.gpus
    if gpus == 0 and config.device.startswith("cuda"):
        raise CellsegError(f'device = "{config.device}", but no GPU is asked for. Give --gpus 1.')
    threads = config.threads or (THREADS if plan.neural and not gpus else 1)
    cores = cluster.cores if "cores" in said else config.workers * threads
    cpus = asked.cpus or cores
    jobs = min(asked.jobs, max(plan.tiles, 1))
    memory = asked.memory or (_slurm_memory(cluster.memory) if "memory" in said else None)
    time = asked.time or cluster.walltime
    if memory is None or time is None:
        judged = estimate(plan, config)
        memory, time = memory or _memory(judged), time or _time(judged, jobs)
    folder = plan.results.folder.absolute()
    options = {
        "job-name": f"cellseg-{re.sub(r'[^A-Za-z0-9._-]', '_', folder.name)}",
        "chdir": str(Path.cwd()),
        "partition": asked.partition or cluster.queue,
        "account": asked.account or cluster.account,
        "cpus-per-task": str(cpus),
        "gres": f"gpu:{gpus}" if gpus else None,
        "mem": memory,
        "time": time,
        "signal": f"B:USR1@{WARNING}",
        "open-mode": "append",
        "kill-on-invalid-dep": "no",
    }
    lines = [f"--{key}={shlex.quote(value)}" for key, value in options.items() if value]
    lines += ["--requeue", *cluster.directives, *asked.more]
    how = ["--engine", "local", "--workers", str(config.workers)]
    how += ["--device", "cuda" if gpus and config.device == "auto" else config.device]
    how += _arithmetic(plan, config, gpus)
    how += ["--config", str(config_path.absolute())] if config_path is not None else []
    about = _About(folder, lines, max(cpus // config.workers, 1), cluster.prologue, how)
    return Submission(folder / "jobs", about.array(jobs), about.finish(), jobs)


def _arithmetic(plan: Plan, config: Config, gpus: int) -> list[str]:
    """Return options that have all jobs compute alike, whatever else each finds on its node."""
    if not plan.neural:
        return []
    inference, precision = plan.model["inference"], plan.model["precision"]
    if gpus:  # which the plan has not seen
        inference = config.inference if config.inference != "auto" else "torch"
        precision = config.precision if config.precision != "auto" else "float32"
    return ["--inference", inference, "--precision", precision]


@dataclass(frozen=True)
class _About:
    """What both scripts have in common."""

    folder: Path
    lines: Sequence[str]
    threads: int
    prologue: Sequence[str]
    how: Sequence[str]

    def array(self, jobs: int) -> str:
        """Return the script of the shards."""
        workflow, output = str(self.folder / "workflow.toml"), str(self.folder)
        command = [*_cellseg(), "run", workflow, "--output", output, *self.how]
        shard = f' --shard "$SLURM_ARRAY_TASK_ID/{jobs}"'
        lines = [f"--array=1-{jobs}", self._printed("%x-%A_%a.out")]
        me = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        return self._script(lines, shlex.join(command) + shard, f"sbatch {ARRAY}", me)

    def finish(self) -> str:
        """Return the script that finishes the run."""
        command = [*_cellseg(), "finish", str(self.folder), "--wait", *self.how]
        by_hand = f"sbatch --dependency=afterany:ARRAY {FINISH}"
        lines = [self._printed("%x-%j-finish.out")]
        return self._script(lines, shlex.join(command), by_hand, "$SLURM_JOB_ID")

    def _printed(self, name: str) -> str:
        return f"--output={shlex.quote(str(self.folder / 'jobs' / name))}"

    def _script(self, lines: Sequence[str], command: str, by_hand: str, me: str) -> str:
        directives = "\n".join(f"#SBATCH {line}" for line in (*self.lines, *lines))
        prologue = "".join(f"{line}\n" for line in self.prologue)
        about = {"directives": directives, "prologue": prologue, "by_hand": by_hand, "me": me}
        return SCRIPT.format(command=command, threads=self.threads, **about)


def _cellseg() -> list[str]:
    """Return how a job calls this installation."""
    beside = Path(sys.executable).parent / "cellseg"
    if beside.is_file():
        return [str(beside)]
    return [sys.executable, "-c", "from cellseg.pipeline.cli import main; main()"]


def _memory(judged: Estimate) -> str:
    return f"{math.ceil(judged.bytes_a_worker * judged.workers * MEMORY_MARGIN / 2**30)}G"


def _slurm_memory(text: str) -> str:
    """Return ``8GB`` or ``8 GiB`` as SLURM has it, ``8G``."""
    return re.sub(r"\s*([kMGT])i?B$", lambda found: found[1].upper(), text)


def _time(judged: Estimate, jobs: int) -> str:
    """Return the time of one of some jobs, ``days-hours:minutes:00``, in steps of five minutes."""
    minutes = LEAST + 5 * math.ceil(judged.seconds * MARGIN / jobs / 300)
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock


def _sbatch(*arguments: str) -> str:
    """Submit a script; return the number of its job."""
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise CellsegError(
            "sbatch is not found. Run this where SLURM's commands are, or see the scripts by"
            " --print."
        )
    command = [sbatch, "--parsable", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise CellsegError(f"{arguments[-1]}: SLURM refuses it: {reason}.")
    return done.stdout.strip().split(";")[0]
