"""The window of a review."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget


class ReviewWidget(QWidget):  # type: ignore[misc]
    """All that there is to a review, in one dock."""
