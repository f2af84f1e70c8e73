"""A review in a real napari window: plates, slides, overlap, queue, corrections, table."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray

from viewing import need_napari

need_napari()

from npe2 import PluginManager, PluginManifest  # noqa: E402 - not before it is known to be there
from npe2.manifest.utils import import_python_name  # noqa: E402

from cellseg.pipeline import Config, read_workflow, run  # noqa: E402
from cellseg.pipeline.review import label_arrays, painting  # noqa: E402
from cellseg.pipeline.review.widget import ReviewWidget, show  # noqa: E402
from cellseg.pipeline.tiles import Box  # noqa: E402
from exact import Exact, Known  # noqa: E402
from slides import write_pyramid  # noqa: E402
from synthetic import cells, discs  # noqa: E402

ROOT = Path(__file__).parent.parent
MANIFEST = ROOT / "pipeline" / "review" / "napari.yaml"
CPU = Config(device="cpu")
EXACT = '[normalise]\nmethod = "none"\n[tiling]\nsize = 128\nhalo = 48\n'
Viewers = Callable[..., Any]


def test_the_plugin_is_declared_and_all_that_it_names_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, file = project["entry-points"]["napari.manifest"]["cellseg"].partition(":")
    manifest = PluginManifest.from_file(files(module) / file)
    assert manifest.name == "cellseg"
    for command in manifest.contributions.commands or []:
        assert callable(import_python_name(command.python_name))


def ran(folder: Path, segmenter: Any, *overrides: str) -> Path:
    """Run a workflow over ``folder/in``; return the results folder."""
    workflow = folder / "w.toml"
    workflow.write_text(f'images = "in"\n{EXACT}skip_background = false\n', encoding="utf-8")
    run(read_workflow(workflow, overrides, output=folder / "out"), CPU, segmenter)
    return folder / "out"


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two wells, one of two fields."""
    folder = tmp_path_factory.mktemp("plate")
    (folder / "in").mkdir()
    for seed, (well, site) in enumerate((("A01", 1), ("A01", 2), ("B03", 1))):
        labels = cells(seed, (160, 200), 20)[1]
        tifffile.imwrite(folder / "in" / f"P_{well}_s{site}_w1.tif", labels.astype(np.uint16))
    return ran(folder, Exact())


