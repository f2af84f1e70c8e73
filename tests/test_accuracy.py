"""The accuracy benchmark: pairs, splits, empty fields, and a run on a few small images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from cellseg.models import Instances, load_model
from cellseg.models.errors import CellsegError
from cellseg.models.settings import ThresholdSettings
from cellseg.pipeline.score import Score, match
from synthetic import cells

# The benchmarks are not installed.
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import accuracy, breakdown, empty_fields, pairs, worst
from benchmarks.breakdown import Cells, Outcome

Labels = NDArray[Any]

small = arrays(np.uint16, (4, 5), elements=st.integers(0, 4), fill=st.nothing())


def side(diameters: list[float], ious: list[float]) -> Cells:
    return Cells(np.arange(1, len(ious) + 1), np.array(diameters), np.array(ious))


def outcome(true: Cells, found: Cells, confidence: list[float], group: str = "g") -> Outcome:
    """An outcome whose scores are those of its cells."""
    scores = []
    for threshold in breakdown.IOUS:
        matched = true.iou[true.iou >= threshold]
        counts = len(matched), len(found.iou) - len(matched), len(true.iou) - len(matched)
        scores.append(Score(threshold, *counts, float(matched.sum())))
    return Outcome("i", group, tuple(scores), true, found, np.array(confidence), 500_000, 1.0)


@given(small, small)
def test_pairs_are_as_many_as_the_score_counts(labels: Labels, truth: Labels) -> None:
    found, true = breakdown.partners(labels, truth)
    for score in match(labels, truth, breakdown.IOUS):
        assert score.true_positive == np.count_nonzero(found.iou >= score.threshold)
        assert score.true_positive == np.count_nonzero(true.iou >= score.threshold)
        assert score.false_positive == np.count_nonzero(found.iou < score.threshold)
        assert score.matched_iou == pytest.approx(true.iou[true.iou >= score.threshold].sum())
    assert found.labels.tolist() == [value for value in np.unique(labels) if value]


def test_diameters_are_those_of_discs() -> None:
    truth = np.zeros((9, 9), np.int32)
    truth[1:5, 1:5] = 7
    _, true = breakdown.partners(np.zeros_like(truth), truth)
    assert true.labels.tolist() == [7]
    assert true.diameter_px[0] == pytest.approx(2 * np.sqrt(16 / np.pi))
    assert true.iou.tolist() == [0]


def test_sizes_count_found_cells_by_the_truth_and_false_ones_by_their_own() -> None:
    true = side([7.9, 8, 11.9, 45], [0.0, 0.6, 0.8, 0.95])
    found = side([8, 12, 44, 60, 3], [0.6, 0.8, 0.95, 0, 0])
    rows = {r["diameter_px"]: r for r in breakdown.by_size([outcome(true, found, [0.9] * 5)])}
    assert list(rows) == ["<8", "8-12", "<12", "12-20", "20-30", "30-45", ">=45"]
    assert list(rows["<8"].values()) == ["<8", 1, 0, 0, 0, 1]
    assert list(rows["8-12"].values()) == ["8-12", 2, 1, 0.5, 0, 0]
    assert list(rows["<12"].values()) == ["<12", 3, 2 / 3, 1 / 3, 0, 1]
    assert list(rows["20-30"].values()) == ["20-30", 0, None, None, None, 0]
    assert list(rows[">=45"].values()) == [">=45", 1, 1, 1, 1, 1]


def test_groups_pool_their_cells() -> None:
    whole, none = side([10] * 3, [0.8] * 3), side([10], [0])
    empty = side([], [])
    outcomes = [
        outcome(whole, whole, [0.9] * 3, "a"),
        outcome(none, empty, [], "b"),
        outcome(none, none, [0.9], "a"),
    ]
    first, second = breakdown.by_group(outcomes)
    assert (first["group"], first["images"], first["cells"]) == ("a", 2, 4)
    assert first["ap_0.5"] == first["ap_0.75"] == 3 / 5
    assert first["ap_0.9"] == 0
    assert first["f1"] == 3 / 4
    assert (second["group"], second["ap_0.5"]) == ("b", 0)
    total = breakdown.summary(outcomes)
    assert (total["images"], total["cells"], total["ap_0.5"]) == (3, 5, 3 / 6)
    assert total["image_ap_0.5"] == pytest.approx(1 / 3)
    assert total["mean_ap"] == pytest.approx(3 / 6 * 7 / 9)
    assert total["s_per_mpx"] == 2


def test_the_calibration_error_weighs_the_bins_by_their_objects() -> None:
    found = side([10] * 4, [0.9, 0, 0.7, 0.7])
    rows = breakdown.by_score([outcome(side([], []), found, [0.55, 0.55, 0.95, 1.0])])
    assert [row["score"] for row in rows] == ["0.5-0.6", "0.9-1"]
    assert [row["matched"] for row in rows] == [0.5, 1]
    assert breakdown.calibration_error(rows) == pytest.approx((0.05 + 0.025) / 2)
    nothing = outcome(side([10], [0]), side([], []), [])
    assert breakdown.calibration_error(breakdown.by_score([nothing])) is None


def test_empty_fields_are_seeded_and_of_every_kind() -> None:
    fields = dict(empty_fields.empty_fields(side=40))
    again = dict(empty_fields.empty_fields(side=40))
    other = dict(empty_fields.empty_fields(seed=1, side=40))
    assert list(fields) == list(empty_fields.KINDS)
    for kind, field in fields.items():
        assert (field.dtype.name, *field.shape) == ("uint16", 1, 40, 40)
        assert np.array_equal(field, again[kind])
        assert np.array_equal(field, other[kind]) == (kind == "constant")


def test_false_cells_are_counted_a_megapixel() -> None:
    mask = np.ones((4, 4), bool)

    def find(field: NDArray[np.uint16]) -> Instances:
        if np.ptp(field) == 0:
            return Instances.empty()
        return Instances.stack([((0, 0), mask, 0.7, 1), ((9, 9), mask, 0.9, 1)])

    rows = {row["field"]: row for row in empty_fields.false_cells(find, side=100)}
    assert list(rows["dust"].values()) == ["dust", 200, pytest.approx(0.9), pytest.approx(4.513, 3)]
    assert list(rows["constant"].values()) == ["constant", 0, None, None]
    assert rows["all"]["false_per_mpx"] == pytest.approx(200 * 9 / 10)


def test_segment_decides_what_a_model_asks_for_on_the_whole_image() -> None:
    image, truth = cells(3)
    model = load_model(ThresholdSettings())
    found = accuracy.segment(model, image[None])
    assert len(found) == pytest.approx(truth.max(), rel=0.2)
    assert len(accuracy.segment(model, np.full((1, 64, 64), 7, np.uint16))) == 0


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three images with their truth, the last without a cell."""
    for index, shape in enumerate([(128, 128), (128, 128), (96, 160)]):
        image, labels = cells(index, shape, 12 if index < 2 else 0)
        write(tmp_path / "images" / f"f.{index}.tif", image)
        write(tmp_path / "labels" / f"f.{index}.tif", labels)
    (tmp_path / "list.txt").write_text("f.0.tif\n\nf.2\n")
    return tmp_path


