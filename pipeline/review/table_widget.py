"""The cell table beside the layers: sorted, filtered, in step with what is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSplitter,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.corrected_cells import STATE
from cellseg.pipeline.review.filter_widget import FilterWidget
from cellseg.pipeline.review.plot_widget import PlotWidget
from cellseg.pipeline.review.rows import Rows
from cellseg.pipeline.review.session import Session
from cellseg.pipeline.review.view import View

__all__ = ["CellModel", "TableWidget"]

FIRST = ("label", STATE, "score", "area_px")
"""Columns that are shown before the others."""
MOST = 5000
"""More chosen rows than these are not taken over one by one."""
COMPARISONS = (">", "<", ">=", "<=", "==", "!=")


class CellModel(QAbstractTableModel):  # type: ignore[misc]
    """Rows of a table as Qt asks for them: those in view alone.

    Parameters
    ----------
    rows : Rows
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows

    def rowCount(self, _parent: Any = None) -> int:  # noqa: N802 - Qt's name
        """Return how many are shown."""
        return len(self.rows)

    def columnCount(self, _parent: Any = None) -> int:  # noqa: N802 - Qt's name
        """Return how many columns there are."""
        return len(self.rows.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the text of a cell of the table."""
        if role == Qt.ItemDataRole.DisplayRole and index.isValid():
            return self.rows.text(index.row(), index.column())
        return None

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802
        """Return the name of a column."""
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if orientation == Qt.Orientation.Horizontal:
            return self.rows.columns[section]
        return str(section + 1)

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column."""
        if 0 <= column < len(self.rows.columns):
            self.layoutAboutToBeChanged.emit()
            ascending = order == Qt.SortOrder.AscendingOrder
            self.rows.sort(self.rows.columns[column], ascending=ascending)
            self.layoutChanged.emit()

    def filter(self, *conditions: str) -> None:
        """Show the rows for which conditions hold; see `Rows.filter`."""
        self.beginResetModel()
        try:
            self.rows.filter(*conditions)
        finally:
            self.endResetModel()


class TableWidget(QWidget):  # type: ignore[misc]
    """Table and plot.

    Parameters
    ----------
    session : Session
    view : View
    """

    def __init__(self, session: Session, view: View) -> None:
        super().__init__()
        self.session, self.view = session, view
        self.model, self.table = CellModel(Rows(self._frame(every=False))), QTableView()
        self.expression, self.every = QLineEdit(), QCheckBox("all images")
        self.column, self.comparison, self.value = QComboBox(), QComboBox(), QLineEdit()
        self.count = QLabel()
        self.plot = PlotWidget(self._plotted)
        self._busy = False
        self._build()
        session.opening.append(self._opened)
        session.choosing.append(self._follow)
        session.changing.append(lambda _repaints: self._changed())
        self._opened()

    def _build(self) -> None:
        self.table.setModel(self.model)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.verticalHeader().setDefaultSectionSize(20)
        self.table.horizontalHeader().setDefaultSectionSize(82)
        self.table.selectionModel().selectionChanged.connect(self._selected)
        self.expression.setPlaceholderText("filter: area_px > 200 and score < 0.8")
        self.value.setMaximumWidth(80)
        self.column.setMaximumWidth(130)
        self.comparison.addItems(COMPARISONS)
        self.every.setEnabled(len(self.session.contents.entries) > 1)
        self.every.toggled.connect(self._reload)
        condition = self.expression, self.column, self.comparison, self.value
        row = FilterWidget(self.refilter, *condition, wide=self.expression)
        about = QHBoxLayout()
        for widget in (row, self.every, self.count):
            about.addWidget(widget, 1 if widget is row else 0)
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(about)
        column.addWidget(self.table)
        split = QSplitter()
        split.addWidget(left)
        split.addWidget(self.plot)
        split.setSizes([700, 360])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.addWidget(split)

    def _frame(self, *, every: bool) -> Any:
        cells = self.session.cells
        if every:
            cells = self.session.all_cells()
        names = [name for name in FIRST if name in cells]
        if every:
            names.insert(0, "image")
        return cells[[*names, *(name for name in cells if name not in names)]]

    def _opened(self) -> None:
        if not self.every.isChecked():
            self._reload()
        names = self.model.rows.columns
        if [self.column.itemText(n) for n in range(self.column.count())] != names:
            self.column.clear()
            self.column.addItems(names)
        self.plot.offer(self.model.rows.numeric())
        self._replot()

    def _reload(self, *_toggled: Any) -> None:
        """Take the rows of the image at hand, or of all."""
        self.model.beginResetModel()
        self.model.rows = Rows(self._frame(every=self.every.isChecked()))
        self.model.endResetModel()
        self.refilter()

    def _changed(self) -> None:
        """Take rows that were corrected."""
        self._busy = True
        self.model.beginResetModel()
        self.model.rows.replace(self._frame(every=self.every.isChecked()))
        self.model.endResetModel()
        self._busy = False
        self._count()
        self._follow()

    def refilter(self) -> None:
        """Show what both filters leave."""
        value = str(self.value.text()).strip()
        condition = f"`{self.column.currentText()}` {self.comparison.currentText()} {value}"
        try:
            self.model.filter(str(self.expression.text()), condition if value else "")
        except CellsegError as error:
            self.view.say(str(error))
        self._count()
        self._replot()

    def _count(self) -> None:
        rows = self.model.rows
        self.count.setText(f"{len(rows)} of {len(rows.frame)} cells")

    def _selected(self, *_changes: Any) -> None:
        """Choose the cells of the rows that are selected, and look at the first."""
        if self._busy:
            return
        places = sorted(index.row() for index in self.table.selectionModel().selectedRows())
        keys = [self.model.rows.key(place) for place in places[:MOST]]
        if not keys:
            return
        self._busy = True
        self.view.go_to(*keys)
        self._busy = False

    def _follow(self) -> None:
        """Select the rows of the cells that are chosen."""
        if self._busy:
            return
        image = self.session.entry.name
        found = [self.model.rows.place(image, label) for label in self.session.chosen[:MOST]]
        places = [place for place in found if place is not None]
        self._busy = True
        selection, last = QItemSelection(), self.model.columnCount() - 1
        for place in places:
            selection.select(self.model.index(place, 0), self.model.index(place, last))
        flags = QItemSelectionModel.SelectionFlag.ClearAndSelect
        self.table.selectionModel().select(selection, flags)
        if places:
            self.table.scrollTo(self.model.index(places[0], 0))
        self._busy = False

    def _replot(self) -> None:
        self.plot.draw(self.model.rows.shown())

    def _plotted(self, inside: Any) -> None:
        """Colour the cells that are selected in the plot; all as before where none is."""
        shown = self.model.rows.shown()
        if inside is None:
            self.view.colour(None)
            return
        here = (shown["image"] == self.session.entry.name).to_numpy() & np.asarray(inside)
        labels = shown["label"].to_numpy()[here].tolist()
        self.view.colour(dict.fromkeys((int(label) for label in labels), self.plot.COLOUR))
        self.count.setText(f"{int(np.sum(inside))} of {len(shown)} in the plot")
