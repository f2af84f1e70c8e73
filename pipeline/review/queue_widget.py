"""The review queue: the cell at hand, why it is in doubt, how far the review is."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from cellseg.pipeline.review.queue import KINDS
from cellseg.pipeline.review.session import Session
from cellseg.pipeline.review.view import View

__all__ = ["QueueWidget"]

LISTED = 500
"""As many of the queue are listed at a time."""
LEAST = 0.1
"""Doubt from which cells are shown at first."""
MARKS = {"accept": "✓", "reject": "✗"}


class QueueWidget(QWidget):  # type: ignore[misc]
    """The queue of one image.

    Parameters
    ----------
    session : Session
    view : View
    """

    def __init__(self, session: Session, view: View) -> None:
        super().__init__()
        self.session, self.view = session, view
        self.about, self.reason = QLabel(), QLabel()
        self.bar, self.list = QProgressBar(), QListWidget()
        self.kinds = {kind: QCheckBox(text) for kind, text in KINDS.items()}
        self.least, self.open_only = QSlider(Qt.Orientation.Horizontal), QCheckBox("open ones only")
        self._build()
        session.opening.append(self.refilter)
        session.changing.append(lambda _repaints: self.refresh())
        session.choosing.append(self._follow)
        self.refilter()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        boxes = QGridLayout()
        for number, (kind, box) in enumerate(self.kinds.items()):
            box.setToolTip(f"show cells with: {KINDS[kind]}")
            boxes.addWidget(box, number // 3, number % 3)
            box.toggled.connect(self.refilter)
        layout.addLayout(boxes)
        row = QHBoxLayout()
        self.least.setRange(0, 100)
        self.least.setValue(int(100 * LEAST))
        self.least.setToolTip("least doubt")
        self.least.valueChanged.connect(self.refilter)
        self.open_only.toggled.connect(self.refilter)
        for widget in (QLabel("least doubt"), self.least, self.open_only):
            row.addWidget(widget)
        layout.addLayout(row)
        self.about.setStyleSheet("font-size: 14pt; font-weight: bold")
        self.reason.setWordWrap(True)
        self.reason.setMinimumHeight(34)
        layout.addWidget(self.about)
        layout.addWidget(self.reason)
        layout.addLayout(self._buttons())
        layout.addWidget(self.bar)
        layout.addWidget(self.list, 1)
        self.list.itemClicked.connect(self._clicked)

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

    def refilter(self, *_changed: Any) -> None:
        """Show what the filters leave."""
        kinds = [kind for kind, box in self.kinds.items() if box.isChecked()]
        least = self.least.value() / 100
        self.session.queue.filter(kinds, least, open_only=self.open_only.isChecked())
        queue = self.session.queue
        self.list.clear()
        self.list.addItems([self._line(*key) for key in queue.keys[:LISTED]])
        if len(queue) > LISTED:
            self.list.addItem(f"and {len(queue) - LISTED} more")
        self.refresh()

    def _line(self, image: str, label: int) -> str:
        queue = self.session.queue
        mark = MARKS.get(queue.verdicts.get((image, label), ""), "  ")
        return f"{mark}  {label}:  {queue.reason((image, label))}"

    def refresh(self) -> None:
        """Show the verdicts, and how far the review is."""
        queue = self.session.queue
        self.bar.setRange(0, max(len(queue), 1))
        self.bar.setValue(queue.done)
        self.bar.setFormat(f"{queue.done} of {len(queue)} reviewed")
        for label in self.session.chosen:
            row = queue.rows.get((self.session.entry.name, label))
            if row is not None and row < min(LISTED, self.list.count()):
                self.list.item(row).setText(self._line(self.session.entry.name, label))
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
        if 0 <= queue.place < min(LISTED, self.list.count()):
            self.list.setCurrentRow(queue.place)

    def _clicked(self, _item: Any) -> None:
        row = self.list.currentRow()
        queue = self.session.queue
        if row < min(LISTED, len(queue)):
            label = queue.keys[row][1]
            queue.go_to(queue.keys[row])
            self.session.choose([label])
            self.view.look_at(label)
