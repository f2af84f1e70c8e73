"""`cellseg train` turns folders of images and labels into weights that a workflow can use."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from cellseg.models import CellsegError
from cellseg.models.settings import NetworkSettings, TrainSettings
from cellseg.models.weights import load_tensors, read_card
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.learn import Learning
from cellseg.pipeline.samples import read_samples
from cellseg.pipeline.stopping import Stopped, heeding
from cellseg.pipeline.training_set import TrainingSet
from synthetic import cells

CPU = Config(device="cpu")


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    """Five small annotated images, one named for validation."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for seed in range(5):
        image, labels = cells(seed, shape=(80, 90), count=8)
        tifffile.imwrite(tmp_path / "images" / f"f{seed}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"f{seed}.tif", labels.astype(np.uint16))
    (tmp_path / "val.txt").write_text("f3.tif\n")
    return TrainSettings(
        images=(str(tmp_path / "images"),),
        labels=(str(tmp_path / "labels"),),
        validation=str(tmp_path / "val.txt"),
        output=str(tmp_path / "training"),
        name="tiny",
        network=NetworkSettings(stages=2, pyramid_channels=16, box_features=16, mask_channels=8),
        steps=4,
        batch=1,
        crop_px=64,
        validate_every=2,
        checkpoint_every=2,
    )


def test_a_training_leaves_weights_that_run(settings: TrainSettings, tmp_path: Path) -> None:
    learning = Learning(settings, CPU)
    assert "4 images with 32 cells to train on, 1 to validate" in learning.describe()
    steps = list(learning.steps())
    assert [step.count for step in steps] == [1, 2, 3, 4]
    assert [step.validation is not None for step in steps] == [False, True, False, True]
    with learning.curve.csv_path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], bool(row["ap_0.5"])) for row in rows] == [
        ("1", False),
        ("2", True),
        ("3", False),
        ("4", True),
    ]
    assert float(rows[0]["loss"]) == pytest.approx(
        sum(float(v) for k, v in rows[0].items() if k.startswith("loss_")), rel=1e-3
    )
    assert learning.curve.picture_path.stat().st_size > 5000
    card = read_card(learning.weights_path)
    assert card.name == "tiny"
    assert 10 < card.diameter_px < 25
    text = f'images = "images"\n[model]\nweights = "{learning.weights_path}"\nscore = 0.0\n'
    (tmp_path / "w.toml").write_text(text)
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU)
    assert not result.failed


def test_an_interrupted_training_ends_in_the_same_weights(
    settings: TrainSettings, tmp_path: Path
) -> None:
    straight = Learning(settings.model_copy(update={"output": str(tmp_path / "straight")}), CPU)
    list(straight.steps())
    for step in Learning(settings, CPU).steps():
        if step.count == 3:
            break
    resumed = Learning(settings, CPU)
    assert resumed.trainer.count == 2
    list(resumed.steps())
    assert resumed.weights_path.read_bytes() == straight.weights_path.read_bytes()
    assert resumed.curve.csv_path.read_text() == straight.curve.csv_path.read_text()


def test_a_signal_stops_a_training_after_the_step_at_work(settings: TrainSettings) -> None:
    """A batch system sends it some time before it kills."""
    steps = Learning(settings, CPU).steps()
    with heeding():
        assert next(steps).count == 1
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGTERM"):
            next(steps)
    resumed = Learning(settings, CPU)
    assert resumed.trainer.count == 1
    assert [step.count for step in resumed.steps()] == [2, 3, 4]


def test_validation_images_are_never_trained_on(settings: TrainSettings) -> None:
    training, validation = read_samples(settings)
    assert [sample.name for sample in validation] == ["f3"]
    assert [sample.name for sample in training] == ["f0", "f1", "f2", "f4"]
    part = settings.model_copy(update={"validation": 0.4})
    training, validation = read_samples(part)
    assert len(validation) == 2
    assert not {s.name for s in training} & {s.name for s in validation}


def test_crops_of_one_image_are_on_one_side(settings: TrainSettings, tmp_path: Path) -> None:
    part = settings.model_copy(update={"validation": 0.4})
    for sources in ("aabbc", "aaaab", "abbbb", "abcde", "aaaaa"):
        TrainingSet(tmp_path).note({f"f{n}": source for n, source in enumerate(sources)})
        for seed in range(4):
            training, validation = read_samples(part.model_copy(update={"seed": seed}))
            sides = [{sources[int(s.name[1:])] for s in side} for side in (training, validation)]
            assert not sides[0] & sides[1] or sources == "aaaaa"
            assert 1 <= len(validation) <= 2
    TrainingSet(tmp_path).note({})


