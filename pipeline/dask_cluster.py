"""Workers on dask: processes of this machine, jobs of a batch system, or a scheduler's."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, Status
from distributed.deploy import Cluster
from distributed.utils import silence_logging_cmgr

from cellseg.models.errors import CellsegError
from cellseg.models.timing import noted
from cellseg.pipeline.config import Config
from cellseg.pipeline.logs import LOG, LogFiles

__all__ = ["connected"]

ONE_HEAP = "MALLOC_ARENA_MAX"
"""glibc's variable for what `keep_freed_memory` asks for, where threads come before it."""
SETTINGS = {
    # Each death of a worker is told here at once, and what follows is decided here.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    # What dask looks after in every worker while it computes, some of it fifty times a second.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # Workers count as processes that run here do: dask would set these to others.
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")
    )
    | {ONE_HEAP: "1"},
}
PRELOAD = "cellseg.pipeline.worker"
DASHBOARD = 8787
SUBMITS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "sge": "qsub"}
"""The command of each batch system that starts a job."""
CONNECTS = 30
"""Seconds to find a scheduler."""
CLEARS = 120
"""Seconds before the end of its time at which a job takes no new work."""


@contextmanager
def connected(config: Config, tiles: int, logs: LogFiles | None = None) -> Iterator[Client]:
    """Give a client of the workers that a configuration asks for.

    Parameters
    ----------
    config : Config
    tiles : int
        That each worker has in hand; a scheduler's own workers know themselves.
    logs : LogFiles, optional
        In whose folder jobs write theirs.

    Raises
    ------
    CellsegError
        If they cannot be started, or there is no such scheduler, or its workers have
        another version of cellseg.
    """
    # What dask has to say goes to the logs.
    with dask.config.set(SETTINGS), silence_logging_cmgr(logging.CRITICAL):
        if config.engine == "local":
            with _local(config, tiles) as cluster, Client(cluster) as client:
                yield client
        elif config.engine in SUBMITS:
            with _jobs(config, tiles, logs) as cluster, Client(cluster) as client:
                yield client
        else:
            with _scheduler(config.engine) as client:
                yield client


def _dashboard() -> int:
    """Return dask's usual port for its page, or 0, any, where another run has that."""
    with socket.socket() as trial:
        return 0 if trial.connect_ex(("127.0.0.1", DASHBOARD)) == 0 else DASHBOARD


@noted("start workers")
def _local(config: Config, tiles: int) -> LocalCluster:
    return LocalCluster(
        n_workers=config.workers,
        threads_per_worker=tiles,
        # The system knows better than a worker what memory there is.
        memory_limit=0,
        dashboard_address=f"127.0.0.1:{_dashboard()}",
        silence_logs=logging.CRITICAL,
        preload=[PRELOAD],
    )


@contextmanager
def _jobs(config: Config, tiles: int, logs: LogFiles | None) -> Iterator[Cluster]:
    """Start jobs of a batch system; one that ends before the run does is started again."""
    with _job_cluster(config, tiles, logs) as cluster:
        try:
            cluster.sync(_first_job, cluster)
        except RuntimeError as error:
            said = " ".join(str(error).split("stderr:")[-1].split())
            raise CellsegError(
                f"[cluster]: {SUBMITS[config.engine]} refuses the job: {said}"
                " Mend the keys of [cluster] in config.toml."
            ) from None
        most = config.workers
        least = min(config.cluster.minimum or most, most)
        # That little work waits for each says nothing: no more is given out at a time.
        cluster.adapt(minimum=least, maximum=most, target_duration="100ms")
        yield cluster


async def _first_job(cluster: Cluster) -> None:
    """Submit a job, and wait for what the batch system says; `scale` would wait for nothing."""
    cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        await cluster._correct_state()
    except RuntimeError:
        for job in cluster._created:  # else dask waits for their end
            job.status = Status.failed
        raise


