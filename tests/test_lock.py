"""Two that would write the same results never work at once, and the dead hold nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cellseg.models import CellsegError
from cellseg.pipeline import lock
from cellseg.pipeline.cli import main
from cellseg.pipeline.lock import SILENT, Claim, Holder, claim
from cellseg.pipeline.review.edits import ApplyEdits, Editor, apply
from corrected import CPU, results_of, table
from synthetic import cells

HELD = """
import sys
from pathlib import Path
from cellseg.pipeline.lock import claim
with claim(Path(sys.argv[1]), "cellseg run", together=len(sys.argv) > 2):
    print("held", flush=True)
    sys.stdin.read()
"""
CONTENDING = """
import sys, os, time
from pathlib import Path
from cellseg.models import CellsegError
from cellseg.pipeline.lock import claim
folder, inside, done = Path(sys.argv[1]), Path(sys.argv[1]) / "inside", 0
sys.stdin.readline()
while done < 20:
    try:
        with claim(folder, "test"):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            inside.unlink()
            done += 1
    except CellsegError:
        time.sleep(0.0005)
"""


@contextmanager
def held_elsewhere(results: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold results."""
    with program(HELD, results, *more) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other


@contextmanager
def program(text: str, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", text, *map(str, arguments)]
    with subprocess.Popen(command, text=True, **pipes) as other:  # type: ignore[call-overload]
        try:
            yield other
        finally:
            other.kill()


def files(results: Path) -> list[str]:
    return sorted(path.name for path in results.glob("claims/*"))


def left_by(results: Path, change: Callable[[Holder], Holder], silent: float = 0.0) -> Path:
    """Leave the claim of another process, last renewed some time ago."""
    path = results / "claims" / "alone.1"
    path.parent.mkdir()
    path.write_text(json.dumps(asdict(change(Holder.me("cellseg run")))), encoding="utf-8")
    os.utime(path, (time.time() - silent,) * 2)
    return path


def elsewhere(holder: Holder) -> Holder:
    return replace(holder, host="node7", machine="node7 of another cluster", pid=4711)


def test_a_second_one_is_told_who_is_at_work(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as other:
        with pytest.raises(CellsegError) as refused, claim(tmp_path, "cellseg run"):
            pass
        pattern = r"at work there: cellseg run \(process (\d+) on (\S+), since (\S+)\)"
        found = re.search(pattern, str(refused.value))
        assert found is not None
        assert int(found[1]) == other.pid
        assert "\n" not in str(refused.value)
    with claim(tmp_path, "cellseg run"):
        assert files(tmp_path) == ["alone.2"]  # of one that was killed: taken over
    assert not (tmp_path / "claims").exists()


def test_one_process_has_no_two_claims(tmp_path: Path) -> None:
    with (
        claim(tmp_path, "one"),
        pytest.raises(CellsegError, match="at work"),
        claim(tmp_path, "two"),
    ):
        pass
    assert not (tmp_path / "claims").exists()


def test_the_claim_of_a_process_whose_number_was_given_again_does_not_hold(tmp_path: Path) -> None:
    left_by(tmp_path, lambda me: replace(me, process="1"))
    with claim(tmp_path, "cellseg run"):
        assert files(tmp_path) == ["alone.2"]


def test_another_machine_holds_as_long_as_it_gives_signs_of_life(tmp_path: Path) -> None:
    path = left_by(tmp_path, elsewhere, SILENT - 60)
    with pytest.raises(CellsegError, match=r"on node7, .* ago.*remove ") as refused:
        Claim.take(tmp_path / "claims", "alone", "test")
    assert str(path) in str(refused.value)
    os.utime(path, (time.time() - SILENT - 1,) * 2)
    with claim(tmp_path, "cellseg run") as taken:
        assert not path.exists()
        taken.check()


def test_a_damaged_claim_holds_until_it_is_old(tmp_path: Path) -> None:
    path = left_by(tmp_path, elsewhere)
    path.write_text("", encoding="utf-8")
    with pytest.raises(CellsegError, match="somebody"), claim(tmp_path, "cellseg run"):
        pass
    os.utime(path, (time.time() - SILENT - 1,) * 2)
    with claim(tmp_path, "cellseg run"):
        pass
    assert not (tmp_path / "claims").exists()


def test_a_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWED", 0.01)
    with claim(tmp_path, "cellseg run") as taken:
        os.utime(taken.path, (0, 0))
        until = time.monotonic() + 10
        while not taken.path.stat().st_mtime and time.monotonic() < until:
            time.sleep(0.01)
        assert taken.path.stat().st_mtime > 0


def test_who_was_taken_over_stops_and_leaves_the_other_alone(tmp_path: Path) -> None:
    with claim(tmp_path, "cellseg run") as first:
        os.utime(first.path, (0, 0))
        text = json.loads(first.path.read_text(encoding="utf-8"))
        first.path.write_text(json.dumps(text | {"machine": "another"}), encoding="utf-8")
        os.utime(first.path, (0, 0))
        second = Claim.take(first.path.parent, "alone", "cellseg measure")
        with pytest.raises(CellsegError, match="another one took its place"):
            first.check()
    second.check()
    second.give_back()


def test_some_may_work_together_and_nobody_alone_beside_them(tmp_path: Path) -> None:
    with claim(tmp_path, "shard 1", together=True):
        with claim(tmp_path, "shard 2", together=True):
            assert len(files(tmp_path)) == 2
        with pytest.raises(CellsegError, match="shard 1"), claim(tmp_path, "cellseg measure"):
            pass
        assert len(files(tmp_path)) == 1
    with (
        claim(tmp_path, "cellseg measure"),
        pytest.raises(CellsegError, match="measure"),
        claim(tmp_path, "shard 1", together=True),
    ):
        pass
    with held_elsewhere(tmp_path, "together") as other:
        other.kill()
    with claim(tmp_path, "cellseg measure"):
        assert files(tmp_path) == ["alone.1"]


def test_where_there_are_no_hard_links_claims_hold_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with (
        claim(tmp_path, "one"),
        pytest.raises(CellsegError, match="at work there: one"),
        claim(tmp_path, "two"),
    ):
        pass
    assert not (tmp_path / "claims").exists()


def test_of_many_that_try_at_once_only_one_is_inside(tmp_path: Path) -> None:
    with (
        program(CONTENDING, tmp_path) as a,
        program(CONTENDING, tmp_path) as b,
        program(CONTENDING, tmp_path) as c,
        ThreadPoolExecutor(3) as pool,
    ):
        ended = list(pool.map(lambda each: each.communicate("go\n", timeout=60), (a, b, c)))
        assert [each.returncode for each in (a, b, c)] == [0, 0, 0], ended
    assert not (tmp_path / "claims").exists()


def test_of_many_that_find_a_dead_one_only_one_takes_over(tmp_path: Path) -> None:
    left_by(tmp_path, lambda me: replace(me, process="1"))

    def take(_: int) -> Claim | None:
        try:
            return Claim.take(tmp_path / "claims", "alone", "test")
        except CellsegError:
            return None

    with ThreadPoolExecutor(16) as pool:
        taken = [each for each in pool.map(take, range(16)) if each is not None]
    assert len(taken) == 1
    taken[0].check()
    taken[0].give_back()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return results_of(tmp_path, cells(4, (120, 90), 14)[1])


def test_results_are_applied_measured_or_run_by_one_at_a_time(results: Path) -> None:
    Editor(results, "one").delete(3)
    commands = (
        ["edit", str(results)],
        ["measure", str(results)],
        ["run", str(results / "workflow.toml")],
    )
    with held_elsewhere(results):
        for command in commands:
            ended = CliRunner().invoke(main, command)
            assert ended.exit_code == 2, ended.output
            assert re.search(r"^cellseg: .*at work there: cellseg run .*\n\Z", ended.output, re.M)
        with pytest.raises(CellsegError, match="at work"):
            apply(results)
        assert 3 in table(results).index
        listed = CliRunner().invoke(main, ["edit", str(results), "--dry-run"])
        assert listed.exit_code == 0
    assert all(report.reason is None for report in apply(results))
    assert 3 not in table(results).index
    assert not (results / "claims").exists()


def test_what_was_read_before_another_one_applied_is_not_gone_on_with(results: Path) -> None:
    editor = Editor(results, "one")
    editor.delete(3)
    late = ApplyEdits(results, CPU)
    apply(results)
    with pytest.raises(CellsegError, match="changed these results meanwhile"):
        list(late.steps())
    assert 3 not in table(results).index


def test_no_folder_is_made_of_what_is_no_results(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["edit", str(tmp_path / "missing")])
    assert ended.exit_code == 2
    assert "no results folder" in ended.output
    assert not (tmp_path / "missing").exists()
