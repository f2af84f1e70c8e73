"""Each edit does what it says, to its cell and to neighbours, and undo takes all of it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances
from cellseg.pipeline.change import decode, encode
from cellseg.pipeline.review.edits import Editor, apply
from cellseg.pipeline.tiles import Box
from corrected import on_disk, overlapping_results_of, results_of, table, view

SHAPE = 60, 70


def drawn() -> NDArray[Any]:
    """Three cells: 1 and 2 touch, 3 is two discs that a bar joins."""
    labels = np.zeros(SHAPE, np.uint16)
    labels[5:20, 5:20] = 1
    labels[5:20, 20:35] = 2
    y, x = np.ogrid[:60, :70]
    for centre in (15, 45):
        labels[(y - 45) ** 2 + (x - centre) ** 2 <= 100] = 3
    labels[43:48, 15:45] = 3
    return labels


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return results_of(tmp_path, drawn())


@pytest.fixture
def editor(results: Path) -> Editor:
    return Editor(results, "one", who="me")


def changed(change: Callable[[NDArray[Any]], object]) -> NDArray[Any]:
    labels = drawn()
    change(labels)
    return labels


def right_half(labels: NDArray[Any]) -> None:
    labels[:, 30:][labels[:, 30:] == 3] = 4


SQUARE = np.ones((10, 10), bool)
EDITS: dict[str, tuple[Callable[[Editor], object], NDArray[Any]]] = {
    "delete": (
        lambda e: e.delete([1, 3]),
        changed(lambda a: a.__setitem__((a == 1) | (a == 3), 0)),
    ),
    "merge": (lambda e: e.merge([2, 1]), changed(lambda a: a.__setitem__(a == 1, 2))),
    "redraw": (
        lambda e: e.redraw(1, (8, 15), SQUARE, 0, 0),
        changed(lambda a: (a.__setitem__(a == 1, 0), a.__setitem__(np.s_[8:18, 15:25], 1))),
    ),
    "add": (lambda e: e.add((30, -5), SQUARE), changed(lambda a: a[30:40, :5].fill(4))),
    "split": (lambda e: e.split_line(3, (30, 29.5), (31, 29.5), 0, 0), changed(right_half)),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_its_undo_and_its_redo(results: Path, editor: Editor, name: str) -> None:
    edit, expected = EDITS[name]
    edit(editor)
    made = editor.log[-1]
    assert (made.what, made.who) == (name, "me")
    for each in (editor, Editor(results, "one")):
        # A split gives the new label to the smaller part, whichever side that is.
        assert _same(view(each), expected) if name == "split" else (view(each) == expected).all()
    after = view(editor)
    undone = Editor(results, "one").undo()
    assert undone is not None
    assert undone.target == made.id
    assert np.array_equal(view(editor), view(Editor(results, "one")))
    assert np.array_equal(view(Editor(results, "one")), drawn())
    assert Editor(results, "one").redo() is not None
    assert np.array_equal(view(Editor(results, "one")), after)
    assert Editor(results, "one").redo() is None
    # Nothing is on disk before `apply`.
    assert np.array_equal(on_disk(results), drawn())


def _same(labels: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether both tell the same cells apart."""
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    return bool(pairs.shape[1] == len(np.unique(labels)) == len(np.unique(expected)))


def test_seeds_split_a_cell_at_its_waist_the_same_each_time(editor: Editor, results: Path) -> None:
    editor.split_seeds(3, [(45, 15), (44.6, 45.2)], 0, 0)
    found = view(editor)
    assert set(np.unique(found)) == {0, 1, 2, 3, 4}
    expected = drawn()
    right_half(expected)
    assert ((found > 0) == (expected > 0)).all()
    assert (found[expected == 3] != found[45, 15]).sum() < 20
    editor.undo()
    editor.split_seeds(3, [(45, 15), (44.6, 45.2)], 0, 0)
    again = view(editor)
    assert np.array_equal(again > 3, found > 3)


def test_what_is_painted_over_is_taken_from_its_cell(editor: Editor) -> None:
    before = view(editor)
    mask = np.ones((30, 30), bool)
    editor.redraw(1, (0, 0), mask, 0, 0)
    assert editor.log[-1].labels == [1, 2]
    assert (view(editor)[:30, :30] == 1).all()
    assert (view(editor)[5:20, 30:35] == 2).all()
    label = editor.add((0, 0), np.ones((40, 40), bool))
    gone = {c.label for c in editor.log[-1].changes if c.class_after is None}
    assert (label, gone) == (4, {1, 2})
    editor.undo()
    editor.undo()
    assert np.array_equal(view(editor), before)


