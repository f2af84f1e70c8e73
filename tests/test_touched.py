"""Measuring again what edits have touched, and that alone, gives what measuring all gives."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline.measure import MEASUREMENTS
from cellseg.pipeline.review.edits import ApplyEdits, Editor, apply
from corrected import CPU, ran, results_of
from exact import Known
from synthetic import cells, discs

ALL = f"measure.groups={list(MEASUREMENTS)}".replace("'", '"')
FAST = "output.report=false", "output.overview=false"
SIZES = {"PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25}
STACK: dict[str, Any] = {"ome": True, "metadata": {"axes": "TZYX", **SIZES}}


def plane(folder: Path) -> Path:
    return results_of(folder, cells(4, (230, 260), 30)[1], ALL, *FAST)


def overlapping(folder: Path) -> Path:
    (folder / "in").mkdir()
    shape = 150, 170
    grey = np.random.default_rng(3).integers(1, 900, shape).astype(np.uint16)
    tifffile.imwrite(folder / "in" / "one.tif", grey)
    return ran(folder, Known(discs(5, shape, 25)), "tiling.skip_background=false", ALL, *FAST)


def stack() -> NDArray[np.uint16]:
    """Return cells of two time points in three planes, uint16 (2, 3, 90, 110)."""
    one, two = (cells(seed, (90, 110), 12)[1] for seed in (1, 2))
    return np.stack([[one, one, two * 0], [one * 0, two + (two > 0) * 50, one]]).astype(np.uint16)


def volumes(folder: Path) -> Path:
    return results_of(folder, stack(), "link.z=true", "track.enabled=true", ALL, *FAST, **STACK)


def planes(folder: Path) -> Path:
    return results_of(folder, stack(), "link.z=false", ALL, *FAST, **STACK)


SCENES: dict[str, Callable[[Path], Path]] = {
    "plane": plane,
    "overlapping": overlapping,
    "volumes": volumes,
    "planes": planes,
}


@pytest.fixture(scope="module", params=SCENES)
def base(request: pytest.FixtureRequest) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield SCENES[request.param](Path(folder))


def rows(results: Path) -> Any:
    """Return the table of the image; typed loosely, as pandas is."""
    return pq.read_table(results / "images" / "one" / "cells.parquet").to_pandas()


def apply_in(results: Path) -> set[str]:
    """Apply; return the stages that it took."""
    going = ApplyEdits(results, CPU, images=["one"])
    list(going.steps())
    assert going.ordered[0].reason is None
    return set(going.seconds.get("one", {}))


def check_against_whole(results: Path) -> None:
    """Apply the edits, and in a copy, of which it is not known what the table is of, all anew."""
    whole = results.with_name("whole")
    shutil.copytree(results, whole)
    for path in (whole / "images" / "one" / "labels.zarr").rglob("*"):
        os.utime(path)
    pending = Editor(results, "one").pending
    assert "scan" in apply_in(whole) or not pending
    assert "touched" in apply_in(results) or not pending
    pd.testing.assert_frame_equal(rows(results), rows(whole), check_exact=True)
    shutil.rmtree(whole)


KINDS = ("delete", "merge", "split", "redraw", "add", "class", "accept", "undo", "redo", "apply")
steps = st.lists(
    st.tuples(st.sampled_from(KINDS), *[st.integers(0, 10**4)] * 4), min_size=1, max_size=6
)


def edit(editor: Editor, kind: str, a: int, b: int, c: int, d: int) -> None:
    """Edit some cell at some place, if that can be."""
    times, depth, height, width = editor.shape
    t, z, corner = a % times, b % depth, (c % height, d % width)
    there = [label for label in range(1, editor.new_label()) if editor.sections(label)]
    one, two = there[a % len(there)], there[b % len(there)]
    mask = np.ones((2 + c % 19, 2 + d % 23), bool)
    try:
        if kind == "delete":
            editor.delete(one)
        elif kind == "merge":
            editor.merge([one, two])
        elif kind == "split":
            section = editor.sections(one)[0]
            middle = (section.box.y0 + section.box.y1) / 2
            editor.split_line(one, (middle, 0), (middle + 0.3, 1), section.t, section.z)
        elif kind == "redraw":
            section = editor.sections(one)[0]
            where = section.box.y0 + c % 9 - 4, section.box.x0 + d % 9 - 4
            editor.redraw(one, where, mask, section.t, section.z)
        elif kind == "add":
            editor.add(corner, mask, t, z, 1 + c % 3)
        elif kind == "class":
            editor.change_class(one, 1 + c % 3)
        elif kind == "accept":
            editor.mark(one, "accept")
        else:
            editor.undo() if kind == "undo" else editor.redo()
    except CellsegError:
        return  # nothing to do it to, or one cell cannot lie so: no trace is left


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
def test_any_edits_give_the_table_of_all_cells_measured(base: Path, steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        (Path(folder) / "in").symlink_to(base.parent / "in")
        results = Path(folder) / "out"
        shutil.copytree(base, results)
        # The copy was written anew: measured whole once, the table is known to be of its labels.
        Editor(results, "one").delete(2)
        apply(results)
        for kind, *numbers in steps:
            if kind == "apply":
                check_against_whole(results)
            else:
                edit(Editor(results, "one"), kind, *numbers)
        check_against_whole(results)


@pytest.mark.parametrize("group", ["neighbours", "ring", "background", "shape"])
def test_cells_beside_edited_ones_are_as_if_all_were_measured(tmp_path: Path, group: str) -> None:
    labels = cells(7, (230, 260), 30)[1]
    results = results_of(tmp_path, labels, f'measure.groups=["{group}"]', *FAST)
    before = rows(results).set_index("label")
    editor = Editor(results, "one")
    editor.delete(12)
    editor.redraw(20, (100, 200), np.ones((5, 30), bool), 0, 0)
    check_against_whole(results)
    after = rows(results).set_index("label")
    both = after.index.intersection(before.index).difference(editor.log[-1].labels)
    assert after.loc[both].equals(before.loc[both]) == (group == "shape")


def test_rows_of_cells_that_no_edit_touched_are_kept(tmp_path: Path) -> None:
    labels = cells(7, (230, 260), 30)[1]
    results = results_of(tmp_path, labels, *FAST)
    before = rows(results).set_index("label")
    tifffile.imwrite(tmp_path / "in" / "one.tif", labels.astype(np.uint16) + 500)
    Editor(results, "one").delete(12)
    edited = Editor(results, "one").redraw(20, (100, 200), np.ones((5, 30), bool), 0, 0)
    assert "touched" in apply_in(results)
    after = rows(results).set_index("label")
    (grey,) = [name for name in after if name.startswith("mean_")]
    new = after.index[after[grey] >= 500]
    assert set(edited.labels) & set(after.index) <= set(new)
    assert len(new) < 8
    kept = after.index.difference(new)
    assert after.loc[kept].equals(before.loc[kept])


def test_labels_that_another_program_has_changed_are_measured_whole(tmp_path: Path) -> None:
    results = results_of(tmp_path, cells(7, (120, 130), 12)[1], *FAST)
    before = rows(results).set_index("label")
    level = zarr.open_array(results / "images" / "one" / "labels.zarr" / "cells" / "0", mode="r+")
    pixels = np.asarray(level[:])
    pixels[pixels == 5] = 0
    level[:] = pixels
    Editor(results, "one").delete(2)
    assert "scan" in apply_in(results)
    assert sorted(set(before.index) - set(rows(results)["label"])) == [2, 5]
