"""The seams benchmark: its failures are those it says, and its judgement sees each of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from cellseg.models import Instances
from cellseg.models.errors import CellsegError
from cellseg.pipeline.tiles import Box
from synthetic import cells

# The benchmarks are not installed.
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import oracle, scenes, seams, windows
from benchmarks.scenes import EXPERIMENTS, Scene, scene


def squares() -> scenes.Labels:
    """Four cells of 8 x 8 px, the first two and the last two touching."""
    labels = np.zeros((20, 40), np.int32)
    for number, x in enumerate((2, 10, 22, 30), 1):
        labels[6:14, x : x + 8] = number
    return labels


SCENE = Scene((20, 40), Instances.from_labels(squares()))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_true_cell_is_one_piece_and_the_truth_itself_is_judged_right(name: str) -> None:
    here = scene(name)
    for mask in here.cells.masks:
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    truth = here.cells.disjoint().to_labels(here.shape).astype(np.int32)
    judged = oracle.judge(truth, here)
    assert judged.found == len(here.cells) > 500
    assert judged.exact.all()
    assert judged.misshapen == judged.doubled == judged.lost.sum() == judged.fused.sum() == 0


def test_the_monolayer_is_that_of_the_issue() -> None:
    truth = scene("exact").cells
    across = 2 * np.sqrt(truth.areas() / np.pi)
    assert len(truth) == 1849
    assert 23 < np.median(across) < 27
    touching = sum(
        scenes._touch(
            ((int(a[0]), int(a[1])), truth.masks[i], 1.0),
            ((int(b[0]), int(b[1])), truth.masks[i + 1], 1.0),
        )
        for i, (a, b) in enumerate(zip(truth.boxes[:40], truth.boxes[1:41], strict=True))
    )
    assert touching > 30


def test_the_giant_and_the_star_are_as_large_as_they_are_called() -> None:
    for name, least in (("one giant", 300), ("across nine tiles", 513)):
        here = scene(name)
        (large,) = here.large
        sides = here.cells.boxes[large, 2:] - here.cells.boxes[large, :2]
        assert (sides >= least).all()
        assert sides.prod() > 10 * np.delete(here.cells.areas(), large).max()


def test_judgement_sees_each_fault() -> None:
    truth = squares()
    lost = np.where(truth == 1, 0, truth)
    fused = np.where(truth == 2, 1, truth)
    halves = truth.copy()
    halves[6:10][halves[6:10] == 3] = 5
    grown = truth.copy()
    grown[5, 2:10] = 1
    cases = {
        "lost": (lost, [0, 0, 1, 0]),
        "fused": (fused, [0, 0, 0, 2]),
        "halves": (halves, [2, 1, 0, 0]),
        "grown": (grown, [1, 0, 0, 0]),
    }
    for name, (labels, expected) in cases.items():
        numbered = np.unique(labels, return_inverse=True)[1].reshape(20, 40).astype(np.int32)
        judged = oracle.judge(numbered, SCENE)
        got = [judged.misshapen, judged.doubled, int(judged.lost.sum()), int(judged.fused.sum())]
        assert got == expected, name
        assert judged.exact.sum() == 4 - max(expected[2], expected[3], expected[0] > 0), name


def test_judgement_of_nothing_found_is_all_lost() -> None:
    judged = oracle.judge(np.zeros((20, 40), np.int32), SCENE)
    assert judged.found == judged.misshapen == judged.doubled == 0
    assert judged.lost.all()
    assert not judged.exact.any()


def test_failures_are_drawn_for_each_window_and_seed_and_never_change() -> None:
    here = scene("5 % missed")
    one, other = Box(0, 0, 500, 500), Box(0, 0, 500, 501)

    def boxes(window: Box, seed: int) -> set[tuple[int, ...]]:
        return {tuple(box) for box in here.segment(window, seed).boxes.tolist() if box[3] < 500}

    assert boxes(one, 0) == boxes(one, 0)
    assert boxes(one, 0) != boxes(other, 0)
    assert boxes(one, 0) != boxes(one, 1)


def test_failures_are_as_frequent_as_they_are_called() -> None:
    plane = Box(0, 0, scenes.SIDE, scenes.SIDE)
    missed = 1849 - len(scene("5 % missed").segment(plane))
    fused = 1849 - len(scene("3 % fused").segment(plane))
    assert 0.03 < missed / 1849 < 0.07
    assert 0.02 < fused / 1849 < 0.04
    moved = scene("jittered by 1 px")
    judged = oracle.judge(moved.segment(plane).to_labels(moved.shape).astype(np.int32), moved)
    assert judged.misshapen == judged.doubled == judged.lost.sum() == 0
    assert judged.exact.sum() < 0.2 * 1849


def test_a_cell_cut_in_two_by_its_window_is_two_objects() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[4:16, 4:36] = 1
    labels[4:12, 8:32] = 0
    here = Scene((20, 40), Instances.from_labels(labels))
    assert len(here.segment(Box(0, 0, 20, 40))) == 1
    assert len(here.segment(Box(0, 0, 10, 40))) == 2


@pytest.mark.parametrize("name", ["exact", "one giant"])
def test_exact_tiles_give_every_cell_to_the_pixel(name: str) -> None:
    row = oracle.experiment(name, 256, 32, (101, 57))
    assert row["found"] == row["exact"] == row["cells"]
    assert not row["misshapen"] + row["doubled"] + row["lost_on_seams"] + row["lost_inside"]
    assert row["large_whole"] is (True if name == "one giant" else None)
    assert row["on_seams"] > 200


def test_missed_cells_are_rarer_on_seams_and_never_misshapen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oracle, "UNTILED_DRAWS", 2)
    row = oracle.experiment("5 % missed", 256, 64)
    inside = row["cells"] - row["on_seams"]
    assert row["misshapen"] == row["doubled"] == 0
    assert row["lost_on_seams"] / row["on_seams"] <= row["lost_inside"] / inside
    assert row["lost_inside"] < row["lost_untiled"]


def test_distance_to_the_nearest_border_between_cores() -> None:
    points = np.array([[10.0, 10.0], [60.0, 10.0], [90.0, 99.0], [50.0, 0.0]])
    # The image's own edge at 100 is no border.
    assert windows.border_distance(points, (100, 100), 50).tolist() == [40, 10, 40, 0]
    assert np.isinf(windows.border_distance(points, (100, 100), 200)).all()


def test_differing_cells_are_counted_on_both_sides_and_by_place() -> None:
    whole = np.zeros((100, 200), np.uint32)
    for number, x in enumerate((10, 40, 90, 150), 1):
        whole[40:60, x : x + 20] = number
    tiled = whole.copy()
    tiled[40:60, 90:96] = 0  # IoU 0.7 with itself before, its centre 3 px from the border
    tiled[tiled == 4] = 0
    got = windows.differing([tiled], [whole], 100, 0.8, 10)
    assert (got["near"], got["of_near"]) == (2, 2)
    assert (got["elsewhere"], got["of_elsewhere"]) == (1, 5)
    at_half = windows.differing([tiled], [whole], 100, 0.5, 10)
    assert (at_half["near"], at_half["elsewhere"]) == (0, 1)
    same = windows.differing([whole], [whole], 100, 0.8, 10)
    assert same["near"] == same["elsewhere"] == 0
    assert same["p"] == 1


def test_too_few_fields_and_too_small_a_slide_are_said(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), np.uint16))
    with pytest.raises(CellsegError, match=r"1 \.tif files; a mosaic takes 9"):
        windows.mosaics(tmp_path, tmp_path)
    with pytest.raises(CellsegError, match=r"--crop 11 takes twice that\. Give --crop 10 or less"):
        windows.crops(tmp_path / "a.tif", 11, tmp_path)


def test_the_command_prints_both_tables_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seams, "SETTINGS", ((512, 64),))
    monkeypatch.setattr(seams, "OFFSETS", ((0, 0),))
    fields = tmp_path / "fields"
    fields.mkdir()
    for seed in range(9):
        tifffile.imwrite(fields / f"{seed}.tif", cells(seed, shape=(64, 64), count=4)[0])
    path = tmp_path / "seams.json"
    arguments = [
        "--experiments",
        "rings",
        "--mosaic",
        str(fields),
        "--sizes",
        "96",
        "--halos",
        "32",
    ]
    seams.main([*arguments, "--json", str(path)])
    printed = capsys.readouterr().out
    assert "fields, mosaic: network in tiles against one window" in printed
    document = json.loads(path.read_text())
    (ring,) = document["oracle"]
    assert ring["exact"] == ring["cells"]
    (row,) = document["mosaic"]
    assert row["one_window"] > 20
    assert row["f1_0.5"] > 0.9
    assert set(row["differ_0.8"]) >= {"near", "elsewhere", "p"}
