"""The owner of a network: one thread at a time computes, with what others wait for in its batch.

On a GPU a tile alone leaves most of it idle, and threads that each ask for a tile would crowd
its memory. Here who comes first computes for all who wait, of any image; meanwhile the others
read the next tiles and paste masks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellseg.models.arithmetic import steady
from cellseg.models.errors import DeviceError

BATCH_PX = 2**23
"""Pixels of a batch to begin with: six tiles of 1152 px, of which four are taken."""

Seen = NDArray[np.float32]
Thing = TypeVar("Thing")


@dataclass(frozen=True, eq=False)
class Found:
    """What a network finds in an image, on the host.

    Parameters
    ----------
    boxes : float32 (N, 4) as x0, y0, x1, y1
        Over which the masks lie.
    scores : float32 (N,)
    labels : uint8 (N,)
    masks : N arrays, float32 (R, S)
        Probabilities.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.uint8]
    masks: Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class Network:
    """A network on its device: from images of one shape to what it finds in each.

    Parameters
    ----------
    module : callable
        A torch module, or what computes one; under the contract of
        `cellseg.models.mask_rcnn.MaskRCNN`.
    device, precision : str
        See `cellseg.models.load_model`.
    """

    module: Callable[[torch.Tensor], list[dict[str, Any]]]
    device: str
    precision: str
    _free: list[nn.Module] = field(default_factory=list, repr=False, compare=False)

    def __call__(self, images: Sequence[Seen]) -> list[Found]:
        """Return what is found in images (C, H, W) of one shape."""
        host = torch.from_numpy(np.stack(images))
        if self.device != "cpu":
            host = host.pin_memory()
        batch = host.to(self.device, non_blocking=True)
        with (
            torch.inference_mode(),
            steady(self.device),
            torch.autocast(
                self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bfloat16"
            ),
            self._replica() as module,
        ):
            found = module(batch.contiguous(memory_format=torch.channels_last))
            return [_on_host(each) for each in found]

    @contextmanager
    def _replica(self) -> Iterator[Callable[[torch.Tensor], list[dict[str, Any]]]]:
        """Give the network, or the same weights with all else their own, to one thread at a time.

        torchvision's detectors note things in themselves as they go, and tiles of
        several sizes may be at work in several threads. Not kept with the threads: what torch
        has in one that Qt ends would be freed where no Python can run.
        """
        module = self.module
        # What is no module of torch looks after its threads itself.
        if self.device != "cpu" or not isinstance(module, nn.Module):
            yield module
            return
        weights = {id(each): each for each in chain(module.parameters(), module.buffers())}
        with lent(self._free, lambda: deepcopy(module, weights)) as own:
            yield own


@contextmanager
def lent(free: list[Thing], make: Callable[[], Thing]) -> Iterator[Thing]:
    """Give one of the things that nobody uses, or a new one; it is free again afterwards."""
    try:
        own = free.pop()
    except IndexError:
        own = make()
    try:
        yield own
    finally:
        free.append(own)


def _on_host(found: dict[str, Any]) -> Found:
    """Copy what is found to the host, masks all at once where they are of one size."""
    masks = found["masks"]
    if isinstance(masks, torch.Tensor):
        plain = list(masks.float().cpu().numpy().reshape(-1, *masks.shape[-2:]))
    else:
        plain = [mask.float().cpu().numpy().reshape(mask.shape[-2:]) for mask in masks]
    return Found(
        # Masks lie over their boxes at any resolution: pasting them is the way back.
        found.get("mask_boxes", found["boxes"]).float().cpu().numpy(),
        found["scores"].float().cpu().numpy(),
        found["labels"].to(torch.uint8).cpu().numpy(),
        plain,
    )


@dataclass(eq=False)
class _Wanted:
    """An image that a thread waits for, and in the end what was found or went wrong."""

    image: Seen
    found: Found | None = None
    error: BaseException | None = None

    @property
    def settled(self) -> bool:
        return self.found is not None or self.error is not None


@dataclass(eq=False)
class Owner:
    """Computes for all threads that ask, in batches of a fixed size for each shape.

    A batch that is not full is filled up with nothing, so that its size, on which
    the order of a GPU's sums depends, does not follow from what else is there.

    Parameters
    ----------
    compute : callable
        From images (C, H, W) of one shape to what is found in each.
    pixels : int
        Most pixels in a batch; halved where the device's memory does not hold it.
    """

    compute: Callable[[Sequence[Seen]], list[Found]]
    pixels: int = BATCH_PX
    _waiting: deque[_Wanted] = field(default_factory=deque)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, image: Seen) -> Found:
        """Return what is found in an image (C, H, W), once its turn has come.

        Raises
        ------
        DeviceError
            If the device's memory does not hold it even alone.
        """
        wanted = _Wanted(image)
        self._waiting.append(wanted)
        while not wanted.settled:
            with self._turn:
                if not wanted.settled:
                    self._serve(self._take())
        if wanted.error is not None:
            raise wanted.error
        assert wanted.found is not None  # noqa: S101 - settled
        return wanted.found

    def size(self, shape: Sequence[int]) -> int:
        """Return how many images of a shape (C, H, W) are a batch: a power of two."""
        return 1 << max(0, (self.pixels // max(shape[1] * shape[2], 1)).bit_length() - 1)

    def _take(self) -> list[_Wanted]:
        """Take those off the queue that go with the one that has waited longest."""
        first = self._waiting[0]
        shape, size = first.image.shape, self.size(first.image.shape)
        chosen = [each for each in tuple(self._waiting) if each.image.shape == shape][:size]
        for each in chosen:
            self._waiting.remove(each)
        return chosen

    def _serve(self, batch: list[_Wanted]) -> None:
        """Compute a batch; where memory does not hold it, put it back and take less from now on."""
        shape = batch[0].image.shape
        size = self.size(shape)
        blank = np.zeros(shape, np.float32)
        images = [each.image for each in batch] + [blank] * (size - len(batch))
        try:
            found = self.compute(images)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if size == 1:
                _refuse(batch, shape)
            else:
                self.pixels = size * shape[1] * shape[2] // 2
                self._waiting.extendleft(reversed(batch))
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
            else:  # whose fault it is, shows alone
                for each in batch:
                    self._serve([each])
        else:
            for each, one in zip(batch, found, strict=False):
                each.found = one


def _refuse(batch: Sequence[_Wanted], shape: Sequence[int]) -> None:
    error = DeviceError(
        f"The device's memory does not hold one window of {shape[1]} x {shape[2]} px as the network"
        ' sees it. Set [tiling] size to less, free the device, or set device = "cpu".'
    )
    for each in batch:
        each.error = error
