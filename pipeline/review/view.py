"""A review in a viewer: layers, camera, keys, mouse and brush. Needs a napari viewer, imports none.

It follows a `Session` and tells it what the person at the viewer does; to data it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.camera import Camera
from cellseg.pipeline.review.corrected_cells import GONE, STATE
from cellseg.pipeline.review.marks import Marks, Point
from cellseg.pipeline.review.painting import Painting
from cellseg.pipeline.review.queue import Key
from cellseg.pipeline.review.session import Repaint, Session

__all__ = ["KEYS", "View"]

KEYS = {
    "n": ("next", "the next cell in the queue"),
    "Shift-N": ("previous", "the one before"),
    "a": ("accept", "accept the cell, and go on"),
    "r": ("reject", "reject the cell, which deletes it, and go on"),
    "d": ("delete", "delete the chosen cells"),
    "j": ("join", "join the chosen cells to one"),
    "k": ("cut", "cut a cell: draw a line across it"),
    "s": ("take_seeds", "split a cell by seeds: click one in each part, and again S"),
    "m": ("new", "take the brush for a new cell"),
    "w": ("window", "open the part in view to the brush (of slides)"),
    "c": ("contours", "show outlines, or areas"),
    "Control-Z": ("undo", "take back the last correction, of earlier sessions too"),
    "Control-Shift-Z": ("redo", "do it again"),
}
"""Each key, what it calls, and what that does. P, E and F stay napari's brush, eraser, bucket."""
DIM = (0.45, 0.45, 0.45, 0.5)
AREA = 0.6
"""Opacity of areas."""
OUTLINE_PX = 2
OUTLINED_PX = 2048 * 2048
"""Of larger planes areas are shown at first: outlines take a while to draw."""


