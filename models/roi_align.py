"""RoIAlign where nothing is learned: torchvision's on a GPU, several times faster on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag
from torchvision.ops import MultiScaleRoIAlign

AT_ONCE = 2048
"""Regions whose weights are held at a time: tens of megabytes at most."""


class RoIAlign(MultiScaleRoIAlign):  # type: ignore[misc]
    """RoIAlign (He et al., ICCV 2017, section 3) from the level that fits a region's size.

    The same numbers as torchvision's but for rounding. Its CPU code works
    through channels one by one on one thread; with the features of a position
    side by side in memory, a cell of the result is a weighted sum of a few
    rows, which torch computes on all threads.

    Parameters and calls are those of `torchvision.ops.MultiScaleRoIAlign`.
    """

    def forward(
        self,
        x: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Return (N, C, size, size) for the boxes of all images, in their order."""
        levels = [x[name] for name in self.featmap_names]
        if torch.is_grad_enabled() or any(level.device.type != "cpu" for level in levels):
            pooled: Tensor = super().forward(x, boxes, image_shapes)
            return pooled
        if self.scales is None or self.map_levels is None:
            super().forward(x, [each[:0] for each in boxes], image_shapes)  # finds both
        images = [
            self._of_image([level[number].float() for level in levels], own)
            for number, own in enumerate(boxes)
        ]
        return (torch.cat(images) if len(images) > 1 else images[0]).permute(0, 3, 1, 2)

    def _of_image(self, levels: list[Tensor], own: Tensor) -> Tensor:
        """Return (N, size, size, C) for the boxes of one image, of its levels (C, h, w)."""
        which = self.map_levels([own]) if len(levels) > 1 else own.new_zeros(len(own))
        out = own.new_empty((len(own), *self.output_size, len(levels[0])))
        for number, (level, scale) in enumerate(zip(levels, self.scales, strict=True)):
            here = torch.nonzero(which == number)[:, 0]
            if 0 < len(here) == len(own):  # as they mostly come; not copied once more
                return self._of_level(level, own * scale)
            if len(here):
                out[here] = self._of_level(level, own[here] * scale)
        return out

    def _of_level(self, level: Tensor, own: Tensor) -> Tensor:
        """Return (N, size, size, C) for boxes in positions of a level (C, h, w)."""
        rows = level.permute(1, 2, 0).reshape(-1, len(level))
        parts = []
        for boxes in torch.split(own, AT_ONCE):
            sums = _sums(boxes.numpy(), level.shape[-2:], self.output_size, self.sampling_ratio)
            positions, weights = map(torch.from_numpy, sums)
            parts.append(embedding_bag(positions, rows, per_sample_weights=weights, mode="sum"))
        cells = torch.cat(parts) if len(parts) > 1 else parts[0]
        return cells.view(len(own), *self.output_size, len(level))


def _sums(
    boxes: NDArray[np.float32], shape: Sequence[int], size: Sequence[int], samples: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return which positions, and how much of each, add up to each cell of the result.

    Two arrays (N x size x size, 4 x samples x samples). By numpy: here torch takes
    longer to call than to compute.
    """
    x0, y0, x1, y1 = np.ascontiguousarray(boxes.T)
    x, across = _samples(x0, x1, shape[1], size[1], samples)
    y, down = _samples(y0, y1, shape[0], size[0], samples)
    corner = (y * np.int32(shape[1]))[:, :, None, :, None] + x[:, None, :, None, :]
    # The four positions around a point; of a level that is one position wide, the one.
    beside, below = int(shape[1] > 1), shape[1] * int(shape[0] > 1)
    positions = np.empty((*corner.shape, 4), np.int32)
    weights = np.empty((*corner.shape, 4), np.float32)
    for number, step in enumerate((0, beside, below, below + beside)):
        np.add(corner, np.int32(step), out=positions[..., number])
        one, other = down[number // 2], across[number % 2]
        np.multiply(one[:, :, None, :, None], other[:, None, :, None, :], out=weights[..., number])
    bags = (corner[:, :, :, 0, 0].size, 4 * samples * samples)
    return positions.reshape(bags), weights.reshape(bags)


def _samples(
    low: NDArray[np.float32], high: NDArray[np.float32], length: int, size: int, samples: int
) -> tuple[NDArray[np.int32], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the position before each sample of an axis, and the weights of it and the next one.

    All (N, size, samples). As torchvision has it: at least one position long,
    nothing beyond one position outside.
    """
    steps = (np.arange(size * samples, dtype=np.float32) + np.float32(0.5)) / np.float32(
        size * samples
    )
    at = low[:, None] + steps * np.maximum(high - low, np.float32(1))[:, None]
    each = np.float32(1 / samples) * ((at >= -1) & (at <= length))
    at = np.clip(at, 0, length - 1)
    before = np.minimum(np.floor(at), np.float32(max(length - 2, 0)))
    share = at - before
    shape = (len(low), size, samples)
    weights = ((1 - share) * each).reshape(shape), (share * each).reshape(shape)
    return before.astype(np.int32).reshape(shape), weights
