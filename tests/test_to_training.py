"""What was corrected becomes a training set, a training takes it, and its weights run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from cards import card_of
from click.testing import CliRunner
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.models.settings import NetworkSettings
from cellseg.models.weights import save_weights
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.export import Export
from cellseg.pipeline.learn import Learning
from cellseg.pipeline.remeasure import RunAgain
from cellseg.pipeline.review.edits import Editor
from cellseg.pipeline.review.to_training import windows
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.training import read_fine_tuning
from cellseg.pipeline.training_set import TrainingSet
from synthetic import cells

CPU = Config(device="cpu")
SHAPE = (100, 120)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three images of two channels, of which the model sees the second; in one a cell is gone."""
    (tmp_path / "in").mkdir()
    for seed in range(3):
        image, _ = cells(seed, SHAPE, 12)
        pixels = np.stack([image // 2, image])
        tifffile.imwrite(
            tmp_path / "in" / f"f{seed}.tif",
            pixels,
            photometric="minisblack",
            metadata={"axes": "CYX"},
        )
    text = 'images = "in"\n[model]\nname = "threshold"\nchannels = [1]\n'
    (tmp_path / "w.toml").write_text(text)
    assert not run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU).failed
    return tmp_path / "out"


def labels(results: Path, name: str) -> zarr.Array[Any]:
    found = zarr.open_array(results / "images" / name / "labels.zarr" / "cells" / "0", mode="r+")
    assert isinstance(found, zarr.Array)
    return found


def correct(results: Path, name: str, first: int = 1) -> NDArray[Any]:
    """Give a cell a straight edge, and measure again."""
    array = labels(results, name)
    pixels = np.asarray(array[:])
    rows = np.flatnonzero((pixels == first).any(axis=1))
    pixels[: rows[len(rows) // 2]][pixels[: rows[len(rows) // 2]] == first] = 0
    array[:] = pixels
    for _ in RunAgain(results, CPU).steps():
        pass
    return pixels


def exported(results: Path, **options: Any) -> TrainingSet:
    going = Export(results, "training", **options)
    list(going.steps())
    return TrainingSet(going.output)


def read(found: TrainingSet, part: str, name: str) -> NDArray[Any]:
    return np.asarray(tifffile.imread(found.folder / part / f"{name}.tif"))


def test_a_run_cannot_end_in_a_training(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "one.tif", np.zeros((40, 40), np.uint16))
    (tmp_path / "w.toml").write_text('images = "one.tif"', encoding="utf-8")
    workflow = read_workflow(tmp_path / "w.toml", ['output.export=["training"]'])
    with pytest.raises(CellsegError, match="of corrected cells"):
        run(workflow)


def test_corrected_fields_are_written_as_the_model_saw_them(results: Path) -> None:
    with pytest.raises(CellsegError, match="no image is corrected"):
        exported(results)
    pixels = correct(results, "f1")
    found = exported(results)
    assert found.names() == ["f1"]
    assert np.array_equal(read(found, "images", "f1"), cells(1, SHAPE, 12)[0])
    written = read(found, "labels", "f1")
    assert np.array_equal(written > 0, pixels > 0)
    assert len(np.unique(written)) == len(np.unique(pixels))
    assert exported(results, fields="done").names() == ["f0", "f1", "f2"]
    # What the user has put there stays; what was exported before goes.
    tifffile.imwrite(found.folder / "images" / "mine.tif", np.zeros(SHAPE, np.uint16))
    assert exported(results).names() == ["f1", "mine"]


def test_large_images_are_cut_around_what_was_corrected(results: Path) -> None:
    pixels = correct(results, "f1", first=3)
    found = exported(results, size=64)
    (name,) = found.names()
    stem, y, x = name.split("_")
    y0, x0 = int(y[1:]), int(x[1:])
    window = pixels[y0 : y0 + 64, x0 : x0 + 64]
    assert stem == "f1"
    assert np.array_equal(read(found, "labels", name) > 0, window > 0)
    assert (window == 3).sum() == (pixels == 3).sum()
    assert len(exported(results, size=64, fields="done").names()) > 4


def test_corrections_count_before_they_are_applied(results: Path) -> None:
    before = np.asarray(labels(results, "f2")[:])
    Editor(results, "f2", "me").delete([3])
    Editor(results, "f0", "me").mark(2, "accept")
    found = exported(results)
    assert found.names() == ["f2"]
    assert np.array_equal(read(found, "labels", "f2") > 0, (before > 0) & (before != 3))
    # Where a cell was removed is a place to look at, too.
    (name,) = exported(results, size=64).names()
    y0, x0 = (int(part[1:]) for part in name.split("_")[1:])
    y, x = (np.flatnonzero((before == 3).any(axis=axis)) for axis in (1, 0))
    assert y0 <= y[0] and y[-1] < y0 + 64 and x0 <= x[0] and x[-1] < x0 + 64  # noqa: PT018
    assert exported(results, fields="reviewed").names() == ["f0", "f2"]
    Editor(results, "f2", "me").change_class([5], 2)
    kinds = read(exported(results), "classes", "f2")
    assert set(np.unique(kinds[before == 5])) == {2}
    assert set(np.unique(kinds[(before > 0) & ~np.isin(before, (3, 5))])) == {1}


def test_windows_hold_every_box() -> None:
    random = np.random.default_rng(0)
    low = random.integers(0, 470, (200, 2))
    boxes = np.concatenate([low, low + random.integers(1, 30, (200, 2))], axis=1)
    found = list(windows(boxes, Box(0, 0, 500, 500), 100))
    assert len(found) < 60
    assert all(box.shape == (100, 100) for box in found)
    for y0, x0, y1, x1 in boxes.tolist():
        assert any(b.y0 <= y0 and b.x0 <= x0 and y1 <= b.y1 and x1 <= b.x1 for b in found)
    assert next(windows(boxes[:3], Box(0, 0, 60, 90), 100)) == Box(0, 0, 60, 90)


def weights(path: Path, **how: Any) -> Path:
    """Random weights of a tiny network."""
    network = NetworkSettings(
        stages=2, pyramid_channels=16, box_features=16, mask_channels=8, **how
    )
    from cellseg.models.networks import build

    card = card_of(
        network,
        name="tiny",
        normalise=read_workflow(path.parent / "w.toml").normalise,
        diameter_px=18.0,
        score=0.0,
    )
    save_weights(path, build(network).state_dict(), card)
    return path


def test_the_loop_from_review_to_a_run_with_new_weights(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("f0", "f1"):
        correct(results, name)
    start = weights(tmp_path / "tiny.safetensors")

    def cellseg(*arguments: str) -> str:
        done = CliRunner().invoke(main, [*arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert "3 images in" in cellseg("export", str(results), "--to", "training", "-o", "mine")
    small = ["--set", "steps=2", "--set", "batch=1", "--set", "crop_px=64"]
    cellseg("train", "--from", str(start), "mine", *small, "--device", "cpu")
    new = tmp_path / "training" / "mine" / "mine.safetensors"
    model = ["--set", "model.name=mask_rcnn", "--set", f"model.weights={new}"]
    (tmp_path / "n.toml").write_text('images = "in"\n[model]\nchannels = [1]\n')
    cellseg("run", "n.toml", *model, "-o", "again", "--device", "cpu")
    said = cellseg("compare", str(results), "again")
    assert "cells are only in A" in said
    assert (tmp_path / "again" / "differences.parquet").is_file()


def test_classes_of_some_images_are_written_for_all(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    correct(results, "f1")
    correct(results, "f0")
    Editor(results, "f2").change_class([5], 2)
    found = exported(results)
    assert [np.unique(read(found, "classes", f"f{n}")).tolist() for n in range(3)] == [
        [0, 1],
        [0, 1],
        [0, 1, 2],
    ]
    # Weights of one class learn from all of them; those of two, of which class they are.
    one = read_fine_tuning(found.folder, str(weights(tmp_path / "tiny.safetensors")))
    assert one.class_images == ()
    said = Learning(one, CPU).describe()
    assert said.endswith("; their classes are not learned: the network knows one")
    two = read_fine_tuning(found.folder, str(weights(tmp_path / "two.safetensors", classes=2)))
    assert two.class_images == (str(found.folder / "classes"),)
    learning = Learning(two, CPU)
    assert "classes" not in learning.describe()
    samples = (*learning.training, *learning.validation)
    kinds = [sample.classes for sample in samples if sample.name == "f2"]
    assert kinds[0] is not None
    assert kinds[0].max() == 2


def test_options_of_one_export_are_refused_by_others(results: Path) -> None:
    with pytest.raises(CellsegError, match="--size: means nothing to --to coco"):
        Export(results, "coco", size=64)
