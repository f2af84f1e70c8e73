"""A review in a viewer: layers, camera, keys, mouse and brush. Needs a napari viewer, imports none.

It follows a `Session` and tells it what the person at the viewer does; to data it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.brush import Painted, touched
from cellseg.pipeline.review.corrected_cells import GONE, STATE
from cellseg.pipeline.review.session import Repaint, Session
from cellseg.pipeline.tiles import Box

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
ROOM = 5.0
"""How many times a cell, or a usual one if that is larger, fits into the canvas."""
MARKED = 200
"""Of more chosen cells no frames are drawn."""
CHOSEN, LINE, SEED = "#ffe14d", "#ff4d6d", "#ff4d6d"
DIM = (0.45, 0.45, 0.45, 0.5)
WINDOW_PX = 2048
"""Side of the largest part of a slide that is opened to the brush."""
CANVAS_PX = 600
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
        self.seeds: list[tuple[float, float]] = []
        self.windows: dict[Any, Repaint] = {}
        self.refused: list[tuple[Any, NDArray[np.uint32], Box, NDArray[np.uint32]]] = []
        self.stepping: list[Callable[[], None]] = []
        self._busy = False
        session.put = self._put
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
        kept = [layer for layer in self.viewer.layers if "cellseg" not in layer.metadata]
        for layer in [layer for layer in self.viewer.layers if layer not in kept]:
            self.viewer.layers.remove(layer)
        self.windows.clear()
        self.labels: list[Any] = []
        self.own_colours: dict[Any, Any] = {}
        self.points: Any = None
        for data, settings, kind in self.session.layers():
            for line in settings["metadata"]["cellseg"].get("warnings", ()):
                self.say(line)
            self._add(data, settings, kind)
        like = self.labels[0]
        self.marks = self.viewer.add_shapes(
            ndim=2,
            name="chosen",
            face_color="transparent",
            edge_color=CHOSEN,
            edge_width=0.7,
            **self._placed(like, "marks"),
        )
        self._bind(self.marks)
        self.viewer.layers.selection.active = like
        self.viewer.canvas.overlays.scale_bar.visible = self.session.labels.voxel is not None
        self.viewer.reset_view()

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
        self.labels.append(layer)
        self.own_colours[layer] = layer.colormap
        outlined = np.prod(self.session.labels.shape[2:]) <= OUTLINED_PX
        layer.contour = 2 if outlined and self.session.labels.in_memory else 0
        if self.session.labels.in_memory:
            layer.preserve_labels = True
            layer.n_edit_dimensions = 2
            self._watch(layer)

    def _watch(self, layer: Any) -> None:
        layer.events.paint.connect(self._painted)
        layer.events.labels_update.connect(self._take_off)

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
        self.session.choose([key[1]])
        self.look_at(key[1])
        for told in self.stepping:
            told()

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
        seeds, (t, z) = self.seeds, self.plane
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
        self.camera.mouse_pan = tool is None
        self._draw_marks()
        if tool is not None:
            what = {"cut": "draw a line across the cell", "seeds": "click into each part, then S"}
            self.say(what[tool])

    def new(self) -> None:
        """Take the brush, with a label that no cell has."""
        layer = self._brush()
        layer.selected_label = self.session.new_label()
        layer.mode = "paint"

    def contours(self) -> None:
        """Show outlines in place of areas, or areas in place of outlines."""
        thick = 0 if self.labels[0].contour else 2
        for layer in self.labels:
            layer.contour = thick

    def _brush(self) -> Any:
        """Return the label layer that can be painted on; make it the active one."""
        active = self.viewer.layers.selection.active
        able = [*self.windows, *(self.labels if self.session.labels.in_memory else [])]
        if not able:
            self.window()
            able = list(self.windows)
        layer = active if active in able else able[0]
        self.viewer.layers.selection.active = layer
        return layer

    def window(self) -> None:
        """Open the part of a slide in view to the brush: a label layer of its own, in memory."""
        self.session.writable  # noqa: B018 - says why it cannot be
        (y, x), (t, z) = self._in_px(self.camera.center[-2:]), self.plane
        half = [min(side / 2, WINDOW_PX / 2) for side in self._canvas_in_px()]
        *_, height, width = self.session.labels.shape
        box = Box(int(y - half[0]), int(x - half[1]), int(y + half[0]) + 1, int(x + half[1]) + 1)
        box = Box(max(box.y0, 0), max(box.x0, 0), min(box.y1, height), min(box.x1, width))
        if min(box.y1 - box.y0, box.x1 - box.x0) < 1:
            raise CellsegError("nothing of the image is in view.")
        like = self.labels[0]
        placed = self._placed(like, "window")
        corner = np.asarray(placed["translate"]) + np.asarray([box.y0, box.x0]) * placed["scale"]
        pixels = self.session.read(t, z, box, 0).copy()
        layer = self.viewer.add_labels(
            pixels, name="cells in view", **placed | {"translate": corner}
        )
        layer.contour, layer.preserve_labels = 2, True
        self._watch(layer)
        self._bind(layer)
        self.windows[layer] = 0, t, z, box

    # Places.

    @property
    def camera(self) -> Any:
        """The viewer's camera."""
        return self.viewer.scene.camera

    @property
    def plane(self) -> tuple[int, int]:
        """The t and z in view."""
        axes = self.session.labels.axes
        step = self.viewer.dims.current_step[-len(axes) :]
        return self.session.labels.plane(step)

    def _in_px(self, world: Iterable[float]) -> tuple[float, float]:
        """Return y and x of a place in px of the labels."""
        y, x = np.asarray(list(world)[-2:], float)
        (sy, sx), (ty, tx) = self.labels[0].scale[-2:], self.labels[0].translate[-2:]
        return (y - ty) / sy, (x - tx) / sx

    def _canvas_in_px(self) -> tuple[float, float]:
        height, width = getattr(self.viewer, "_canvas_size", (CANVAS_PX, CANVAS_PX))
        sy, sx = self.labels[0].scale[-2:]
        return height / self.camera.zoom / sy, width / self.camera.zoom / sx

    def look_at(self, label: int) -> None:
        """Centre the view on a cell, at a magnification that shows what is around it."""
        found = self.session.box(label)
        if found is None:
            return
        t, z, box = found
        layer, axes = self.labels[0], self.session.labels.axes
        for axis, place in (("t", t), ("z", z)):
            if axis in axes:
                number = axes.index(axis)
                world = place * layer.scale[number] + layer.translate[number]
                self.viewer.dims.set_point(number, world)
        scale, shift = layer.scale[-2:], layer.translate[-2:]
        centre = np.array([box.y0 + box.y1 - 1, box.x0 + box.x1 - 1]) / 2 * scale + shift
        side = max(*box.shape, self.session.rows.typical_px)
        canvas = getattr(self.viewer, "_canvas_size", (CANVAS_PX, CANVAS_PX))
        self.camera.center = (*self.camera.center[:-2], *centre)
        self.camera.zoom = float(min(canvas) / (ROOM * side * max(scale)))

    # What is chosen.

    def _mark_chosen(self) -> None:
        chosen = self.session.chosen
        if chosen:
            for layer in (*self.labels, *self.windows):
                layer.selected_label = chosen[0]
        self._draw_marks()
        self._select_points()

    def _select_points(self) -> None:
        """Select the points of the chosen cells; hidden points wait until they are shown."""
        if self.points is not None and self.points.visible:
            found = (self.session.rows.place(label) for label in self.session.chosen)
            self._busy = True
            self.points.selected_data = {row for row in found if row is not None}
            self._busy = False

    def _draw_marks(self, line: list[tuple[float, float]] | None = None) -> None:
        """Draw frames around the chosen cells, and what a tool is about to do."""
        frames = []
        *_, height, width = self.session.labels.shape
        for label in self.session.chosen[:MARKED]:
            if (found := self.session.box(label)) is not None:
                box = found[2]
                # Inside the image: what reaches beyond makes napari slice all layers anew.
                y0, x0 = max(box.y0 - 2.5, 0), max(box.x0 - 2.5, 0)
                y1, x1 = min(box.y1 + 1.5, height - 1), min(box.x1 + 1.5, width - 1)
                frames.append(np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]]))
        drawn = [*frames, *([np.array(line)] if line else [])]
        drawn += [np.array([[y - 1, x - 1], [y + 1, x + 1]]) for y, x in self.seeds]
        if not line and not self.seeds and drawn:
            if list(self.marks.shape_type) != ["polygon"] * len(drawn):
                self.marks.data = []
            self.marks.data = drawn if len(self.marks.data) else [(f, "polygon") for f in drawn]
            return
        kinds = ["polygon"] * len(frames) + ["line"] * bool(line) + ["ellipse"] * len(self.seeds)
        if len(self.marks.data):
            self.marks.data = []
        if drawn:
            colours = [CHOSEN] * len(frames) + [LINE] * (len(drawn) - len(frames))
            self.marks.add(
                drawn,
                shape_type=kinds,
                edge_color=colours,
                face_color="transparent",
                edge_width=0.7,
            )
            self.marks.selected_data = set()

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
        start = self._in_px(event.position)
        moved = False
        yield
        while event.type == "mouse_move":
            moved = True
            if self.tool == "cut":
                self._draw_marks([start, self._in_px(event.position)])
            yield
        stop = self._in_px(event.position)
        try:
            self._released(start, stop, moved=moved, more="Shift" in event.modifiers)
        except CellsegError as error:
            self.say(str(error))

    def _released(
        self, start: tuple[float, float], stop: tuple[float, float], *, moved: bool, more: bool
    ) -> None:
        t, z = self.plane
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

    # Brush.

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
            number, t, z, window = self.windows[layer]
            moved = Box(
                box.y0 + window.y0, box.x0 + window.x0, box.y1 + window.y0, box.x1 + window.x0
            )
            return (number, t, z, moved), layer.data
        t, z = self.session.labels.plane((*lead, 0, 0))
        return (self.labels.index(layer), t, z, box), layer.data[lead]

    def _repaint(self, repaints: list[Repaint]) -> None:
        """Show what has changed."""
        while len(self.labels) < len(self.session.labels.names):
            added = self.session.layers()
            self._add(*[each for each in added if each[2] == "labels"][len(self.labels)])
        if not self.session.labels.in_memory:
            for layer in {number: self.labels[number] for number, *_ in repaints}.values():
                layer.refresh(thumbnail=False, extent=False, highlight=False)
        for layer, (number, t, z, window) in self.windows.items():
            if any((n, tt, zz) == (number, t, z) for n, tt, zz, _ in repaints):
                layer.data[:] = self.session.read(t, z, window, number)
                layer.refresh(thumbnail=False, extent=False, highlight=False)
        self._repaint_points()
        self._draw_marks()

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
