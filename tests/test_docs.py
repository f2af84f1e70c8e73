"""What the documents say is so: columns, keys, commands."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from cellseg.models import MODELS
from cellseg.models.channel_settings import Stain
from cellseg.models.settings import (
    CenterMaskNetwork,
    CenterMaskSettings,
    Frozen,
    TrainSettings,
)
from cellseg.pipeline import read_workflow
from cellseg.pipeline.cli import main
from cellseg.pipeline.image import READERS
from cellseg.pipeline.measure import MEASUREMENTS
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.table import schema
from cellseg.pipeline.training import read_training
from cellseg.pipeline.workflow import Workflow

# The benchmarks are not installed.
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import speed

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_column_is_documented_and_every_documented_one_exists() -> None:
    text = (ROOT / "docs" / "table.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    documented = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    every = Measure(groups=("shape", "intensity", "solid"))
    assert documented == schema(every, ("<c>",)).names


GROUPS = [name for name in MEASUREMENTS if name not in ("shape", "intensity", "solid")]


def test_every_column_of_every_group_is_documented_under_its_name() -> None:
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    sections = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)
    documented = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(documented) == GROUPS
    always = schema(Measure(groups=()), ("<a>", "<b>")).names
    for group, section in documented.items():
        rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
        channels = ("<a>", "<b>") if group == "correlation" else ("<c>",)
        columns = schema(Measure(groups=(group,)), channels).names
        expected = [name for name in columns if name not in always]
        assert sorted(names) == sorted(expected), group


def test_every_key_of_measurements_is_explained_with_its_default() -> None:
    path = ROOT / "workflows" / "plate.toml"
    section = path.read_text(encoding="utf-8").split("\n[measure]\n")[1].split("\n[")[0]
    assert set(Measure.model_fields) == set(re.findall(r"^(?:# )?(\w+) += ", section, re.MULTILINE))
    assert read_workflow(path).measure == Measure()


def test_the_readme_has_the_two_commands_that_the_gate_runs() -> None:
    for heading in ("## Run the demo plate", "## Pass the tests"):
        block = README.split(f"{heading}\n")[1].split("```sh\n")[1].split("```")[0]
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install -e ")
        assert len(block.splitlines()) == 1


def test_files_that_the_readme_points_to_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_options_that_the_readme_names_exist() -> None:
    helps = "".join(
        CliRunner().invoke(main, [command, "--help"]).output for command in main.commands
    )
    evaluation = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for option in set(re.findall(r"--[a-z][a-z-]+", README + evaluation)):
        assert option in helps, option


def test_the_least_workflow_of_the_readme_is_enough(tmp_path: Path) -> None:
    block = README.split("```toml\n")[1].split("```")[0]
    (tmp_path / "my.toml").write_text(block, encoding="utf-8")
    workflow = read_workflow(tmp_path / "my.toml")
    assert workflow.output.path == "results/my_plate"
    assert workflow.model.name == "mask_rcnn"


@pytest.mark.parametrize(("name", "settings"), [("plate", Workflow), ("train", TrainSettings)])
def test_commented_workflows_explain_every_key(name: str, settings: type[Frozen]) -> None:
    path = ROOT / "workflows" / f"{name}.toml"
    text = path.read_text(encoding="utf-8")
    keys = set(re.findall(r"^(?:# )?(\w+) +=", text, re.MULTILINE))
    tables = set(tomllib.loads(text))
    elsewhere = {"compose"} if name == "train" else set()
    assert set(settings.model_fields) <= keys | tables | elsewhere
    if settings is Workflow:
        workflow = read_workflow(path)
        known = MODELS[workflow.model.name].settings.model_fields
        assert set(known) <= keys
        assert workflow.measure.groups == ("shape", "intensity")
    else:
        training = read_training(path)
        assert training.name == "nuclei"
        assert TrainSettings.model_validate(
            training.model_dump() | {"images": ("i",), "labels": ("l",), "validation": 0.1}
        ).steps == training.steps  # fmt: skip


def test_the_workflows_for_overlap_explain_their_keys() -> None:
    path = ROOT / "workflows" / "train_overlap.toml"
    training = read_training(path)
    assert isinstance(training.network, CenterMaskNetwork)
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(tables["compose"]) == set(type(training.compose).model_fields)
    assert set(tables["network"]) == set(CenterMaskNetwork.model_fields)
    path = ROOT / "workflows" / "overlap.toml"
    keys = set(re.findall(r"^(?:# )?(\w+) +=", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(CenterMaskSettings.model_fields) <= keys
    assert read_workflow(path).model.name == "center_mask"


def test_the_workflow_for_slides_sets_keys_that_there_are(tmp_path: Path) -> None:
    path = ROOT / "workflows" / "slide.toml"
    workflow = read_workflow(path)
    assert workflow.model.channels == (Stain(stain="hematoxylin"),)
    # What is off is right as well.
    text = path.read_text(encoding="utf-8")
    on = re.sub(r"^# (\w+ +=)", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "all.toml").write_text(on, encoding="utf-8")
    assert on != text
    assert read_workflow(tmp_path / "all.toml").pixel_size_um == 0.25


def test_what_the_guide_to_slides_writes_is_a_workflow(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "slides.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\| `(channels = .*?)` \|", guide, re.MULTILINE)
    assert len(entries) >= 5
    for number, entry in enumerate(entries):
        path = tmp_path / f"{number}.toml"
        path.write_text(f'images = "x"\n[model]\n{entry}\n', encoding="utf-8")
        read_workflow(path)
    rows = "".join(line.split("|")[1] for line in guide.splitlines() if line.startswith("| `."))
    assert set(re.findall(r"`(\.\w+)`", rows)) == set(READERS)


def commands_of(text: str) -> list[list[str]]:
    """The words of each command in the shell blocks of a document."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    return [shlex.split(line) for line in blocks.replace("\\\n", " ").splitlines()]


def test_the_commands_of_the_guide_to_speed_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    (profile, *rest) = commands_of(guide)
    output = ["--output", str(tmp_path / "out"), "--set", "output.report=false"]
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, [*profile[1:], *output])
    assert result.exit_code == 0, result.output
    stages = re.findall(r"^(\w+) ", result.output.split("of a core")[1], re.MULTILINE)
    explained = guide.split("| row |")[1].split("\n\n")[0]
    assert "measure" in stages
    assert not {stage for stage in stages if stage not in explained} - {"wall", "trace"}
    assert len(rest) >= 4
    for command in rest:
        assert command[:2] == ["python", "benchmarks/speed.py"]
        asked = speed.parse(command[2:])
        assert all(each.config for each in speed.configurations(asked))


def test_the_commands_in_workflow_files_name_those_files() -> None:
    for path in (ROOT / "workflows").glob("*.toml"):
        first = path.read_text(encoding="utf-8").split("\n\n")[0]
        command = re.search(r"cellseg \w+ workflows/\w+\.toml", first)
        assert command is not None, path
        assert (ROOT / shlex.split(command.group())[2]).is_file()
