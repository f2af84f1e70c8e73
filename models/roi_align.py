"""RoIAlign where nothing is learned: torchvision's on a GPU, several times faster on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag
from torchvision.ops import MultiScaleRoIAlign

AT_ONCE = 512
"""Regions whose weights are held at a time: some 5 MB."""


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
        return torch.cat(
            [
                self._of_image([level[number].float() for level in levels], own)
                for number, own in enumerate(boxes)
            ]
        )

    def _of_image(self, levels: list[Tensor], own: Tensor) -> Tensor:
        """Return (N, C, size, size) for the boxes of one image, of its levels (C, h, w)."""
        which = self.map_levels([own]) if len(levels) > 1 else own.new_zeros(len(own))
        size = self.output_size
        out = own.new_empty((len(own), size[0], size[1], len(levels[0])))
        for number, (level, scale) in enumerate(zip(levels, self.scales, strict=True)):
            here = torch.nonzero(which == number)[:, 0]
            rows = level.permute(1, 2, 0).reshape(-1, len(level))
            for part in torch.split(here, AT_ONCE):
                sums = _sums(own[part] * scale, level.shape[-2:], size, self.sampling_ratio)
                out[part] = embedding_bag(
                    sums[0], rows, per_sample_weights=sums[1], mode="sum"
                ).view(len(part), *out.shape[1:])
        return out.permute(0, 3, 1, 2)


def _sums(
    boxes: Tensor, shape: Sequence[int], size: Sequence[int], samples: int
) -> tuple[Tensor, Tensor]:
    """Return which positions, and how much of each, add up to each cell of the result.

    Two tensors (N x size x size, 4 x samples x samples).
    """
    x, across = _samples(boxes[:, 0], boxes[:, 2], shape[1], size[1], samples)
    y, down = _samples(boxes[:, 1], boxes[:, 3], shape[0], size[0], samples)
    positions = y[:, :, None, :, None] * shape[1] + x[:, None, :, None, :]
    weights = down[:, :, None, :, None] * across[:, None, :, None, :]
    return positions.flatten(0, 2).flatten(1), weights.flatten(0, 2).flatten(1)


def _samples(
    low: Tensor, high: Tensor, length: int, size: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Return the positions that the samples of an axis lie between, and their weights.

    Two tensors (N, size, 2 x samples). As torchvision has it: at least one
    position long, nothing beyond one position outside.
    """
    steps = (torch.arange(size * samples, dtype=low.dtype) + 0.5) / (size * samples)
    at = low[:, None] + steps * (high - low).clamp(min=1)[:, None]
    outside = (at < -1) | (at > length)
    at = at.clamp(0, length - 1)
    before = at.floor().clamp(max=length - 1)
    share = at - before
    positions = torch.stack([before, (before + 1).clamp(max=length - 1)], -1)
    weights = torch.stack([1 - share, share], -1).masked_fill(outside[..., None], 0) / samples
    shape = (len(low), size, 2 * samples)
    return positions.to(torch.int64).view(shape), weights.view(shape)
