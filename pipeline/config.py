"""Config: how this machine computes. Deleting config.toml never changes a label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cellseg.models.errors import DeviceError
from cellseg.models.loading import quick
from cellseg.models.settings import Frozen
from cellseg.pipeline.settings import Table, check, parse_value, read_toml

__all__ = ["Config", "read_config"]

DEFAULT_FILE = Path("config.toml")
TILES_ON_GPU = 4
"""Tiles that a worker has in hand where a GPU computes: about a batch."""
TILES_ON_CPU = 4
"""The most tiles that it has in hand, unless told, where the CPU's cores compute."""
BYTES_A_TILE = 2e9
"""Of the machine's memory, for each of these: room for the largest tile as it comes, 1152 px."""
CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much memory a container has."""
BATCH = ("slurm", "pbs", "lsf", "sge")
"""Engines whose workers are jobs of a batch system."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Names of mallopt's parameters in glibc's malloc.h."""
_VARIABLES = {
    "device": "CELLSEG_DEVICE",
    "inference": "CELLSEG_INFERENCE",
    "precision": "CELLSEG_PRECISION",
    "engine": "CELLSEG_ENGINE",
    "workers": "CELLSEG_WORKERS",
    "tiles_at_once": "CELLSEG_TILES_AT_ONCE",
    "threads": "CELLSEG_THREADS",
    "log": "CELLSEG_LOG",
}


class Cluster(Frozen):
    """What each job of a batch system is, one worker: the table ``[cluster]``.

    What is left out is as dask-jobqueue has it, from its own settings or the batch system's.
    """

    queue: str | None = Field(default=None, description="Partition or queue.")
    account: str | None = Field(default=None, description="Account or project that pays.")
    cores: int = Field(default=4, ge=1, description="Cores of a job.")
    memory: str = Field(
        default="8GB",
        pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$",
        examples=["8GB"],
        description="Memory of a job; cellseg run --dry-run says how much a worker takes.",
    )
    walltime: (
        Annotated[str, Field(pattern=r"^(\d+-)?\d+:\d\d:\d\d$", examples=["02:00:00"])] | None
    ) = Field(default=None, description="Time of a job. One that ends is followed by another.")
    gpus: int = Field(default=0, ge=0, description="GPUs of a job; 1 is what a worker uses.")
    interface: str | None = Field(
        default=None,
        examples=["ib0"],
        description="Network interface by which jobs and this process reach each other.",
    )
    directives: tuple[str, ...] = Field(
        default=(), description='More lines for the batch system, as "--exclusive".'
    )
    prologue: tuple[str, ...] = Field(
        default=(), description='Shell lines before the worker starts, as "module load cuda".'
    )
    minimum: int | None = Field(
        default=None,
        ge=1,
        description="Jobs that are kept while there is little to do; default: all of them.",
    )

    @property
    def walltime_seconds(self) -> int | None:
        """Time of a job in seconds."""
        if self.walltime is None:
            return None
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = (int(each) for each in clock.split(":"))
        return (24 * int(days or 0) + hours) * 3600 + 60 * minutes + seconds


