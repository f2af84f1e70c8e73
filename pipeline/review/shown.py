"""What a viewer shows of a session: its layers, marks of what is chosen, colours of cells.

Needs a napari viewer, and imports none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cellseg.pipeline.review.camera import Camera
from cellseg.pipeline.review.corrected_cells import GONE, STATE
from cellseg.pipeline.review.marks import Marks, Point
from cellseg.pipeline.review.painting import Painting
from cellseg.pipeline.review.session import Repaint, Session

__all__ = ["Shown"]

DIM = (0.45, 0.45, 0.45, 0.5)
AREA = 0.6
"""Opacity of areas."""
OUTLINE_PX = 2
OUTLINED_PX = 2048 * 2048
"""Of larger planes areas are shown at first: outlines take a while to draw."""


class Shown:
    """The layers of a session in a viewer, in step with it.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session
    say : callable
        Gets each line that the user should read.
    """

    def __init__(self, viewer: Any, session: Session, say: Callable[[str], None]) -> None:
        self.viewer, self.session, self.say = viewer, session, say
        self.seeds: list[Point] = []
        self._busy = False
        self.camera = Camera(viewer, session)
        self.painting = Painting(viewer, session, self.camera, say)
        session.opening.append(self.show)
        session.choosing.append(self._mark_chosen)
        session.changing.append(self._repaint)
        self.show()

    def show(self) -> None:
        """Replace the layers of the image before by those of this one."""
        self.painting.start()
        self.seeds = []
        kept = [layer for layer in self.viewer.layers if "cellseg" not in layer.metadata]
        for layer in [layer for layer in self.viewer.layers if layer not in kept]:
            self.viewer.layers.remove(layer)
        self.own_colours: dict[Any, Any] = {}
        self.points: Any = None
        for data, settings, kind in self.session.layers():
            for line in settings["metadata"]["cellseg"].get("warnings", ()):
                self.say(line)
            self._add(data, settings, kind)
        like = self.camera.like = self.labels[0]
        height, width = self.session.labels.shape[2:]
        self.marks = Marks(self.viewer, (height, width), self._placed(like, "marks"))
        self._select_label()
        self.viewer.layers.selection.active = like
        self.viewer.canvas.overlays.scale_bar.visible = True
        self.viewer.reset_view()

    @property
    def labels(self) -> list[Any]:
        """The label layers of the image, by the number of their label image."""
        return self.painting.labels

    def _placed(self, like: Any, kind: str) -> dict[str, Any]:
        """Return the settings that put a layer of y and x onto label layers."""
        about = {"cellseg": {"kind": kind, "image": self.session.entry.name}}
        place = {name: getattr(like, name)[-2:] for name in ("scale", "translate", "units")}
        return {"metadata": about, "axis_labels": ("y", "x"), **place}

    def _add(self, data: Any, settings: Mapping[str, Any], kind: str) -> Any:
        layer = getattr(self.viewer, f"add_{kind}")(data, **settings)
        if kind == "labels":
            self._take_labels(layer)
        elif kind == "points":
            self.points = layer
            layer.selected_data.events.items_changed.connect(self._points_chosen)
            layer.events.visible.connect(self._repaint_points)
        return layer

    def _take_labels(self, layer: Any) -> None:
        """Keep what is painted on a label layer."""
        self.own_colours[layer] = layer.colormap
        outlined = np.prod(self.session.labels.shape[2:]) <= OUTLINED_PX
        _outline(layer, OUTLINE_PX if outlined and self.session.labels.in_memory else 0)
        self.painting.add(layer)

    def contours(self) -> None:
        """Show outlines in place of areas, or areas in place of outlines."""
        thick = 0 if self.labels[0].contour else OUTLINE_PX
        for layer in self.labels:
            _outline(layer, thick)

    def _mark_chosen(self) -> None:
        chosen = self.session.chosen
        self._select_label()
        if chosen and self.viewer.layers.selection.active in self.painting.able:
            self.painting.take(chosen[0])
        self._draw_marks()
        self._select_points()

    def _select_label(self) -> None:
        """Let the brush redraw the first chosen cell; where none is chosen, a new one."""
        if self.session.editor is None:
            return
        label = next(iter(self.session.chosen), None) or self.session.editor.new_label()
        for layer in (*self.labels, *self.painting.windows):
            layer.selected_label = label

    def _select_points(self) -> None:
        """Select the points of the chosen cells; hidden points wait until they are shown."""
        if self.points is not None and self.points.visible:
            found = (self.session.rows.place(label) for label in self.session.chosen)
            self._busy = True
            self.points.selected_data = {row for row in found if row is not None}
            self._busy = False

    def _draw_marks(self, line: Sequence[Point] = ()) -> None:
        """Draw frames around the chosen cells, and what a tool is about to do."""
        found = (self.session.box(label) for label in self.session.chosen)
        self.marks.draw((each[2] for each in found if each is not None), line, self.seeds)

    def _points_chosen(self) -> None:
        if not self._busy:
            rows = sorted(int(row) for row in self.points.selected_data)
            self.session.choose(self.session.rows.label(row) for row in rows)

    def colour(self, colours: Mapping[int, Any] | None) -> None:
        """Colour cells: those given in their colours, the others grey; None for napari's own."""
        for layer in self.labels:
            if colours is None:
                layer.colormap = self.own_colours[layer]
            else:
                layer.colormap = {None: DIM, 0: (0, 0, 0, 0), **colours}
        if self.points is not None:
            labels, white = self.session.cells["label"].tolist(), (1.0, 1.0, 1.0, 1.0)
            other = white if colours is None else DIM
            shown = [(colours or {}).get(label, other) for label in labels]
            self.points.face_color = np.array(shown, np.float32).reshape(-1, 4)

    def _repaint(self, repaints: list[Repaint]) -> None:
        """Show what has changed."""
        while len(self.labels) < len(self.session.labels.names):
            added = self.session.layers()
            self._add(*[each for each in added if each[2] == "labels"][len(self.labels)])
        self.painting.repaint(repaints)
        self._repaint_points()
        self._draw_marks()

    def _repaint_points(self, _event: Any = None) -> None:
        """Bring points up to date; those that are hidden wait until they are shown."""
        if self.points is None or not self.points.visible:
            return
        places = self.session.places()
        self._busy = True
        if not np.array_equal(places, self.points.data):
            self.points.data = places
        self.points.shown = ~self.session.cells[STATE].isin(GONE).to_numpy()
        self._busy = False
        self._select_points()


def _outline(layer: Any, thick: int) -> None:
    """Show outlines of a thickness in px, or areas for 0: outlines in full colour."""
    layer.contour = thick
    layer.opacity = 1.0 if thick else AREA
