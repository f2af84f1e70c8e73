"""Survey: what `cellseg inspect` says, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from cellseg.pipeline.cli import main
from cellseg.pipeline.survey import survey

DEMO = Path(__file__).parents[1] / "workflows" / "demo_plate"


def write(path: Path, shape: tuple[int, ...] = (16, 24), dtype: str = "uint16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.ones(shape, dtype), photometric="minisblack")


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Four channels and three planes in four wells of 96, with a fault of each kind."""
    for well in ("A01", "A02", "B01", "H12"):
        for channel in (1, 2, 3, 4):
            for z in (1, 2, 3):
                where = tmp_path / "screen" / "TimePoint_1" / f"ZStep_{z}"
                write(where / f"exp_{well}_s1_w{channel}.tif")
    (tmp_path / "screen" / "TimePoint_1" / "ZStep_2" / "exp_B01_s1_w3.tif").unlink()
    write(tmp_path / "screen" / "TimePoint_1" / "ZStep_3" / "exp_H12_s1_w4.tif", (16, 25))
    write(tmp_path / "screen" / "TimePoint_1" / "overview.tif")
    return tmp_path / "screen"


def test_a_plate_with_faults(plate: Path) -> None:
    found = survey([plate])
    lines = found.text.splitlines()
    assert lines[1] == "  45 files in 4 images, pattern imagexpress"
    assert "plate exp: 4 of 96 wells, 4 fields (1 a well)" in lines
    assert "   A   1  1  .  .  .  .  .  .  .  .  .  ." in lines
    assert "   H   .  .  .  .  .  .  .  .  .  .  .  1" in lines
    assert "  shape     T x C x Z x Y x X: 1 x 4 x 3 x 16 x 24 uint16  in 2 images" in lines
    assert "  channels  w1, w2, w3, w4  in 2 images" in lines
    assert "            w1, w2, w4  in 1 image" in lines
    left = lines[lines.index("left over: 1") + 1]
    assert "overview.tif: its name is not like the others' (preset imagexpress)" in left
    problem = lines[lines.index("problems: 1") + 1]
    assert problem.startswith("  exp_H12_s1: ")
    assert "exp_H12_s1_w4.tif: its shape" in problem
    assert lines[lines.index("notes: 1") + 1 :] == [
        "  channel w3 is left out: no file for t 1 z 2: in 1 image (exp_B01_s1)"
    ]


def test_the_command_says_the_same_and_its_exit_code_tells_problems(plate: Path) -> None:
    shown = CliRunner().invoke(main, ["inspect", str(plate)])
    assert shown.exit_code == 1
    assert shown.output == survey([plate]).text + "\n"
    document = json.loads(CliRunner().invoke(main, ["inspect", str(plate), "--json"]).output)
    assert document["pattern"] == "imagexpress"
    assert [image["well"] for image in document["images"]] == ["A01", "A02", "B01", "H12"]
    assert document["images"][0]["shape"] == [1, 4, 3, 16, 24]
    assert len(document["images"][0]["files"]) == 12
    assert document["images"][3]["shape"] is None
    assert "its shape" in document["images"][3]["problem"]
    assert len(document["left_over"]) == 1
    good = CliRunner().invoke(main, ["inspect", str(plate / "TimePoint_1" / "ZStep_1")])
    assert good.exit_code == 0, good.output


def test_a_workflow_is_inspected_with_its_images_pattern_and_channels(plate: Path) -> None:
    path = plate.parent / "w.toml"
    model = '[model]\nname = "threshold"\nchannels = ["w3"]\n'
    path.write_text(f'images = "screen/TimePoint_1/ZStep_1"\n{model}', encoding="utf-8")
    assert survey([path]).problems == ()
    path.write_text(f'images = "screen"\n{model}', encoding="utf-8")
    assert [sight.field.well for sight in survey([path]).problems] == ["B01", "H12"]
    path.write_text('images = "screen"\npattern = "{wel}"\n', encoding="utf-8")
    shown = CliRunner().invoke(main, ["inspect", str(path)])
    assert shown.exit_code == 2
    assert "unknown group 'wel'" in shown.output


def test_images_that_are_no_plate_are_listed(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"image {number}.tif", (2, 16, 24))
    (tmp_path / "image 3.tif").write_bytes(b"no TIFF")
    found = survey([tmp_path])
    lines = found.text.splitlines()
    assert lines[1] == "  12 files in 12 images, no pattern fits"
    assert "  image_0: 1 x 1 x 2 x 16 x 24 uint16, 0, of unknown size" in lines
    assert "  and 1 more" in lines
    assert [sight.field.name for sight in found.problems] == ["image_3"]


def test_a_plate_of_1536_wells_shows_the_part_that_is_used(tmp_path: Path) -> None:
    for well in ("AE40", "AF48"):
        write(tmp_path / f"p_{well}_s1_w1.tif")
    text = survey([tmp_path]).text
    assert "2 of 1536 wells" in text
    assert "  AE   1  .  .  .  .  .  .  .  .\n  AF   .  .  .  .  .  .  .  .  1" in text


def test_the_demo_plate() -> None:
    text = survey([DEMO]).text
    assert "12 files in 12 images, pattern imagexpress" in text
    assert "T x C x Z x Y x X: 1 x 1 x 1 x 520 x 696 uint16" in text
    assert "problems" not in text
