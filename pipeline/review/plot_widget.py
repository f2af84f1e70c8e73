"""A histogram of a column, or a scatter of two; what is selected in it is coloured in the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.widgets import RectangleSelector, SpanSelector
from numpy.typing import NDArray
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

__all__ = ["PlotWidget"]

COUNT = "(count)"
BINS = 50
BACK, FRONT = "#262930", "#d0d2d6"
BAR = "#5aa9e6"
STARTS = ("area_px", "score")
"""Columns that are plotted at first."""


class PlotWidget(QWidget):  # type: ignore[misc]
    """A plot over the rows of a table.

    Parameters
    ----------
    selected : callable
        Gets which of the rows drawn are selected, bool (N,); None where nothing is.
    """

    COLOUR = (1.0, 0.62, 0.11, 1.0)

    def __init__(self, selected: Callable[[NDArray[np.bool_] | None], None]) -> None:
        super().__init__()
        self.selected = selected
        self.across, self.up = QComboBox(), QComboBox()
        self.figure = Figure(figsize=(3.4, 2.2), layout="constrained", facecolor=BACK)
        self.canvas = FigureCanvasQTAgg(self.figure)
        self.axes = self.figure.add_subplot()
        self.frame: pd.DataFrame | None = None
        self.selector: Any = None
        clear = QPushButton("clear")
        clear.clicked.connect(lambda _checked=False: self._select(None))
        row = QHBoxLayout()
        for widget in (self.across, self.up, clear):
            row.addWidget(widget, 0 if widget is clear else 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.canvas, 1)
        for box in (self.across, self.up):
            box.currentTextChanged.connect(lambda _text: self.draw(self.frame))

    def offer(self, columns: Sequence[str]) -> None:
        """Offer columns to plot; those at hand stay, if they can."""
        for box, names, start in (
            (self.across, columns, STARTS[0]),
            (self.up, [COUNT, *columns], COUNT),
        ):
            before = box.currentText() or start
            box.blockSignals(True)
            box.clear()
            box.addItems(names)
            if before in names:
                box.setCurrentText(before)
            box.blockSignals(False)

    def draw(self, frame: pd.DataFrame | None) -> None:
        """Plot the rows of a table."""
        self.frame = frame
        x, y = str(self.across.currentText()), str(self.up.currentText())
        self.axes.clear()
        self._style(x, y)
        if frame is None or x not in frame:  # no cells, and so no numbers
            self.selector = None
            self.canvas.draw_idle()
            return
        values = _numbers(frame, x)
        shown = {"facecolor": self.COLOUR, "alpha": 0.25}
        if y == COUNT:
            known = values[np.isfinite(values)]
            if len(known):
                self.axes.hist(known, bins=BINS, color=BAR)
            limits = self.axes.get_xlim(), self.axes.get_ylim()
            self.selector = SpanSelector(
                self.axes, self._span, "horizontal", props=shown, interactive=True
            )
        else:
            self.axes.scatter(values, _numbers(frame, y), s=4, color=BAR, linewidths=0)
            limits = self.axes.get_xlim(), self.axes.get_ylim()
            self.selector = RectangleSelector(
                self.axes, self._rectangle, props=shown, interactive=True
            )
        # The selectors' own artists begin at 0, which is no reason to show it.
        self.axes.set_xlim(*limits[0])
        self.axes.set_ylim(*limits[1])
        self.canvas.draw_idle()

    def _style(self, x: str, y: str) -> None:
        self.axes.set_facecolor(BACK)
        self.axes.set_xlabel(x, color=FRONT, fontsize=8)
        self.axes.set_ylabel("cells" if y == COUNT else y, color=FRONT, fontsize=8)
        self.axes.tick_params(colors=FRONT, labelsize=7)
        for name, spine in self.axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(FRONT)

    def _span(self, low: float, high: float) -> None:
        if self.frame is None or high <= low:
            self._select(None)
            return
        values = _numbers(self.frame, str(self.across.currentText()))
        self._select((values >= low) & (values <= high))

    def _rectangle(self, press: Any, release: Any) -> None:
        if self.frame is None or press.xdata == release.xdata:
            self._select(None)
            return
        inside = np.ones(len(self.frame), bool)
        for box, low, high in (
            (self.across, press.xdata, release.xdata),
            (self.up, press.ydata, release.ydata),
        ):
            values = _numbers(self.frame, str(box.currentText()))
            inside &= (values >= min(low, high)) & (values <= max(low, high))
        self._select(inside)

    def _select(self, inside: NDArray[np.bool_] | None) -> None:
        if inside is None and self.selector is not None:
            self.selector.clear()
        self.selected(inside)


def _numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return frame[column].to_numpy(np.float64, na_value=np.nan)