@pytest.fixture
def results(plate: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    shutil.copytree(plate.parent, tmp_path / "copy")
    return tmp_path / "copy" / "out"


def by_label(widget: ReviewWidget) -> pd.DataFrame:
    return widget.session.cells.set_index("label")


def box_of(widget: ReviewWidget, label: int) -> Box:
    found = widget.session.box(label)
    assert found is not None
    return found[2]


def press(widget: ReviewWidget, key: str) -> None:
    """Press a key as the active layer gets it."""
    layer = widget.viewer.layers.selection.active
    bound = {str(each): call for each, call in layer.keymap.items()}
    bound[key](layer)


def drawn(widget: ReviewWidget) -> NDArray[np.uint32]:
    """What the label layers show, whole."""
    return np.stack([np.array(layer.data) for layer in widget.view.labels])


def test_napari_opens_results_and_the_review_begins(
    plate: Path, make_napari_viewer: Viewers
) -> None:
    viewer = make_napari_viewer()
    manager = PluginManager.instance()
    if "cellseg" not in manager:
        manager.register(PluginManifest.from_file(MANIFEST))
    viewer.open(str(plate), plugin="cellseg")
    assert [layer.name for layer in viewer.layers] == ["w1", "cells", "cell centres"]
    features = viewer.layers["cell centres"].features
    assert {"label", "area_px", "score"} <= set(features)
    widget = ReviewWidget(viewer)
    assert widget.session.entry.name == viewer.layers["w1"].metadata["cellseg"]["image"]
    assert len(viewer.layers) == 4


def test_a_click_on_a_well_opens_its_field_in_place_of_the_last(
    plate: Path, make_napari_viewer: Viewers, qtbot: Any
) -> None:
    from qtpy.QtCore import QPoint, Qt

    viewer = make_napari_viewer()
    other = viewer.add_image(np.zeros((5, 5)), name="mine")
    widget = show(viewer, plate)
    first = len(viewer.layers)
    grid = widget.plate.grid
    assert sorted(grid.wells) == [(0, 0), (1, 2)]
    assert grid.wells[0, 0][1] == by_well(plate)["A01"]
    grid.resize(300, 200)
    x, y = grid.place_of("B03")
    qtbot.mouseClick(grid, Qt.MouseButton.LeftButton, pos=QPoint(int(x), int(y)))
    assert widget.session.entry.well == "B03"
    assert len(viewer.layers) == first
    assert other in viewer.layers
    widget.plate.open_well("A01")
    assert widget.plate.fields.count() == 2
    widget.plate.fields.itemClicked.emit(widget.plate.fields.item(1))
    assert widget.session.entry.site == "2"
    truth = tifffile.imread(plate.parent / "in" / "P_A01_s2_w1.tif")
    assert np.array_equal(drawn(widget)[0] > 0, truth > 0)


def by_well(plate: Path) -> dict[str, int]:
    counts = pd.read_parquet(plate / "cells.parquet")["well"].value_counts()
    return {str(well): int(count) for well, count in counts.items()}


def test_a_slide_is_lazy_and_its_part_in_view_can_be_painted_on(
    tmp_path: Path, make_napari_viewer: Viewers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_arrays, "IN_MEMORY", 1000)
    labels = cells(4, (600, 700), 60)[1].astype(np.uint16)
    (tmp_path / "in").mkdir()
    write_pyramid(tmp_path / "in" / "slide.tif", labels)
    widget = show(make_napari_viewer(), ran(tmp_path, Exact(), "pixel_size_um=0.25"))
    image, layer = widget.viewer.layers["channel 0"], widget.view.labels[0]
    assert [level.shape for level in image.data] == [(600, 700), (300, 350), (150, 175)]
    assert layer.multiscale
    assert tuple(layer.scale) == (0.25, 0.25)
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    widget.view.call("next")
    (label,) = widget.session.chosen
    widget.view.call("delete")
    for level, array in enumerate(layer.data):
        expected = np.where(labels_of(widget) == label, 0, labels_of(widget))
        assert np.array_equal(np.asarray(array), expected[:: 2**level, :: 2**level])
    widget.view.call("new")
    brush = widget.viewer.layers.selection.active
    assert brush.name == "cells in view"
    new = brush.selected_label
    brush.paint([10, 12], new)
    assert by_label(widget).loc[new, "review"] == "new"
    assert by_label(widget).loc[new, "area_px"] > 20
    assert new in np.asarray(layer.data[0])
    widget.view.call("undo")
    assert new not in np.asarray(layer.data[0])
    assert new not in brush.data


def test_the_brush_on_a_slide_follows_the_view_in_all_label_layers(
    tmp_path: Path, make_napari_viewer: Viewers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_arrays, "IN_MEMORY", 1000)
    monkeypatch.setattr(painting, "WINDOW_PX", 60)
    truth = discs(5, (220, 230), 60)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "one.tif", np.full((220, 230), 9, np.uint16))
    widget = show(make_napari_viewer(), ran(tmp_path, Known(truth)))
    session, view, viewer = widget.session, widget.view, widget.viewer
    table = by_label(widget)
    above = int(table[table["layer"] == 2].index[-1])
    session.choose([above])
    view.camera.look_at(above)
    view.call("window")
    windows = view.painting.windows
    assert [each.name for each in windows] == [f"{each.name} in view" for each in view.labels]
    assert windows[0].bounding_box.visible
    brush = viewer.layers.selection.active
    assert brush is windows[1]
    assert {each.selected_label for each in windows} == {above}
    session.choose([])
    assert {each.selected_label for each in windows} == {session.new_label()}
    assert above in brush.data
    viewer.scene.camera.center = (20, 30)
    box = view.painting.window[2]
    assert (box.y0, box.x0, box.y1, box.x1) == (0, 0, 50, 60)
    for number, layer in enumerate(windows):
        assert np.array_equal(layer.data, session.read(0, 0, box, number))
        assert tuple(layer.translate) == (0, 0)
    before = session.read(0, 0, box, 1)
    other = int(before[before > 0][0])
    session.choose([other])
    brush.mode, brush.brush_size, brush.preserve_labels = "paint", 5, False
    brush.paint([40, 50], other)
    (edit,) = session.writable.surviving
    assert other in edit.labels
    assert 1 in {change.layer for change in edit.changes}
    shown = [layer.data for layer in windows]
    assert any(labels[40, 50] == other for labels in shown)
    view.call("undo")
    assert np.array_equal(session.read(0, 0, box, 1), before)
    assert np.array_equal(windows[1].data, before)
    viewer.layers.remove(windows[0])
    assert view.painting.windows == []


