"""The pictures of the review in README and docs, of a real window over a real run.

Run:  cellseg run workflows/plate.toml --set output.images=copy -o results/plate
      python benchmarks/review_pictures.py results/plate docs/images
(on a machine without a screen: xvfb-run -a -s "-screen 0 1600x1200x24" python ...)
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

from cellseg.pipeline.review.widget import ReviewWidget, show

FIELD, WITH_FUSED = "IXMtest_F08_s1_w1", "IXMtest_F08_s7_w1"
SIZE = 1360, 860
COLOURS = 256


def settle(seconds: float = 0.6) -> None:
    """Let the window draw itself."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


def save(pixels: Any, path: Path) -> None:
    """Write a picture of few colours: a small file."""
    picture = Image.fromarray(np.asarray(pixels)[..., :3])
    picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


def window(viewer: Any, path: Path) -> None:
    """Take the whole window."""
    settle()
    save(viewer.window.screenshot(canvas_only=False, flash=False), path)


def fused(widget: ReviewWidget) -> int:
    """Return the cell that looks most like two."""
    cells = widget.session.cells
    inside = cells[
        ~cells["touches_edge"].astype(bool) & (cells["area_px"] > cells["area_px"].median())
    ]
    return int(inside.sort_values("solidity")["label"].iloc[0])


def main() -> None:
    """Take all pictures."""
    results, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder, home = folder.resolve(), Path(tempfile.mkdtemp())
    shutil.copytree(results, home / "results" / "plate")
    os.chdir(home)
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    widget = show(viewer, Path("results/plate"), FIELD)
    settle()
    window(viewer, folder / "review_plate.png")
    session, view = widget.session, widget.view
    widget.tabs.setCurrentIndex(1)
    for key in ("next", "accept", "accept", "reject", "accept"):
        view.call(key)
        settle(0.1)
    window(viewer, folder / "review_queue.png")
    session.choose([])
    widget.tabs.setCurrentIndex(0)
    settle(0.2)
    viewer.reset_view()
    table = widget.table
    table.plot.across.setCurrentText("area_px")
    table.plot.up.setCurrentText("mean_w1")
    settle(0.3)
    cells = session.cells
    high = float(cells["mean_w1"].quantile(0.85)), float(cells["mean_w1"].max())
    corners = (50.0, high[0]), (float(cells["area_px"].max()), high[1])
    table.plot.selector.extents = (corners[0][0], corners[1][0], corners[0][1], corners[1][1])
    table.plot._rectangle(*(_Corner(*corner) for corner in corners))
    view.call("contours")
    window(viewer, folder / "review_table.png")
    table.plot._select(None)
    session.open(WITH_FUSED)
    correction(viewer, widget, folder / "review_correction.png")
    viewer.close()
    shutil.rmtree(home)


class _Corner:
    """A corner of a rectangle, as matplotlib tells it."""

    def __init__(self, xdata: float, ydata: float) -> None:
        self.xdata, self.ydata = xdata, ydata


def correction(viewer: Any, widget: ReviewWidget, path: Path) -> None:
    """Take a cell before and after it is cut, side by side."""
    session, view = widget.session, widget.view
    label = fused(widget)
    session.choose([label])
    view.camera.look_at(label)
    viewer.scene.camera.zoom *= 1.5
    viewer.canvas.overlays.scale_bar.position = "bottom_center"
    found = session.box(label)
    assert found is not None
    t, z, box = found
    mask = session.read(t, z, box, 0) == label
    narrow = narrowest(mask)
    start, stop = ((y + box.y0, x + box.x0) for y, x in narrow)
    view._draw_marks([start, stop])
    settle()
    before = viewer.screenshot(flash=False)
    session.split_line(start, stop, t, z)
    settle()
    after = viewer.screenshot(flash=False)
    height, width, _ = before.shape
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    pair = [each[y : y + side, x : x + side] for each in (before, after)]
    gap = np.full((side, 8, 4), 255, np.uint8)
    save(np.concatenate([pair[0], gap, pair[1]], axis=1), path)


def narrowest(mask: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of the shortest line that cuts off at least a third of a mask."""
    y, x = np.nonzero(mask)
    points = np.stack([y, x], axis=1).astype(float)
    best, ends = np.inf, ((0.0, 0.0), (0.0, 0.0))
    for angle in np.linspace(0, np.pi, 36, endpoint=False):
        along, across = (
            np.array([np.cos(angle), np.sin(angle)]),
            np.array([-np.sin(angle), np.cos(angle)]),
        )
        place = points @ across
        for cut in np.quantile(place, np.linspace(0.35, 0.65, 25)):
            on = points[np.abs(place - cut) < 0.7] @ along
            if len(on) and np.ptp(on) < best:
                best = float(np.ptp(on))
                low, high = on.min() - 3, on.max() + 3
                first, last = along * low + across * cut, along * high + across * cut
                ends = (float(first[0]), float(first[1])), (float(last[0]), float(last[1]))
    return ends


if __name__ == "__main__":
    main()
