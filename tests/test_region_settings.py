"""`[region]` says one place at most, and its paths are those beside the workflow file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellseg.models import CellsegError
from cellseg.pipeline import read_workflow
from cellseg.pipeline.region_settings import Region


def written(folder: Path, text: str) -> Path:
    path = folder / "w.toml"
    path.write_text(f'images = "x"\n{text}', encoding="utf-8")
    return path


def test_left_out_it_is_everywhere(tmp_path: Path) -> None:
    region = read_workflow(written(tmp_path, "")).region
    assert region == Region()
    assert region.kind is None


def test_paths_are_relative_to_the_workflow_or_to_where_it_is_overridden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    path = written(tmp_path, '[region]\ngeojson = "r/{image}.geojson"\nclasses = ["Tumor"]\n')
    region = read_workflow(path).region
    assert region.geojson == str(tmp_path / "r" / "{image}.geojson")
    assert region.kind == "geojson"
    path = written(tmp_path, "")
    assert read_workflow(path, ["region.mask=m.tif"]).region.mask == str(here / "m.tif")
    assert read_workflow(path, ["region.box_px=[0, 0, 5, 5]"]).region.kind == "box_px"


def test_the_resolved_workflow_is_read_back_as_equal(tmp_path: Path) -> None:
    first = read_workflow(written(tmp_path, "[region]\nbox_um = [0, 1.5, 20, 30]\n"))
    (tmp_path / "again.toml").write_text(first.toml(), encoding="utf-8")
    assert read_workflow(tmp_path / "again.toml") == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('box_px = [0, 0, 1, 1]\nmask = "m.tif"', r"\[region\] box_px and mask are both given"),
        ("box_px = [0, 0, 1]", r"\[region\] box_px = \[0, 0, 1\] is not a list in \[ \] of 4"),
        ("box_px = [5, 0, 5, 1]", r"\[region\] box_px = \[5.0, 0.0, 5.0, 1.0\] is empty"),
        ("box_um = [5, 9, 6, 1]", r"\[region\] box_um = .* is empty"),
        ('mask = "m.tif"\nclasses = ["Tumor"]', r"\[region\] classes is given without geojson"),
        ('missing = "skip"', r'\[region\] missing = "skip" is not "error" or "all" or "none"'),
        ('geo_json = "a"', r"\[region\] geo_json is not a key here. Did you mean geojson"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CellsegError, match=message) as caught:
        read_workflow(written(tmp_path, f"[region]\n{text}\n"))
    assert "\n" not in str(caught.value)
