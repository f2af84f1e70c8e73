"""A piece of work is one shard's at a time, and that of a dead one is taken over by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellseg.models import CellsegError
from cellseg.pipeline import batch, claims, lock
from cellseg.pipeline.claims import DEATHS, Claims, Work, clear_claims
from cellseg.pipeline.lock import SILENT, Claim, Holder, claim, holds

SHARE_OUT = """
import os, sys
from pathlib import Path
from cellseg.pipeline.claims import Claims
from cellseg.pipeline.lock import claim
folder, name, pieces = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with claim(folder, "shard", together=True, name=name) as mine:
    shared = Claims(folder, mine)
    print("ready", flush=True)
    sys.stdin.readline()
    for piece in range(pieces):
        if (work := shared.take(f"piece{piece}")) is not None:
            (folder / "done" / f"{piece}-{work.number}-{name}").touch()
    print("over", flush=True)
    sys.stdin.read()
"""


def shard(results: Path, name: str, **about: str) -> Claims:
    """A shard of this process, that stands without a thread to renew it."""
    path = results / "claims" / f"together-{name}.1"
    path.parent.mkdir(exist_ok=True)
    holder = replace(Holder.me(name), **about)  # type: ignore[arg-type]
    path.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    return Claims(results, Claim(path, holder))


def die(gone: Claims) -> None:
    gone.mine.path.unlink()


def test_one_shard_has_a_piece_and_others_when_it_leaves_it(tmp_path: Path) -> None:
    one, two = shard(tmp_path, "one"), shard(tmp_path, "two")
    work = one.take("a.image")
    assert work == Work("a.image", 1)
    assert one.holds(work)
    assert two.take("a.image") is None
    assert one.take("a.image") is None
    assert two.take("b.image") == Work("b.image", 1)
    one.free(work)
    assert not one.holds(work)
    assert two.take("a.image") == Work("a.image", 3)


def test_the_work_of_a_dead_shard_is_taken_over_by_one(tmp_path: Path) -> None:
    one, two, three = (shard(tmp_path, name) for name in ("one", "two", "three"))
    work = one.take("a.image")
    assert work is not None
    die(one)
    assert two.take("a.image") == Work("a.image", 2, deaths=1)
    assert three.take("a.image") is None
    # It was not dead after all: it is told, and what it then says counts no more.
    assert not one.holds(work)
    one.free(work)
    one.set_aside(work)
    assert three.take("a.image") is None


def test_a_shard_that_was_started_again_is_another_one(tmp_path: Path) -> None:
    one = shard(tmp_path, "one")
    assert one.take("a.image") is not None
    again = shard(tmp_path, "one")
    assert again.take("a.image") == Work("a.image", 2, deaths=1)


def test_work_that_killed_several_shards_is_left(tmp_path: Path) -> None:
    for number in range(DEATHS):
        victim = shard(tmp_path, f"shard{number}")
        assert not victim.is_left("a.image")
        assert victim.take("a.image") is not None
        die(victim)
    last = shard(tmp_path, "last")
    assert last.is_left("a.image")
    assert last.take("a.image") is None
    clear_claims(tmp_path)
    assert last.take("a.image") == Work("a.image", 1)


def test_what_failed_is_tried_again_only_where_it_is_another_thing(tmp_path: Path) -> None:
    one, two = shard(tmp_path, "one"), shard(tmp_path, "two")
    work = one.take("a.image", "key")
    assert work is not None
    one.set_aside(work, "key")
    assert one.is_left("a.image", "key")
    assert two.take("a.image", "key") is None
    assert not two.is_left("a.image", "other")
    assert two.take("a.image", "other") is not None


def test_a_claim_that_cannot_be_read_stands(tmp_path: Path) -> None:
    one = shard(tmp_path, "one")
    path = tmp_path / "claims" / "work" / "a.image.1"
    path.parent.mkdir(parents=True)
    path.touch()
    assert one.take("a.image") is None
    assert not one.is_left("a.image")


def test_a_shard_of_another_machine_is_dead_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "KNOWN", 0.0)
    there = shard(tmp_path, "there", machine="node7", pid="4711")
    here = shard(tmp_path, "here")
    assert there.take("a.image") is not None
    for silent, work in ((SILENT - 60, None), (SILENT + 60, Work("a.image", 2, 1))):
        os.utime(there.mine.path, (time.time() - silent,) * 2)
        assert here.take("a.image") == work


def test_silence_is_told_by_the_clock_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = shard(tmp_path, "there", machine="node7")
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's own is wrong by decades
    assert holds(there.mine.path, there.mine.holder.token)


def squeue(folder: Path, answer: str) -> None:
    """Put a squeue first in the way that answers so."""
    path = folder / "squeue"
    path.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("answer", "gone"),
    [
        ("echo RUNNING", False),
        ("echo COMPLETING", False),
        ("echo PENDING", True),
        ("echo NODE_FAIL", True),
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_slurm_is_asked_about_a_job_that_missed_its_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool
) -> None:
    squeue(tmp_path, answer)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    there = shard(tmp_path, "there", machine="node7", job="slurm here 11 0")
    path, token = there.mine.path, there.mine.holder.token
    assert holds(path, token)
    os.utime(path, (time.time() - lock.MISSED - 5,) * 2)
    assert holds(path, token) is not gone


def test_a_job_that_was_queued_again_has_no_process_from_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert batch.batch_job() == "slurm here 12 1"
    assert batch.is_gone("slurm here 12 0")
    assert not batch.is_gone("slurm here 12 1")
    assert not batch.is_gone("slurm elsewhere 12 0")
    assert not batch.is_gone("pbs 12.server")
    assert not batch.is_gone("")


def test_the_same_shard_is_not_started_twice_and_nobody_works_alone_beside_one(
    tmp_path: Path,
) -> None:
    shards = {"together": True, "what": "cellseg run --shard 1/2"}
    with claim(tmp_path, name="shard-1-of-2", **shards):  # type: ignore[arg-type]
        with claim(tmp_path, name="shard-2-of-2", **shards):  # type: ignore[arg-type]
            pass
        with (
            pytest.raises(CellsegError, match=r"at work there: cellseg run --shard 1/2 \(process"),
            claim(tmp_path, name="shard-1-of-2", **shards),  # type: ignore[arg-type]
        ):
            pass
        with pytest.raises(CellsegError, match="at work there"), claim(tmp_path, "cellseg finish"):
            pass


def shares(results: Path, names: list[str], pieces: int) -> list[subprocess.Popen[str]]:
    """Start processes that share out some pieces of work, all at once."""
    command = [sys.executable, "-c", SHARE_OUT, str(results)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([*command, name, str(pieces)], **pipes)  # type: ignore[call-overload]
        for name in names
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        assert process.stdout.readline() == "over\n"
    return started


def end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def test_of_many_processes_each_piece_is_done_by_one_and_again_when_they_were_killed(
    tmp_path: Path,
) -> None:
    (tmp_path / "done").mkdir()
    first = shares(tmp_path, ["a", "b", "c", "d"], 100)
    done = sorted(path.name for path in (tmp_path / "done").iterdir())
    assert len(done) == 100
    assert all(name.split("-")[1] == "1" for name in done)
    end(first)
    second = shares(tmp_path, ["a", "e", "f", "g"], 100)
    end(second)
    names = [path.name.split("-") for path in (tmp_path / "done").iterdir()]
    assert sorted(int(piece) for piece, number, _ in names if number == "2") == list(range(100))
    assert len(names) == 200


STEPS = st.tuples(st.sampled_from(["take", "free", "fail", "die"]), st.integers(0, 2))


@given(st.lists(STEPS, max_size=30))
def test_whatever_shards_do_no_two_living_ones_hold_the_same(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = [shard(Path(folder), f"{number}") for number in range(3)]
        held: dict[int, Work] = {}
        deaths, failed = 0, False
        for step, who in steps:
            if step == "take":
                work = shards[who].take("piece")
                assert (work is not None) == (not held and not failed and deaths < DEATHS)
                if work is not None:
                    held[who] = work
            elif step == "die":
                deaths += who in held
                held.pop(who, None)
                shards[who] = shard(Path(folder), f"{who}")
            elif who in held:
                work = held.pop(who)
                (shards[who].free if step == "free" else shards[who].set_aside)(work)
                failed |= step == "fail"
            assert all(shards[number].holds(work) for number, work in held.items())
