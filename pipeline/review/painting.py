"""Painting in a viewer: what napari's brush does to label layers, kept as corrections.

Label layers in memory are painted on directly. Of larger images a window around the middle of the
view is, a layer in memory for each label layer; it follows the view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.brush import Painted, touched
from cellseg.pipeline.review.camera import Camera
from cellseg.pipeline.review.session import Repaint, Session
from cellseg.pipeline.tiles import Box

__all__ = ["Painting"]

WINDOW_PX = 2048
"""Side of the window of a slide that is open to the brush."""
SLACK = 0.25
"""Share of the window's side that the view may move before the window follows."""

NOWHERE = 0, 0, Box(0, 0, 0, 0)
"""T, z and box of the window, where none is open."""


class Painting:
    """What is painted on the label layers of a session.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session
    camera : Camera
    say : callable
        Gets each line that the user should read.
    """

    def __init__(
        self, viewer: Any, session: Session, camera: Camera, say: Callable[[str], None]
    ) -> None:
        self.viewer, self.session, self.camera, self.say = viewer, session, camera, say
        self.labels: list[Any] = []
        self.windows: list[Any] = []
        self.window = NOWHERE
        self.refused: list[tuple[Any, NDArray[np.uint32], Box, NDArray[np.uint32]]] = []
        session.put = self._put
        camera.camera.events.center.connect(self._follow)
        viewer.dims.events.current_step.connect(self._follow)
        viewer.layers.events.removed.connect(self._removed)

    def start(self) -> None:
        """Forget the layers of the image before."""
        self.labels, self.windows, self.window = [], [], NOWHERE

    def add(self, layer: Any) -> None:
        """Take a label layer of the image at hand."""
        self.labels.append(layer)
        if self.session.labels.in_memory:
            layer.n_edit_dimensions = 2
            self._watch(layer)
        else:
            layer.editable = False

    def _watch(self, layer: Any) -> None:
        layer.preserve_labels = True
        layer.events.paint.connect(self._painted)
        layer.events.labels_update.connect(self._take_off)

    @property
    def able(self) -> list[Any]:
        """The layers that can be painted on, by the number of their label image."""
        return self.labels if self.session.labels.in_memory else self.windows

    def take(self, label: int | None = None) -> Any:
        """Make the layer active that is to be painted on; return it.

        Parameters
        ----------
        label : int, optional
            A cell that is to be redrawn: its label image is taken.
        """
        active = self.viewer.layers.selection.active
        layer = active if active in self.able else self.able[0]
        found = None if label is None else self.session.row(label)
        if found is not None and 0 < int(found["layer"]) <= len(self.able):
            layer = self.able[int(found["layer"]) - 1]
        self.viewer.layers.selection.active = layer
        return layer

    # Windows of slides.

    def open_window(self, placed: Callable[[Any, str], dict[str, Any]]) -> None:
        """Open what is in view to the brush, a layer for each label image.

        Parameters
        ----------
        placed : callable
            Gives the settings that put a layer of a kind onto a label layer.

        Raises
        ------
        CellsegError
            If nothing of the image is in view, or corrections cannot be kept.
        """
        self.session.writable  # noqa: B018 - says why it cannot be
        if self.session.labels.in_memory:
            raise CellsegError("the brush reaches all of this image: no window is needed.")
        self._move(self._wanted())
        for number in range(len(self.windows), len(self.labels)):
            self.windows.append(self._add(number, placed))

    def _wanted(self) -> tuple[int, int, Box]:
        box = self.camera.around(WINDOW_PX)
        if box is None:
            raise CellsegError("nothing of the image is in view.")
        return *self.camera.plane, box

    def _add(self, number: int, placed: Callable[[Any, str], dict[str, Any]]) -> Any:
        like = self.labels[number]
        settings = placed(like, "window") | {"translate": self._corner(like)}
        layer = self.viewer.add_labels(
            self._pixels(number), name=f"{like.name} in view", **settings
        )
        layer.contour, layer.opacity = 2, 1.0
        layer.bounding_box.visible = number == 0
        layer.bounding_box.points = False
        self._watch(layer)
        return layer

    def _corner(self, like: Any) -> NDArray[np.float64]:
        box = self.window[2]
        corner: NDArray[np.float64] = np.array([box.y0, box.x0]) * np.asarray(like.scale[-2:])
        corner += np.asarray(like.translate[-2:])
        return corner

    def _pixels(self, number: int) -> NDArray[np.uint32]:
        t, z, box = self.window
        return self.session.read(t, z, box, number).copy()

    def _move(self, window: tuple[int, int, Box]) -> None:
        if window == self.window:
            return
        self.window = window
        for number, layer in enumerate(self.windows):
            layer.data = self._pixels(number)
            layer.translate = self._corner(self.labels[number])

    def _follow(self, _event: Any = None) -> None:
        """Let the window follow the view, once that has moved far enough."""
        if not self.windows or self.labels[0] not in self.viewer.layers:
            return
        box = self.camera.around(WINDOW_PX)
        if box is None:
            return
        t, z, before = self.window
        moved = max(abs(box.y0 - before.y0), abs(box.x0 - before.x0))
        moved = max(moved, abs(box.y1 - before.y1), abs(box.x1 - before.x1))
        if (t, z) != self.camera.plane or moved > SLACK * WINDOW_PX:
            self._move((*self.camera.plane, box))

    def _removed(self, event: Any) -> None:
        """Forget a window of which a person has removed a layer."""
        if event.value in self.windows:
            self.windows, self.window = [], NOWHERE

    # Strokes.

    def _painted(self, event: Any) -> None:
        """Keep a stroke as a correction, or take it off again."""
        layer, atoms = event.source, [Painted.of(atom) for atom in event.value]
        for lead, box in touched(atoms).items():
            where, view = self._where(layer, lead, box)
            number, t, z, window = where
            before = self.session.read(t, z, window, number)
            after = before.copy()
            for atom in atoms:
                atom.paint(after, lead, box)
            try:
                self.session.stroke(before, after, where)
            except CellsegError as error:
                self.refused.append((layer, view, box, before))
                self._take_off()
                self.say(str(error))

    def _take_off(self, _event: Any = None) -> None:
        """Take refused strokes off; napari writes some of them only after it has told of them."""
        again, self.refused = self.refused, []
        for layer, view, box, before in again:
            if not np.array_equal(view[box.slices], before):
                view[box.slices] = before
                layer.refresh()

    def _where(
        self, layer: Any, lead: tuple[int, ...], box: Box
    ) -> tuple[Repaint, NDArray[np.uint32]]:
        """Return where on the labels a box of a layer lies, and the plane of the layer."""
        if layer in self.windows:
            t, z, window = self.window
            y, x = window.y0, window.x0
            moved = Box(box.y0 + y, box.x0 + x, box.y1 + y, box.x1 + x)
            return (self.windows.index(layer), t, z, moved), layer.data
        t, z = self.session.labels.plane((*lead, 0, 0))
        return (self.labels.index(layer), t, z, box), layer.data[lead]

    # What was corrected elsewhere.

    def repaint(self, repaints: list[Repaint]) -> None:
        """Show what has changed on layers that are not in memory, and in windows of them."""
        if self.session.labels.in_memory:
            return
        changed = {number for number, *_ in repaints}
        for layer in (self.labels[number] for number in sorted(changed)):
            layer.refresh(thumbnail=False, extent=False, highlight=False)
        for number, layer in enumerate(self.windows):
            if any((n, t, z) == (number, *self.window[:2]) for n, t, z, _ in repaints):
                layer.data[:] = self._pixels(number)
                layer.refresh(thumbnail=False, extent=False, highlight=False)

    def _put(self, where: Repaint, labels: NDArray[np.uint32]) -> None:
        """Write labels into a layer in memory; only what has changed is drawn again."""
        number, t, z, box = where
        plane = self.session.plane(number, t, z)
        if number >= len(self.labels):  # its layer comes with the next repaint
            plane[box.slices] = labels
            return
        y, x = np.nonzero(plane[box.slices] != labels)
        layer, axes = self.labels[number], self.session.labels.axes
        lead = [np.full(len(y), n) for axis, n in (("t", t), ("z", z)) if axis in axes]
        with layer.events.paint.blocker():
            layer.data_setitem((*lead, y + box.y0, x + box.x0), labels[y, x])
