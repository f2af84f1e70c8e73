"""A network in training follows a larger one: what the teacher's losses say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cards import card_of
from torch import Tensor

from cellseg.models import CellsegError
from cellseg.models.dataset import batch
from cellseg.models.distil import Teacher
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.networks import build
from cellseg.models.settings import NetworkSettings, TrainSettings
from cellseg.models.train import Trainer
from cellseg.models.weights import save_weights
from learning import samples

SMALL = NetworkSettings(stages=2, width=16, pyramid_channels=16, box_features=16, mask_channels=8)
NARROW = SMALL.model_copy(
    update={"width": 8, "pyramid_channels": 8, "box_samples": 5, "mask_convolutions": 2}
)
SETTINGS = TrainSettings(
    images=("images",), labels=("labels",), network=NARROW, steps=20, batch=2, crop_px=64
)
ANSWERS = {"taught_objectness", "taught_box", "taught_class", "taught_region", "taught_mask"}


def network(settings: NetworkSettings, seed: int) -> MaskRCNN:
    torch.manual_seed(seed)
    return MaskRCNN(settings)


def taught(student: MaskRCNN, teacher: MaskRCNN) -> dict[str, Tensor]:
    """Return the teacher's losses after a step of a student in training."""
    images, targets = batch(samples(), SETTINGS, 0)
    asked = Teacher(student, teacher)
    student.train()
    student(images, targets)
    return asked.losses(images)


def teacher_file(folder: Path, settings: Any = SMALL) -> str:
    torch.manual_seed(1)
    path = folder / "teacher.safetensors"
    card = card_of(settings)
    save_weights(path, build(settings).state_dict(), card)
    return str(path)


def test_every_answer_of_the_teacher_counts_and_moves_the_student() -> None:
    student = network(NARROW, 0)
    losses = taught(student, network(SMALL, 1))
    assert set(losses) == ANSWERS
    for name, loss in losses.items():
        assert loss > 0, name
        student.zero_grad()
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        assert any(p.grad is not None and p.grad.any() for p in student.parameters()), name


def test_a_student_that_says_the_same_is_told_nothing_new() -> None:
    """Of the same weights boxes are no distance apart; masks and classes keep their own doubt."""
    student, teacher = network(SMALL, 0), network(SMALL, 0)
    for layer in student.modules():  # a step in training would use the batch's own statistics
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum, layer.track_running_stats = 0.0, False
    for layer in teacher.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    same, other = taught(student, teacher), taught(student, network(SMALL, 1))
    for name in ("taught_objectness", "taught_box", "taught_region"):
        assert same[name] < 1e-3 * other[name], name


def test_a_student_learns_what_its_teacher_says(tmp_path: Path) -> None:
    changes = {"teacher": teacher_file(tmp_path), "teaching": 2.0, "rate": 3e-3}
    trainer = Trainer(SETTINGS.model_copy(update=changes), samples())
    apart = []
    while not trainer.done:
        losses = trainer.step()
        apart.append(sum(losses[name] for name in ANSWERS))
    assert sum(apart[-4:]) < 0.8 * sum(apart[:4])


def test_the_teacher_stays_as_it_is_and_is_no_part_of_the_student(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"teacher": teacher_file(tmp_path)})
    trainer = Trainer(settings, samples())
    assert trainer.teacher is not None
    before = {key: value.clone() for key, value in trainer.teacher.network.state_dict().items()}
    trainer.step()
    after = trainer.teacher.network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert set(trainer.average) == set(network(NARROW, 0).state_dict())


def test_a_teacher_that_answers_other_questions_is_refused(tmp_path: Path) -> None:
    other = SMALL.model_copy(update={"anchors_px": (8.0, 16.0, 32.0)})
    settings = SETTINGS.model_copy(update={"teacher": teacher_file(tmp_path, other)})
    with pytest.raises(CellsegError, match="in anchors_px"):
        Trainer(settings, samples())