def labels_of(widget: ReviewWidget) -> NDArray[np.uint32]:
    """The labels on disk."""
    shape = widget.session.labels.shape
    return widget.session.entry.results.labels.read(0, 0, Box(0, 0, *shape[2:]))


def test_overlapping_cells_have_a_layer_each_and_lost_images_a_line(
    tmp_path: Path, make_napari_viewer: Viewers, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = discs(5, (120, 130), 30)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "one.tif", np.full((120, 130), 9, np.uint16))
    results = ran(tmp_path, Known(truth))
    (tmp_path / "in" / "one.tif").unlink()
    said: list[str] = []
    monkeypatch.setattr("cellseg.pipeline.review.widget.show_info", said.append)
    widget = show(make_napari_viewer(), results)
    assert "shown without its image" in said[0]
    assert len(widget.view.labels) > 1
    table = by_label(widget)
    above = table[table["layer"] == 2].index[0]
    box = box_of(widget, above)
    y, x = np.nonzero(drawn(widget)[1][box.slices] == above)
    assert widget.session.label_at(0, 0, box.y0 + y[0], box.x0 + x[0]) >= above
    widget.session.choose([above])
    widget.view.call("delete")
    assert above not in drawn(widget)
    widget.view.call("undo")
    assert above in drawn(widget)[1]


def test_the_queue_goes_by_keys_and_keeps_what_was_said(
    results: Path, make_napari_viewer: Viewers
) -> None:
    viewer = make_napari_viewer()
    widget = show(viewer, results)
    widget.queue.least.setValue(0)
    queue = widget.session.queue
    press(widget, "N")
    first = widget.session.chosen[0]
    assert (widget.session.entry.name, first) == queue.keys[0]
    box = box_of(widget, first)
    centre = np.array([box.y0 + box.y1 - 1, box.x0 + box.x1 - 1]) / 2
    assert np.allclose(viewer.scene.camera.center[-2:], centre)
    press(widget, "A")
    second = widget.session.chosen[0]
    press(widget, "R")
    assert by_label(widget).loc[first, "review"] == "accepted"
    assert by_label(widget).loc[second, "review"] == "rejected"
    assert second not in drawn(widget)
    assert widget.queue.bar.value() == 2
    press(widget, "Shift+N")
    assert widget.session.chosen == (second,)
    widget.session.reread()
    assert widget.session.queue.verdicts == {
        (widget.session.entry.name, first): "accept",
        (widget.session.entry.name, second): "reject",
    }
    press(widget, "N")
    assert widget.session.chosen[0] not in (first, second)


def test_the_queue_of_all_images_goes_from_field_to_field(
    results: Path, make_napari_viewer: Viewers
) -> None:
    widget = show(make_napari_viewer(), results)
    widget.queue.least.setValue(0)
    assert widget.queue.scope.currentText() == "this image"
    widget.queue.range_over("all images, one by one")
    session = widget.session
    count = len(pd.read_parquet(results / "cells.parquet"))
    assert widget.queue.model.rowCount() == len(session.queue) == count
    here = session.entry.name
    seen: list[tuple[str, int]] = []
    for _ in range(2 * len(session.cells)):
        press(widget, "A" if seen else "N")
        seen.append((session.entry.name, session.chosen[0]))
        if session.entry.name != here:
            break
    assert [image for image, _ in seen] == [here] * (len(seen) - 1) + [session.entry.name]
    assert len(seen) - 1 == len(pd.read_parquet(results / "cells.parquet").query("image == @here"))
    assert widget.queue.bar.value() == len(seen) - 1
    assert widget.viewer.layers["cells"].metadata["cellseg"]["image"] == session.entry.name
    assert widget.queue.model.line(0).split()[0] == "✓"
    press(widget, "Shift+N")
    assert session.entry.name == here
    again = show(make_napari_viewer(), results)
    again.queue.least.setValue(0)
    again.queue.range_over("all images, worst cells first")
    assert again.queue.bar.value() == len(seen) - 1
    press(again, "N")
    assert (again.session.entry.name, again.session.chosen[0]) not in seen[:-1]


