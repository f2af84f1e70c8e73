"""Hourglasses: from an image to features at stride 4 that have seen far around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class HourglassShape:
    """How wide and deep an hourglass network is.

    Parameters
    ----------
    stem : int
        Channels at stride 2, before the first hourglass.
    widths : tuple of int
        Channels at strides 4, 8, 16, ...
    blocks : tuple of int
        Residual blocks at each of these strides, on each way.
    stacks : int
        Hourglasses one after the other.
    """

    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    stacks: int


SHAPES: dict[str, HourglassShape] = {
    "hourglass_small": HourglassShape(32, (64, 96, 128, 192), (1, 1, 1, 2), 1),
    "hourglass_104": HourglassShape(128, (256, 256, 384, 384, 384, 512), (2, 2, 2, 2, 2, 4), 2),
}
"""The one of 104 layers: Law and Deng, "CornerNet: detecting objects as paired keypoints", ECCV
2018, section 3.5, after Newell et al., ECCV 2016; the small one is cellseg's, for CPUs."""


def convolution(inner: int, outer: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size up to its stride, normalised, with ReLU."""
    layers = nn.Conv2d(inner, outer, size, stride, size // 2, bias=False), nn.BatchNorm2d(outer)
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: (B, inner, h, w) to (B, outer, h / stride, ...)."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(inner, outer, 3, stride)
        self.second = nn.Sequential(
            nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features after the block."""
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def residuals(inner: int, outer: int, count: int, stride: int = 1) -> nn.Sequential:
    """Return some blocks, of which the first one changes width and stride."""
    rest = [Residual(outer, outer) for _ in range(count - 1)]
    return nn.Sequential(Residual(inner, outer, stride), *rest)


class HourglassModule(nn.Module):
    """One hourglass: down by strides of 2 to the last width, and back up, with shortcuts.

    Parameters
    ----------
    widths, blocks : sequence of int
        See `HourglassShape`; from the level of this module on.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        (outer, inner), (here, below) = widths[:2], blocks[:2]
        self.beside = residuals(outer, outer, here)
        self.down = residuals(outer, inner, here, stride=2)
        self.lower: nn.Module
        if len(widths) > 2:
            self.lower = HourglassModule(widths[1:], blocks[1:])
        else:
            self.lower = residuals(inner, inner, below)
        back = [Residual(inner, inner) for _ in range(here - 1)]
        self.up = nn.Sequential(*back, Residual(inner, outer))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape; height and width must be multiples of its depth."""
        risen = interpolate(self.up(self.lower(self.down(x))), scale_factor=2.0, mode="nearest")
        return self.beside(x) + risen  # type: ignore[no-any-return]


class Hourglass(nn.Module):
    """Hourglasses one after the other, each refining the one before.

    Parameters
    ----------
    name : str
        One of `SHAPES`.
    in_channels : int

    Attributes
    ----------
    out_channels : int
        Channels at stride 4.
    fine_channels : int
        Channels at stride 2.
    stacks : int
        Hourglasses: in training, each one's features are given out to learn from.
    stride : int
        Images must be multiples of it.
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        shape = SHAPES[name]
        width = shape.widths[0]
        self.fine_channels, self.out_channels, self.stacks = shape.stem, width, shape.stacks
        self.stride = 4 * 2 ** (len(shape.widths) - 1)
        self.stem = convolution(in_channels, self.fine_channels, 7, stride=2)
        self.shrink = Residual(self.fine_channels, width, stride=2)
        self.hourglasses = nn.ModuleList(
            HourglassModule(shape.widths, shape.blocks) for _ in range(shape.stacks)
        )
        self.outs = nn.ModuleList(convolution(width, width, 3) for _ in range(shape.stacks))
        between = range(shape.stacks - 1)
        self.kept = nn.ModuleList(_merge(width) for _ in between)
        self.added = nn.ModuleList(_merge(width) for _ in between)
        self.between = nn.ModuleList(Residual(width, width) for _ in between)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return features at stride 2, and those at stride 4 of each hourglass (the last one's).

        Of all hourglasses in training, so that each learns; of the last one in evaluation.
        """
        fine = self.stem(image)
        x, found = self.shrink(fine), list[Tensor]()
        for number, (hourglass, out) in enumerate(zip(self.hourglasses, self.outs, strict=True)):
            found.append(out(hourglass(x)))
            if number + 1 < self.stacks:
                merged = self.kept[number](x) + self.added[number](found[-1])
                x = self.between[number](torch.relu(merged))
        return fine, found if self.training else found[-1:]


def _merge(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
