"""The window of "segment here": a model on what is shown, live thresholds, drawing on an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from napari.qt.threading import thread_worker
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from cellseg.models import MODELS, CellsegError
from cellseg.pipeline.masks import stem_of
from cellseg.pipeline.review.annotate import empty_labels, save_pair
from cellseg.pipeline.review.segment_here import (
    Cuts,
    Look,
    View,
    chosen,
    look,
    shipped_weights,
    write_workflow,
)
from cellseg.pipeline.review.without_triton import spare_triton
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.workflow import Output, Workflow

__all__ = ["SegmentWidget"]

PREVIEW = "segment here"
DRAWN = "drawn cells"
COLOURS = ("red", "green", "blue")


class SegmentWidget(QWidget):  # type: ignore[misc]
    """Run a model on the image layers that are selected, or on the part of them that is shown.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.looked: Look | None = None
        self.image: Any = None
        self.worker: Any = None
        self.model, self.weights = QComboBox(), QComboBox()
        self.diameter, self.estimate = QDoubleSpinBox(), QCheckBox("estimate")
        self.view_only = QCheckBox("only what is shown")
        self.run_button, self.busy = QPushButton("segment"), QProgressBar()
        self.score = QSlider(Qt.Orientation.Horizontal)
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.area, self.said = QSpinBox(), QLabel()
        self.keep_button = QPushButton("add as labels layer")
        self.write_button = QPushButton("write workflow ...")
        self.draw_button, self.save_button = QPushButton("draw cells"), QPushButton("save pair")
        self.folder = QLineEdit("training_set")
        self._build()
        self._choose_model()

    def _build(self) -> None:
        self.model.addItems(list(MODELS))
        self.model.setCurrentText("mask_rcnn")
        self.weights.setEditable(True)
        self.diameter.setRange(0, 2000)
        self.diameter.setSpecialValueText("as is")
        self.diameter.setToolTip("typical diameter of the cells, in px")
        self.view_only.setChecked(True)
        self.busy.setRange(0, 0)
        self.busy.hide()
        self.said.setWordWrap(True)
        for slider in (self.score, self.threshold):
            slider.setRange(5, 95)
        self.area.setRange(1, 1_000_000)
        layout = QVBoxLayout(self)
        form = QFormLayout()
        sized = QHBoxLayout()
        sized.addWidget(self.diameter)
        sized.addWidget(self.estimate)
        form.addRow("model", self.model)
        form.addRow("weights", self.weights)
        form.addRow("diameter, px", sized)
        form.addRow(self.view_only)
        form.addRow(self.run_button)
        form.addRow(self.busy)
        form.addRow("score", self.score)
        form.addRow("mask", self.threshold)
        form.addRow("least area, px", self.area)
        form.addRow(self.said)
        form.addRow(self.keep_button, self.write_button)
        form.addRow(QLabel("Annotate: draw cells on the image, for a training"))
        form.addRow("folder", self.folder)
        form.addRow(self.draw_button, self.save_button)
        layout.addLayout(form)
        layout.addStretch(1)
        self._connect()

    def _connect(self) -> None:
        self.model.currentTextChanged.connect(self._choose_model)
        self.estimate.toggled.connect(self.diameter.setDisabled)
        self.run_button.clicked.connect(self._tried(self.segment))
        for control in (self.score, self.threshold, self.area):
            control.valueChanged.connect(self._cut)
        self.keep_button.clicked.connect(self._tried(self.keep))
        self.write_button.clicked.connect(self._tried(self._ask_where))
        self.draw_button.clicked.connect(self._tried(self.draw))
        self.save_button.clicked.connect(self._tried(self.save))

    def _tried(self, act: Any) -> Any:
        """Return what does something, and says in the window what the user can mend."""

        def tried(*_clicked: Any) -> None:
            try:
                act()
            except CellsegError as error:
                self.said.setText(str(error))

        return tried

    def _choose_model(self, *_changed: Any) -> None:
        """Show what the model has: its weights, and where it cuts."""
        name = self.model.currentText()
        self.weights.clear()
        self.weights.addItems(shipped_weights(name))
        neural = MODELS[name].neural
        for control in (self.weights, self.diameter, self.estimate, self.score, self.threshold):
            control.setEnabled(neural)
        try:
            self._show(Cuts.of(self._workflow().model))
        except CellsegError as error:
            self.said.setText(str(error))

    def _show(self, cuts: Cuts) -> None:
        for control, value in (
            (self.score, round(100 * cuts.score)),
            (self.threshold, round(100 * cuts.mask_threshold)),
            (self.area, cuts.min_area_px),
        ):
            control.blockSignals(True)
            control.setValue(value)
            control.blockSignals(False)

    @property
    def cuts(self) -> Cuts:
        """Where the sliders are."""
        if not MODELS[self.model.currentText()].neural:
            return Cuts(0.0, 0.5, self.area.value())
        return Cuts(self.score.value() / 100, self.threshold.value() / 100, self.area.value())

    def _layers(self) -> tuple[list[Any], list[int]]:
        """Return the layers of the image at hand, and which of them are selected."""
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        selected = [layer for layer in images if layer in self.viewer.layers.selection]
        if not images:
            raise CellsegError("There is no image. Open one, or drop it on the window.")
        first = (selected or images)[0]
        alike = [each for each in images if _shape(each) == _shape(first)]
        wanted = [number for number, each in enumerate(alike) if each in selected]
        return alike, wanted or [alike.index(first)]

    def _workflow(self) -> Workflow:
        """Return what the controls say, as a workflow."""
        name, text = self.model.currentText(), self.weights.currentText().strip()
        settings, values = MODELS[name].settings, dict[str, Any]()
        if "weights" in settings.model_fields:
            if not text:
                raise CellsegError(f"{name} has no weights of its own: give a .safetensors file.")
            values["weights"] = text
            if self.estimate.isChecked():
                values["diameter_px"] = "auto"
            elif self.diameter.value():
                values["diameter_px"] = self.diameter.value()
        source = self._source()
        channels: tuple[int, ...] = (0,)
        if any(isinstance(layer, Image) for layer in self.viewer.layers):
            layers, wanted = self._layers()
            channels = (0, 1, 2) if layers[wanted[0]].rgb else tuple(wanted)
        output = Output(path=f"results/{stem_of(source.name)}")
        model = settings(name=name, channels=channels, **values)
        return Workflow(images=(str(source),), output=output, model=model)

    def _source(self) -> Path:
        """Return the path of the image at hand, as far as it has one."""
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        paths = [layer.source.path for layer in images if layer.source.path]
        return Path(paths[0]).absolute() if paths else Path("images").absolute()

    def _view(self) -> View:
        layers, wanted = self._layers()
        first = layers[wanted[0]]
        point = first.world_to_data(self.viewer.dims.point[-first.ndim :])[:-2]
        lead = tuple(round(value) for value in point)
        window = _shown(first) if self.view_only.isChecked() else None
        if first.rgb:
            data = _finest(first)[lead]
            return View([data[..., c] for c in range(3)], COLOURS, window)
        names = tuple(f"{number} {layer.name}" for number, layer in enumerate(layers))
        return View([_finest(layer)[lead] for layer in layers], names, window)

    def segment(self) -> None:
        """Run the model in the background; the cells appear when it is done."""
        view, workflow = self._view(), self._workflow()
        layers, wanted = self._layers()
        self.image = layers[wanted[0]]
        self._set_busy(True)
        self.said.setText("")
        spare_triton()

        @thread_worker  # type: ignore[untyped-decorator, unused-ignore]
        def work() -> Look:
            return look(view, workflow)

        self.worker = work()
        self.worker.returned.connect(self._take)
        self.worker.errored.connect(self._fail)
        self.worker.finished.connect(lambda: self._set_busy(False))
        self.worker.start()

    def _set_busy(self, busy: bool) -> None:
        self.run_button.setEnabled(not busy)
        self.busy.setVisible(busy)

    def _fail(self, error: Exception) -> None:
        self.said.setText(str(error))

    def _take(self, found: Look) -> None:
        """Show what was found, at the sliders."""
        self.looked = found
        if self.estimate.isChecked() and found.diameter_px:
            self.diameter.setValue(found.diameter_px)
        self._cut()

    def _cut(self, *_moved: Any) -> None:
        """Show the cells where the sliders are now; no network is asked."""
        if self.looked is None:
            return
        drawn = self.looked.labels(self.cuts)
        self._draw_layers(PREVIEW, drawn)
        count = len(np.unique(drawn)) - 1
        size = f", about {self.looked.diameter_px:g} px across" if self.looked.diameter_px else ""
        self.said.setText(
            f"{count} cells{size}; score {self.cuts.score:.2f}, mask {self.cuts.mask_threshold:.2f}"
        )

    def _draw_layers(self, name: str, drawn: Any) -> None:
        """Put label images into layers of a name, over the window that was looked at."""
        assert self.looked is not None  # noqa: S101 - there is something to draw
        names = [name if number == 0 else f"{name} {number + 1}" for number in range(len(drawn))]
        for old in [layer for layer in self.viewer.layers if _is_part(layer.name, name)]:
            if old.name not in names or old.data.shape != drawn[0].shape:
                self.viewer.layers.remove(old)
        for each, labels in zip(names, drawn, strict=True):
            place = _placed(self.image, self.looked.window)
            if each in self.viewer.layers:
                self.viewer.layers[each].data = labels
                self.viewer.layers[each].translate = place["translate"]
            else:
                self.viewer.add_labels(labels, name=each, **place)
        # The image stays what the next look is at.
        self.viewer.layers.selection = {self.image}

    def keep(self) -> None:
        """Keep the cells as label layers that sliders do not change."""
        if self.looked is None:
            raise CellsegError("Nothing is segmented yet.")
        for labels in self.looked.labels(self.cuts):
            self.viewer.add_labels(
                labels,
                name=f"cells of {self.model.currentText()}",
                **_placed(self.image, self.looked.window),
            )
        self.viewer.layers.selection = {self.image}

    def _ask_where(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Workflow", "workflow.toml", "TOML (*.toml)")
        if path:
            self.write(Path(path))

    def write(self, path: Path) -> None:
        """Write the settings as a workflow for `cellseg run`."""
        write_workflow(path, chosen(self._workflow(), self.cuts))
        self.said.setText(f"written; run it by: cellseg run {path}")

    def draw(self) -> None:
        """Add an empty label layer over the image, ready to paint on."""
        layers, wanted = self._layers()
        image = layers[wanted[0]]
        drawn = empty_labels(_shape(image))
        added = self.viewer.add_labels(drawn, name=DRAWN, **_placed(image))
        added.mode = "paint"
        added.metadata["cellseg_image"] = image.name

    def save(self) -> None:
        """Save what is drawn, with the channels of its image, as a pair of a training set."""
        drawn = [layer for layer in self.viewer.layers if _is_part(layer.name, DRAWN)]
        if not drawn:
            raise CellsegError("Nothing is drawn: start by 'draw cells'.")
        image = self.viewer.layers[drawn[0].metadata["cellseg_image"]]
        self.viewer.layers.selection = {image}
        layers, wanted = self._layers()
        view = self._view()
        numbers = range(3) if image.rgb else wanted
        channels = [np.asarray(view.channels[number]) for number in numbers]
        path = layers[wanted[0]].source.path
        name = stem_of(Path(path).name) if path else image.name
        count = save_pair(Path(self.folder.text()), name, channels, [layer.data for layer in drawn])
        self.said.setText(f"{count} cells of {name} saved in {self.folder.text()}")


def _finest(layer: Any) -> Any:
    """Return the full resolution of a layer."""
    return layer.data[0] if layer.multiscale else layer.data


def _shape(layer: Any) -> tuple[int, ...]:
    """Return the shape of an image layer at full resolution, without colours."""
    shape = tuple(_finest(layer).shape)
    return shape[:-1] if layer.rgb else shape


def _shown(layer: Any) -> Box:
    """Return the part of an image layer that the canvas shows, in px of the full resolution."""
    corners = np.asarray(layer.corner_pixels, float)[:, -2:]
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors)[layer.data_level][-2:]
    low, high = np.floor(corners[0]).astype(int), np.ceil(corners[1]).astype(int) + 1
    return Box(*low.tolist(), *high.tolist())


def _placed(image: Any, window: Box | None = None) -> dict[str, Any]:
    """Return scale and place of labels over a window of an image layer."""
    scale = np.asarray(image.scale[-2:])
    corner = (window.y0, window.x0) if window is not None else (0, 0)
    translate = np.asarray(image.translate[-2:]) + scale * corner
    return {"scale": scale, "translate": translate, "units": image.units[-2:]}


def _is_part(name: str, of: str) -> bool:
    """Whether a layer is called so, or so and a number."""
    return name == of or (name.startswith(f"{of} ") and name[len(of) + 1 :].isdigit())
