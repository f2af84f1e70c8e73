"""The owner of a network: every thread gets its own answer, from batches of one size a shape."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cellseg.models import CellsegError, load_model
from cellseg.models.detector import Detector
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.owner import BATCH_PX, Found, Network, Owner
from cellseg.models.regions import PART, in_parts
from cellseg.models.settings import MaskRCNNSettings, NetworkSettings

Image = NDArray[np.float32]


def found_in(image: Image) -> Found:
    """Say of an image what is in it: its first pixel, as a score."""
    return Found(
        np.zeros((1, 4), np.float32), image[0, 0, :1], np.ones(1, np.uint8), [image[0, :1, :1]]
    )


class Device:
    """Computes, keeps a note of the batches, and holds so many pixels."""

    def __init__(self, pixels: int = 10**9) -> None:
        self.pixels = pixels
        self.batches: list[tuple[int, ...]] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, images: Sequence[Image]) -> list[Found]:
        self.free.wait(10)
        batch = np.stack(images)
        self.batches.append(batch.shape)
        if batch[:, 0].size > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [found_in(each) for each in images]


def image(value: float, side: int = 8) -> Image:
    return np.full((1, side, side), value, np.float32)


def ask(owner: Owner, images: Sequence[Image]) -> list[float]:
    """Ask for each image in a thread of its own, all at a time."""
    with ThreadPoolExecutor(len(images)) as threads:
        return [float(each.scores[0]) for each in threads.map(owner, images)]


def test_every_thread_gets_what_is_in_its_own_image() -> None:
    values = [float(value) for value in range(40)]
    images = [image(value, 8 if value % 3 else 16) for value in values]
    assert ask(Owner(Device(), pixels=4 * 64), images) == values


def test_those_who_wait_go_into_one_batch_and_the_rest_of_it_is_blank() -> None:
    device = Device()
    owner = Owner(device, pixels=4 * 64)
    device.free.clear()
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(owner, image(value)) for value in range(6)]
        while len(owner._waiting) < 5:  # one is being computed
            pass
        device.free.set()
        assert [float(each.result().scores[0]) for each in asked] == [0, 1, 2, 3, 4, 5]
    assert device.batches == [(4, 1, 8, 8)] * 3


@pytest.mark.parametrize(
    ("side", "size"), [(8, 4), (16, 1), (11, 2), (7, 4), (100, 1)], ids=lambda value: str(value)
)
def test_the_size_of_a_batch_follows_from_the_shape_alone(side: int, size: int) -> None:
    assert Owner(Device(), pixels=4 * 64 + 3).size((1, side, side)) == size


def test_a_batch_to_begin_with_holds_four_tiles() -> None:
    assert Owner(Device()).size((3, 1152, 1152)) == 4
    assert BATCH_PX < 1152**2 * 8


def test_where_memory_does_not_hold_a_batch_half_of_it_is_taken_from_then_on() -> None:
    device = Device(pixels=2 * 64)
    owner = Owner(device, pixels=8 * 64)
    values = [float(value) for value in range(12)]
    assert ask(owner, [image(value) for value in values]) == values
    sizes = [batch[0] for batch in device.batches]
    assert sizes[:3] == [8, 4, 2]
    assert set(sizes[3:]) == {2}


def test_a_window_that_memory_does_not_hold_alone_is_an_error_and_others_go_on() -> None:
    owner = Owner(Device(pixels=64), pixels=4 * 64)
    with pytest.raises(CellsegError, match=r"one window of 16 x 16 px .*\[tiling\] size"):
        owner(image(1, 16))
    assert float(owner(image(3)).scores[0]) == 3


def test_what_goes_wrong_is_told_to_each_who_waited_for_it() -> None:
    def broken(images: Sequence[Image]) -> list[Found]:
        raise RuntimeError(f"broken for {len(images)}")

    owner = Owner(broken, pixels=64)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken for 1"):
            owner(image(1))


def test_a_detector_finds_the_same_through_an_owner() -> None:
    torch.manual_seed(0)
    network = MaskRCNN(
        NetworkSettings(stages=2, pyramid_channels=16, box_features=16, mask_channels=8)
    )
    detector = Detector(network, network.backbone.stride, score=0.0, min_area_px=1)
    rng = np.random.default_rng(0)
    planes = [rng.random((1, 64, 64), np.float32) for _ in range(6)]
    alone = detector.segment(planes)
    compute = detector.compute
    detector.ask = Owner(lambda images: [compute([each])[0] for each in images], 4 * 64 * 64)
    with ThreadPoolExecutor(4) as threads:
        together = [
            each for (each,) in threads.map(lambda plane: detector.segment([plane]), planes)
        ]
    for one, other in zip(alone, together, strict=True):
        assert len(one) > 0
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(one.scores, other.scores)
        assert all(map(np.array_equal, one.masks, other.masks))


MEET = threading.Barrier(2, timeout=10)


class Noting(torch.nn.Module):
    """Notes the shape of what it sees, and answers from the note once another thread has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.seen = 0

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        self.seen = images.shape[-1]
        MEET.wait()
        score = torch.tensor([float(self.seen)]) * self.weight[0]
        return [
            {
                "boxes": torch.zeros(1, 4),
                "labels": torch.ones(1, dtype=torch.int64),
                "scores": score,
                "masks": torch.ones(1, 1, 1, 1),
            }
        ]


def test_threads_on_a_cpu_share_the_weights_of_a_network_and_nothing_else() -> None:
    module = Noting()
    network = Network(module, "cpu", "float32")
    with torch.no_grad():
        module.weight.fill_(2)
    with ThreadPoolExecutor(2) as threads:
        found = threads.map(network, [[image(0, side)] for side in (4, 8)])
        assert [float(each.scores[0]) for (each,) in found] == [8, 16]


def test_heads_take_regions_as_they_are_but_on_a_gpu() -> None:
    regions = torch.rand(PART + 5, 2, 3, 3)
    (part,) = in_parts(regions, training=False)
    assert part is regions


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_a_tile_is_the_same_whatever_is_in_its_batch(precision: str) -> None:
    detector = load_model(MaskRCNNSettings(), "cuda", precision)
    rng = np.random.default_rng(0)
    noise = rng.random((6, 1, 256, 256), np.float32)
    planes = [
        np.kron(rng.random((1, 32, 32), np.float32), np.ones((1, 8, 8), np.float32)) + each
        for each in noise / 8
    ]
    alone = [detector.segment([plane])[0] for plane in planes]
    with ThreadPoolExecutor(6) as threads:
        together = [
            each for (each,) in threads.map(lambda plane: detector.segment([plane]), planes)
        ]
    assert sum(map(len, alone)) > 0
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(one.scores, other.scores)
        assert all(map(np.array_equal, one.masks, other.masks))


def test_what_one_image_of_a_batch_makes_go_wrong_costs_the_others_nothing() -> None:
    def picky(images: Sequence[Image]) -> list[Found]:
        if any(each[0, 0, 0] == 13 for each in images):
            raise RuntimeError("not that one")
        return [found_in(each) for each in images]

    owner = Owner(picky, pixels=8 * 64)
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(owner, image(value)) for value in range(16)]
    assert [n for n, each in enumerate(asked) if each.exception() is not None] == [13]