def write(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels)


def command(folder: Path, *more: str) -> list[str]:
    return ["--images", str(folder / "images"), "--labels", str(folder / "labels"), *more]


def test_a_run_prints_and_writes_what_it_measured(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: folders / name for name in ("a.json", "a.md", "worst.png")}
    arguments = command(folders, "--model", "threshold", "--no-empty")
    arguments += ["--json", str(files["a.json"]), "--markdown", str(files["a.md"])]
    accuracy.main([*arguments, "--worst", str(files["worst.png"])])
    printed = capsys.readouterr().out
    assert "128 x 128 px, 16-bit, cells 12-20 px" in printed
    assert "96 x 160 px, 16-bit, no cells" in printed
    document = json.loads(files["a.json"].read_text())
    (model,) = document["models"]
    assert (model["model"], model["empty_fields"]) == ("threshold", None)
    assert model["accuracy"]["images"] == 3
    assert model["accuracy"]["cells"] == sum(row["cells"] for row in model["by_image"])
    assert model["accuracy"]["ap_0.5"] > 0.8
    assert model["by_image"][2]["ap_0.5"] == 1
    assert list(model["ap"]) == [f"{iou:g}" for iou in breakdown.IOUS]
    assert {"processor", "cellseg"} <= document["machine"].keys() | document["versions"].keys()
    assert "| model | images | cells |" in files["a.md"].read_text()
    with Image.open(files["worst.png"]) as picture:
        assert picture.width == 3 * worst.PANEL + 2 * worst.GAP
        assert worst.PANEL * 2 < picture.height < worst.PANEL * 3
        colours = {colour for _, colour in picture.getcolors(2**24) or []}
    assert {worst.TRUTH, worst.MATCHED} <= colours


