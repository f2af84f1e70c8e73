"""The plate browser: a grid of wells, coloured by a number; a click opens a well."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QFont, QPainter
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QListWidget, QVBoxLayout, QWidget

from cellseg.pipeline.review.contents import Contents, row_letters, well_place
from cellseg.pipeline.review.session import Session

__all__ = ["PlateWidget"]

COLOURS = "viridis"
EMPTY, RIM, HERE = "#3a3f4a", "#22252c", "#ffe14d"
MARGIN = 18
"""Px beside the grid for the names of rows and columns."""


class WellGrid(QWidget):  # type: ignore[misc]
    """The grid of wells of one plate.

    Parameters
    ----------
    clicked : callable
        Gets the name of a well that holds images.
    """

    def __init__(self, clicked: Any) -> None:
        super().__init__()
        self.clicked = clicked
        self.shape = (8, 12)
        self.wells: dict[tuple[int, int], tuple[str, float]] = {}
        self.here: str | None = None
        self.setMouseTracking(True)
        self.setMinimumHeight(150)

    def fill(
        self, shape: tuple[int, int], values: dict[tuple[int, int], tuple[str, float]]
    ) -> None:
        """Show wells: by row and column the name and the number."""
        self.shape, self.wells = shape, values
        self.update()

    def _side(self) -> float:
        rows, columns = self.shape
        return float(
            min((self.width() - MARGIN - 2) / columns, (self.height() - MARGIN - 2) / rows)
        )

    def place_of(self, well: str) -> tuple[float, float]:
        """Return x and y of the middle of a well in this window."""
        side = self._side()
        row, column = next(place for place, (name, _) in self.wells.items() if name == well)
        return MARGIN + (column + 0.5) * side, MARGIN + (row + 0.5) * side

    def _at(self, x: float, y: float) -> str | None:
        side = self._side()
        place = int((y - MARGIN) // side), int((x - MARGIN) // side)
        return self.wells[place][0] if place in self.wells else None

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Open the well that is clicked."""
        well = self._at(event.position().x(), event.position().y())
        if well is not None:
            self.here = well
            self.update()
            self.clicked(well)

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Say which well is under the mouse, and its number."""
        well = self._at(event.position().x(), event.position().y())
        found = dict(self.wells.values())
        self.setToolTip("" if well is None else f"{well}: {found[well]:.4g}")

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw the wells."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rows, columns = self.shape
        side = self._side()
        self._draw_names(painter, side)
        known = [value for _, value in self.wells.values() if np.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        painter.setPen(QColor(RIM))
        for row in range(rows):
            for column in range(columns):
                name, value = self.wells.get((row, column), ("", np.nan))
                painter.setBrush(_colour(value, low, high) if name else QColor(EMPTY))
                painter.setPen(QColor(HERE if name and name == self.here else RIM))
                gap = max(side * 0.06, 0.5)
                corner = MARGIN + column * side + gap, MARGIN + row * side + gap
                painter.drawEllipse(QRectF(*corner, side - 2 * gap, side - 2 * gap))
        painter.end()

    def _draw_names(self, painter: QPainter, side: float) -> None:
        rows, columns = self.shape
        font = QFont(self.font())
        font.setPixelSize(int(max(min(side * 0.75, 11), 6)))
        painter.setFont(font)
        painter.setPen(self.palette().text().color())
        every = 1 if side > 15 else 2 if side > 8 else 4
        middle = Qt.AlignmentFlag.AlignCenter
        for row in range(rows):
            box = QRectF(0, MARGIN + row * side, MARGIN, side)
            painter.drawText(box, middle, row_letters(row))
        for column in range(0, columns, every):
            box = QRectF(MARGIN + (column - 1) * side, 0, 3 * side, MARGIN)
            painter.drawText(box, middle, str(column + 1))


def _colour(value: float, low: float, high: float) -> QColor:
    if not np.isfinite(value):
        return QColor(EMPTY)
    share = (value - low) / (high - low) if high > low else 0.5
    red, green, blue, _ = colormaps[COLOURS](share, bytes=True)
    return QColor(int(red), int(green), int(blue))


class ColourBar(QWidget):  # type: ignore[misc]
    """The scale of the colours, with its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (0.0, 1.0)
        self.setFixedHeight(26)

    def paintEvent(self, _event: Any) -> None:  # noqa: N802 - Qt's name
        """Draw it."""
        painter = QPainter(self)
        width = self.width() - MARGIN - 2
        for x in range(width):
            painter.fillRect(MARGIN + x, 0, 1, 8, _colour(x / max(width - 1, 1), 0, 1))
        painter.setPen(self.palette().text().color())
        low, high = self.ends
        painter.drawText(MARGIN, 22, f"{low:.4g}")
        text = f"{high:.4g}"
        painter.drawText(self.width() - 4 - painter.fontMetrics().horizontalAdvance(text), 22, text)
        painter.end()