def _job_cluster(config: Config, tiles: int, logs: LogFiles | None) -> Cluster:
    engine, command = config.engine, SUBMITS[config.engine]
    try:
        import dask_jobqueue
    except ImportError:
        raise CellsegError(
            f'engine = "{engine}" needs dask-jobqueue. Install it: pip install "cellseg[cluster]"'
        ) from None
    if shutil.which(command) is None:
        raise CellsegError(
            f'engine = "{engine}" but there is no {command} here. Start cellseg where jobs can be'
            ' submitted, or set engine to "local".'
        )
    kind = getattr(dask_jobqueue, f"{engine.upper()}Cluster")
    return kind(**job_options(config, tiles, logs))


def job_options(config: Config, tiles: int, logs: LogFiles | None) -> dict[str, Any]:
    """Return what dask-jobqueue is to ask a batch system for."""
    about, engine = config.cluster, config.engine
    worker = ["--nthreads", str(tiles), "--memory-limit", "0", "--preload", PRELOAD]
    if (seconds := about.walltime_seconds) is not None and seconds > 3 * CLEARS:
        worker += ["--lifetime", f"{seconds - CLEARS}s", "--lifetime-stagger", f"{CLEARS // 2}s"]
    options: dict[str, Any] = {
        "silence_logs": logging.CRITICAL,
        "cores": about.cores,
        "processes": 1,
        "memory": about.memory,
        "walltime": _walltime(about.walltime, engine),
        "queue": about.queue,
        "account" if engine in ("slurm", "pbs") else "project": about.account,
        "interface": about.interface,
        "job_name": "cellseg",
        "job_extra_directives": [*_gpus(engine, about.gpus), *about.directives],
        "job_script_prologue": [f"export {ONE_HEAP}=1", *about.prologue],
        "worker_extra_args": worker,
        "log_directory": str(logs.folder) if logs else None,
        "scheduler_options": {"dashboard_address": f":{_dashboard()}"},
    }
    if engine == "pbs":
        gpus = f":ngpus={about.gpus}" if about.gpus else ""
        memory = about.memory.replace(" ", "").lower()
        options["resource_spec"] = f"select=1:ncpus={about.cores}{gpus}:mem={memory}"
    return options


def _walltime(said: str | None, engine: str) -> str | None:
    """Return the time of a job as a batch system takes it: LSF knows no seconds."""
    return said.rpartition(":")[0] if said and engine == "lsf" else said


def _gpus(engine: str, count: int) -> list[str]:
    """Return the directive that asks for GPUs; PBS has them in its resources."""
    words = {"slurm": f"--gres=gpu:{count}", "lsf": f"-gpu num={count}", "sge": f"-l gpu={count}"}
    return [words[engine]] if count and engine in words else []


@contextmanager
def _scheduler(where: str) -> Iterator[Client]:
    """Connect to a scheduler that is there, by its address or a file that holds it."""
    about = {"scheduler_file": where} if "://" not in where else {"address": where}
    if "scheduler_file" in about and not Path(where).is_file():
        raise CellsegError(f'engine = "{where}": no such file. It is what the scheduler writes.')
    try:
        client = Client(**about, timeout=CONNECTS)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise CellsegError(
            f'engine = "{where}": no dask scheduler answers there ({said}).'
            " Start one (dask scheduler), or give the address of one that runs."
        ) from None
    with client:
        _check_versions(client, where)
        yield client


def _check_versions(client: Client, where: str) -> None:
    """Refuse workers that might find other cells."""
    try:
        here, found = _versions(), client.run(_versions)
    except Exception as error:  # whatever importing or asking raises there
        said = " ".join(str(error).split())
        raise CellsegError(
            f'engine = "{where}": its workers cannot run cellseg ({said}).'
            " Start them in the same environment as cellseg."
        ) from None
    if not found:
        LOG.warning("the scheduler %s has no worker yet", where)
    for worker, there in found.items():
        for name, version in here.items():
            if there.get(name) != version:
                raise CellsegError(
                    f'engine = "{where}": worker {worker} has {name} {there.get(name)}, here is'
                    f" {version}. Start its workers in the same environment as cellseg."
                )


def _versions() -> dict[str, str]:
    names = ("cellseg", "numpy", "scikit-image", "torch", "zarr")
    return {name: importlib.metadata.version(name) for name in names}
