"""Cells as points: targets and losses of the centre, its offset and the cell's size.

Wang et al., "CenterMask", CVPR 2020, section on the pipeline, after Zhou et al., "Objects as
points", 2019, section 3, and Law and Deng, "CornerNet", ECCV 2018, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, linear, logsigmoid, pad

ALPHA, BETA = 2, 4
FAR = 1.5
"""Masks are learned over predicted boxes of up to so many times the true size."""
OVERLAP = 0.7
"""IoU that a box moved by less than the Gaussian's radius keeps with the true one."""


@dataclass(frozen=True, eq=False)
class Points:
    """The true cells of a batch, by the position of their centre.

    Parameters
    ----------
    image, y, x : int64 (N,)
        The image, and the position nearest to the centre of the cell's box.
    classes : int64 (N,)
        From 0.
    offsets, sizes : float32 (N, 2)
        From the position to the centre, and height and width, in units of `stride`; y first.
    boxes : float32 (N, 4)
        y0, x0, y1, x1 in px.
    stride : int
        Px between positions.
    """

    image: Tensor
    y: Tensor
    x: Tensor
    classes: Tensor
    offsets: Tensor
    sizes: Tensor
    boxes: Tensor
    stride: int

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of(
        cls, targets: Sequence[dict[str, Tensor]], shape: tuple[int, int], stride: int
    ) -> Points:
        """Return the cells of `cellseg.models.dataset.target` on maps of `shape` and `stride`."""
        counts = torch.tensor([len(one["boxes"]) for one in targets])
        boxes = torch.cat([one["boxes"] for one in targets])[:, [1, 0, 3, 2]]
        image = torch.repeat_interleave(torch.arange(len(targets)), counts).to(boxes.device)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride
        last = centres.new_tensor(shape) - 1
        position = torch.minimum(centres.round().clamp(min=0), last)
        return cls(
            image,
            position[:, 0].long(),
            position[:, 1].long(),
            torch.cat([one["labels"] for one in targets]) - 1,
            centres - position,
            (boxes[:, 2:] - boxes[:, :2]) / stride,
            boxes,
            stride,
        )

    def boxes_near(self, offsets: Tensor, sizes: Tensor) -> Tensor:
        """Return the boxes of predicted offsets and sizes (N, 2), kept near the true ones.

        Masks are learned over the boxes that they will be resized to: where those are
        off, a shape can make up for it. What is beyond `FAR` would only confuse.

        Returns
        -------
        float32 (N, 4)
            y0, x0, y1, x1 in px.
        """
        sizes = torch.minimum(torch.maximum(sizes, self.sizes / FAR), self.sizes * FAR)
        near = offsets.clamp(-0.5, 0.5) - self.offsets
        centres = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 + self.stride * near
        half = self.stride * sizes / 2
        return torch.cat([centres - half, centres + half], 1)


def convolved_at(
    convolution: nn.Conv2d, features: Tensor, image: Tensor, y: Tensor, x: Tensor
) -> Tensor:
    """Return a 3 x 3 convolution's values at some positions alone, far fewer than all.

    Parameters
    ----------
    convolution : Conv2d
        Of stride 1, padded by 1.
    features : (B, C, h, w)
    image, y, x : int64 (N,)
        The positions.

    Returns
    -------
    (N, D)
        D are the convolution's output channels.
    """
    around = torch.arange(3, device=y.device)
    rows, columns = y[:, None, None] + around[:, None], x[:, None, None] + around
    patches = pad(features, (1, 1, 1, 1))[image[:, None, None], :, rows, columns]
    weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)
    return linear(patches.flatten(1), weight, convolution.bias)


def radius(sizes: Tensor) -> Tensor:
    """Return how far, in whole positions, a box of height and width (N, 2) may be off, (N,).

    So far that two boxes still overlap by an IoU of `OVERLAP` wherever their corners went:
    both outwards, both inwards, or one of each. CornerNet, section 3.2.
    """
    total, area = sizes.sum(1), sizes.prod(1)
    moved = total - (total**2 - 4 * area * (1 - OVERLAP) / (1 + OVERLAP)).sqrt()
    inside = total - (total**2 - 4 * area * (1 - OVERLAP)).sqrt()
    outside = (total**2 + 4 * area * (1 - OVERLAP) / OVERLAP).sqrt() - total
    return torch.stack([moved / 2, inside / 4, outside / 4]).amin(0).floor()


def centre_target(points: Points, shape: tuple[int, int, int, int]) -> Tensor:
    """Return the map of centres, a Gaussian around each, the larger where two meet.

    Parameters
    ----------
    points : Points
    shape : (B, C, h, w)

    Returns
    -------
    float32 (B, C, h, w)
        1 at each centre.
    """
    target = points.sizes.new_zeros(shape)
    reach = radius(points.sizes)
    rows = torch.arange(shape[2], device=target.device)
    columns = torch.arange(shape[3], device=target.device)
    for k in range(len(points)):
        r = int(reach[k])
        y, x = int(points.y[k]), int(points.x[k])
        window = slice(max(y - r, 0), y + r + 1), slice(max(x - r, 0), x + r + 1)
        apart = (rows[window[0]] - y)[:, None] ** 2 + (columns[window[1]] - x)[None] ** 2
        bump = torch.exp(-apart / (2 * ((2 * r + 1) / 6) ** 2))
        here = target[int(points.image[k]), int(points.classes[k])][window]
        torch.maximum(here, bump, out=here)
    return target


def centre_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the modified focal loss over all positions, over the number of centres.

    Parameters
    ----------
    logits, target : float32 (B, C, h, w)
    """
    chance, centres = torch.sigmoid(logits), target == 1
    found = (1 - chance) ** ALPHA * logsigmoid(logits) * centres
    # Near a centre little is lost by taking the position for one.
    free = (1 - target) ** BETA * chance**ALPHA * logsigmoid(-logits) * ~centres
    return -(found + free).sum() / centres.sum().clamp(min=1)


def regression_loss(found: Tensor, truth: Tensor) -> Tensor:
    """Return the mean L1 distance of vectors (N, 2), summed over y and x; 0 without cells."""
    return l1_loss(found, truth, reduction="sum") / max(len(truth), 1)


def peaks(logits: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the positions that no neighbour exceeds, as many as there are: 3 x 3 maximum pooling.

    Parameters
    ----------
    logits : float32 (C, h, w)
    least : float
        Lower scores are left out.

    Returns
    -------
    scores : float32 (N,)
    classes, y, x : int64 (N,)
    """
    scores = torch.sigmoid(logits)
    highest = torch.nn.functional.max_pool2d(scores[None], 3, stride=1, padding=1)[0]
    classes, y, x = torch.nonzero((scores == highest) & (scores >= least), as_tuple=True)
    return scores[classes, y, x], classes, y, x
