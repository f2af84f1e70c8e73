"""Two reviewers' logs: what they agree on is applied, conflicts are listed and not guessed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cellseg.models import CellsegError
from cellseg.pipeline.cli import main
from cellseg.pipeline.review.edits import Editor, apply, merge_logs, pending_edits, plan_taking
from corrected import on_disk, results_of, table, view

SQUARE = np.ones((6, 6), bool)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    labels = np.zeros((60, 80), np.uint16)
    for n in range(8):
        y, x = divmod(n, 4)
        labels[5 + 28 * y : 20 + 28 * y, 3 + 20 * x : 18 + 20 * x] = n + 1
    return results_of(tmp_path, labels)


def reviewer(base: Path, who: str) -> Editor:
    """Give a reviewer a copy of the results."""
    copy = base.parent / who
    shutil.copytree(base, copy)
    return Editor(copy, "one", who)


def log_of(editor: Editor) -> Path:
    return editor.here.edits_path


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["edit", *map(str, arguments)])


def test_edits_of_different_cells_merge_in_any_order(base: Path) -> None:
    ann, bob = reviewer(base, "ann"), reviewer(base, "bob")
    ann.delete(1)
    ann.merge([2, 3])
    bob.redraw(6, (40, 30), SQUARE, 0, 0)
    bob.delete(8)
    bob.undo()
    edits, conflicts = merge_logs([log_of(ann), log_of(bob)])
    assert ([e.what for e in edits], conflicts) == (["delete", "merge", "redraw"], [])
    outcome = command(base, "--apply", log_of(ann), log_of(bob))
    assert outcome.exit_code == 0, outcome.output
    labels = on_disk(base)
    assert set(np.unique(labels)) == {0, 2, 4, 5, 6, 7, 8}
    assert pending_edits(base) == {}
    assert table(base)["seam"].eq("edited").sum() == 2
    # The same logs again say nothing new.
    again = command(base, "--apply", log_of(bob), log_of(ann))
    assert (again.exit_code, again.output.strip()) == (0, "no edits to apply")
    assert {edit.who for edit in Editor(base, "one").log} == {"ann", "bob"}


def test_edits_of_the_same_cell_that_differ_are_left_out_and_listed(base: Path) -> None:
    ann, bob = reviewer(base, "ann"), reviewer(base, "bob")
    ann.delete(1)
    ann.delete(5)
    bob.redraw(1, (6, 6), SQUARE, 0, 0)
    bob.redraw(1, (7, 7), SQUARE, 0, 0)
    bob.delete(6)
    edits, conflicts = merge_logs([log_of(ann), log_of(bob)])
    assert [edit.labels for edit in edits] == [[5], [6]]
    assert {conflict.labels for conflict in conflicts} == {(1,)}
    outcome = command(base, "--apply", log_of(ann), "--apply", log_of(bob))
    assert outcome.exit_code == 1
    assert outcome.output.count("conflict, left out") == 2
    assert "both touch cell 1" in outcome.output
    assert set(np.unique(on_disk(base))) == {0, 1, 2, 3, 4, 7, 8}


def test_what_builds_on_a_conflict_is_left_out_too(base: Path) -> None:
    ann, bob = reviewer(base, "ann"), reviewer(base, "bob")
    ann.delete(1)
    bob.merge([2, 1])
    bob.add((21, 60), SQUARE)
    bob.merge([3, 2])
    bob.redraw(4, (5, 55), np.ones((15, 20), bool), 0, 0)
    bob.delete(8)
    edits, conflicts = merge_logs([log_of(ann), log_of(bob)])
    assert [edit.what for edit in edits] == ["add", "delete"]
    (last,) = (conflict for conflict in conflicts if conflict.follows)
    assert last.text.startswith("redraw 3, 4 (bob")
    assert "builds on merge 2, 3 (bob" in last.text


def test_pixels_that_both_change_are_a_conflict(base: Path) -> None:
    ann, bob, carl = (reviewer(base, who) for who in ("ann", "bob", "carl"))
    ann.add((21, 0), SQUARE)
    bob.add((24, 3), SQUARE)
    carl.add((21, 20), SQUARE)
    edits, conflicts = merge_logs([log_of(each) for each in (ann, bob, carl)])
    assert [edit.who for edit in edits] == ["carl"]
    assert "same pixels" in conflicts[0].text


def test_new_cells_of_two_reviewers_get_labels_of_their_own(base: Path) -> None:
    ann, bob = reviewer(base, "ann"), reviewer(base, "bob")
    assert ann.add((21, 0), SQUARE) == bob.add((21, 20), SQUARE, class_=2) == 9
    bob.redraw(9, (21, 21), SQUARE, 0, 0)
    assert command(base, "--apply", log_of(ann), log_of(bob)).exit_code == 0
    labels = on_disk(base)
    assert (labels[21:27, 0:6] == 9).all()
    assert (labels[21:27, 21:27] == 10).all()
    assert table(base).loc[[9, 10], "class"].tolist() == [1, 2]
    # What the second one does later is about the label that the cell has got.
    bob.delete(9)
    assert command(base, "--apply", log_of(bob)).exit_code == 0
    assert not (on_disk(base) == 10).any()
    assert (on_disk(base) == 9).sum() == 36


def test_the_same_edit_of_both_counts_once(base: Path) -> None:
    ann, bob = reviewer(base, "ann"), reviewer(base, "bob")
    for each in (ann, bob):
        each.delete(3)
        each.mark(4, "accept")
    bob.add((8, 45), SQUARE)
    edits, conflicts = merge_logs([log_of(ann), log_of(bob)])
    assert ([edit.what for edit in edits], conflicts) == (["delete", "accept", "add"], [])


def test_what_one_takes_back_of_a_common_log_is_taken_back(base: Path) -> None:
    Editor(base, "one").delete(3)
    Editor(base, "one").delete(4)
    apply(base)
    ann, bob = reviewer(base, "ann"), reviewer(base, "bob")
    ann.undo()
    bob.delete(5)
    assert command(base, "--apply", log_of(bob), log_of(ann)).exit_code == 0
    assert set(np.unique(on_disk(base))) == {0, 1, 2, 4, 6, 7, 8}
    third = reviewer(base, "third")
    assert np.array_equal(view(third), on_disk(base))


def test_edits_of_the_results_stay_whatever_a_log_says(base: Path) -> None:
    bob = reviewer(base, "bob")
    bob.delete(2)
    bob.delete(7)
    Editor(base, "one").redraw(2, (6, 24), SQUARE, 0, 0)
    outcome = command(base, "--apply", log_of(bob))
    assert outcome.exit_code == 1
    assert (on_disk(base) == 2).sum() == 36
    assert not (on_disk(base) == 7).any()


def test_a_dry_run_lists_and_changes_nothing(base: Path) -> None:
    ann = reviewer(base, "ann")
    ann.delete(1)
    Editor(base, "one").delete(2)
    before = {p: p.stat().st_mtime_ns for p in base.rglob("*") if p.is_file()}
    outcome = command(base, "--apply", log_of(ann), "--dry-run")
    assert outcome.exit_code == 0
    assert "one: delete 1 (ann)" in outcome.output
    assert "one: 1 edit made before, not applied yet" in outcome.output
    assert before == {p: p.stat().st_mtime_ns for p in base.rglob("*") if p.is_file()}
    assert command(base).exit_code == 0
    assert set(np.unique(on_disk(base))) == {0, 1, 3, 4, 5, 6, 7, 8}


def test_logs_that_cannot_be_taken_cost_nothing(base: Path) -> None:
    ann = reviewer(base, "ann")
    ann.delete(1)
    ann.delete(2)
    path = log_of(ann)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    header = json.loads(lines[0])

    def other(number: int, **about: object) -> list[str]:
        changed = [
            json.loads(line) | (about if n == number else {}) for n, line in enumerate(lines)
        ]
        return [json.dumps(line) + "\n" for line in changed]

    edit = json.loads(lines[1])
    (change,) = edit["changes"]
    for text, said in [
        (other(0, image="won"), "no image won that is done. Did you mean one?"),
        (other(0, labels="other"), "made for other labels of one (key other, here"),
        ([lines[0], "{}\n", lines[2]], "line 2 is damaged"),
        ([lines[0], lines[1][:30] + "\n", lines[2]], "line 2 is damaged"),
        ([lines[0], lines[1], "{"], None),
        (lines[1:], "line 1 is damaged"),
        ([], "no log of edits"),
        (other(1, changes=[change | {"label": 77}]), "label 77 is not there"),
        (other(1, changes=[change | {"label": 2}]), "label 2 is not there"),
        (other(1, changes=[change | {"box": [0, 0, 99, 1]}]), "line 2 is damaged"),
        (other(1, changes=[change | {"z": 4}]), "outside the image"),
        (other(1, what="eat"), "line 2 is damaged"),
        (other(1, what="undo", target="x"), "line 2 is damaged"),
    ]:
        path.write_text("".join(text), encoding="utf-8")
        outcome = command(base, "--apply", path, "--dry-run")
        if said is None:
            assert outcome.exit_code == 0, outcome.output
            continue
        assert outcome.exit_code == 2, said
        assert said in outcome.output
        assert len(outcome.output.strip().splitlines()) == 1
    assert not log_of(Editor(base, "one")).exists()
    assert header["image"] == "one"
    with pytest.raises(CellsegError, match="no log of edits"):
        plan_taking(base, [base / "none.jsonl"])


def test_logs_of_other_labels_do_not_merge(base: Path, tmp_path: Path) -> None:
    ann, bob = reviewer(base, "ann"), reviewer(base, "bob")
    ann.delete(1)
    bob.delete(2)
    text = log_of(bob).read_text("utf-8").replace(bob.header.labels, "0" * 16)
    log_of(bob).write_text(text, encoding="utf-8")
    with pytest.raises(CellsegError, match="Only logs of the same labels can be merged"):
        merge_logs([log_of(ann), log_of(bob)])
