"""The buttons for corrections, the log of what was done, and the button that applies it."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.session import Session
from cellseg.pipeline.review.view import View

__all__ = ["CorrectWidget"]

BUTTONS = (
    ("delete  D", "delete", "delete the chosen cells"),
    ("join  J", "join", "make one cell of those chosen (Shift-click chooses more)"),
    ("cut  K", "cut", "draw a line across a cell"),
    ("seeds  S", "take_seeds", "click into each part of a cell, then S again"),
    ("new  M", "new", "paint a new cell with napari's brush"),
    ("brush here  W", "window", "open the part of a slide in view to the brush"),
    ("undo  Ctrl-Z", "undo", "take back the last correction"),
    ("redo  Ctrl-⇧Z", "redo", "do it again"),
)
LISTED = 200


class CorrectWidget(QWidget):  # type: ignore[misc]
    """Corrections of one image.

    Parameters
    ----------
    session : Session
    view : View
    apply : callable
        Starts applying; the window's matter, as it takes time.
    """

    def __init__(self, session: Session, view: View, apply: Any) -> None:
        super().__init__()
        self.session, self.view = session, view
        self.log, self.class_ = QListWidget(), QSpinBox()
        self.apply_button, self.bar = QPushButton("apply"), QProgressBar()
        self.apply_button.clicked.connect(lambda _checked=False: apply())
        self._build()
        session.opening.append(self.refresh)
        session.changing.append(lambda _repaints: self.refresh())
        self.refresh()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        grid = QGridLayout()
        for number, (text, name, tip) in enumerate(BUTTONS):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _checked=False, name=name: self.view.call(name))
            grid.addWidget(button, number // 2, number % 2)
        layout.addLayout(grid)
        row = QHBoxLayout()
        self.class_.setRange(1, 255)
        set_class = QPushButton("set class")
        set_class.clicked.connect(self._set_class)
        for widget in (QLabel("class of the chosen cells"), self.class_, set_class):
            row.addWidget(widget)
        layout.addLayout(row)
        hint = QLabel("redraw: choose a cell, then napari's brush (P), eraser (E) or bucket (F)")
        hint.setWordWrap(True)
        layout.addWidget(hint)
        layout.addWidget(self.log, 1)
        self.bar.setVisible(False)
        layout.addWidget(self.bar)
        layout.addWidget(self.apply_button)

    def _set_class(self, _checked: bool = False) -> None:
        try:
            self.session.change_class(self.class_.value())
        except CellsegError as error:
            self.view.say(str(error))

    def refresh(self) -> None:
        """Show the log, the last edit first, and how many edits are to be applied."""
        editor = self.session.editor
        self.setEnabled(editor is not None)
        self.log.clear()
        if editor is None:
            return
        edits = editor.surviving[-LISTED:]
        self.log.addItems([f"{e.when[11:16]}  {e.who}  {e.text}" for e in reversed(edits)])
        count = editor.pending
        self.apply_button.setText(
            f"apply {count} correction{'s' * (count != 1)} to labels and table"
            if count
            else "apply"
        )
        self.apply_button.setEnabled(count > 0)

    def progress(self, done: int | None, total: int = 0, text: str = "") -> None:
        """Show how far applying is; None: it is over."""
        self.bar.setVisible(done is not None)
        if done is not None:
            self.bar.setRange(0, total)
            self.bar.setValue(done)
            self.bar.setFormat(text)
        self.apply_button.setVisible(done is None)