def test_every_correction_shows_and_can_be_taken_back(
    results: Path, make_napari_viewer: Viewers
) -> None:
    widget = show(make_napari_viewer(), results)
    session, view = widget.session, widget.view
    start, rows = drawn(widget), session.cells.drop(columns="review")
    large = int(rows.sort_values("area_px")["label"].iloc[-1])
    box = box_of(widget, large)
    near = touching(drawn(widget)[0])
    y, x = (box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2

    def brush() -> None:
        session.choose([large])
        layer = view.labels[0]
        layer.mode = "paint"
        layer.preserve_labels = False
        layer.brush_size = 5
        layer.paint([box.y0, box.x0], large)
        layer.mode = "pan_zoom"

    def new() -> None:
        view.call("new")
        view.labels[0].preserve_labels = False
        view.labels[0].paint([y, x], view.labels[0].selected_label)
        view.labels[0].mode = "pan_zoom"

    def seeds() -> None:
        view.call("take_seeds")
        view._released((y, x - 4), (y, x - 4), moved=False, more=False)
        view._released((y, x + 4), (y, x + 4), moved=False, more=False)
        view.call("take_seeds")

    def cut() -> None:
        view.call("cut")
        view._released((box.y0 - 2, x), (box.y1 + 2, x), moved=True, more=False)

    def chosen(name: str, *labels: int) -> Callable[[], None]:
        def act() -> None:
            session.choose(labels)
            view.call(name)

        return act

    def kind() -> None:
        session.choose([large])
        session.change_class(3)

    count = 0
    for act in (chosen("delete", large), chosen("join", *near), cut, seeds, brush, new, kind):
        before = drawn(widget)
        act()
        assert len(session.writable.surviving) == 1, act
        if act is not kind:
            assert not np.array_equal(drawn(widget), before), act
        after = drawn(widget)
        press(widget, "Ctrl+Z")
        assert np.array_equal(drawn(widget), start), act
        press(widget, "Ctrl+Shift+Z")
        assert np.array_equal(drawn(widget), after), act
        press(widget, "Ctrl+Z")
        count += 1
        back = session.cells.drop(columns="review").iloc[: len(rows)]
        assert back["area_px"].tolist() == rows["area_px"].tolist(), act
        assert back["class"].tolist() == rows["class"].tolist(), act
    assert widget.correct.log.count() == 0
    assert count == 7


def touching(labels: NDArray[np.uint32]) -> tuple[int, int]:
    """Two cells that touch."""
    pairs = np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()])
    pairs = pairs[:, (pairs > 0).all(axis=0) & (pairs[0] != pairs[1])]
    return int(pairs[0, 0]), int(pairs[1, 0])


def test_a_crash_between_strokes_loses_at_most_the_one_in_hand(
    results: Path, make_napari_viewer: Viewers
) -> None:
    widget = show(make_napari_viewer(), results)
    widget.view.call("new")
    layer = widget.view.labels[0]
    label = layer.selected_label
    layer.preserve_labels = False
    layer.paint([30, 30], label)
    kept = drawn(widget)
    layer.paint([60, 60], label)
    log = widget.session.entry.results.edits_path
    lines = log.read_bytes()
    log.write_bytes(lines[:-20])  # the power went off in the middle of the second one
    widget.session.reread()
    assert np.array_equal(drawn(widget), kept)
    assert by_label(widget).loc[label, "review"] == "new"


