"""What a person does at a viewer: keys, queue, tools, mouse. Needs a napari viewer, imports none.

It tells a `Session` what is to be done; to data it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cellseg.models.errors import CellsegError
from cellseg.pipeline.review.queue import Key
from cellseg.pipeline.review.session import Session
from cellseg.pipeline.review.shown import Shown

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


class View(Shown):
    """What is shown of a session, and what keys and mouse do to it; see `Shown`."""

    def __init__(self, viewer: Any, session: Session, say: Callable[[str], None]) -> None:
        super().__init__(viewer, session, say)
        self.tool: str | None = None
        session.opening.append(self._opened)
        session.changing.append(lambda _repaints: self._bind())
        for key, (name, _) in KEYS.items():
            viewer.bind_key(key, self._calling(name), overwrite=True)
        viewer.mouse_drag_callbacks.append(self._dragged)
        self._bind()

    def _opened(self) -> None:
        self._take_tool(None)
        self._bind()

    def _bind(self) -> None:
        """Let our keys go before those of a layer's kind."""
        for layer in self.viewer.layers:
            if "cellseg" in layer.metadata:
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

    def window(self) -> None:
        """Open the part of a slide in view to the brush, as layers in memory."""
        self.painting.open_window(self._placed)
        self._bind()
        self.painting.take(next(iter(self.session.chosen), None))
        self._select_label()

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
