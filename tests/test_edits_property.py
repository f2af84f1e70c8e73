"""Any edits, undos, crashes and applies give what the edits that count give on a plain array."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline.measure import measure
from cellseg.pipeline.review.edits import ApplyEdits, Editor, apply
from cellseg.pipeline.tiles import Box
from corrected import CPU, on_disk, results_of, table, view
from synthetic import cells

SHAPE = 270, 90
STEPS = ("delete", "merge", "split", "redraw", "add", "brush", "class", "accept", "undo", "undo",
         "undo", "redo", "redo", "apply", "apply", "kill", "crash", "cut")  # fmt: skip
Step = tuple[str, int, int, int]


@dataclass(frozen=True)
class State:
    """Cells as a plain array, their classes, and which of them a person has drawn."""

    labels: NDArray[np.uint32]
    classes: dict[int, int] = field(default_factory=dict)
    drawn: frozenset[int] = frozenset()

    @property
    def there(self) -> list[int]:
        return [int(n) for n in np.unique(self.labels) if n]

    def painted(self, labels: NDArray[np.uint32], classes: dict[int, int] | None = None) -> State:
        other = labels != self.labels
        drawn = {int(n) for n in np.union1d(labels[other], self.labels[other])} - {0}
        return State(labels, {**self.classes, **(classes or {})}, self.drawn | drawn)


class Twin:
    """Results under correction, and the plain array that they must equal."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.editor = Editor(results, "one")
        labels = view(self.editor)
        self.before = table(results)
        self.states, self.place = [State(labels)], 0
        self.highest = int(labels.max())

    @property
    def state(self) -> State:
        return self.states[self.place]

    def step(self, kind: str, a: int, b: int, c: int) -> None:
        if kind in ("undo", "redo"):
            self.move(kind)
        elif kind == "crash":
            self.editor = Editor(self.results, "one")
        elif kind == "cut":
            with self.editor.here.edits_path.open("ab") as file:
                file.write(b'{"id": "4711", "who": "me", "wh')
            self.editor = Editor(self.results, "one")
        elif kind == "apply":
            apply(self.results)
            self.check_disk()
        elif kind == "kill":
            going = ApplyEdits(self.results, CPU, images=["one"]).steps()
            for _ in range(a % 4):
                next(going, None)
            going.close()  # type: ignore[attr-defined]
        else:
            self.edit(kind, a, b, c)
        assert np.array_equal(view(self.editor), self.state.labels)

    def move(self, kind: str) -> None:
        by = -1 if kind == "undo" else 1
        moved = self.editor.undo() if kind == "undo" else self.editor.redo()
        possible = 0 <= self.place + by < len(self.states)
        assert (moved is not None) == possible
        self.place += by * possible

    def edit(self, kind: str, a: int, b: int, c: int) -> None:
        there, labels = self.state.there, self.state.labels.copy()
        one, two = (there[n % len(there)] if there else 0 for n in (a, b))
        y, x = a * 7 % SHAPE[0], b * 7 % SHAPE[1]
        side = 2 + c % 20
        square = np.ones((side, side), bool)
        classes: dict[int, int] = {}
        new = self.highest + 1
        try:
            if kind == "delete":
                labels[labels == one] = 0
                self.editor.delete(one)
            elif kind == "merge":
                labels[labels == two] = one
                self.editor.merge([one, two])
            elif kind == "split":
                ys, xs = np.nonzero(labels == one)
                middle = (float(np.mean(ys)), 0.0), (float(np.mean(ys)) + b % 3 - 1, 1.0)
                self.editor.split_line(one, *middle, 0, 0)
                (y0, x0), (y1, x1) = middle
                first = (x1 - x0) * (ys - y0) - (y1 - y0) * (xs - x0) >= 0
                smaller = first if first.sum() < (~first).sum() else ~first
                labels[ys[smaller], xs[smaller]] = new
                classes = {new: self.state.classes.get(one, 1)}
            elif kind == "redraw":
                labels[labels == one] = 0
                labels[y : y + side, x : x + side] = one
                self.editor.redraw(one, (y, x), square, 0, 0)
            elif kind == "add":
                labels[y : y + side, x : x + side] = new
                classes = {new: 1 + c % 3}
                assert self.editor.add((y, x), square, class_=1 + c % 3) == new
            elif kind == "brush":
                value = (0, one, new)[c % 3]
                labels[y : y + side, x : x + side] = value
                classes = {new: 1} if value == new else {}
                box = Box(y, x, min(y + side, SHAPE[0]), min(x + side, SHAPE[1]))
                edit = self.editor.stroke(
                    self.editor.labels(0, 0, box), labels[box.slices], box, 0, 0
                )
                if edit is None:
                    return
            elif kind == "class":
                self.editor.change_class(one, 1 + c % 3)
                classes = {one: 1 + c % 3}
            else:
                self.editor.mark(one, "accept")
        except CellsegError:
            # Nothing to do it to, or nothing that would change: no trace is left.
            return
        self.highest = max(self.highest, int(labels.max()))
        self.states = [*self.states[: self.place + 1], self.state.painted(labels, classes)]
        self.place += 1

    def check_disk(self) -> None:
        labels, after = self.state.labels, table(self.results)
        assert np.array_equal(on_disk(self.results), labels)
        assert np.array_equal(on_disk(self.results, 1), labels[::2, ::2])
        assert after.index.tolist() == self.state.there
        drawn = after.index.isin(list(self.state.drawn))
        for label in after.index:
            assert after.loc[label, "class"] == self.state.classes.get(label, 1)
        kept = after.index[~drawn]
        rows = [each.drop(columns="class") for each in (after.loc[kept], self.before.loc[kept])]
        pd.testing.assert_frame_equal(*rows)
        edited = after.loc[drawn]
        assert (edited["seam"] == "edited").all()
        assert edited["score"].isna().all()
        pixels = np.asarray(self.pixels)[None]
        for name, values in measure(labels, pixels, edited.index.to_numpy(), ["0"]).items():
            assert np.array_equal(edited[name].to_numpy(float), values, equal_nan=True), name

    @property
    def pixels(self) -> NDArray[Any]:
        return np.asarray(tifffile.imread(self.results.parent / "in" / "one.tif"))


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield results_of(Path(folder), cells(4, SHAPE, 14)[1])


steps = st.lists(
    st.tuples(st.sampled_from(STEPS), *[st.integers(0, 60)] * 3), min_size=1, max_size=14
)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
def test_any_sequence_equals_its_surviving_edits_on_a_plain_array(
    base: Path, steps: list[Step]
) -> None:
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        (Path(folder) / "in").symlink_to(base.parent / "in")
        results = Path(folder) / "out"
        shutil.copytree(base, results)
        twin = Twin(results)
        for step in steps:
            twin.step(*step)
        twin.step("apply", 0, 0, 0)
        twin.step("crash", 0, 0, 0)
        assert twin.editor.pending == 0