class Config(Frozen):
    """How this machine computes; `read_config` gathers it."""

    device: (
        Literal["auto", "cpu", "cuda"]
        | Annotated[str, Field(pattern=r"^cuda:\d+$", examples=["cuda:0"])]
    ) = Field(
        default="auto",
        description='"auto" (the GPUs, or the CPU where there are none), "cpu", "cuda" (the GPUs,'
        ' workers in turn) or "cuda:N". A GPU that is asked for and missing is an error.',
    )
    inference: Literal["auto", "torch", "openvino"] = Field(
        default="auto",
        description='What computes the network: "torch"; on CPUs, for mask_rcnn, "openvino", of'
        ' pip install "cellseg[cpu]"; "auto": that one for bfloat16, where it is installed.',
    )
    precision: Literal["auto", "float32", "mixed", "bfloat16"] = Field(
        default="auto",
        description='Arithmetic of the network: "float32"; "bfloat16", faster where the hardware'
        ' has it, and coarser; "mixed", for mask_rcnn: masks alone in bfloat16, and so the same'
        ' cells; "auto": "mixed" on CPUs that have bfloat16, else "float32".',
    )
    engine: (
        Literal["local", "slurm", "pbs", "lsf", "sge"]
        | Annotated[str, Field(pattern=r"^(\w+://.+|.+\.json)$", examples=["tcp://host:8786"])]
    ) = Field(
        default="local",
        description='Where workers are: "local"; jobs of "slurm", "pbs", "lsf" or "sge"; or those'
        " of a dask scheduler, by its address or the JSON file that it writes.",
    )
    workers: int = Field(
        default=1, ge=1, description="Processes that segment; of a scheduler, those that it has."
    )
    tiles_at_once: int | None = Field(
        default=None,
        ge=1,
        description="Tiles that a worker has in hand, in threads around its one model: some are"
        " read and written while others are computed. Default: 4 on a GPU; on a CPU a core for"
        " each, up to 4, less where memory is short.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="torch threads for each tile; default: the cores shared out evenly.",
    )
    log: Literal["info", "debug"] = Field(
        default="info",
        description='What goes to the logs in the results: "info", what was tried again and'
        ' workers that came and went; "debug", a line for each tile too.',
    )
    cluster: Cluster = Field(default=Cluster(), description="What each job is.")

    def torch_device(self, worker: int = 0) -> str:
        """Return the torch device of a worker of this machine: ``cpu`` or ``cuda:N``.

        Parameters
        ----------
        worker : int
            Its number; where no GPU is named they take them in turn.

        Raises
        ------
        DeviceError
            If a GPU is asked for that torch does not find.
        """
        if self.device == "cpu":
            return "cpu"
        if self.device == "auto" and self.engine in BATCH and not self.cluster.gpus:
            return "cpu"  # a GPU that a job may see by chance is another one's
        with quick():
            import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.device == "auto" and not count:
            return "cpu"
        _, _, named = self.device.partition(":")
        index = int(named) if named else worker % max(count, 1)
        if index >= count:
            raise DeviceError(_missing(self.device, count, torch.version.cuda))
        return f"cuda:{index}"

    def on_worker(self) -> Config:
        """Return it as it holds in a job: one that was given a GPU computes there or not at all."""
        if self.device == "auto" and self.engine in BATCH and self.cluster.gpus:
            return self.model_copy(update={"device": "cuda"})
        return self

    def in_hand(self, *, neural: bool, tiles: int | None = None) -> int:
        """Return how many tiles a worker has in hand.

        Parameters
        ----------
        neural : bool
            Whether torch computes.
        tiles : int, optional
            How many there are in all: of one alone, all cores compute.
        """
        if self.tiles_at_once is not None:
            return self.tiles_at_once
        if not neural:
            return 1
        if self.cluster.gpus or self.torch_device() != "cpu":
            return TILES_ON_GPU
        return self._on_cores(tiles)

    def _on_cores(self, tiles: int | None) -> int:
        """Return how many tiles a worker has in hand where the cores of this machine compute."""
        if self.engine != "local":
            return 1  # a scheduler's worker has what it has
        each = max(1, cores() // (self.workers * (self.threads or 1)))
        room = max(1, int(memory_bytes() / (self.workers * BYTES_A_TILE)))
        wanted = TILES_ON_CPU if tiles is None else -(-tiles // self.workers)
        return max(1, min(TILES_ON_CPU, each, room, wanted))

    def torch_threads(self, tiles: int = 1) -> int:
        """Return the torch threads of each tile that is computed on a CPU.

        Parameters
        ----------
        tiles : int
            That a worker has in hand, where no key says.
        """
        if self.threads is not None:
            return self.threads
        at_once = self.tiles_at_once or tiles
        if self.engine != "local":
            # A scheduler's worker has its own threads, each of which may segment a tile.
            each = self.cluster.cores if self.engine in BATCH else 1
            return max(1, each // at_once)
        return max(1, cores() // (self.workers * at_once))


def cores() -> int:
    """Return the cores that this process may use."""
    # Fewer than the machine has where a scheduler or container says so; not on macOS.
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def memory_bytes() -> float:
    """Return the memory of this machine, or of the container that this process is in."""
    import psutil

    machine = float(psutil.virtual_memory().total)
    try:
        limit = CONTAINER.read_text(encoding="ascii").strip()
    except OSError:
        return machine
    return min(machine, float(limit)) if limit.isdecimal() else machine


def _missing(device: str, count: int, cuda: str | None) -> str:
    """Return why there is no such GPU, and what to do."""
    asked = f'device = "{device}"'
    if count:
        return f"{asked} but the last GPU that torch finds is cuda:{count - 1}. Set device to it."
    if cuda is None:
        why, remedy = "the installed torch is built without CUDA", "install one with CUDA"
    else:
        why, remedy = "torch finds no GPU", "see what nvidia-smi says"
    return f'{asked} but {why}. Set device to "cpu" or "auto", or {remedy}.'


def read_config(path: str | Path | None = None, **command_line: Any) -> Config:
    """Gather the configuration.

    The later wins: the defaults; the file; the environment (``CELLSEG_DEVICE``,
    ``CELLSEG_WORKERS`` and so on, for each key above the tables); the command line.

    Parameters
    ----------
    path : path, optional
        Must exist if given; else ``config.toml`` in the current directory, if there is one.
    **command_line
        Values by key; those that are None count as not given.

    Raises
    ------
    CellsegError
        One line: in which file, variable or option; what was got; what is allowed.
    """
    raw: Table = {}
    file = DEFAULT_FILE if path is None else Path(path)
    if path is not None or file.is_file():
        raw = read_toml(file)
    sources: dict[tuple[str, ...], str] = {}
    for key, variable in _VARIABLES.items():
        if text := os.environ.get(variable):
            raw[key], sources[key,] = parse_value(text), variable
    for key, value in command_line.items():
        if value is not None:
            raw[key], sources[key,] = value, f"--{key}"
    return check(Config, raw, str(file), sources)


def keep_freed_memory() -> None:
    """Keep what a tile has freed for the next one, instead of giving it back to the system.

    Every tile asks for the same large pieces; handing them back and asking for
    them again costs about as much as the network's arithmetic. All threads take
    from one heap: those that glibc gives to threads hold 64 MB at most, and what is
    larger goes back. What the process holds stays below the peak of the tiles that it
    has in hand. To be called before there are threads; does something with glibc only.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc, or not a system with dlopen
        return
    most = 2**31 - 1
    mallopt(M_MMAP_THRESHOLD, most)
    mallopt(M_TRIM_THRESHOLD, most)
    mallopt(M_ARENA_MAX, 1)