def test_applying_changes_labels_and_table_on_disk(
    results: Path, make_napari_viewer: Viewers, qtbot: Any
) -> None:
    widget = show(make_napari_viewer(), results)
    name, label = widget.session.entry.name, int(widget.session.cells["label"].iloc[3])
    widget.session.choose([label])
    widget.view.call("delete")
    shown = drawn(widget)
    assert widget.correct.apply_button.text().startswith("apply 1 correction ")
    widget.correct.apply_button.click()
    with qtbot.waitSignal(widget.worker.finished, timeout=30_000):
        pass
    qtbot.waitUntil(lambda: widget.session.writable.pending == 0, timeout=5_000)
    assert label not in widget.session.measured["label"].tolist()
    every = pd.read_parquet(results / "cells.parquet")
    assert label not in every.loc[every["image"] == name, "label"].tolist()
    assert np.array_equal(labels_of(widget), shown[0])
    press(widget, "Ctrl+Z")
    assert label in drawn(widget)


def test_table_plot_and_layers_stay_in_step(results: Path, make_napari_viewer: Viewers) -> None:
    from qtpy.QtCore import Qt

    widget = show(make_napari_viewer(), results)
    table, session = widget.table, widget.session
    widget.view.points.visible = True
    table.table.sortByColumn(
        table.model.rows.columns.index("area_px"), Qt.SortOrder.DescendingOrder
    )
    largest = int(session.cells.sort_values("area_px")["label"].iloc[-1])
    table.table.selectRow(0)
    assert session.chosen == (largest,)
    assert widget.view.labels[0].selected_label == largest
    assert widget.view.points.selected_data == {session.rows.place(largest)}
    other = int(session.cells["label"].iloc[0])
    session.choose([other, largest])
    rows = {index.row() for index in table.table.selectionModel().selectedRows()}
    assert rows == {table.model.rows.place(session.entry.name, each) for each in (other, largest)}
    widget.view.points.selected_data = {session.rows.place(other)}
    assert session.chosen == (other,)
    table.expression.setText("area_px > 250")
    table.refilter()
    assert len(table.model.rows) == (session.cells["area_px"] > 250).sum()
    table.plot._span(0, 300)
    small = session.cells.query("250 < area_px <= 300")["label"]
    colours = widget.view.labels[0].colormap.color_dict
    assert {label for label in colours if label} == set(small)
    table.plot._select(None)
    table.every.setChecked(True)
    table.expression.setText("well == 'B03'")
    table.refilter()
    table.table.selectRow(2)
    assert session.entry.well == "B03"
    assert len(session.chosen) == 1


def test_an_image_without_cells_is_opened_and_gets_its_first(
    tmp_path: Path, make_napari_viewer: Viewers
) -> None:
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "empty.tif", np.zeros((60, 70), np.uint16))
    (tmp_path / "in" / "broken.tif").write_bytes(b"no image")
    with warnings.catch_warnings(action="ignore"):  # what tifffile says of the broken one
        results = ran(tmp_path, Exact())
    widget = show(make_napari_viewer(), results)
    assert [entry.name for entry in widget.session.contents.entries] == ["empty"]
    assert "1 of its images not done" in widget.title.text()
    assert (len(widget.table.model.rows), len(widget.session.queue)) == (0, 0)
    for name in ("next", "previous", "accept", "delete", "undo"):
        widget.view.call(name)
    widget.view.call("new")
    brush = widget.view.labels[0]
    brush.paint([20, 20], brush.selected_label)
    brush.mode = "pan_zoom"
    widget.session.choose([])
    widget.table.table.selectRow(0)
    assert widget.session.chosen == (1,)
    assert widget.table.model.rows.key(0) == ("empty", 1)
    widget.view.call("undo")
    assert not drawn(widget).any()


def test_without_napari_one_line_says_what_to_install(plate: Path) -> None:
    script = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('napari', 'qtpy', 'PyQt6', 'npe2', 'vispy'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import cellseg.pipeline, cellseg.pipeline.review.layers, cellseg.pipeline.review.session\n"
        "from cellseg.pipeline.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, "review", str(plate)], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert (
        found.stderr == 'cellseg: review needs napari. Install it: pip install "cellseg[review]"\n'
    )
    status = [sys.executable, "-c", script, "status", str(plate)]
    assert subprocess.run(status, capture_output=True).returncode == 0
