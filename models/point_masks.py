"""Masks from points: the local shape at a cell's centre times the saliency over its box.

Wang et al., "CenterMask: single shot instance segmentation with point
representation", CVPR 2020, sections on local shape prediction, global saliency
generation and mask assembly. Coordinates are those of pixel centres: pixel i
lies at i, a feature at position k of stride s at s k, and a box from y0 to y1
has the height y1 - y0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from cellseg.models.backbones import twice
from cellseg.models.hourglass import convolution
from cellseg.models.network_settings import MaskBranches
from cellseg.models.points import convolved_at


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of some boxes, one after the other.

    Parameters
    ----------
    owner, y, x : int64 (P,)
        The box that each belongs to, and its place in the image, in px.
    corners, sizes : int64 (N, 2)
        First pixel and number of pixels of each box, y then x.
    """

    owner: Tensor
    y: Tensor
    x: Tensor
    corners: Tensor
    sizes: Tensor

    @property
    def counts(self) -> Tensor:
        """Number of pixels of each box, int64 (N,)."""
        return self.sizes.prod(1)


def pixels_of(boxes: Tensor, shape: tuple[int, int]) -> Pixels:
    """Return the pixels whose centres lie in boxes.

    Parameters
    ----------
    boxes : float32 (N, 4) as y0, x0, y1, x1
    shape : (H, W)
        Of the image; what lies outside is left out.
    """
    ends = boxes.new_tensor(shape)
    first = torch.minimum(torch.ceil(boxes[:, :2]).clamp(min=0), ends)
    last = torch.minimum(torch.floor(boxes[:, 2:]) + 1, ends)
    corners, sizes = first.long(), (last - first).clamp(min=0).long()
    counts = sizes.prod(1)
    owner = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), counts)
    starts = torch.cumsum(counts, 0) - counts
    number = torch.arange(len(owner), device=boxes.device) - starts[owner]
    width = sizes[owner, 1]
    y = corners[owner, 0] + torch.div(number, width, rounding_mode="floor")
    return Pixels(owner, y, corners[owner, 1] + number % width, corners, sizes)


