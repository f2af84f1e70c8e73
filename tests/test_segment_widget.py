"""Segment here in a real napari window: found in the background, cut live, written, drawn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from viewing import need_napari

need_napari()

from cellseg.pipeline import read_workflow  # noqa: E402 - not before napari is known to be there
from cellseg.pipeline.review.segment_widget import SegmentWidget  # noqa: E402
from cellseg.pipeline.training_set import TrainingSet  # noqa: E402
from synthetic import cells  # noqa: E402

SHAPE = (120, 140)
IMAGE, TRUTH = cells(5, SHAPE, 14)


def test_a_look_is_cut_live_and_becomes_a_workflow_and_a_layer(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(IMAGE // 3, name="DAPI", scale=(0.5, 0.5))
    viewer.add_image(IMAGE, name="GFP", scale=(0.5, 0.5))
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    viewer.layers.selection = {viewer.layers["GFP"]}
    widget.view_only.setChecked(False)
    widget.run_button.click()
    assert not widget.run_button.isEnabled()
    qtbot.waitUntil(
        lambda: widget.looked is not None and widget.run_button.isEnabled(), timeout=60000
    )
    preview = viewer.layers["segment here"]
    assert preview.data.shape == SHAPE
    assert tuple(preview.scale) == (0.5, 0.5)
    count = len(np.unique(preview.data)) - 1
    assert abs(count - TRUTH.max()) <= 2
    widget.area.setValue(10_000)
    assert not viewer.layers["segment here"].data.any()
    widget.area.setValue(20)
    widget.score.setValue(30)
    widget.write(tmp_path / "w.toml")
    written = read_workflow(tmp_path / "w.toml")
    assert (written.model.channels, written.model.min_area_px) == ((1,), 20)  # type: ignore[attr-defined]
    assert written.model.score == 0.3  # type: ignore[attr-defined]
    widget.keep()
    assert "cells of mask_rcnn" in viewer.layers
    assert viewer.layers.selection == {viewer.layers["GFP"]}


def test_only_the_view_is_looked_at_and_errors_are_said_in_the_window(
    make_napari_viewer: Callable[..., Any], qtbot: Any
) -> None:
    viewer = make_napari_viewer()
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    widget.run_button.click()
    assert "There is no image" in widget.said.text()
    widget.model.setCurrentText("center_mask_fcos")
    assert "no weights of its own" in widget.said.text()
    viewer.add_image(np.stack([IMAGE, IMAGE[::-1]]), name="stack")
    viewer.dims.set_current_step(0, 1)
    widget.model.setCurrentText("threshold")
    assert not widget.score.isEnabled()
    layer = viewer.layers["stack"]
    layer.corner_pixels = np.array([[1, 20, 30], [1, 99, 120]])
    assert np.array_equal(widget._view().channels[0], IMAGE[::-1])
    widget.run_button.click()
    qtbot.waitUntil(
        lambda: widget.looked is not None and widget.run_button.isEnabled(), timeout=60000
    )
    assert widget.looked is not None
    assert widget.looked.window.shape == viewer.layers["segment here"].data.shape
    assert widget.looked.window.shape < SHAPE
    corner = widget.looked.window.y0, widget.looked.window.x0
    assert tuple(viewer.layers["segment here"].translate) == corner


def test_cells_are_drawn_and_saved_as_a_pair(
    make_napari_viewer: Callable[..., Any], qtbot: Any, tmp_path: Path
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(IMAGE, name="my image")
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    widget.folder.setText(str(tmp_path / "set"))
    widget.save_button.click()
    assert "Nothing is drawn" in widget.said.text()
    widget.draw_button.click()
    drawn = viewer.layers["drawn cells"]
    assert drawn.mode == "paint"
    drawn.data[4:12, 4:12] = 1
    widget.save_button.click()
    assert widget.said.text().startswith("1 cells of my image saved")
    assert TrainingSet(tmp_path / "set").names() == ["my_image"]


AFTER_A_WINDOW = """
import sys, napari
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer()
layer = viewer.add_image(__import__("numpy").eye(64))
QApplication.processEvents()
viewer.screenshot(flash=False)
assert "triton" not in sys.modules
from cellseg.pipeline.review.segment_widget import SegmentWidget
widget = SegmentWidget(viewer)
widget.segment()
while widget.looked is None:
    assert not widget.said.text(), widget.said.text()
    QApplication.processEvents()
viewer.screenshot(flash=False)
viewer.close()
assert "torch" in sys.modules
assert sys.modules["triton"] is None
"""


def test_a_network_runs_in_a_window_that_napari_opened_and_drew() -> None:
    found = subprocess.run([sys.executable, "-c", AFTER_A_WINDOW], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
