"""A review of stacks and time series in a real napari window: cells of other planes, and slides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from viewing import need_napari

need_napari()

from cellseg.pipeline.review import label_arrays  # noqa: E402 - napari is known to be there
from cellseg.pipeline.review.widget import ReviewWidget, show  # noqa: E402
from corrected import results_of  # noqa: E402

Viewers = Callable[..., Any]
AXES: dict[str, Any] = {"imagej": True, "metadata": {"axes": "TZYX"}}
SHAPE = (2, 3, 40, 50)


def stack() -> NDArray[np.uint16]:
    """Return two time points of three planes, with a cell in the upper and one in the lower two."""
    labels = np.zeros(SHAPE, np.uint16)
    labels[:, :2, 5:15, 5:25] = 1
    labels[:, 1:, 20:30, 5:15] = 2
    return labels


def volume(widget: ReviewWidget) -> NDArray[np.uint32]:
    """Return the labels (T, Z, Y, X) that the first layer shows."""
    return np.array(widget.view.labels[0].data, np.uint32)


def later_cell(widget: ReviewWidget, y: int, x: int, z: int) -> int:
    """Return the cell at a voxel of the second time point."""
    return int(volume(widget)[1, z, y, x])


@pytest.fixture(params=["in memory", "read where one looks"])
def widget(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_napari_viewer: Viewers,
    monkeypatch: pytest.MonkeyPatch,
) -> ReviewWidget:
    """A review of the stack, linked over z."""
    if request.param != "in memory":
        monkeypatch.setattr(label_arrays, "IN_MEMORY", 100)
    results = results_of(tmp_path, stack(), "link.z=true", **AXES)
    return show(make_napari_viewer(), results)


def test_a_cell_of_another_plane_and_time_is_gone_to_and_clicked(widget: ReviewWidget) -> None:
    session, view = widget.session, widget.view
    assert session.labels.axes == ("t", "z", "y", "x")
    assert widget.viewer.layers["channel 0"].ndim == 4
    label = later_cell(widget, 25, 8, 2)
    row = widget.table.model.rows.place(session.entry.name, label)
    widget.viewer.dims.set_point((0, 1), (0, 0))
    widget.table.table.selectRow(row)
    assert session.chosen == (label,)
    found = session.row(label)
    assert found is not None
    assert view.camera.plane == (int(found["t"]), int(found["z"]))
    assert view.camera.plane[0] == 1
    session.choose([])
    view._released((25, 8), (25, 8), moved=False, more=False)
    assert session.chosen == (label,)
    widget.viewer.dims.set_point((0, 1), (1, 0))
    view._released((25, 8), (25, 8), moved=False, more=False)
    assert view.session.chosen == ()


def test_a_volume_is_deleted_and_cut_in_all_its_planes_and_comes_back(widget: ReviewWidget) -> None:
    session, view, before = widget.session, widget.view, volume(widget)
    label = later_cell(widget, 10, 10, 0)
    widget.viewer.dims.set_point((0, 1), (1, 1))
    session.choose([label])
    view.call("delete")
    assert np.array_equal(volume(widget), np.where(before == label, 0, before))
    view.call("undo")
    assert np.array_equal(volume(widget), before)
    view.call("cut")
    view._released((2, 15), (18, 15), moved=True, more=False)
    changed = volume(widget) != before
    assert {(t, z) for t, z, *_ in np.argwhere(changed)} == {(1, 0), (1, 1)}
    view.call("undo")
    assert np.array_equal(volume(widget), before)


def test_a_cell_is_redrawn_and_added_in_the_plane_in_view_alone(widget: ReviewWidget) -> None:
    session, view, before = widget.session, widget.view, volume(widget)
    label = later_cell(widget, 25, 8, 2)
    session.choose([label])
    widget.viewer.dims.set_point((0, 1), (1, 2))
    in_memory = session.labels.in_memory
    if not in_memory:
        view.call("window")
    brush = widget.viewer.layers.selection.active
    brush.mode, brush.brush_size = "paint", 3
    brush.paint([1, 2, 25, 15] if in_memory else [25, 15], label)
    assert {(t, z) for t, z, *_ in np.argwhere(volume(widget) != before)} == {(1, 2)}
    assert volume(widget)[1, 2, 25, 15] == label
    view.call("undo")
    assert np.array_equal(volume(widget), before)
    widget.viewer.dims.set_point((0, 1), (0, 2))
    view.call("new")
    brush = widget.viewer.layers.selection.active
    new = brush.selected_label
    brush.paint([0, 2, 10, 40] if in_memory else [10, 40], new)
    found = session.row(new)
    assert found is not None
    assert found[["t", "z", "review"]].tolist() == [0, 2, "new"]
    assert {(t, z) for t, z, *_ in np.argwhere(volume(widget) == new)} == {(0, 2)}
    view.call("undo")
    assert np.array_equal(volume(widget), before)
