"""The window of a review: its docks in napari, and how they come to be."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import napari
from napari.qt.threading import create_worker
from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QPushButton,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.contents import Contents
from cellseg.pipeline.review.correct_widget import CorrectWidget
from cellseg.pipeline.review.plate_widget import PlateWidget
from cellseg.pipeline.review.queue_widget import QueueWidget
from cellseg.pipeline.review.session import Session
from cellseg.pipeline.review.table_widget import TableWidget
from cellseg.pipeline.review.view import View
from cellseg.pipeline.review.without_triton import spare_triton

__all__ = ["ReviewWidget", "open_window", "show", "spare_collections"]

WIDTH = 380
TABLE_HEIGHT = 300


class ReviewWidget(QWidget):  # type: ignore[misc]
    """All panels of a review in one dock; the table is another one, below.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer. Where it shows results that were opened by napari itself, their review begins.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._view: View | None = None
        self.title, self.tabs = QLabel("no results are open"), QTabWidget()
        self.title.setWordWrap(True)
        choose = QPushButton("open a results folder")
        choose.clicked.connect(self._choose_folder)
        layout = QVBoxLayout(self)
        layout.addWidget(self.title)
        layout.addWidget(choose)
        layout.addWidget(self.tabs, 1)
        self.choose_button = choose
        self.setMinimumWidth(WIDTH)
        about = [layer.metadata.get("cellseg") for layer in self.viewer.layers]
        found = next((each for each in about if each and "results" in each), None)
        if found is not None:
            self.open(Path(found["results"]), found["image"])

    @property
    def view(self) -> View:
        """What the viewer shows of the review; a CellsegError where none has begun."""
        if self._view is None:
            raise CellsegError("no results are open. Open a results folder first.")
        return self._view

    @property
    def session(self) -> Session:
        """The review; a CellsegError where none has begun."""
        return self.view.session

    def open(self, path: Path, image: str | None = None) -> None:
        """Begin the review of a results folder.

        Raises
        ------
        CellsegError
            If there is nothing to review.
        """
        contents = Contents.read(path)
        session = Session(contents, image)
        self._view = view = View(self.viewer, session, show_info)
        self.plate = PlateWidget(session, self.open_image)
        self.queue = QueueWidget(session, view)
        self.correct = CorrectWidget(session, view, self.apply)
        self.tabs.clear()
        first = "plate" if contents.plates else "images"
        for name, panel in ((first, self.plate), ("queue", self.queue), ("correct", self.correct)):
            self.tabs.addTab(panel, name)
        self.table = TableWidget(session, view)
        self.table.setMinimumHeight(160)
        self.viewer.window.add_dock_widget(self.table, name="cells", area="bottom")
        self.choose_button.setVisible(False)
        session.opening.append(self._name)
        self._name()

    def open_image(self, name: str) -> None:
        """Show another image of the results."""
        try:
            self.session.open(name)
        except CellsegError as error:
            show_info(str(error))

    def _name(self) -> None:
        contents = self.session.contents
        text = f"<b>{self.session.entry.name}</b><br>{contents.folder}"
        if contents.undone:
            text += f"<br>{contents.undone} of its images not done: see report.html"
        self.title.setText(text)

    def _choose_folder(self, _checked: bool = False) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A results folder of cellseg")
        if folder:
            try:
                self.open(Path(folder))
            except CellsegError as error:
                show_info(str(error))

    def apply(self) -> None:
        """Apply the corrections of this image to labels and table, while the window goes on."""
        name = self.session.entry.name
        self.correct.progress(0, 0, "applying")
        spare_triton()
        worker = create_worker(self.session.apply)
        worker.yielded.connect(lambda stage: self.correct.progress(0, 0, stage))
        worker.returned.connect(lambda reason: self._applied(name, reason))
        worker.errored.connect(self._not_applied)
        self.worker = worker
        worker.start()

    def _applied(self, name: str, reason: str | None) -> None:
        """Show the image as it is now: labels and rows on disk have changed."""
        self.correct.progress(None)
        self.session.reread()
        done = "the corrections are in its labels and its table."
        show_info(f"{name}: {done if reason is None else reason}")

    def _not_applied(self, error: Exception) -> None:
        self.correct.progress(None)
        show_info(f"not applied, all corrections are kept: {error}")


def show(viewer: Any, path: Path, image: str | None = None) -> ReviewWidget:
    """Open the review of a results folder in a viewer; see `Contents.read`."""
    widget = ReviewWidget(viewer)
    widget.open(path, image)
    viewer.window.add_dock_widget(widget, name="review", area="right")
    # The canvas is smaller once the docks are laid out.
    QTimer.singleShot(0, viewer.reset_view)
    return widget


def open_window(path: Path, image: str | None = None) -> None:
    """Open a window with the review of a results folder, until it is closed.

    Raises
    ------
    CellsegError
        If there is nothing to review; no window is opened then.
    """
    contents = Contents.read(path)
    if image is not None:
        _ = contents[image]
    viewer = napari.Viewer(title=f"cellseg review {path}")
    show(viewer, path, image)
    spare_collections()
    napari.run()


def spare_collections() -> None:
    """Keep what imports have made out of garbage collections, which took a quarter of a second."""
    gc.collect()
    gc.freeze()