def test_a_list_and_groups_choose_and_sort(folders: Path) -> None:
    (folders / "groups.csv").write_text("name,group\nf.0.tif, one\nf.1,two\n")
    arguments = command(folders, "--model", "threshold", "--list", str(folders / "list.txt"))
    arguments += ["--no-empty", "--groups", str(folders / "groups.csv")]
    accuracy.main([*arguments, "--json", str(folders / "a.json")])
    (model,) = json.loads((folders / "a.json").read_text())["models"]
    assert [(r["image"], r["group"]) for r in model["by_image"]] == [
        ("f.0", "one"),
        ("f.2", "(no group)"),
    ]


def test_only_the_part_of_a_large_image_that_is_wrong_is_shown() -> None:
    wrong = np.zeros((worst.WINDOW + 100, 50), bool)
    wrong[-20:] = True
    rows, columns = worst._window(wrong)
    assert (rows, columns) == (slice(100, worst.WINDOW + 100), slice(0, worst.WINDOW))


def test_missed_and_false_cells_are_coloured() -> None:
    truth, labels = np.zeros((2, 40, 40), np.int32)
    truth[5:15, 5:15] = 1
    labels[25:35, 25:35] = 1
    found, true = breakdown.partners(labels, truth)
    case = worst.Case(outcome(true, found, [0.9]), truth, truth, labels)
    colours = {tuple(colour) for colour in worst.panels(case).reshape(-1, 3).tolist()}
    assert {worst.TRUTH, worst.MISSED, worst.FALSE} <= colours
    assert worst.MATCHED not in colours
    assert "1 true, 1 found, 1 missed, 1 false" in case.title


def test_images_that_cannot_be_scored_are_named(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = folders / "images", folders / "labels"
    (folders / "unknown.txt").write_text("f.0\nf.7.png\n")
    with pytest.raises(CellsegError, match=r"unknown\.txt: no image here is called f\.7\.png"):
        pairs.find_pairs(images, labels, folders / "unknown.txt")
    write(images / "alone.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(SystemExit, match="2"):
        accuracy.main(command(folders, "--model", "threshold"))
    assert "no label image for alone." in capsys.readouterr().err
    write(labels / "alone.tif", np.zeros((8, 9), np.uint8))
    with pytest.raises(CellsegError, match=r"alone \(image \(8, 8\), labels \(8, 9\) px\)"):
        pairs.find_pairs(images, labels)
    write(labels / "alone.tif", np.zeros((8, 8), np.float32))
    with pytest.raises(CellsegError, match=r"alone \(labels are float32, not integers\)"):
        pairs.find_pairs(images, labels)
    write(images / "alone.tif", np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(CellsegError, match=r"alone \(5 planes, wants one\)"):
        pairs.find_pairs(images, labels)


def test_settings_that_a_model_does_not_have_are_named() -> None:
    assert accuracy.settings_of("mask_rcnn", {"weights": "x", "score": None}).name == "mask_rcnn"
    with pytest.raises(CellsegError, match="threshold has no weights; it has name, channels"):
        accuracy.settings_of("threshold", {"weights": "nuclei"})
    with pytest.raises(CellsegError, match=r"mask_rcnn: score = 7: .*less than or equal to 1"):
        accuracy.settings_of("mask_rcnn", {"score": 7})


def test_models_are_called_by_their_weights() -> None:
    def named(*weights: str) -> list[str]:
        return accuracy.labels_of(
            [accuracy.settings_of("mask_rcnn", {"weights": each}) for each in weights]
        )

    assert named("nuclei", "b/new.safetensors") == ["nuclei", "new"]
    assert named("a/new.safetensors", "b/new.safetensors") == [
        "a/new.safetensors",
        "b/new.safetensors",
    ]
    assert accuracy.labels_of([ThresholdSettings()]) == ["threshold"]