def test_a_brush_adds_takes_and_removes(editor: Editor) -> None:
    box = Box(0, 0, 30, 40)
    before = editor.labels(0, 0, box)
    strokes: list[tuple[Callable[[NDArray[Any]], object], str]] = [
        (lambda a: a[25:30, :5].fill(editor.new_label()), "add"),
        (lambda a: a[5:10, 5:40].fill(1), "redraw"),
        (lambda a: a.__setitem__(a == 2, 0), "delete"),
    ]
    for paint, kind in strokes:
        after = editor.labels(0, 0, box).copy()
        paint(after)
        edit = editor.stroke(editor.labels(0, 0, box), after, box, 0, 0)
        assert edit is not None
        assert edit.what == kind
        assert np.array_equal(editor.labels(0, 0, box), after)
    assert editor.stroke(after, after, box, 0, 0) is None
    with pytest.raises(CellsegError, match="not its labels as they are now"):
        editor.stroke(before, after, box, 0, 0)
    for _ in range(3):
        editor.undo()
    assert np.array_equal(editor.labels(0, 0, box), before)


def test_an_edit_says_only_what_it_changes(editor: Editor, results: Path) -> None:
    editor.delete(1)
    line = (results / "images" / "one" / "edits.jsonl").read_text("utf-8").splitlines()[-1]
    (change,) = json.loads(line)["changes"]
    assert change["box"] == [5, 5, 20, 20]
    assert change["after"] is None
    assert decode(change["before"], (15, 15)).all()
    assert len(line) < 400


@pytest.mark.parametrize("seed", range(5))
def test_masks_survive_their_text(seed: int) -> None:
    mask = np.random.default_rng(seed).random((7, 5)) < seed / 4
    assert np.array_equal(decode(encode(mask), (7, 5)), mask)
    assert (encode(mask) is None) == (not mask.any())


def test_marks_and_classes(editor: Editor, results: Path) -> None:
    editor.mark(1, "accept")
    assert editor.pending == 0
    editor.mark(2, "reject")
    editor.change_class([1, 3], 2)
    assert editor.reviewed == {1: "accept", 2: "reject"}
    assert Editor(results, "one").class_of(3) == 2
    assert apply(results)
    rows = table(results)
    assert rows["class"].to_dict() == {1: 2, 3: 2}
    assert rows["seam"].isin(["interior", "resolved"]).all()
    editor.undo()
    editor.undo()
    assert editor.reviewed == {1: "accept"}
    apply(results)
    assert table(results)["class"].tolist() == [1, 1, 1]
    assert table(results)["score"].notna().all()


def test_what_cannot_be_is_refused_in_a_line_and_leaves_no_trace(
    editor: Editor, results: Path
) -> None:
    refused: list[tuple[str, Callable[[], object]]] = [
        ("label 9 is not there", lambda: editor.delete([1, 9])),
        ("two cells or more", lambda: editor.merge([1])),
        ("does not cross", lambda: editor.split_line(1, (40, 0), (40, 9), 0, 0)),
        ("seed 2 at y = 0, x = 0", lambda: editor.split_seeds(3, [(45, 15), (0, 0)], 0, 0)),
        ("two seeds or more", lambda: editor.split_seeds(3, [(45, 15)], 0, 0)),
        ("no pixel in the image", lambda: editor.add((99, 99), SQUARE)),
        ("no pixel in the image", lambda: editor.redraw(1, (0, 0), ~SQUARE, 0, 0)),
        ("t = 0, z = 4 is no plane", lambda: editor.add((0, 0), SQUARE, 0, 4)),
        ("no pixel in t = 0, z = 1", lambda: editor.split_line(1, (0, 0), (9, 9), 0, 1)),
        ("classes go from 1", lambda: editor.change_class(1, 0)),
        ("class is 1 already", lambda: editor.change_class(1, 1)),
        ('"accept" or "reject"', lambda: editor.mark(1, "perhaps")),
    ]
    for said, edit in refused:
        with pytest.raises(CellsegError, match=said):
            edit()
    assert editor.undo() is None
    assert not (results / "images" / "one" / "edits.jsonl").exists()
    for folder, name, said in [(results, "ones", "no image ones .* Did you mean one"),
                               (results / "x", "one", "no results folder")]:  # fmt: skip
        with pytest.raises(CellsegError, match=said):
            Editor(folder, name)


def discs() -> Instances:
    y, x = np.ogrid[:21, :21]
    disc = (y - 10) ** 2 + (x - 10) ** 2 <= 100
    corners = [(5, 5), (5, 17), (30, 5), (30, 35)]
    return Instances.stack([(corner, disc, 0.9 - n / 10, 1) for n, corner in enumerate(corners)])


