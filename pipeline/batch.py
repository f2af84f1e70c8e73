"""Batch: the job of a batch system that this process is part of, and whether another one is gone.

A job is named in one line: the system, and what tells it from others there. Only SLURM is asked
about jobs, and only from within the same cluster; of others their silence tells.
"""

from __future__ import annotations

import os
import shutil
import subprocess

__all__ = ["batch_job", "is_gone"]

OTHERS = {"PBS_JOBID": "pbs", "LSB_JOBID": "lsf", "JOB_ID": "sge"}
"""Variables in which other batch systems name their jobs."""
AT_WORK = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}
"""States of a SLURM job whose processes may be there."""
PATIENCE = 20.0
"""Seconds that SLURM has to answer."""


def batch_job() -> str:
    """Return the job that this process is part of, as ``slurm cluster 123 0``; nothing if none.

    The last number counts how often SLURM has queued the job again.
    """
    if job := os.environ.get("SLURM_JOB_ID"):
        cluster = os.environ.get("SLURM_CLUSTER_NAME", "-")
        return f"slurm {cluster} {job} {os.environ.get('SLURM_RESTART_COUNT', '0')}"
    found = [f"{name} {os.environ[key]}" for key, name in OTHERS.items() if os.environ.get(key)]
    return found[0] if found else ""


def is_gone(job: str) -> bool:
    """Whether it is known that a job, as `batch_job` named it there, has no process any more."""
    system, *about = job.split() or [""]
    mine = batch_job().split()
    if system != "slurm" or len(about) != 3 or mine[:2] != job.split()[:2]:
        return False
    _, number, times = about
    if number == mine[2]:
        return int(times) < int(mine[3])
    return _is_over(number)


def _is_over(number: str) -> bool:
    squeue = shutil.which("squeue")
    if squeue is None:
        return False
    command = [squeue, "--noheader", f"--jobs={number}", "--format=%T", "--states=all"]
    try:
        asked = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    if asked.returncode:
        return "Invalid job id" in asked.stderr
    return not AT_WORK & set(asked.stdout.split())
