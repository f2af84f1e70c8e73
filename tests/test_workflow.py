"""Workflow files: what they mean, that they survive a round trip, and one line for each mistake."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cellseg.models import MODELS, CellsegError
from cellseg.models.settings import (
    MaskRCNNSettings,
    Percentile,
    Range,
    ThresholdSettings,
    Unchanged,
)
from cellseg.pipeline.measure_settings import Measure
from cellseg.pipeline.workflow import (
    Output,
    Stitch,
    Tiling,
    Workflow,
    read_workflow,
)

SHIPPED = Path(__file__).parent.parent / "workflows"
LEAST = 'images = "x"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "flows" / "plate.toml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(CellsegError) as caught:
        read_workflow(path, *arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_key_is_enough(here: Path) -> None:
    got = read_workflow(write(here, LEAST))
    assert got.images == (str(here / "flows" / "x"),)
    assert got.output == Output(path="results/plate", csv=False, overview=True)
    assert got.model == MaskRCNNSettings()
    assert got.normalise == Percentile()
    assert (got.tiling, got.stitch, got.measure) == (Tiling(), Stitch(), Measure())
    assert (got.pattern, got.pixel_size_um) == (None, None)


def test_every_key_of_the_issue_arrives(here: Path) -> None:
    got = read_workflow(
        write(
            here,
            """
