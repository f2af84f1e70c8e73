"""Region proposals: which anchors hold a cell, their boxes moved onto it, doubles dropped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from cellseg.models.nms import suppressed

LEAST_OBJECTNESS = 0.5
"""Nearly all anchors are background. From 0.02 to 0.7 the accuracy on the validation images is
the same to 0.001; how many regions a tile costs is not."""
PROPOSALS_OVERLAP = {"training": 0.7, "evaluation": 0.6}
"""IoU at which a proposal is dropped for a better one: a network learns from many views of a cell;
in use 0.6 leaves it a quarter fewer to look at, for the same accuracy."""
PIXELS_A_PROPOSAL = 64
"""Proposals grow with the image: room for a cell of 8 x 8 px next to the other."""
FEWEST_ALLOWED = 1000
"""Proposals that a small image may have."""
LARGEST_STEP = math.log(1000 / 16)
"""Logarithm of how much larger than its anchor a box may be, as in torchvision's `BoxCoder`."""
LEAST_SIDE = 1e-3
"""Px; what is thinner lies outside the image."""


@dataclass(frozen=True)
class Dense:
    """What a network computes at every position of B images, cells or not.

    Parameters
    ----------
    levels : mapping of str to float32 (B, C, h, w)
        Features that regions are cut from, finest first.
    objectness : sequence of float32 (B, A, h, w)
        Of each proposing level, whether an anchor holds a cell, as log odds.
    corrections : sequence of float32 (B, 4 A, h, w)
        How its box is to be moved.
    """

    levels: Mapping[str, Tensor]
    objectness: Sequence[Tensor]
    corrections: Sequence[Tensor]

    def of(self, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness (A, h, w) and corrections (4 A, h, w) of one image."""
        return [each[number] for each in self.objectness], [
            each[number] for each in self.corrections
        ]


class ProposalHead(RPNHead):  # type: ignore[misc]
    """torchvision's head with results in float32 at any precision.

    bfloat16 has eight significant bits: a box at x = 600 would move by up to 2 px.
    """

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness and box corrections of each level."""
        logits, corrections = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in corrections]


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """torchvision's anchors in float32, whatever the precision of the features."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Move the anchors to the features' device, and leave their type."""
        del dtype
        super().set_cell_anchors(torch.float32, device)


class RegionProposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's proposals, which in use look at the few anchors that may hold a cell first.

    torchvision's own move, sort and compare the boxes of all anchors, some 400,000 a
    megapixel, which takes as long as the network.
    """

    def propose(
        self, objectness: Sequence[Tensor], corrections: Sequence[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """Return the boxes of an image that may hold a cell, float32 (N, 4), best first.

        Parameters
        ----------
        objectness, corrections
            Of each level; see `Dense`.
        size : (H, W)
            Of the image.
        """
        allowed = max(FEWEST_ALLOWED, size[0] * size[1] // PIXELS_A_PROPOSAL)
        self.anchor_generator.set_cell_anchors(torch.float32, objectness[0].device)
        levels = zip(objectness, corrections, self.anchor_generator.cell_anchors, strict=True)
        parts = [_of_level(*level, size, allowed) for level in levels]
        boxes, odds = (torch.cat(each) for each in zip(*parts, strict=True))
        groups = torch.cat(
            [torch.full_like(part[1], n, dtype=torch.int64) for n, part in enumerate(parts)]
        )
        wide = ((boxes[:, 2:] - boxes[:, :2]) >= LEAST_SIDE).all(1)
        boxes, odds, groups = boxes[wide], odds[wide], groups[wide]
        kept = suppressed(boxes, odds, groups, PROPOSALS_OVERLAP["evaluation"])
        return boxes[kept[:allowed]]


def _of_level(
    odds: Tensor, corrections: Tensor, anchors: Tensor, size: tuple[int, int], allowed: int
) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 4) and log odds (N,) of the anchors of a level that may hold a cell."""
    count, height, width = odds.shape
    flat = odds.flatten()
    chosen = torch.nonzero(flat > math.log(LEAST_OBJECTNESS / (1 - LEAST_OBJECTNESS)))[:, 0]
    if len(chosen) > allowed:
        chosen = chosen[flat[chosen].topk(allowed).indices]
    anchor, place = chosen // (height * width), chosen % (height * width)
    steps = (size[0] // height, size[1] // width)
    y, x = place // width * steps[0], place % width * steps[1]
    moves = corrections.view(count, 4, -1)[anchor, :, place]
    base = anchors[anchor] + torch.stack([x, y, x, y], 1)
    return _moved(base, moves, size), flat[chosen]


def _moved(anchors: Tensor, moves: Tensor, size: tuple[int, int]) -> Tensor:
    """Return anchors (N, 4) moved as the network says, cut at the image.

    Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C.
    """
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + 0.5 * sides + moves[:, :2] * sides
    half = 0.5 * sides * torch.exp(moves[:, 2:].clamp(max=LARGEST_STEP))
    boxes = torch.cat([centres - half, centres + half], 1)
    limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes.clamp(min=0), limits)
