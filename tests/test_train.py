"""Training learns, and an interrupted one ends in the very weights of an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cellseg.models import CellsegError
from cellseg.models.augment import augment
from cellseg.models.dataset import batch, target
from cellseg.models.settings import NetworkSettings, TrainSettings
from cellseg.models.train import Trainer
from learning import samples

SETTINGS = TrainSettings(
    images=("images",),
    labels=("labels",),
    network=NetworkSettings(stages=2, pyramid_channels=16, box_features=16, mask_channels=8),
    steps=6,
    batch=2,
    crop_px=64,
)


def test_resumed_training_equals_an_undisturbed_one_to_the_bit(tmp_path: Path) -> None:
    straight = Trainer(SETTINGS, samples())
    while not straight.done:
        straight.step()
    first = Trainer(SETTINGS, samples())
    for _ in range(3):
        first.step()
    first.save(tmp_path / "checkpoint.pt")
    resumed = Trainer(SETTINGS, samples())
    resumed.resume(tmp_path / "checkpoint.pt")
    assert resumed.count == 3
    while not resumed.done:
        resumed.step()
    for name, value in straight.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    Trainer(SETTINGS, samples()).save(tmp_path / "checkpoint.pt")
    other = Trainer(SETTINGS.model_copy(update={"rate": 1e-5}), samples())
    with pytest.raises(CellsegError, match="other settings"):
        other.resume(tmp_path / "checkpoint.pt")


def test_loss_falls_on_a_single_batch() -> None:
    settings = SETTINGS.model_copy(update={"steps": 30, "zoom": (1.0, 1.0), "rate": 3e-3})
    trainer = Trainer(settings, samples()[:1])
    losses = [sum(trainer.step().values()) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_batches_follow_from_seed_and_step() -> None:
    one, other = batch(samples(), SETTINGS, 5), batch(samples(), SETTINGS, 5)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[0], batch(samples(), SETTINGS, 6)[0])


@pytest.mark.parametrize("shape", [(20, 30), (64, 64), (200, 90)])
def test_augmented_crops_have_the_asked_size_and_keep_image_and_labels_together(
    shape: tuple[int, int],
) -> None:
    y, x = np.indices(shape)
    labels = ((y // 10 + x // 10) % 2).astype(np.int32)
    image = (10.0 * labels)[None].astype(np.float32)
    for seed in range(8):
        random = np.random.default_rng(seed)
        changed, (cut,), _ = augment(image, labels[None], 64, (0.7, 1.4), random)
        assert changed.shape == (1, 64, 64)
        assert changed.dtype == np.float32
        assert cut.shape == (64, 64)
        if cut.any() and not cut.all():
            assert changed[0][cut > 0].mean() > changed[0][cut == 0].mean() + 3


def test_targets_leave_out_slivers_and_count_from_one() -> None:
    labels = np.zeros((10, 12), np.int32)
    labels[2:6, 3:9] = 7
    labels[0, 0] = 9
    goal = target(labels[None])
    assert goal["boxes"].tolist() == [[2.5, 1.5, 8.5, 5.5]]
    assert goal["labels"].tolist() == [1]
    assert goal["masks"].sum() == 24
