"""The slide that is drawn as it is read, its exact segmenter, and what checks the runs on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

# The benchmarks are not installed.
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import footprint, kills, scale, watched
from benchmarks.lazy_slide import LazyExact, Slide, draw, expected, lattice, read_lazy, truth
from cellseg.models import Instances
from cellseg.pipeline import Config, Workflow, run
from cellseg.pipeline.image import READERS, open_image
from cellseg.pipeline.tiles import Box

SLIDE = Slide(600, 700, seed=10, giant_px=45, empty_px=200)
WHOLE = Box(0, 0, SLIDE.height, SLIDE.width)
GIANT = 128 * 128
"""Grey levels above are those of giants."""
# What the import has added must not show in the messages that other tests read.
READERS.pop(".lazy", None)


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, ".lazy", read_lazy)


def test_a_window_shows_what_the_whole_slide_shows_there() -> None:
    whole = draw(SLIDE, WHOLE)

    @settings(max_examples=60)
    @given(st.tuples(st.integers(0, 599), st.integers(0, 699)), st.integers(1, 300))
    def holds(corner: tuple[int, int], side: int) -> None:
        y, x = corner
        box = Box(y, x, min(y + side, SLIDE.height), min(x + side, SLIDE.width))
        assert np.array_equal(draw(SLIDE, box), whole[box.slices])

    holds()


@pytest.mark.parametrize("seed", range(6))
def test_as_many_cells_as_said_each_in_one_piece(seed: int) -> None:
    slide = Slide(500 + 37 * seed, 640, seed, giant_px=45, empty_px=200)
    grey = draw(slide, Box(0, 0, slide.height, slide.width))
    levels = np.unique(grey[grey > 0])
    assert len(levels) == expected(slide)
    for level in levels:
        assert ndimage.label(grey == level, np.ones((3, 3)))[1] == 1


def test_far_from_the_corner_a_count_over_strips_is_that_of_the_pixels() -> None:
    box = Box(70_000, 99_000, 71_500, 100_000)
    slide = Slide(100_000, 100_000)
    cells = lattice(slide, box)
    inside = (cells.y >= box.y0) & (cells.y < box.y1) & (cells.x >= box.x0)
    assert np.isin(cells.grey[inside], draw(slide, box)).all()


def test_cells_touch_areas_are_empty_and_a_giant_lies_among_small_ones() -> None:
    grey = draw(SLIDE, WHOLE).astype(np.int64)
    touching = set()
    for one, other in ((grey[:, :-1], grey[:, 1:]), (grey[:-1], grey[1:])):
        meet = (one != other) & (one > 0) & (other > 0)
        touching |= set(one[meet].tolist()) | set(other[meet].tolist())
    assert len(touching) > 0.5 * expected(SLIDE)
    assert max(touching) > GIANT
    blocks = [Box(y, x, y + 160, x + 160) for y in (20, 220, 420) for x in (20, 220, 420)]
    assert 0 < sum(not grey[block.slices].any() for block in blocks) < len(blocks)


def test_the_file_is_read_as_any_image_is(tmp_path: Path) -> None:
    slide = Slide(1200, 1500, seed=2, giant_px=60)
    slide.write(tmp_path / "slide.lazy")
    image = open_image(tmp_path / "slide.lazy")
    assert image.pixels.shape == (1, 1, 1, 1200, 1500)
    assert image.channels == ("grey",)
    # Over the borders of four chunks.
    box = Box(900, 950, 1150, 1200)
    assert np.array_equal(image.read(0, 0, box, [0])[0], draw(slide, box))


def test_another_seed_is_another_slide() -> None:
    other = Slide(600, 700, seed=14, giant_px=45, empty_px=200)
    assert not np.array_equal(draw(SLIDE, WHOLE), draw(other, WHOLE))


def test_the_segmenter_finds_each_grey_level_of_each_plane() -> None:
    planes = [draw(SLIDE, Box(0, x, 300, x + 250)).astype(np.float32)[None] for x in (0, 250)]
    for found, plane in zip(LazyExact().segment(planes), planes, strict=True):
        wanted = Instances.from_labels(plane[0].astype(np.int32))
        assert np.array_equal(found.boxes, wanted.boxes)
        assert all(map(np.array_equal, found.masks, wanted.masks))
    (none,) = LazyExact().segment([np.zeros((1, 20, 30), np.float32)])
    assert len(none) == 0


def test_labels_count_up_by_the_centres_of_the_cells() -> None:
    labels = truth(SLIDE)
    assert np.array_equal(labels > 0, draw(SLIDE, WHOLE) > 0)
    centres = ndimage.center_of_mass(labels > 0, labels, np.arange(1, expected(SLIDE) + 1))
    assert centres == sorted(centres)
    with pytest.raises(AssertionError, match="repeat"):
        truth(Slide(10, 5000))


def test_a_run_gives_the_cells_of_the_slide_in_one_process_and_in_two(tmp_path: Path) -> None:
    SLIDE.write(tmp_path / "slide.lazy")
    for workers in (1, 2):
        document = {
            "images": [str(tmp_path / "slide.lazy")],
            "output": {"path": str(tmp_path / f"out{workers}")},
            "normalise": {"method": "none"},
            "tiling": {"size": 96, "halo": 32},
            "stitch": {"window_px": 512},
        }
        workflow = Workflow.model_validate_json(json.dumps(document))
        result = run(workflow, Config(device="cpu", workers=workers), LazyExact())
        assert not result.failed
        assert result.cells == expected(SLIDE)
        assert scale.check(SLIDE, result.folder / "images" / "slide", 1.0) == {
            "windows": 1,
            "wrong_windows": 0,
            "wrong_rows": 0,
            "check_s": pytest.approx(5, abs=5),
        }
        assert np.array_equal(result.image("slide").labels.read(0, 0, WHOLE), truth(SLIDE))


def _with(labels: NDArray[np.uint32], change: str) -> NDArray[np.uint32]:
    """Return the labels with one cell done wrong."""
    changed, one = labels.copy(), labels == 5
    row = int(np.flatnonzero(one.any(axis=1)).mean())
    if change == "missing":
        changed[one] = 0
    elif change == "merged":
        changed[one] = 6
    elif change == "halved":
        changed[:row][one[:row]] = labels.max() + 1
    elif change == "one pixel less":
        changed[tuple(np.argwhere(one)[0])] = 0
    elif change == "one pixel more":
        changed[tuple(np.argwhere(ndimage.binary_dilation(one) & (labels == 0))[0])] = 5
    return changed


def test_any_cell_done_wrong_is_noticed() -> None:
    labels = truth(SLIDE)
    assert scale.same_cells(labels, SLIDE, WHOLE)
    for change in ("missing", "merged", "halved", "one pixel less", "one pixel more"):
        assert not scale.same_cells(_with(labels, change), SLIDE, WHOLE), change


def test_rows_out_of_order_missing_or_mixed_are_counted(tmp_path: Path) -> None:
    right = {
        "label": [1, 2, 3, 4],
        "y_px": [1.0, 2.0, 2.0, 3.0],
        "x_px": [9.0, 1.0, 5.0, 2.0],
        "min_grey": [3.0, 4.0, 5.0, 6.0],
        "max_grey": [3.0, 4.0, 5.0, 6.0],
    }
    wrongs: list[tuple[dict[str, Any], int]] = [
        ({}, 0),
        ({"x_px": [9.0, 5.0, 5.0, 2.0]}, 1),
        ({"label": [1, 2, 4, 5]}, 2),
        ({"max_grey": [3.0, 4.0, 8.0, 6.0]}, 1),
    ]
    for change, wrong in wrongs:
        # Row by row: the order must hold between groups of rows too.
        pq.write_table(pa.table(right | change), tmp_path / "cells.parquet", row_group_size=1)
        assert scale.wrong_rows(tmp_path / "cells.parquet") == wrong


def test_exponents_tell_flat_from_proportional_growth() -> None:
    rows = [
        {"gigapixels": size, "seconds": 7 * size, "stitch_s": size**2, "peak_mb": 300.0, "mb": 0}
        for size in (0.1, 0.3, 1.0)
    ]
    assert scale.exponents(rows) == {"seconds": 1.0, "stitch_s": 2.0, "peak_mb": 0.0}
    assert scale.exponents(rows[:1]) == {}


def test_the_footprint_of_a_process_holds_its_peak_and_its_files(tmp_path: Path) -> None:
    code = "import sys, time; b = bytearray(10**8); del b; time.sleep(1)"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"12345")
    watch = footprint.Footprint(subprocess.Popen([sys.executable, "-c", code]), tmp_path)
    watch.to_the_end()
    assert watch.peaks[watch.process.pid] > 1e8  # though it was given back at once
    assert watch.workers(watch.peaks) == []
    assert (watch.files, watch.size) == (1, 5)


def test_a_watched_segmenter_notes_its_windows_and_changes_nothing(tmp_path: Path) -> None:
    planes = [draw(SLIDE, Box(0, x, 90, x + 80)).astype(np.float32)[None] for x in (0, 80)]
    model = watched.Watched(LazyExact(), str(tmp_path / "log"))
    found = [*model.segment(planes), *model.segment(planes[:1])]
    assert len(found[0]) == len(LazyExact().segment(planes)[0])
    noted = Counter((tmp_path / "log").read_text().split())
    assert noted == {watched.identity(planes[0]): 2, watched.identity(planes[1]): 1}
    assert watched.identity(planes[0]).startswith("90x80-")


def test_what_kills_compares_is_every_file_but_those_that_tell_of_the_run(tmp_path: Path) -> None:
    for name in ("run.json", "workflow.toml", "images/a/cells.parquet", "images/a/run.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert set(kills.digests(tmp_path)) == {"images/a/cells.parquet", "images/a/run.json"}


def test_kills_fails_if_bytes_differ_work_is_repeated_or_a_process_is_left() -> None:
    good = {
        "case": "slide",
        "digest": "a",
        "differing": 0,
        "left_behind": 0,
        "tiles_repeated": 3,
        "in_flight": 4,
    }
    assert kills.right([good, good | {"case": "plate", "digest": "b"}])
    bad: list[dict[str, Any]] = [
        {"differing": 1},
        {"left_behind": 1},
        {"tiles_repeated": 5},
        {"digest": "b"},
    ]
    for change in bad:
        assert not kills.right([good, good | change]), change