def test_cells_that_overlap_keep_their_pixels(tmp_path: Path) -> None:
    results = overlapping_results_of(tmp_path, discs(), SHAPE)
    editor = Editor(results, "one")
    before = [view(editor, layer=n) for n in range(editor.layers)]
    layers = table(results)["layer"]
    sizes = table(results)["area_px"]
    cells = {label: editor.sections(label)[0] for label in sizes.index}
    one, three = sizes.index[0], sizes.index[2]
    # On top of both that overlap: a third label image is needed.
    editor.redraw(three, (8, 15), np.ones((10, 10), bool), 0, 0)
    label = editor.add((9, 16), np.ones((5, 5), bool))
    assert editor.layers == 4
    for known in set(sizes.index) - {three}:
        assert np.array_equal(editor.sections(known)[0].mask, cells[known].mask)
    assert apply(results)[0].reason is None
    rows = table(results)
    assert sorted(rows.loc[[three, label], "layer"]) == [3, 4]
    assert rows.loc[label, "overlap_px"] == 25
    assert rows.loc[label, "overlaps_with"].tolist() == sorted({*layers.index[:2], three})
    assert (rows.loc[one, "area_px"], rows.loc[one, "seam"]) == (sizes[one], "interior")
    editor.merge([one, label])
    editor.undo()
    editor.undo()
    editor.undo()
    assert apply(results)[0].reason is None
    assert np.array_equal(table(results)["area_px"], sizes)
    assert np.array_equal(table(results)["layer"], layers)
    for number, labels in enumerate(before):
        assert np.array_equal(view(Editor(results, "one"), layer=number), labels)


def stack() -> NDArray[Any]:
    labels = np.zeros((2, 3, 40, 50), np.uint16)
    labels[:, :2, 5:15, 5:25] = 1
    labels[:, 1:, 20:30, 5:15] = 2
    return labels


AXES: dict[str, Any] = {"imagej": True, "metadata": {"axes": "TZYX"}}


def test_cells_of_volumes_over_time(tmp_path: Path) -> None:
    results = results_of(tmp_path, stack(), "link.z=true", "track.enabled=true", **AXES)
    editor = Editor(results, "one")
    before = table(results)
    one, two, *later = before.index
    editor.redraw(two, (20, 5), np.ones((10, 12), bool), 0, 0)
    editor.split_line(one, (0, 14.5), (9, 14.5), 0, 1)
    (new,) = set(editor.log[-1].labels) - {one}
    assert {s.z for s in editor.sections(new)} == {0, 1}
    with pytest.raises(CellsegError, match="time points 0 and 1"):
        editor.merge([one, later[0]])
    with pytest.raises(CellsegError, match="time points 0 and 1"):
        editor.redraw(one, (0, 0), SQUARE, 1, 0)
    assert apply(results)[0].reason is None
    rows = table(results)
    assert rows.loc[two, ["z0_px", "z1_px", "volume_px"]].tolist() == [0, 3, 320]
    assert rows.loc[[one, new], "volume_px"].tolist() == [200, 200]
    assert rows.loc[two, "track"] == before.loc[two, "track"]
    pd.testing.assert_frame_equal(rows.loc[later], before.loc[later], check_dtype=False)
    editor.merge([one, new])
    editor.delete(two)
    apply(results)
    for _ in range(4):
        editor.undo()
    apply(results)
    assert table(results).equals(before)


def test_planes_that_are_not_linked_hold_cells_of_their_own(tmp_path: Path) -> None:
    results = results_of(tmp_path, stack(), "link.z=false", **AXES)
    editor = Editor(results, "one")
    first = table(results).index[0]
    with pytest.raises(CellsegError, match=r"planes 0 and 1, which are not linked \(\[link\] z\)"):
        editor.redraw(first, (5, 5), SQUARE, 0, 1)
    label = editor.add((0, 30), SQUARE, 1, 2, class_=7)
    apply(results)
    row = table(results).loc[label]
    assert row[["t", "z", "class", "area_px", "seam"]].tolist() == [1, 2, 7, 100, "edited"]


def test_a_line_that_was_cut_off_is_as_good_as_not_there(results: Path, editor: Editor) -> None:
    editor.delete(1)
    path = results / "images" / "one" / "edits.jsonl"
    whole = path.read_bytes()
    for cut in (whole[:10], whole + b'{"id": "x", "wh', whole[:-1]):
        path.write_bytes(cut)
        reopened = Editor(results, "one")
        assert len(reopened.log) == (cut.startswith(whole))
        reopened.delete(2)
        assert [edit.labels for edit in Editor(results, "one").log][-1] == [2]
        assert path.read_bytes().count(b"\n") == 2 + cut.startswith(whole)


def test_two_programs_see_what_each_other_did(results: Path, editor: Editor) -> None:
    other = Editor(results, "one", who="other")
    editor.delete(1)
    assert other.add((30, 0), SQUARE) == 4
    assert editor.new_label() == 5
    with pytest.raises(CellsegError, match="label 1 is not there"):
        other.merge([1, 2])
    assert [edit.who for edit in editor.log] == ["me", "other"]
    assert editor.undo() is not None
    assert not (view(other) == 4).any()
    assert np.array_equal(view(editor), view(other))


def test_a_damaged_line_is_named(results: Path, editor: Editor) -> None:
    editor.delete(1)
    editor.delete(2)
    path = results / "images" / "one" / "edits.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:-20] + "\n", lines[2]]), encoding="utf-8")
    with pytest.raises(CellsegError, match=r"edits\.jsonl: line 2 is damaged"):
        Editor(results, "one")