def bilinear(maps: Tensor, index: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return values between the positions of maps, those at the border going on beyond it.

    Parameters
    ----------
    maps : float32 (M, h, w)
    index : int64 (P,)
        The map that each value is taken from.
    y, x : float32 (P,)
        Where, in positions of the map: 0 is the first one's centre.

    Returns
    -------
    float32 (P,)
    """
    height, width = maps.shape[1:]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    flat, first = maps.reshape(-1), index * (height * width)
    rows = [first + row.long() * width for row in (top, (top + 1).clamp(max=height - 1))]
    columns = [left.long(), (left + 1).clamp(max=width - 1).long()]
    upper = flat[rows[0] + columns[0]] * (1 - right) + flat[rows[0] + columns[1]] * right
    lower = flat[rows[1] + columns[0]] * (1 - right) + flat[rows[1] + columns[1]] * right
    return upper * (1 - down) + lower * down


def shape_logits(shapes: Tensor, boxes: Tensor, pixels: Pixels) -> Tensor:
    """Return local shapes resized to their boxes, at each pixel, float32 (P,).

    Parameters
    ----------
    shapes : float32 (N, S, S)
    boxes : float32 (N, 4) as y0, x0, y1, x1
    pixels : Pixels
        Of these boxes.
    """
    side = shapes.shape[-1]
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    y = (pixels.y - boxes[pixels.owner, 0]) / size[pixels.owner, 0] * side - 0.5
    x = (pixels.x - boxes[pixels.owner, 1]) / size[pixels.owner, 1] * side - 0.5
    return bilinear(shapes, pixels.owner, y, x)


def saliency_logits(saliency: Tensor, maps: Tensor, stride: int, pixels: Pixels) -> Tensor:
    """Return the saliency at each pixel, float32 (P,).

    Parameters
    ----------
    saliency : float32 (M, h, w)
        The maps of all images and classes.
    maps : int64 (N,)
        The map of each box.
    stride : int
        Px between its positions.
    pixels : Pixels
    """
    y, x = pixels.y.to(saliency.dtype) / stride, pixels.x.to(saliency.dtype) / stride
    return bilinear(saliency, maps[pixels.owner], y, x)


def assembled(*logits: Tensor | None) -> Tensor:
    """Return the mask's probability: the product of the branches' sigmoids, of those given."""
    product: Tensor | None = None
    for each in logits:
        if each is not None:
            chance = torch.sigmoid(each)
            product = chance if product is None else product * chance
    if product is None:
        raise ValueError("no branch is given")
    return product


def assembled_loss(shape: Tensor | None, saliency: Tensor | None, truth: Tensor) -> Tensor:
    """Return the binary cross-entropy of `assembled` at each pixel, from logits, so always finite.

    Parameters
    ----------
    shape, saliency : float32 (P,) or None
    truth : float32 (P,)
        1 in the cell, 0 outside.
    """
    given = [each for each in (shape, saliency) if each is not None]
    inside = torch.stack([logsigmoid(each) for each in given]).sum(0)
    outside = logsigmoid(-given[0])
    if len(given) == 2:
        # 1 - s g = (1 - s) + s (1 - g)
        outside = torch.logaddexp(outside, logsigmoid(given[0]) + logsigmoid(-given[1]))
    return -(truth * inside + (1 - truth) * outside)


class Shapes(nn.Module):
    """The local shape branch: features (B, C, h, w) to a mask of S x S logits at any position.

    Two layers as every head has, applied only where a shape is asked for.
    """

    def __init__(self, in_channels: int, settings: MaskBranches) -> None:
        super().__init__()
        self.side = settings.shape_px
        self.features = nn.Conv2d(in_channels, settings.head_channels, 3, padding=1)
        self.shape = nn.Linear(settings.head_channels, self.side**2)

    def forward(self, features: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the shapes at positions y, x (N,) of images (N,), float32 (N, S, S)."""
        chosen = convolved_at(self.features, features, image, y, x)
        logits: Tensor = self.shape(torch.relu(chosen)).float()
        return logits.reshape(-1, self.side, self.side)


class Finer(nn.Module):
    """Features at stride 4, enlarged and joined by those at stride 2: (B, width, 2 h, 2 w)."""

    def __init__(self, in_channels: int, fine_channels: int, width: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(in_channels, width, 3, padding=1)
        self.fine = nn.Conv2d(fine_channels, width, 3, padding=1)
        self.after = convolution(width, width, 3)

    def forward(self, fine: Tensor, features: Tensor) -> Tensor:
        """Return the features at stride 2."""
        joined = torch.relu(twice(self.before(features)) + self.fine(fine))
        return self.after(joined)  # type: ignore[no-any-return]


class Saliency(nn.Module):
    """The global saliency branch: features to logits (B, maps, h, w) of what belongs to a cell.

    Parameters
    ----------
    in_channels, fine_channels : int
        Channels at strides 4 and 2.
    settings : MaskBranches
        With a saliency stride of 2 the features are enlarged and joined by those at
        stride 2: a nucleus of 6 px is one and a half positions of stride 4 across.
    """

    def __init__(self, in_channels: int, fine_channels: int, settings: MaskBranches) -> None:
        super().__init__()
        width = settings.head_channels
        maps = settings.classes if settings.saliency_classes == "per_class" else 1
        self.finer: nn.Module | None = None
        if settings.saliency_stride == 2:
            width = max(width // 2, 16)
            self.finer = Finer(in_channels, fine_channels, width)
        else:
            self.before = nn.Conv2d(in_channels, width, 3, padding=1)
        self.map = nn.Conv2d(width, maps, 1)

    def forward(self, fine: Tensor, features: Tensor) -> Tensor:
        """Return the maps' logits at the saliency's stride."""
        if self.finer is not None:
            seen = self.finer(fine, features)
        else:
            seen = torch.relu(self.before(features))
        logits: Tensor = self.map(seen).float()
        return logits