images = ["a.tif", "b/*.tif"]
output = "out"
[model]
name = "mask_rcnn"
weights = "nuclei"
channels = [0, "DNA"]
score = 0.5
[normalise]
method = "range"
low = 100
high = 2000
[tiling]
size = 512
halo = 32
[measure]
groups = ["shape"]
""",
        )
    )
    assert got.images == (str(here / "flows" / "a.tif"), str(here / "flows" / "b/*.tif"))
    assert got.output.path == "out"
    assert got.model == MaskRCNNSettings(score=0.5, channels=(0, "DNA"))
    assert got.normalise == Range(low=100, high=2000)
    assert (got.tiling.size, got.tiling.halo) == (512, 32)
    assert got.measure.groups == ("shape",)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_each_model_has_its_own_settings(here: Path, name: str) -> None:
    given = {"weights": "mine.safetensors"} if name == "center_mask_fcos" else {}
    lines = "".join(f'\n{key} = "{value}"' for key, value in given.items())
    got = read_workflow(write(here, LEAST + f'[model]\nname = "{name}"' + lines))
    assert type(got.model) is MODELS[name].settings
    assert got.model == MODELS[name].settings.model_validate(given)


def test_a_table_without_its_name_is_the_default_one(here: Path) -> None:
    got = read_workflow(write(here, LEAST + "[model]\nscore = 0.3\n[normalise]\nlow = 5"))
    assert got.model == MaskRCNNSettings(score=0.3)
    assert got.normalise == Percentile(low=5)


@pytest.mark.parametrize("name", ["overlap", "plate", "quickstart"])
def test_the_shipped_workflows_are_right_to_the_last_key_that_is_off(here: Path, name: str) -> None:
    text = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    got = read_workflow(SHIPPED / f"{name}.toml")
    demo = "demo_overlap" if name == "overlap" else "demo_plate"
    assert got.images == (str(SHIPPED / demo),)
    assert Path(got.images[0]).is_dir()
    assert got.output.path == f"results/{name}"
    on = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    regions = ("box_px", "box_um", "geojson", "mask")
    for unit, region in zip(("px", "um", "px", "um"), regions, strict=True):  # one of each
        others = "|".join({*regions} - {region})
        off = rf"(?:diameter|distance)_{unit}|{others}"
        one = re.sub(rf"^({off}) = ", r"# \1 = ", on, flags=re.MULTILINE)
        assert read_workflow(write(here, one)).tiling == got.tiling


def test_the_plate_workflow_holds_the_defaults_as_it_says(here: Path) -> None:
    got = read_workflow(SHIPPED / "plate.toml")
    least = read_workflow(write(here, LEAST))
    same = {"images", "pattern"}
    assert got.model_dump(exclude=same) == least.model_dump(exclude=same)


def test_overrides_are_toml_or_bare_words_and_relative_to_the_shell(here: Path) -> None:
    path = write(here, LEAST + 'output = "a"\n[tiling]\nsize = 256')
    overrides = [
        "tiling.size=512",
        "model.name=threshold",
        'model.channels=["DNA", 1]',
        "output.csv=true",
        "images=y",
    ]
    got = read_workflow(path, overrides)
    assert got.tiling.size == 512
    assert got.model == ThresholdSettings(channels=("DNA", 1))
    assert got.output == Output(path="a", csv=True)
    assert got.images == (str(here / "y"),)


def test_images_and_output_of_the_command_line_win(here: Path) -> None:
    path = write(here, '[output]\npath = "a"\ncsv = true')
    got = read_workflow(path, ["output.path=b"], [Path("p.tif"), "q"], "c")
    assert got.images == (str(here / "p.tif"), str(here / "q"))
    assert got.output == Output(path="c", csv=True)


def test_brackets_in_the_name_of_the_folder_are_no_glob(here: Path) -> None:
    folder = here / "plate [1]"
    folder.mkdir()
    for name in ("a.tif", "b[2].tif"):
        (folder / name).touch()
    (folder / "w.toml").write_text('images = ["*.tif", "b[2].tif", "a.tif"]')
    images = read_workflow(folder / "w.toml").images
    assert images[1:] == (str(folder / "b[2].tif"), str(folder / "a.tif"))
    assert sorted(Path("/").glob(images[0][1:])) == [folder / "a.tif", folder / "b[2].tif"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["images is missing. Expected: A file, a folder, a glob"]),
        ("images = 3", ["images = 3 is not a list", "text in quotes"]),
        ("images = []", ["images = [] is not a list", "not empty"]),
        ('images = ""', ['images = [""] is not']),
        (LEAST + "[tiling\n", ["not valid TOML", "line 2"]),
        (
            LEAST + "[tiling]\nsiz = 3",
            ["[tiling] siz is not a key here. Did you mean size? Known: halo, margin, size,"],
        ),
        (LEAST + '[tiling]\nsize = "big"', ['[tiling] size = "big" is not a whole number']),
        (LEAST + "[tiling]\nsize = 8", ["[tiling] size = 8 is not", "from 32 to 16384"]),
        (LEAST + "[tiling]\nsize = true", ["[tiling] size = true is not a whole number"]),
        (LEAST + "[tiling]\nsize = 8\nhalo = 1.5", ["size = 8", "(And 1 more.)"]),
        (
            LEAST + "[tiling]\nhalo = 3",
            ["[tiling] halo = 3", "margin (4 px)", "Set halo to 5 or more"],
        ),
        (LEAST + "[tiling]\nsize = 32\nhalo = 200", ["[tiling] halo = 200", "128 or less"]),
        (LEAST + "tiling = 3", ["tiling = 3 is not a table"]),
        (LEAST + "[tilling]\nsize = 64", ["table [tilling]", "Did you mean tiling?"]),
        (LEAST + "halo = 64", ["halo is not a key here. It belongs in [tiling]."]),
        (LEAST + "[model]\nhalo = 64", ["[model] halo is not a key here. It belongs in [tiling]"]),
        (LEAST + '[model]\noutput = "x"', ["[model] output", "It belongs above the tables."]),
        (LEAST + "[model]\nscore = 1.5", ["[model] score = 1.5 is not a number from 0 to 1."]),
        (LEAST + '[model]\nscore = "0.5"', ['[model] score = "0.5" is not a number']),
        (
            LEAST + '[model]\nname = "mask_rcn"',
            ['name = "mask_rcn" is not known. Did you mean mask_rcnn?', "mask_rcnn, threshold"],
        ),
        (LEAST + "[model]\nname = 3", ["[model] name = 3 is not known"]),
        (LEAST + "[model]\nname = 2020-01-01", ['[model] name = "2020-01-01" is not known']),
        (LEAST + '"a\\nb" = 1', ["is not a key here"]),
        (LEAST + "model = 3", ["model = 3 is not a table"]),
        (
            LEAST + '[model]\nname = "threshold"\nthreshold = "ots"',
            ['[model] threshold = "ots" is not "otsu" or a number'],
        ),
        (LEAST + '[model]\nname = "threshold"\nscore = 0.5', ["[model] score", "smooth_px"]),
        (LEAST + "[model]\nchannels = [-1]", ["[model] channels = [-1] is not", "at least 0"]),
        (LEAST + '[normalise]\nmethod = "rang"', ["[normalise] method", "Did you mean range?"]),
        (LEAST + '[normalise]\nmethod = "range"\nlow = 3', ["[normalise] high is missing"]),
        (LEAST + "[normalise]\nlow = 50\nhigh = 40", ["[normalise] low = 50", "below high = 40"]),
        (
            LEAST + '[normalise]\nmethod = "range"\nlow = 0\nhigh = inf',
            ["[normalise] high = Infinity is not a number."],
        ),
        (LEAST + '[normalise]\nmethod = "none"\nlow = 1', ["[normalise] low is not a key here"]),
        (LEAST + '[measure]\ngroups = ["shap"]', ['"shap"', "Did you mean shape?", "intensity"]),
        (LEAST + '[measure]\ngroups = "shape"', ["[measure] groups", "a list in [ ]"]),
        (LEAST + "[stitch]\noverlap = 0", ["[stitch] overlap = 0 is not a number above 0"]),
        (LEAST + "pixel_size_um = inf", ["pixel_size_um"]),
        (LEAST + "pixel_size_um = 2020-01-01", ["pixel_size_um", "a number above 0"]),
        (LEAST + "output = 3", ["output = 3 is not a table"]),
        (LEAST + f'pattern = ["{"x" * 500}"]', ["pattern = ", "...", "text in quotes"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(here: Path, text: str, words: list[str]) -> None:
    path = write(here, text)
    message = error_of(path)
    assert message.startswith(f"{path}: ")
    assert all(word in message for word in words), message
    assert len(message) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tiling", ["--set tiling: expected table.key=value"]),
        ("=3", ["--set =3: expected table.key=value"]),
        ("tiling..size=3", ["expected table.key=value"]),
        ("images.first=3", ["--set images.first=3: images is not a table"]),
        ("tiling.halo=3", ["--set tiling.halo=3: [tiling] halo = 3 is not more than"]),
        ("tiling.siz=64", ["--set tiling.siz=64: [tiling] siz", "Did you mean size?"]),
        ("tiling.size=64\nx=1", ["[tiling] size = "]),
        ("model.name=mask", ["--set model.name=mask: [model] name"]),
        ("measure.groups=['s']", ["--set measure.groups=['s']: [measure] groups"]),
    ],
)
def test_a_wrong_override_is_named_as_one(here: Path, override: str, words: list[str]) -> None:
    path = write(here, LEAST)
    with pytest.raises(CellsegError) as caught:
        read_workflow(path, [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_tilde_is_the_home_folder_and_a_byte_order_mark_is_none_of_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    got = read_workflow(write(here, '\ufeffimages = ["~/x", "~x.tif"]'))
    assert got.images == (str(here / "home" / "x"), str(here / "flows" / "~x.tif"))


def test_a_file_that_is_none_is_named(here: Path) -> None:
    write(here, LEAST)
    (here / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "Did you mean plate.toml?" in error_of(here / "flows" / "plat.toml")
    assert "not UTF-8" in error_of(here / "binary.toml")
    assert "directory" in error_of(here / "flows")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0[]*?~")).map(
    lambda name: str(Path("/data") / f"_{name}")
)
NUMBERS = st.floats(-1e9, 1e9)
MODEL = st.one_of(
    st.builds(
        ThresholdSettings,
        channels=st.lists(st.integers(0, 99) | NAMES, min_size=1, max_size=3).map(tuple),
        threshold=st.just("otsu") | NUMBERS,
        smooth_px=st.floats(0, 50),
    ),
    st.builds(
        MaskRCNNSettings,
        weights=NAMES,
        score=st.none() | st.floats(0, 1),
        diameter_px=st.sampled_from([None, "auto"]) | st.floats(0.1, 2000),
    ),
)
NORMALISE = st.one_of(
    st.builds(Percentile, low=st.floats(0, 49), high=st.floats(50, 100)),
    st.builds(Range, low=st.floats(-1e9, 0), high=st.floats(1e-3, 1e9)),
    st.just(Unchanged()),
)
WORKFLOWS = st.builds(
    Workflow,
    images=st.lists(PATHS, min_size=1, max_size=3).map(tuple),
    output=st.builds(Output, path=NAMES, csv=st.booleans()),
    pattern=st.none() | NAMES,
    pixel_size_um=st.none() | st.floats(1e-6, 1e6),
    model=MODEL,
    normalise=NORMALISE,
    tiling=st.builds(Tiling, size=st.integers(64, 16384), halo=st.integers(5, 256)),
    stitch=st.builds(Stitch, overlap=st.floats(0.01, 1), window_px=st.integers(64, 16384)),
    measure=st.builds(Measure, groups=st.sampled_from([(), ("shape",), ("intensity", "shape")])),
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(workflow=WORKFLOWS)
def test_a_workflow_is_read_back_as_it_was_written(here: Path, workflow: Workflow) -> None:
    path = write(here, workflow.toml())
    assert read_workflow(path) == workflow
    assert read_workflow(path).toml() == workflow.toml()


def test_the_resolved_workflow_names_every_key_and_can_be_moved(here: Path) -> None:
    resolved = read_workflow(write(here, LEAST)).toml()
    tables = ["output", "model", "normalise", "tiling", "stitch", "measure"]
    assert all(f"[{table}]" in resolved for table in tables)
    keys = {*Tiling.model_fields, *Stitch.model_fields} - {"window_px"}  # None is left out
    assert all(f"{key} = " in resolved for key in keys)
    (here / "elsewhere.toml").write_text(resolved)
    assert read_workflow(here / "elsewhere.toml").images == (str(here / "flows" / "x"),)


def test_a_workflow_cannot_be_changed_and_says_its_units() -> None:
    workflow = Workflow(images=("x",), output=Output(path="y"))
    with pytest.raises(ValidationError, match="frozen"):
        workflow.pattern = "z"
    for table in (Output, Tiling, Stitch, Measure):
        assert all(field.description for field in table.model_fields.values())
    assert "px" in (Tiling.model_fields["size"].description or "")


def test_a_model_can_be_given_from_python_as_an_object_or_a_mapping() -> None:
    given = Workflow(images=("x",), output=Output(path="y"), model=ThresholdSettings(smooth_px=2))
    assert Workflow.model_validate(given.model_dump()) == given
    with pytest.raises(ValidationError, match="mask_rcnn"):
        Workflow.model_validate({**given.model_dump(), "model": {"name": "none"}})


def test_to_read_a_workflow_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from cellseg.pipeline.workflow import read_workflow\n"
        "import cellseg.pipeline.config\n"
        f"read_workflow({str(SHIPPED / 'plate.toml')!r})\n"
        "heavy = {'torch', 'dask', 'zarr', 'skimage', 'scipy', 'pandas', 'tifffile'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
