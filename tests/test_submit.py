"""The scripts that `cellseg submit` writes, and what it says where SLURM does not take them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cellseg.pipeline import Config
from cellseg.pipeline.cli import main
from cellseg.pipeline.estimate import Estimate
from cellseg.pipeline.submit import _memory, _time
from cellseg.workflows import __file__ as workflows

DEMO = Path(workflows).parent / "quickstart.toml"
GIVEN = ("--memory", "2G", "--time", "01:00:00")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def submit(out: Path, *options: str) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["submit", str(DEMO), "-o", str(out), *options])
    return found.exit_code, found.output


def scripts(out: Path, *options: str) -> tuple[str, str]:
    code, said = submit(out, "--print", *options)
    assert code == 0, said
    array, finish = said.split("\n\n#!/bin/bash\n")
    return array, f"#!/bin/bash\n{finish}"


def configured(folder: Path, text: str) -> None:
    (folder / "config.toml").write_text(text, encoding="utf-8")


def test_what_is_asked_for_stands_in_both_scripts(out: Path) -> None:
    asked = ("--jobs", "3", "--partition", "gpu", "--account", "lab", "--gpus", "1", "--cpus", "6")
    more = ("--sbatch", "--exclude=node7", "--workers", "2")
    both = scripts(out, *GIVEN, *asked, *more)
    for script in both:
        lines = script.splitlines()
        for option in (
            "--partition=gpu",
            "--account=lab",
            "--cpus-per-task=6",
            "--gres=gpu:1",
            "--mem=2G",
            "--time=01:00:00",
            "--signal=B:USR1@120",
            "--requeue",
            "--exclude=node7",
        ):
            assert f"#SBATCH {option}" in lines
        assert "export CELLSEG_THREADS=3" in lines
        assert " --engine local --workers 2 --device cuda" in script
    array, finish = both
    assert "#SBATCH --array=1-3" in array
    assert f"run {out}/workflow.toml --output {out} " in array
    assert '--shard "$SLURM_ARRAY_TASK_ID/3" &' in array
    assert f"finish {out} " in finish
    assert "--array" not in finish
    assert not out.exists()


def test_what_is_not_asked_for_is_taken_from_the_configuration(out: Path) -> None:
    text = 'queue = "long"\nmemory = "3 GiB"\nwalltime = "2-00:00:00"\ncores = 5\n'
    text += 'directives = ["--exclusive"]\nprologue = ["module load cuda"]\n'
    configured(out.parent, f"workers = 2\n[cluster]\n{text}")
    for script in scripts(out):
        lines = script.splitlines()
        for option in ("--partition=long", "--mem=3G", "--time=2-00:00:00", "--exclusive"):
            assert f"#SBATCH {option}" in lines
        assert "#SBATCH --cpus-per-task=5" in lines
        assert "module load cuda" in lines
        assert f"--config {out.parent}/config.toml" in script
    array, _ = scripts(out, "--partition", "short")
    assert "#SBATCH --partition=short" in array


def test_memory_and_time_are_judged_where_nothing_is_said(out: Path) -> None:
    array, _ = scripts(out)
    assert "#SBATCH --mem=1G" in array  # a process and a small image
    assert "#SBATCH --time=00:20:00" in array
    judged = Estimate(1, 1.0, 1, seconds=100_000.0, bytes_a_worker=2.6e9, workers=2)
    assert _memory(judged) == "7G"
    assert _time(judged, 1) == "3-11:35:00"
    assert _time(judged, 16) == "05:30:00"


def test_there_are_no_more_jobs_than_tiles(out: Path) -> None:
    array, _ = scripts(out, *GIVEN, "--jobs", "100")
    assert "#SBATCH --array=1-12" in array


def test_the_scripts_are_what_a_shell_understands(out: Path) -> None:
    folder = out.parent / "with space & 'quotes'"
    for script in scripts(folder / "out", *GIVEN):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)  # noqa: S607


def test_a_gpu_that_is_configured_and_not_asked_for(out: Path) -> None:
    code, said = submit(out, *GIVEN, "--device", "cuda")
    assert (code, said.count("\n")) == (2, 1)
    assert "Give --gpus 1" in said or "no GPU" in said


def answer(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an sbatch that answers so, and nothing else of SLURM."""
    place = folder / "bin"
    place.mkdir()
    (place / "sbatch").write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (place / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")


def test_it_says_what_was_submitted(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(out.parent, 'echo "$@" >> calls; echo "4$(wc -l < calls);here"', monkeypatch)
    code, said = submit(out, *GIVEN)
    assert code == 0, said
    assert "submitted: 12 jobs as array 41, then 42 to finish\n" in said
    assert f"cellseg status {out}; squeue --jobs=41,42\n" in said
    calls = (out.parent / "calls").read_text(encoding="utf-8").splitlines()
    assert calls == [
        f"--parsable {out}/jobs/array.sbatch",
        f"--parsable --dependency=afterany:41 {out}/jobs/finish.sbatch",
    ]
    assert (out / "workflow.toml").is_file()


def test_what_slurm_refuses_is_said_in_one_line(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(out.parent, "echo 'sbatch: error: invalid partition' >&2; exit 1", monkeypatch)
    code, said = submit(out, *GIVEN)
    assert code == 2
    assert said.splitlines()[-1].endswith(
        "array.sbatch: SLURM refuses it: sbatch: error: invalid partition."
    )


def test_a_machine_without_slurm(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(out.parent))
    code, said = submit(out, *GIVEN)
    assert code == 2
    assert "sbatch is not found. Run this where SLURM's commands are" in said


def test_the_defaults_of_the_cluster_are_not_taken_for_what_a_user_said() -> None:
    assert not Config().cluster.model_fields_set