def test_what_does_not_fit_is_said_in_one_line(settings: TrainSettings, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("f9.tif\n")
    with pytest.raises(CellsegError, match="are no image here, as f9"):
        read_samples(settings)
    (tmp_path / "val.txt").write_text("f3.tif\n")
    tifffile.imwrite(tmp_path / "labels" / "f1.tif", np.zeros((5, 5), np.uint16))
    with pytest.raises(CellsegError, match="do not fit the image"):
        read_samples(settings)
    (tmp_path / "labels" / "f1.tif").unlink()
    with pytest.raises(CellsegError, match="no label image of that name"):
        read_samples(settings)


def test_fine_tuning_starts_from_weights_and_says_so(
    settings: TrainSettings, tmp_path: Path
) -> None:
    list(Learning(settings, CPU).steps())
    weights = str(tmp_path / "training" / "tiny.safetensors")
    update = {"start": weights, "output": str(tmp_path / "second"), "rate": 1e-6, "average": 0.0}
    second = settings.model_copy(update=update)
    learning = Learning(second, CPU)
    first = load_tensors(Path(weights))
    assert all(torch.equal(v, first[k]) for k, v in learning.trainer.average.items())
    steps = list(learning.steps())
    assert [step.count for step in steps] == [0, 1, 2, 3, 4]
    assert steps[0].validation_text is not None
    assert "loss" not in steps[0].validation_text
    card = read_card(learning.weights_path)
    assert card.training["start"] == weights
    # None of the steps found better ones than it started from.
    assert card.accuracy == steps[0].validation.accuracy  # type: ignore[union-attr]
    (before,) = re.findall(r"AP (\S+ / \S+ / \S+)", steps[0].validation_text)
    assert learning.outcome is not None
    assert learning.outcome.startswith(f"no better than {weights}, whose weights are kept: AP")
    assert before in learning.outcome
    # The same is told by one that goes on, and the opposite where the start was worse.
    resumed = Learning(second, CPU)
    assert resumed.outcome == learning.outcome
    worse = dict.fromkeys(card.accuracy, -1.0)
    learning.start_path.write_text(json.dumps(worse), encoding="utf-8")
    assert str(resumed.outcome).startswith(f"better than {weights}: AP")
    assert Learning(second, CPU, fresh=True).outcome is None
    other = second.network.model_copy(update={"mask_channels": 16})
    with pytest.raises(CellsegError, match=r"differs from \[network\] in mask_channels"):
        Learning(second.model_copy(update={"network": other}), CPU)


def test_classes_are_read_from_class_images(settings: TrainSettings, tmp_path: Path) -> None:
    (tmp_path / "classes").mkdir()
    for path in sorted((tmp_path / "labels").glob("*.tif")):
        labels = tifffile.imread(path)
        kinds = np.where(labels > 0, 1 + labels % 2, 0)
        tifffile.imwrite(tmp_path / "classes" / path.name, kinds.astype(np.uint8))
    network = settings.network.model_copy(update={"classes": 2})
    update = {"class_images": (str(tmp_path / "classes"),), "network": network}
    two = settings.model_copy(update=update | {"class_names": ("even", "odd")})
    training, _ = read_samples(two)
    for sample in training:
        assert sample.classes is not None
        present = np.unique(sample.labels[sample.labels > 0])
        assert sample.classes[present].tolist() == (1 + present % 2).tolist()
    learning = Learning(two, CPU)
    list(learning.steps())
    assert read_card(learning.weights_path).classes == ("even", "odd")
    kinds = tifffile.imread(tmp_path / "classes" / "f0.tif")
    for spoiled, words in (
        (kinds * 3, "the network knows 1 to 2"),
        (np.zeros_like(kinds), "has no class"),
        (kinds[:-1], "do not fit"),
    ):
        tifffile.imwrite(tmp_path / "classes" / "f0.tif", spoiled)
        with pytest.raises(CellsegError, match=words):
            read_samples(two)
    (tmp_path / "classes" / "f0.tif").unlink()
    with pytest.raises(CellsegError, match="no class image of that name"):
        read_samples(two)


def test_a_log_that_was_cut_off_in_mid_line_goes_on(settings: TrainSettings) -> None:
    learning = Learning(settings, CPU)
    for step in learning.steps():
        if step.count == 3:
            break
    with learning.curve.csv_path.open("a") as file:
        file.write("4,0.1")
    resumed = Learning(settings, CPU)
    list(resumed.steps())
    assert [row["step"] for row in resumed.curve.rows()] == ["1", "2", "3", "4"]
