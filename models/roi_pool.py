"""Cutting regions out of the levels of a pyramid: RoIAlign, or the coarser RoIPool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from cellseg.models.roi_align import RoIAlign
from cellseg.models.settings import NetworkSettings

CANONICAL_PX = 32
CANONICAL_LEVEL = 2
"""A box 32 px across is cut from stride 4 = 2 ** 2, one twice as large a level further up, as in
Lin et al., CVPR 2017, equation 1, with 32 px in place of ImageNet's 224 px at stride 16. A mask's
14 samples across then lie about one position of their level apart."""


class MultiScaleRoIPool(nn.Module):
    """RoIPool (Girshick, ICCV 2015) from the level that fits a region's size.

    Rounds a region to whole positions and takes the maximum in each of its
    cells. RoIAlign's better precision is the point of Mask R-CNN (section 3);
    this one is here to be compared with.

    Parameters
    ----------
    names : sequence of str
        Levels, finest first, each of twice the stride of the one before.
    size : int
        Positions across the result.
    """

    def __init__(self, names: Sequence[str], size: int) -> None:
        super().__init__()
        self.names = list(names)
        self.size = size
        self.output_size = (size, size)

    def forward(
        self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Return (N, C, size, size) for the boxes of all images, in their order."""
        image = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])
        regions = torch.cat([image, torch.cat(boxes)], 1)
        strides = [shapes[0][0] / features[name].shape[-2] for name in self.names]
        level = _level(torch.cat(boxes), strides)
        first = features[self.names[0]]
        pooled = first.new_zeros((len(regions), first.shape[1], self.size, self.size))
        for index, (name, stride) in enumerate(zip(self.names, strides, strict=True)):
            here = torch.nonzero(level == index)[:, 0]
            # Unlike RoIAlign's, torchvision's RoIPool knows no bfloat16.
            cut = roi_pool(features[name].float(), regions[here], self.size, 1 / stride)
            pooled = pooled.index_put((here,), cut.to(pooled.dtype))
        return pooled


def _level(boxes: Tensor, strides: Sequence[float]) -> Tensor:
    """Return the index into `strides` of the level each box is cut from."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1e-6).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_PX) + 1e-6)
    finest = torch.log2(torch.tensor(strides[0]))
    return (level - finest).clamp(0, len(strides) - 1).long()


def region_pool(
    settings: NetworkSettings, names: Sequence[str], size: int, sampling: int
) -> nn.Module:
    """Return the module that cuts regions out of levels `names`."""
    if settings.roi == "pool":
        return MultiScaleRoIPool(names, size)
    return RoIAlign(
        list(names),
        size,
        sampling_ratio=sampling,
        canonical_scale=CANONICAL_PX,
        canonical_level=CANONICAL_LEVEL,
    )
