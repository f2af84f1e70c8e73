"""Config: which source wins, what is refused and where, and that a missing GPU is an error."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from cellseg.models import CellsegError
from cellseg.pipeline.config import Cluster, Config, memory_bytes, read_config

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for key in Config.model_fields:
        monkeypatch.delenv(f"CELLSEG_{key.upper()}", raising=False)
    return tmp_path


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, built: str | None = "12.8") -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.version, "cuda", built)


def test_without_any_source_the_defaults_hold() -> None:
    assert read_config() == Config()


def test_the_shipped_file_holds_the_defaults_and_names_every_key() -> None:
    text = (ROOT / "config.toml").read_text(encoding="utf-8")
    assert read_config(ROOT / "config.toml") == Config()
    named = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert set(named) == set(Config.model_fields)
    assert set(named["cluster"]) == set(Cluster.model_fields)


def test_file_then_environment_then_command_line_win(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "config.toml").write_text('device = "cuda"\nworkers = 2\nthreads = 2\n')
    monkeypatch.setenv("CELLSEG_WORKERS", "3")
    monkeypatch.setenv("CELLSEG_THREADS", "3")
    monkeypatch.setenv("CELLSEG_PRECISION", "bfloat16")
    got = read_config(threads=4, device=None)
    assert got == Config(device="cuda", workers=3, threads=4, precision="bfloat16")


def test_a_named_file_is_read_in_place_of_the_one_here(here: Path) -> None:
    (here / "config.toml").write_text("workers = 2\n")
    (here / "other.toml").write_text("threads = 5\n")
    assert read_config("other.toml") == Config(threads=5)


@pytest.mark.parametrize(
    ("file", "environment", "command_line", "words"),
    [
        ("workers = 0", {}, {}, ["config.toml: workers = 0 is not a whole number of at least 1"]),
        ("worker = 1", {}, {}, ["config.toml: worker ", "Did you mean workers?", "threads"]),
        ("workers = 1.5", {}, {}, ["config.toml: workers = 1.5 is not a whole number"]),
        ("workers = true", {}, {}, ["workers = true is not a whole number"]),
        ("workers = \nthreads = 1", {}, {}, ["config.toml: not valid TOML", "line 1"]),
        ('device = "gpu"', {}, {}, ['device = "gpu" is not "auto" or "cpu" or "cuda"', "cuda:0"]),
        ('device = "cuda:"', {}, {}, ['device = "cuda:" is not']),
        ('engine = "condor"', {}, {}, ['"local" or "slurm"', 'text like "tcp://host:8786"']),
        ("[cluster]\ncore = 1", {}, {}, ["[cluster] core is not a key", "Did you mean cores?"]),
        ('[cluster]\nwalltime = "2h"', {}, {}, ["[cluster] walltime", 'text like "02:00:00"']),
        ("", {"WORKERS": "many"}, {}, ['CELLSEG_WORKERS: workers = "many" is not a whole']),
        (
            "",
            {"PRECISION": "float16"},
            {},
            ["CELLSEG_PRECISION", 'or "mixed" or "bfloat16"'],
        ),
        ("", {}, {"threads": 0}, ["--threads: threads = 0 is not a whole number of at least 1"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line_with_its_source(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    environment: dict[str, str],
    command_line: dict[str, Any],
    words: list[str],
) -> None:
    (here / "config.toml").write_text(file)
    for key, value in environment.items():
        monkeypatch.setenv(f"CELLSEG_{key}", value)
    with pytest.raises(CellsegError) as caught:
        read_config(**command_line)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_named_file_must_exist() -> None:
    with pytest.raises(CellsegError, match=r"^mine\.toml: no such file"):
        read_config("mine.toml")


@pytest.mark.parametrize(
    ("device", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_the_device_is_the_one_asked_for(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, expected: str
) -> None:
    gpus(monkeypatch, count)
    assert Config(device=device).torch_device() == expected


@pytest.mark.parametrize(
    ("device", "count", "built", "words"),
    [
        ("cuda", 0, "12.8", ["torch finds no GPU", 'Set device to "cpu"']),
        ("cuda:0", 0, None, ["built without CUDA", 'Set device to "cpu"']),
        ("cuda:2", 2, "12.8", ["the last GPU", "cuda:1"]),
    ],
)
def test_a_gpu_that_is_missing_is_an_error_and_never_the_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, built: str | None, words: list[str]
) -> None:
    gpus(monkeypatch, count, built)
    with pytest.raises(CellsegError) as caught:
        Config(device=device).torch_device()
    assert all(word in str(caught.value) for word in [f'device = "{device}"', *words])


@pytest.mark.parametrize(
    ("walltime", "seconds"), [(None, None), ("00:30:00", 1800), ("1-02:00:05", 93605)]
)
def test_the_time_of_a_job_in_seconds(walltime: str | None, seconds: int | None) -> None:
    assert Cluster(walltime=walltime).walltime_seconds == seconds


def test_jobs_have_the_cores_of_their_job_and_a_schedulers_workers_their_own_threads() -> None:
    assert Config(engine="slurm", workers=8, cluster=Cluster(cores=6)).torch_threads() == 6
    assert Config(engine="tcp://head:8786", workers=8).torch_threads() == 1


def test_the_cores_are_shared_out_and_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert Config().torch_threads() == 8
    assert Config(workers=3).torch_threads() == 2
    assert Config(workers=20).torch_threads() == 1
    assert Config(workers=3, threads=7).torch_threads() == 7


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        ("cuda", ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
        ("cuda:1", ["cuda:1"] * 4),
        ("cpu", ["cpu"] * 4),
    ],
)
def test_workers_take_the_gpus_in_turn_where_none_is_named(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: list[str]
) -> None:
    gpus(monkeypatch, 3)
    assert [Config(device=device).torch_device(worker) for worker in range(4)] == expected


def test_a_worker_has_several_tiles_in_hand_where_a_gpu_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, 1)
    gpus(monkeypatch, 1)
    assert Config().in_hand(neural=True) == 4
    assert Config().in_hand(neural=False) == 1
    assert Config(device="cpu").in_hand(neural=True) == 1
    assert Config(device="cpu", tiles_at_once=3).in_hand(neural=True) == 3
    gpus(monkeypatch, 0)
    assert Config(engine="slurm").in_hand(neural=True) == 1
    assert Config(engine="slurm", cluster=Cluster(gpus=1)).in_hand(neural=True) == 4


def machine(monkeypatch: pytest.MonkeyPatch, cores: int, gigabytes: float = 64) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("cellseg.pipeline.config.memory_bytes", lambda: gigabytes * 1e9)


@pytest.mark.parametrize(
    ("cores", "gigabytes", "tiles", "keys", "expected"),
    [
        (2, 64, None, {}, (2, 1)),
        (8, 64, None, {}, (4, 2)),
        (8, 64, 1, {}, (1, 8)),
        (8, 64, 3, {}, (3, 2)),
        (8, 4, None, {}, (2, 4)),
        (8, 2, None, {}, (1, 8)),
        (8, 64, None, {"workers": 2}, (4, 1)),
        (8, 64, 4, {"workers": 2}, (2, 2)),
        (8, 64, None, {"workers": 3}, (2, 1)),
        (8, 64, None, {"workers": 20}, (1, 1)),
        (8, 64, None, {"threads": 4}, (2, 4)),
        (8, 64, None, {"threads": 8}, (1, 8)),
        (8, 64, None, {"tiles_at_once": 1}, (1, 8)),
        (8, 64, None, {"tiles_at_once": 3, "workers": 2}, (3, 1)),
        (8, 64, None, {"tiles_at_once": 8, "threads": 3}, (8, 3)),
        (1, 64, None, {}, (1, 1)),
    ],
)
def test_tiles_are_computed_side_by_side_on_as_many_cores_as_there_are(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    gigabytes: float,
    tiles: int | None,
    keys: dict[str, int],
    expected: tuple[int, int],
) -> None:
    machine(monkeypatch, cores, gigabytes)
    config = Config(device="cpu", **keys)  # type: ignore[arg-type]
    at_once = config.in_hand(neural=True, tiles=tiles)
    assert (at_once, config.torch_threads(at_once)) == expected
    if not {"threads", "tiles_at_once"} <= set(keys):
        assert at_once * config.torch_threads(at_once) <= max(1, cores // config.workers)


def test_a_container_has_the_memory_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("cellseg.pipeline.config.CONTAINER", limit)
    whole = memory_bytes()
    limit.write_text("max\n")
    assert memory_bytes() == whole > 1e8
    limit.write_text("12345\n")
    assert memory_bytes() == 12345