class View:
    """What a viewer shows of a session.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session
    say : callable
        Gets each line that the user should read.
    """

    def __init__(self, viewer: Any, session: Session, say: Callable[[str], None]) -> None:
        self.viewer, self.session, self.say = viewer, session, say
        self.tool: str | None = None
        self.seeds: list[Point] = []
        self._busy = False
        self.camera = Camera(viewer, session)
        self.painting = Painting(viewer, session, self.camera, say)
        session.opening.append(self.show)
        session.choosing.append(self._mark_chosen)
        session.changing.append(self._repaint)
        for key, (name, _) in KEYS.items():
            viewer.bind_key(key, self._calling(name), overwrite=True)
        viewer.mouse_drag_callbacks.append(self._dragged)
        self.show()

    # Layers.

    def show(self) -> None:
        """Replace the layers of the image before by those of this one."""
        self.painting.start()
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
        self._bind(self.marks.layer)
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
        layers = layer if isinstance(layer, list) else [layer]
        for each in layers:
            self._bind(each)
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

    def _bind(self, layer: Any) -> None:
        """Let our keys go before those of a layer's kind."""
        for key, (name, _) in KEYS.items():
            layer.bind_key(key, self._calling(name), overwrite=True)

    # Keys.

    def _calling(self, name: str) -> Callable[[Any], None]:
        return lambda _layer: self.call(name)

    def call(self, name: str) -> None:
        """Do what a key or a button stands for; a mistake is a line to read."""
        try:
            getattr(self, name)()
        except CellsegError as error:
            self.say(str(error))

    def next(self) -> None:
        """Look at the next cell of the queue."""
        self.step(1)

    def previous(self) -> None:
        """Look at the cell before in the queue."""
        self.step(-1)

    def step(self, by: int) -> None:
        """Go on or back in the queue."""
        key = self.session.queue.step(by)
        if key is None:
            self.say("the queue is through." if by > 0 else "this is the first of the queue.")
            return
        self._look_at(key)

    def go_to(self, *keys: Key) -> None:
        """Look at a cell, of another image too, and choose it with others of its image.

        What cannot be opened is a line to read.
        """
        try:
            self._look_at(*keys)
        except CellsegError as error:
            self.say(str(error))

    def _look_at(self, *keys: Key) -> None:
        image, label = keys[0]
        if image != self.session.entry.name:
            self._open(image)
        self.session.queue.go_to(keys[0])
        self.session.choose(other for name, other in keys if name == image)
        self.camera.look_at(label)

    def _open(self, image: str) -> None:
        """Open the image of the next cell; one that cannot be opened leaves the queue."""
        try:
            self.session.open(image)
        except CellsegError:
            self.session.queue.leave_out(image)
            raise

    def accept(self) -> None:
        """Accept the cell at hand, and go on."""
        self._judge("accept")

    def reject(self) -> None:
        """Reject the cell at hand, and go on."""
        self._judge("reject")

    def _judge(self, verdict: str) -> None:
        self.session.mark(verdict)
        self.step(1)

    def delete(self) -> None:
        """Delete the chosen cells."""
        self.session.delete()

    def join(self) -> None:
        """Join the chosen cells."""
        self.session.merge()

    def undo(self) -> None:
        """Take back the last correction."""
        self.session.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.session.redo()

    def cut(self) -> None:
        """Let the next drag of the mouse cut a cell; called again, let it not."""
        self._take_tool(None if self.tool == "cut" else "cut")

    def seeds_done(self) -> None:
        """Split by the seeds that are there."""
        seeds, (t, z) = self.seeds, self.camera.plane
        self._take_tool(None)
        if seeds:
            self.session.split_seeds(seeds, t, z)

    def take_seeds(self) -> None:
        """Let clicks put seeds; called again, split by them."""
        if self.tool == "seeds":
            self.seeds_done()
        else:
            self._take_tool("seeds")

    def _take_tool(self, tool: str | None) -> None:
        self.tool, self.seeds = tool, []
        self.camera.camera.mouse_pan = tool is None
        self._draw_marks()
        if tool is not None:
            what = {"cut": "draw a line across the cell", "seeds": "click into each part, then S"}
            self.say(what[tool])

    def new(self) -> None:
        """Take the brush, with a label that no cell has."""
        if not self.painting.able:
            self.window()
        layer = self.painting.take()
        layer.selected_label = self.session.new_label()
        layer.mode = "paint"

    def contours(self) -> None:
        """Show outlines in place of areas, or areas in place of outlines."""
        thick = 0 if self.labels[0].contour else OUTLINE_PX
        for layer in self.labels:
            _outline(layer, thick)

    def window(self) -> None:
        """Open the part of a slide in view to the brush, as layers in memory."""
        for layer in self.painting.open_window(self._placed):
            self._bind(layer)
        self.painting.take(next(iter(self.session.chosen), None))
        self._select_label()

    # What is chosen.

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

    # Mouse.

    def _dragged(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Choose the cell that is clicked, put a seed, or cut along a line."""
        start = self.camera.in_px(event.position)
        moved = False
        yield
        while event.type == "mouse_move":
            moved = True
            if self.tool == "cut":
                self._draw_marks([start, self.camera.in_px(event.position)])
            yield
        stop = self.camera.in_px(event.position)
        try:
            self._released(start, stop, moved=moved, more="Shift" in event.modifiers)
        except CellsegError as error:
            self.say(str(error))

    def _released(
        self, start: tuple[float, float], stop: tuple[float, float], *, moved: bool, more: bool
    ) -> None:
        t, z = self.camera.plane
        active = self.viewer.layers.selection.active
        if self.tool == "cut":
            if moved:
                self._take_tool(None)
                self.session.split_line(start, stop, t, z)
        elif self.tool == "seeds":
            self.seeds.append(start)
            self._draw_marks()
        elif not moved and str(getattr(active, "mode", "pan_zoom")) == "pan_zoom":
            label = self.session.label_at(t, z, *start)
            self.session.choose([label] if label else (), more=more)

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
