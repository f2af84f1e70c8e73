"""The review queue: the cell at hand, why it is in doubt, how far the review is."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractListModel, QModelIndex, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListView,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.doubts import KINDS
from cellseg.pipeline.review.filter_widget import FilterWidget
from cellseg.pipeline.review.opened import Scope
from cellseg.pipeline.review.session import Session
from cellseg.pipeline.review.view import View

__all__ = ["QueueModel", "QueueWidget"]

LEAST = 0.1
"""Doubt from which cells are shown at first."""
MARKS = {"accept": "✓", "reject": "✗", "gone": "·"}
SCOPES: dict[str, Scope] = {
    "this image": "this image",
    "all images, one by one": "image by image",
    "all images, worst cells first": "worst first",
}
"""What the queue runs over, in the words of the window."""


class QueueModel(QAbstractListModel):  # type: ignore[misc]
    """The queue as Qt asks for it: the lines in view alone.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def rowCount(self, _parent: Any = None) -> int:  # noqa: N802 - Qt's name
        """Return how many cells are shown."""
        return len(self.session.queue)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the line of a cell."""
        if role == Qt.ItemDataRole.DisplayRole and index.isValid():
            return self.line(index.row())
        return None

    def line(self, place: int) -> str:
        """Return what is said of the cell in a place."""
        queue = self.session.queue
        image, label = key = queue[place]
        mark = MARKS.get(queue.verdicts.get(key, ""), "   ")
        where = "" if self.session.scope == "this image" else f"{self._short(image)}  "
        return f"{mark}  {where}{label}:  {queue.reason(key)}"

    def _short(self, image: str) -> str:
        entry = self.session.contents[image]
        field = f" field {entry.site}" if entry.site else ""
        return f"{entry.well}{field}" if entry.well else image


class QueueWidget(QWidget):  # type: ignore[misc]
    """The queue of one image, or of all.

    Parameters
    ----------
    session : Session
    view : View
    """

    def __init__(self, session: Session, view: View) -> None:
        super().__init__()
        self.session, self.view = session, view
        self.about, self.reason = QLabel(), QLabel()
        self.bar, self.list, self.model = QProgressBar(), QListView(), QueueModel(session)
        self.kinds = {kind: QCheckBox(each.name) for kind, each in KINDS.items()}
        self.least, self.open_only = QSlider(Qt.Orientation.Horizontal), QCheckBox("open ones only")
        self.scope = QComboBox()
        self._build()
        session.opening.append(self._opened)
        session.changing.append(lambda _repaints: self.refresh())
        session.choosing.append(self._follow)
        self.refilter()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        self.scope.addItems(list(SCOPES))
        self.scope.setEnabled(len(self.session.contents.entries) > 1)
        self.scope.activated.connect(lambda _number: self.range_over(self.scope.currentText()))
        layout.addWidget(self.scope)
        boxes = QGridLayout()
        for number, (kind, box) in enumerate(self.kinds.items()):
            box.setToolTip(f"show cells with: {KINDS[kind].name}")
            boxes.addWidget(box, number // 3, number % 3)
            box.toggled.connect(self.refilter)
        layout.addLayout(boxes)
        self.least.setRange(0, 100)
        self.least.setValue(int(100 * LEAST))
        self.least.setToolTip("least doubt")
        controls = QLabel("least doubt"), self.least, self.open_only
        layout.addWidget(FilterWidget(self.refilter, *controls, wide=self.least))
        self.about.setStyleSheet("font-size: 14pt; font-weight: bold")
        self.reason.setWordWrap(True)
        self.reason.setMinimumHeight(34)
        layout.addWidget(self.about)
        layout.addWidget(self.reason)
        layout.addLayout(self._buttons())
        layout.addWidget(self.bar)
        layout.addWidget(self.list, 1)
        self.list.setModel(self.model)
        self.list.setUniformItemSizes(True)
        self.list.clicked.connect(lambda index: self.view.go_to(self.session.queue[index.row()]))

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        for text, name in (
            ("previous  ⇧N", "previous"),
            ("next  N", "next"),
            ("accept  A", "accept"),
            ("reject  R", "reject"),
        ):
            button = QPushButton(text)
            button.clicked.connect(lambda _checked=False, name=name: self.view.call(name))
            row.addWidget(button)
        return row

    def range_over(self, scope: str) -> None:
        """Let the queue run over what one of `SCOPES` says."""
        try:
            self.session.range_over(SCOPES[scope])
        except CellsegError as error:
            self.view.say(str(error))
        before = self.session.scope
        self.scope.setCurrentText(next(text for text, each in SCOPES.items() if each == before))
        self.refilter()

    def _opened(self) -> None:
        """Show the queue of another image; one of all images goes on."""
        if self.session.queue is self._shown:
            self.refresh()
        else:
            self.refilter()

    def refilter(self, *_changed: Any) -> None:
        """Show what the filters leave."""
        kinds = [kind for kind, box in self.kinds.items() if box.isChecked()]
        least = self.least.value() / 100
        self.model.beginResetModel()
        self.session.queue.filter(kinds, least, open_only=self.open_only.isChecked())
        self.model.endResetModel()
        self._shown = self.session.queue
        for kind, box in self.kinds.items():
            box.setEnabled(box.isChecked() or bool(self._shown.doubts.of_kinds([kind]).any()))
        self.refresh()

    def refresh(self) -> None:
        """Show the verdicts, and how far the review is."""
        queue = self.session.queue
        self.bar.setRange(0, max(len(queue), 1))
        self.bar.setValue(queue.done)
        self.bar.setFormat(f"{queue.done} of {len(queue)} reviewed")
        self.list.viewport().update()
        self._follow()

    def _follow(self) -> None:
        """Show the cell that is chosen."""
        queue, chosen = self.session.queue, self.session.chosen
        if not chosen:
            self.about.setText("no cell chosen")
            self.reason.setText("N: the cell that is most in doubt")
            return
        key = self.session.entry.name, chosen[0]
        queue.go_to(key)
        row = self.session.row(chosen[0])
        state = "" if row is None else str(row["review"])
        self.about.setText(f"cell {chosen[0]}" + (f"  ({state})" if state else ""))
        self.reason.setText(queue.reason(key))
        if queue.place is not None:
            self.list.setCurrentIndex(self.model.index(queue.place))