class PlateWidget(QWidget):  # type: ignore[misc]
    """Wells and fields of the plates, or a plain list of images where there are no wells.

    Parameters
    ----------
    session : Session
    open_image : callable
        Gets the name of the image to open.
    """

    def __init__(self, session: Session, open_image: Any) -> None:
        super().__init__()
        self.session, self.open_image = session, open_image
        self.plates, self.column = QComboBox(), QComboBox()
        self.grid, self.bar, self.fields = WellGrid(self.open_well), ColourBar(), QListWidget()
        self._build()
        self.plates.currentTextChanged.connect(self._fill)
        self.column.currentTextChanged.connect(self._fill)
        self.fields.itemClicked.connect(lambda item: self._open(item.data(32)))
        session.opening.append(self._follow)
        self._fill()
        self._follow()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        self.fields.setMaximumHeight(110)
        if not self.contents.plates:
            self.fields.setMaximumHeight(16_777_215)
            layout.addWidget(QLabel("images"))
            layout.addWidget(self.fields)
            return
        self.plates.addItems(self.contents.plates)
        wells = self.contents.wells
        numbers = [str(c) for c in wells.select_dtypes("number") if wells[c].notna().any()]
        self.column.addItems(["cells", *(name for name in numbers if name != "cells")])
        row = QHBoxLayout()
        row.addWidget(self.plates)
        row.addWidget(self.column, 1)
        self.plates.setVisible(len(self.contents.plates) > 1)
        layout.addLayout(row)
        layout.addWidget(self.grid, 1)
        layout.addWidget(self.bar)
        layout.addWidget(QLabel("fields of the well"))
        layout.addWidget(self.fields)

    @property
    def contents(self) -> Contents:
        """The results folder."""
        return self.session.contents

    @property
    def plate(self) -> str:
        """The plate that is shown."""
        return str(self.plates.currentText())

    def _fill(self) -> None:
        if not self.contents.plates:
            return
        wells = self.contents.wells
        wells = wells[wells["plate"] == self.plate]
        column = str(self.column.currentText())
        numbers = wells[column].to_numpy(float, na_value=np.nan)
        values = {
            place: (well, float(number))
            for well, number in zip(wells["well"], numbers, strict=True)
            if (place := well_place(well)) is not None
        }
        known = numbers[np.isfinite(numbers)]
        self.bar.ends = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        self.bar.update()
        self.grid.fill(self.contents.grid(self.plate), values)

    def open_well(self, well: str) -> None:
        """Open the first field of a well, and list the others."""
        found = self.contents.fields(self.plate, well)
        if found and self.session.entry not in found:
            self._open(found[0].name)

    def _open(self, name: str) -> None:
        if name != self.session.entry.name:
            self.open_image(name)

    def _follow(self) -> None:
        """Show where the image at hand is."""
        entry = self.session.entry
        listed = self.contents.entries
        if entry.well:
            if (entry.plate or "") != self.plate:
                self.plates.setCurrentText(entry.plate or "")
            listed = tuple(self.contents.fields(entry.plate or "", entry.well))
        self.grid.here = entry.well
        self.grid.update()
        self.fields.clear()
        for each in listed:
            site = f"field {each.site}" if each.site and entry.well else each.name
            self.fields.addItem(f"{site}: {each.cells} cells")
            item = self.fields.item(self.fields.count() - 1)
            item.setData(32, each.name)
            item.setToolTip(each.name)
            if each.name == entry.name:
                self.fields.setCurrentItem(item)
