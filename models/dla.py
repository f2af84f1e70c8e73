"""DLA-34: deep layer aggregation, features of all depths merged step by step to stride 4.

Yu, Wang, Shelhamer, Darrell, "Deep layer aggregation", CVPR 2018: hierarchical
aggregation in trees (section 3.2), iterative aggregation upwards (section 3.1),
as a backbone of dense prediction (section 4.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cellseg.models.hourglass import convolution

CHANNELS = (16, 32, 64, 128, 256, 512)
"""At strides 1, 2, 4, ... 32."""
DEPTHS = (1, 1, 1, 2, 2, 1)
"""Convolutions of the first two levels, and the depth of the tree at each further one."""
FIRST = 2
"""The level at stride 4."""


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut that is given (B, outer, h, w)."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(inner, outer, 3, stride)
        self.second = nn.Sequential(
            nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        )

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return the features after the block."""
        return torch.relu(self.second(self.first(x)) + shortcut)


class Tree(nn.Module):
    """A tree of blocks whose root merges all of its branches.

    Parameters
    ----------
    depth : int
        1 has two blocks, each further one twice as many.
    inner, outer : int
        Channels.
    stride : int
    merged : int
        Channels that the root merges beside those of the last two branches.
    level_root : bool
        Whether the root merges what came in, too.
    """

    def __init__(
        self,
        depth: int,
        inner: int,
        outer: int,
        stride: int,
        *,
        merged: int = 0,
        level_root: bool = False,
    ) -> None:
        super().__init__()
        self.level_root, self.depth = level_root, depth
        merged += inner if level_root else 0
        self.shrink = nn.MaxPool2d(stride, stride) if stride > 1 else nn.Identity()
        self.one: Block | Tree
        self.two: Block | Tree
        if depth == 1:
            self.project = nn.Identity() if inner == outer else _project(inner, outer)
            self.one, self.two = Block(inner, outer, stride), Block(outer, outer)
            self.root = convolution(2 * outer + merged, outer, 1)
        else:
            self.one = Tree(depth - 1, inner, outer, stride)
            self.two = Tree(depth - 1, outer, outer, 1, merged=merged + outer)

    def forward(self, x: Tensor, branches: tuple[Tensor, ...] = ()) -> Tensor:
        """Return the root's features, of what came in and of earlier branches."""
        shrunk = self.shrink(x)
        if self.level_root:
            branches = (*branches, shrunk)
        if self.depth > 1:
            first = self.one(x)
            return self.two(first, (*branches, first))  # type: ignore[no-any-return]
        first = self.one(x, self.project(shrunk))
        second = self.two(first, first)
        return self.root(torch.cat([second, first, *branches], 1))  # type: ignore[no-any-return]


def _project(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer))


class Aggregate(nn.Module):
    """Iterative aggregation: features from coarse levels, merged one by one into a finer one.

    Parameters
    ----------
    outer : int
        Channels of the result.
    inner, factors : list of int
        Channels of each level, the finest first, and how much coarser than it each is.
    """

    def __init__(self, outer: int, inner: list[int], factors: list[int]) -> None:
        super().__init__()
        self.project = nn.ModuleList(convolution(width, outer, 3) for width in inner[1:])
        self.enlarge = nn.ModuleList(_enlarge(outer, factor) for factor in factors[1:])
        self.merge = nn.ModuleList(convolution(outer, outer, 3) for _ in inner[1:])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Return what is merged after each level, at the size of the first; last all of them."""
        merged = [levels[0]]
        steps = zip(levels[1:], self.project, self.enlarge, self.merge, strict=True)
        for level, project, enlarge, merge in steps:
            merged.append(merge(enlarge(project(level)) + merged[-1]))
        return merged


def _enlarge(width: int, factor: int) -> nn.ConvTranspose2d:
    """Return an enlargement that begins as the bilinear one, channel by channel."""
    layer = nn.ConvTranspose2d(
        width, width, 2 * factor, factor, factor // 2, groups=width, bias=False
    )
    line = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.copy_((line[:, None] * line[None]).expand_as(layer.weight))
    return layer


class DLA34(nn.Module):
    """DLA-34 with features aggregated to stride 4, without deformable convolutions.

    Parameters
    ----------
    in_channels : int

    Attributes
    ----------
    out_channels, fine_channels : int
        Channels at strides 4 and 2.
    stacks : int
        Always 1; see `cellseg.models.hourglass.Hourglass`.
    stride : int
        Images must be multiples of it.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels, self.fine_channels, self.stacks = CHANNELS[FIRST], CHANNELS[1], 1
        self.stride = 2 ** (len(CHANNELS) - 1)
        self.base = convolution(in_channels, CHANNELS[0], 7)
        self.start = convolution(CHANNELS[0], CHANNELS[0], 3)
        self.fine = convolution(CHANNELS[0], CHANNELS[1], 3, stride=2)
        self.trees = nn.ModuleList(
            Tree(DEPTHS[k], CHANNELS[k - 1], CHANNELS[k], 2, level_root=k > FIRST)
            for k in range(FIRST, len(CHANNELS))
        )
        widths = list(CHANNELS[FIRST:])
        self.upwards = nn.ModuleList()
        # From the coarsest pair of levels on, each step aggregates one level more.
        for k in range(len(widths) - 2, -1, -1):
            below = [widths[k], *([widths[k + 1]] * (len(widths) - 1 - k))]
            self.upwards.append(Aggregate(widths[k], below, [1] + [2] * (len(below) - 1)))
        steps = len(widths) - 1
        self.last = Aggregate(widths[0], widths[:steps], [2**k for k in range(steps)])

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return features at stride 2, and in a list those at stride 4."""
        fine = self.fine(self.start(self.base(image)))
        levels, x = [], fine
        for tree in self.trees:
            x = tree(x)
            levels.append(x)
        best, row = [levels[-1]], levels[-1:]
        for number, upwards in enumerate(self.upwards):
            finer = levels[len(levels) - 2 - number]
            row = upwards([finer, *row])
            best.insert(0, row[-1])
        return fine, [self.last(best[: len(levels) - 1])[-1]]
