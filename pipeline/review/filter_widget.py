"""A row of controls that say what is shown: the queue's and the table's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLineEdit, QSlider, QWidget

__all__ = ["FilterWidget"]

CHANGED = {
    QCheckBox: "toggled",
    QComboBox: "activated",
    QLineEdit: "returnPressed",
    QSlider: "valueChanged",
}
"""What each kind of control sends when a person has changed it."""


class FilterWidget(QWidget):  # type: ignore[misc]
    """Controls side by side, texts among them.

    Parameters
    ----------
    changed : callable
        Called when a person has changed any of them.
    controls : QWidget
        From left to right.
    wide : QWidget
        The one that takes what room is left.
    """

    def __init__(self, changed: Callable[[], None], *controls: QWidget, wide: QWidget) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for control in controls:
            row.addWidget(control, 1 if control is wide else 0)
            for kind, signal in CHANGED.items():
                if isinstance(control, kind):
                    getattr(control, signal).connect(_without_arguments(changed))


def _without_arguments(changed: Callable[[], None]) -> Callable[..., None]:
    def called(*_: Any) -> None:
        changed()

    return called
