"""Labels, pyramid and table on disk follow the log, whatever was killed on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

from cellseg.models import CellsegError
from cellseg.pipeline import pyramid, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.image_results import ImageResults
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.pyramid import Pyramid
from cellseg.pipeline.results import Results
from cellseg.pipeline.review.edits import ApplyEdits, Editor, apply, pending_edits
from cellseg.pipeline.tiles import Box
from corrected import CPU, on_disk, results_of, table, view
from exact import Exact, Known
from plates import write_image, write_plate
from synthetic import cells, discs

SQUARE = np.ones((30, 30), bool)


def several(folder: Path) -> Path:
    """Return results with two images."""
    results_of(folder, cells(1, (120, 140), 12)[1])
    (folder / "in" / "one.tif").rename(folder / "in" / "two.tif")
    return results_of(folder, cells(0, (620, 300), 30)[1])


def log_of(results: Path, name: str = "one") -> Path:
    return results / "images" / name / "edits.jsonl"


def test_the_pyramid_is_that_of_the_labels(tmp_path: Path) -> None:
    results = several(tmp_path)
    editor = Editor(results, "one")
    editor.add((501, 101), SQUARE)
    editor.delete(table(results).query("image == 'one'").index[3])
    expected = view(editor)
    (report,) = apply(results)
    assert (report.name, report.reason) == ("one", None)
    for level in range(3):
        assert np.array_equal(on_disk(results, level), expected[:: 2**level, :: 2**level])
    assert apply(results) == ()


def test_only_images_with_edits_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = several(tmp_path)
    before = table(results).query("image == 'one'")
    Editor(results, "two").add((0, 0), SQUARE)
    (tmp_path / "in" / "one.tif").unlink()
    assert pending_edits(results) == {"two": 1}
    (report,) = apply(results)
    assert (report.name, report.reason) == ("two", None)
    after = table(results)
    assert after.query("image == 'one'").equals(before)
    assert after.query("image == 'two'")["seam"].tolist()[-1] == "edited"


def test_gates_may_be_of_channels_that_only_other_images_have(tmp_path: Path) -> None:
    labels = cells(1, (120, 140), 12)[1].astype(np.uint16)
    (tmp_path / "in").mkdir()
    about: Any = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
    tifffile.imwrite(tmp_path / "in" / "two.tif", np.stack([labels, labels * 2]), **about)
    gates = "gates.bright=mean_1 > 10"
    results = results_of(tmp_path, labels, gates, "model.channels=[0]")
    Editor(results, "one").delete(1)
    (report,) = apply(results)
    assert report.reason is None
    rows = table(results).query("image == 'two'")
    assert rows["bright"].tolist() == (rows["mean_1"] > 10).tolist()
    with pytest.raises(CellsegError, match="is no column of the cell table"):
        ApplyEdits(results, CPU, ["gates.bright=mean_2 > 10"], images=["one"])


def test_files_that_hold_no_edit_are_not_written(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.zarr")
    store.start("key", (1, 1, 4100, 8200), None)
    for x in (0, 4096):
        region = Box(0, x, 4100, min(x + 4096, 8200))
        store.paint(0, 0, region, lambda box: np.full(box.shape, 7, np.uint32))
    store.finish(1, 1)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("c/**/*") if p.is_file()}

    def erase(labels: Any, box: Box) -> None:
        labels[:] = 0

    store.change(0, 0, [Box(100, 5000, 163, 5050)], erase)
    changed = {str(p.relative_to(tmp_path)) for p in files if p.stat().st_mtime_ns != files[p]}
    assert "labels.zarr/cells/0/c/0/1" in changed
    assert "labels.zarr/cells/0/c/0/0" not in changed
    levels = [np.asarray(zarr.open_array(store.path / "cells" / str(n))[:]) for n in range(6)]
    for level, labels in enumerate(levels):
        assert np.array_equal(labels, levels[0][:: 2**level, :: 2**level])


@pytest.mark.parametrize("at", range(1, 9))
def test_killed_anywhere_the_next_one_ends_in_the_same_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    results = results_of(tmp_path, cells(2, (520, 200), 20)[1])
    before = table(results)
    editor = Editor(results, "one")
    editor.delete(2)
    editor.add((470, 170), SQUARE)
    editor.undo()
    editor.merge([4, 5])
    editor.undo()
    editor.change_class(6, 2)
    editor.redraw(7, (490, 0), SQUARE, 0, 0)
    expected = view(editor)
    calls = 0

    def dying(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            return real(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("cellseg.pipeline.pyramid._change_level", dying(pyramid._change_level))
        for name in ("write_cells", "append_edits", "write_overview"):
            patch.setattr(ImageResults, name, dying(getattr(ImageResults, name)))
        patch.setattr(Results, "write_cells", dying(Results.write_cells))
        with pytest.raises(KeyboardInterrupt):
            apply(results)
    reader = Editor(results, "one")
    assert np.array_equal(view(reader), expected)
    apply(results)
    assert np.array_equal(on_disk(results), expected)
    assert np.array_equal(on_disk(results, 1), expected[::2, ::2])
    after = table(results)
    edited = after.index[after["seam"] == "edited"].tolist()
    touched = {c.label for edit in editor.surviving for c in edit.changes if c.drawn}
    assert set(edited) == touched & set(np.unique(expected).tolist())
    same = after.index.difference([*edited, 6])
    assert after.loc[same].equals(before.loc[same])
    assert after.loc[6].drop("class").equals(before.loc[6].drop("class"))
    assert after.loc[6, "class"] == 2


def test_undo_beyond_an_apply_brings_the_table_back(tmp_path: Path) -> None:
    results = several(tmp_path)
    before, labels = table(results), on_disk(results)
    editor = Editor(results, "one")
    editor.merge([1, 2])
    apply(results)
    editor.add((0, 0), SQUARE)
    apply(results)
    other = Editor(results, "one")
    while other.undo() is not None:
        pass
    apply(results)
    assert np.array_equal(on_disk(results), labels)
    assert table(results).equals(before)


def test_measuring_applies_edits_first(tmp_path: Path) -> None:
    results = several(tmp_path)
    Editor(results, "one").delete(1)
    arguments = ["measure", str(results), "--set", 'measure.groups=["shape"]']
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "1 edit to apply first" in outcome.output
    assert 1 not in table(results).query("image == 'one'").index
    assert not (on_disk(results) == 1).any()
    assert pending_edits(results) == {}


def test_a_run_keeps_what_was_applied_and_what_is_pending(tmp_path: Path) -> None:
    results = several(tmp_path)
    editor = Editor(results, "one")
    editor.delete(1)
    apply(results)
    editor.delete(2)
    after = table(results)
    workflow = read_workflow(tmp_path / "w.toml", output=results)
    run(workflow, CPU, Exact())
    assert table(results).equals(after)
    assert Editor(results, "one").pending == 1
    # Afresh, labels are those of the model; what was said of the others is kept, under a name.
    run(workflow, CPU, Exact(), fresh=True)
    assert Editor(results, "one").log == []
    assert log_of(results).with_name("edits.1.jsonl").is_file()


def test_labels_of_others_do_not_replace_edits_that_are_pending(tmp_path: Path) -> None:
    results = several(tmp_path)
    editor = Editor(results, "one")
    editor.delete(1)
    with pytest.raises(CellsegError, match="1 edits are not applied"):
        ApplyEdits(results, CPU, corrected=results)
    apply(results)
    for _ in ApplyEdits(results, CPU, corrected=results).steps():
        pass
    assert Editor(results, "one").log == []


def test_an_image_that_is_gone_keeps_its_edits_pending(tmp_path: Path) -> None:
    results = several(tmp_path)
    Editor(results, "one").delete(1)
    (tmp_path / "in" / "one.tif").unlink()
    (report,) = apply(results)
    assert "no longer found" in str(report.reason)
    assert pending_edits(results) == {"one": 1}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("overlap", [False, True])
def test_labels_inside_the_input(tmp_path: Path, version: str, overlap: bool) -> None:
    truth = cells(0, (120, 140), 9)[1].astype(np.uint16)
    known = discs(1, (120, 140), 12)
    pixels = np.full((120, 140), 9, np.uint16) if overlap else truth
    write_image(tmp_path / "in.zarr", pixels, version=version)
    text = 'images = "in.zarr"\n[normalise]\nmethod = "none"\n[output]\nlabels = "inside"\n'
    (tmp_path / "w.toml").write_text(f"{text}[tiling]\nskip_background = false\n")
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "out")
    run(workflow, CPU, Known(known) if overlap else Exact())
    editor = Editor(tmp_path / "out", "in")
    layers = editor.layers
    y, x = (int(side) for side in table(tmp_path / "out").iloc[0][["y0_px", "x0_px"]])
    for _ in range(layers + 1 if overlap else 1):
        label = editor.add((y, x), np.ones((8, 8), bool))
    expected = [view(editor, layer=n) for n in range(editor.layers)]
    assert apply(tmp_path / "out")[0].reason is None
    store = editor.store
    assert store.layers == len(expected) > layers or not overlap
    for number, labels in enumerate(expected):
        image = Pyramid(store.layer_paths[number])
        assert np.array_equal(image.read(0, 0, editor.plane, 0), labels)
        assert np.array_equal(image.read(0, 0, Box(0, 0, 60, 70), 1), labels[::2, ::2])
    assert table(tmp_path / "out").loc[label, "area_px"] == 64


@pytest.mark.parametrize("images", ["link", "copy"])
def test_plates(tmp_path: Path, images: str) -> None:
    groups = ("B/03/0", "B/03/1", "C/3/0")
    fields = {group: cells(n, (120, 140), 9)[1].astype(np.uint16) for n, group in enumerate(groups)}
    write_plate(tmp_path / "in.zarr", fields)
    text = f'images = "in.zarr"\n[normalise]\nmethod = "none"\n[output]\nimages = "{images}"\n'
    (tmp_path / "w.toml").write_text(text)
    run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Exact())
    results = tmp_path / "out"
    names = [line["name"] for line in json.loads((results / "run.json").read_text())["images"]]
    editor = Editor(results, names[1])
    editor.delete(1)
    assert (results / "edits" / f"{names[1]}.jsonl").is_file()
    assert apply(results)[0].reason is None
    rows = table(results)
    assert rows.loc[1, "image"].tolist() == [names[0], names[2]]
    labels = zarr.open_array(results / "plate.zarr/B/03/1/labels/cells/0", mode="r")
    assert np.array_equal(np.asarray(labels[:]), view(editor))
    # A log is no part of a plate.
    assert not list((results / "plate.zarr").rglob("*.jsonl"))
    editor.undo()
    apply(results)
    assert len(table(results)) == len(rows) + 1
