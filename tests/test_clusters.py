"""The scripts for batch systems and workflow engines in docs/clusters do what they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.claims import DEATHS
from cellseg.pipeline.cli import main
from cellseg.pipeline.lock import SILENT
from cellseg.pipeline.shard import CHUNK, SMALL
from cellseg.pipeline.submit import LEAST, MARGIN, WARNING
from shared_out import digest

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "docs" / "clusters"
DEMO = ROOT / "workflows" / "quickstart.toml"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("here") / "out"
    return digest(run(read_workflow(DEMO, output=output), Config(device="cpu")).folder)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where a script runs, with the command that belongs to these tests."""
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    about = {"WORKFLOW": str(DEMO), "RESULTS": str(tmp_path / "out"), "SHARDS": "2"}
    return os.environ | about | {"PATH": ":".join(paths), "PBS_O_WORKDIR": str(tmp_path)}


@pytest.mark.parametrize(
    ("system", "variable"),
    [("pbs", "PBS_ARRAY_INDEX"), ("lsf", "LSB_JOBINDEX"), ("sge", "SGE_TASK_ID")],
)
def test_the_job_arrays_of_other_batch_systems(
    tmp_path: Path,
    environment: dict[str, str],
    expected: dict[str, str],
    system: str,
    variable: str,
) -> None:
    # Without that system, but with what it sets: two of its jobs at a time.
    command = ["bash", str(SCRIPTS / f"array.{system}")]
    jobs = [
        subprocess.Popen(command, env=environment | {variable: str(number)}, cwd=tmp_path)
        for number in (1, 2)
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    finish = ["bash", str(SCRIPTS / "finish.pbs")]
    subprocess.run(finish, env=environment, cwd=tmp_path, check=True)
    assert digest(tmp_path / "out") == expected


def test_snakemake(tmp_path: Path, environment: dict[str, str], expected: dict[str, str]) -> None:
    snakemake = os.environ.get("SNAKEMAKE") or shutil.which("snakemake")
    if snakemake is None:
        pytest.skip("no snakemake: pip install snakemake, or say by SNAKEMAKE where it is")
    about = [f"workflow={DEMO}", f"results={tmp_path / 'out'}", "shards=2"]
    command = [snakemake, "-s", str(SCRIPTS / "Snakefile"), "--cores", "2", "--config", *about]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert digest(tmp_path / "out") == expected


def test_the_guide_names_commands_and_numbers_that_there_are() -> None:
    guide = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    commands = re.findall(r"^cellseg (\w+) (.*)$", guide, re.MULTILINE)
    assert {name for name, _ in commands} == {"run", "finish", "submit", "status"}
    for name, rest in commands:
        main.commands[name].make_context(name, shlex.split(rest))  # raises for what is not known
    text = " ".join(guide.split())
    assert (WARNING, LEAST, SILENT, DEATHS, MARGIN) == (120, 15, 300.0, 3, 3.0)
    assert "is told two minutes before its time is over" in text
    assert f"asks for three times that and {LEAST} minutes" in text
    assert f"its silence of {SILENT / 60:.0f} minutes" in text
    assert f"of one of more than {SMALL} tiles, each takes {CHUNK} tiles at a time" in text
    assert "What three died at" in text
    for script in re.findall(r"\]\((clusters/[\w.]+)\)", guide):
        assert (ROOT / "docs" / script).is_file()
