"""Exports at the end of a run, and what becomes of those that cannot be written."""

from __future__ import annotations

import errno
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
from click.testing import CliRunner

from cellseg.models import CellsegError
from cellseg.pipeline import Config, export, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.export import EXPORTERS, Exporter, check_installed
from cellseg.pipeline.exported import ExportedImage, find_images
from cellseg.pipeline.results import Results
from exact import Counting, Exact
from exported_runs import FORMS, exports, plate, run_on, shaped


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "a.tif", shaped())
    return tmp_path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plate(tmp_path_factory.mktemp("runs") / "plate")


def breaking(images: list[ExportedImage], path: Path) -> Iterator[str]:
    """An export that fails after its first image."""
    yield images[0].name
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def entries(results: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((results / "run.json").read_text())["exports"]
    return found


def test_a_run_writes_the_exports_that_it_is_asked_for(image: Path) -> None:
    output = run_on(image, Exact(), 'output.export=["csv", "geojson", "csv"]')
    assert (output / "cells.csv").is_file()
    assert (output / "geojson" / "a.geojson.zip").is_file()
    assert [(one["form"], one["reason"]) for one in entries(output)] == [
        ("csv", None),
        ("geojson", None),
    ]
    assert not (output / "rois").exists()


def test_one_format_needs_no_list_and_the_workflow_says_which_it_was(image: Path) -> None:
    output = run_on(image, Exact(), "output.export=csv")
    assert read_workflow(output / "workflow.toml").output.export == ("csv",)


def test_an_export_that_fails_costs_nothing_of_the_run(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTERS, "breaks", Exporter(f"{__name__}:breaking", "", "broken"))
    monkeypatch.setattr(export, "import_module", lambda _: SimpleNamespace(breaking=breaking))
    (image / "w.toml").write_text(
        'images = "a.tif"\n[model]\nname = "threshold"\n[output]\nexport = ["breaks"]\n'
    )
    arguments = ["run", str(image / "w.toml"), "-o", str(image / "out"), "--device", "cpu"]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 1
    (line,) = [line for line in ended.output.splitlines() if "not exported" in line]
    assert "breaks" in line
    assert "No space left on device" in line
    (entry,) = entries(image / "out")
    assert "No space left" in entry["reason"]
    document = json.loads((image / "out" / "run.json").read_text())
    assert document["state"] == "done"
    assert (image / "out" / "cells.parquet").is_file()


def test_what_is_not_known_is_said_by_name(image: Path) -> None:
    with pytest.raises(CellsegError, match=r"\[output\] export geojsn: .*Did you mean geojson\?"):
        run_on(image, Exact(), 'output.export=["geojsn"]')


def test_what_is_not_installed_is_said_before_anything_is_computed(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    counting = Counting()
    with pytest.raises(CellsegError, match=r'roifile.*pip install "cellseg\[tables\]"'):
        run_on(image, counting, "output.export=roi")
    assert counting.windows == 0
    assert not (image / "out").exists()
    # Those that need nothing are not concerned.
    check_installed(["csv", "geojson", "spatialdata", "ome-tiff"], "here")


def test_results_without_a_cell_give_files_that_are_valid_and_empty(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "e.tif", np.zeros((64, 70), np.uint16))
    output = run_on(tmp_path, Exact())
    assert len(pd.read_csv(exports(output, "csv"))) == 0
    found = anndata.read_h5ad(exports(output, "anndata"))
    assert found.n_obs == 0
    assert "area_px" in found.var_names
    folder = exports(output, "cellprofiler")
    assert len(pd.read_csv(folder / "Cells.csv")) == 0
    assert pd.read_csv(folder / "Image.csv")["Count_Cells"].tolist() == [0]
    with zipfile.ZipFile(exports(output, "geojson") / "e.geojson.zip") as packed:
        assert json.loads(packed.read("e.geojson")) == {
            "type": "FeatureCollection",
            "features": [],
        }
    with zipfile.ZipFile(exports(output, "roi") / "e_rois.zip") as packed:
        assert packed.namelist() == []
    assert not tifffile.imread(exports(output, "ome-tiff") / "e.ome.tif").any()
    assert json.loads(exports(output, "coco").read_text())["annotations"] == []


def test_of_a_run_that_is_not_done_the_images_own_tables_count(image: Path) -> None:
    output = run_on(image, Exact())
    document = json.loads((output / "run.json").read_text())
    Results(output).write_run(document | {"state": "running"})
    (output / "cells.parquet").write_bytes(b"of an earlier run")
    assert len(pd.read_csv(exports(output, "csv"))) == 7


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(
    results: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = exports(results, form, tmp_path / "out")
    before = contents(whole)

    def full(*_: object, **__: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    # As late as it can be: when the file, or the last of its folder, takes its place.
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        exports(results, form, tmp_path / "out")
    monkeypatch.undo()
    assert str(tmp_path / "out") in str(caught.value.filename)
    assert contents(whole) == before
    assert not [path for path in tmp_path.rglob("*") if ".writing" in path.name]
    exports(results, form, tmp_path / "out")


def contents(path: Path) -> dict[str, int]:
    return {str(each): each.stat().st_size for each in [path, *path.rglob("*")] if each.is_file()}


def test_where_nothing_can_be_written_it_is_said_in_a_line(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for form in FORMS:
        place = tmp_path / "file" / "out"
        ended = CliRunner().invoke(main, ["export", str(results), "--to", form, "-o", str(place)])
        assert ended.exit_code == 1, form
        assert len(ended.output.splitlines()) == 1, ended.output
        assert str(tmp_path / "file") in ended.output


def test_a_folder_that_is_empty_or_without_an_image_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CellsegError, match="no results folder"):
        find_images(tmp_path)
    Results(tmp_path).write_run({"state": "running", "images": []})
    with pytest.raises(CellsegError, match="none of its images is done"):
        find_images(tmp_path)


def test_help_has_a_line_for_each_format() -> None:
    text = CliRunner().invoke(main, ["export", "--help"]).output
    for name, exporter in EXPORTERS.items():
        assert f"  {name} " in text
        assert exporter.summary in text


def test_two_runs_export_the_same_bytes(image: Path) -> None:
    (image / "w.toml").write_text(
        'images = "a.tif"\n[normalise]\nmethod = "none"\n[tiling]\nskip_background = false\n'
        'size = 128\nhalo = 32\n[output]\noverview = false\nexport = "coco"\n'
    )
    found = [
        run(read_workflow(image / "w.toml", output=image / name), Config(device="cpu"), Exact())
        for name in ("one", "other")
    ]
    one, other = (Path(result.exports[0].output).read_bytes() for result in found)
    assert one == other
