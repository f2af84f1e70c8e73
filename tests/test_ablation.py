"""The ablation benchmark: two variants of a few steps, boxes against boxes, what is left out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from synthetic import cells

# The benchmarks are not installed.
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import ablation, detections, variants


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small annotated images, one of them held out."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for seed in range(2):
        image, labels = cells(seed, shape=(64, 64), count=5)
        tifffile.imwrite(tmp_path / "images" / f"f{seed}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"f{seed}.tif", labels.astype(np.uint16))
    (tmp_path / "val.txt").write_text("f1.tif\n")
    return tmp_path


def command(folder: Path, *more: str) -> list[str]:
    options = {"--images": "images", "--labels": "labels", "--list": "val.txt", "--output": "out"}
    paths = [part for option, name in options.items() for part in (option, str(folder / name))]
    return [*paths, "--steps", "2", "--crop", "64", "--batch", "1", *more]


def test_two_variants_give_a_table_and_are_not_trained_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: folder / name for name in ("a.json", "a.md")}
    arguments = command(folder, "--variants", "no_masks,reference")
    arguments += ["--json", str(files["a.json"]), "--markdown", str(files["a.md"])]
    ablation.main(arguments)
    printed = capsys.readouterr().out
    assert "reference, seed 0: step 2 of 2, loss" in printed
    document = json.loads(files["a.json"].read_text())
    assert [row["variant"] for row in document["variants"]] == ["reference", "no_masks"]
    assert [row["against"] for row in document["contrasts"]] == ["reference"]
    assert "box AP -0.9 (38.2 to 37.3)" in files["a.md"].read_text()
    reference, boxes = document["runs"]
    assert boxes["ap_0.5"] is None
    assert 0 <= reference["ap_0.75"] <= reference["ap_0.5"] <= 1
    assert reference["parameters_m"] > boxes["parameters_m"] > 1
    for run in document["runs"]:
        assert set(run["at_score"]["boxes"]) == {f"{score:g}" for score in detections.SCORES}
        assert (run["conditions"]["trained"], run["conditions"]["evaluated"]) == (["f0"], ["f1"])
    written = {path: path.stat().st_mtime_ns for path in (folder / "out").iterdir()}
    assert {path.name for path in written} == {"reference_0.json", "no_masks_0.json"}
    ablation.main(arguments)
    assert "step 2 of 2" not in capsys.readouterr().out
    assert json.loads(files["a.json"].read_text()) == document
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").iterdir()} == written
    with pytest.raises(SystemExit, match="2"):
        ablation.main([*arguments, "--batch", "2"])
    assert "of other settings or images" in capsys.readouterr().err


def test_agnostic_masks_need_several_classes() -> None:
    names = [variant.name for variant in variants.chosen(None, 1)]
    assert variants.AGNOSTIC not in names
    assert [*variants.VARIANTS] == [variant.name for variant in variants.chosen(None, 3)]
    assert [each.name for each in variants.contrasts(["reference", "c4_roi_pool"])] == []
    with pytest.raises(CellsegError, match=r'no "softmx"\. Did you mean softmax\?'):
        variants.chosen("softmx", 1)


def test_every_variant_differs_from_the_one_it_is_set_against_in_one_setting() -> None:
    for variant in variants.contrasts(list(variants.VARIANTS)):
        own = variant.network(3).model_dump()
        other = variants.VARIANTS[variant.against].network(3).model_dump()
        assert len([key for key in own if own[key] != other[key]]) == 1, variant.name


def test_boxes_are_matched_one_to_one_and_as_many_as_possible() -> None:
    true = np.array([[0, 0, 10, 10], [0, 2, 10, 12]], float)
    found = np.array([[0, 1, 10, 11], [0, 0, 10, 10], [50, 50, 60, 60]], float)
    half, most, nearly = detections.match_boxes(found, true)
    assert (half.true_positive, half.false_positive, half.false_negative) == (2, 1, 0)
    assert half.matched_iou == pytest.approx(1 + 9 / 11)
    assert (most.true_positive, nearly.true_positive) == (2, 1)
    nothing = detections.match_boxes(np.zeros((0, 4)), np.zeros((0, 4)))
    assert [score.average_precision for score in nothing] == [1, 1, 1]


def test_made_up_classes_follow_the_area() -> None:
    labels = np.zeros((20, 20), np.int32)
    for label, side in ((1, 2), (2, 5), (4, 7)):
        labels[10 * (label // 2 % 2) :, 8 * (label // 4) :][:side, :side] = label
    sample = Sample("s", np.zeros((1, 20, 20), np.float32), labels[None])
    (classed,) = ablation.with_size_classes([sample], 3)
    assert classed.classes is not None
    assert classed.classes[[1, 2, 4]].tolist() == [1, 2, 3]
    assert classed.class_counts()[:5].tolist() == [0, 1, 1, 1, 0]


def test_the_evaluated_images_are_spread_over_all() -> None:
    empty = np.zeros((1, 1, 1), np.int32)
    samples = [Sample(str(i), empty.astype(np.float32), empty) for i in range(9)]
    assert [sample.name for sample in ablation.spread_out(samples, 3)] == ["0", "4", "8"]
    assert len(ablation.spread_out(samples, 20)) == 9
