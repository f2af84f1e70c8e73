"""CenterMask's mask branches on FCOS, a detector that takes every position for a point of a cell.

Wang et al., "CenterMask", CVPR 2020, section on generality; Tian et al., "FCOS: fully
convolutional one-stage object detection", ICCV 2019, with torchvision's parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.fcos import (
    FCOS,
    FCOSClassificationHead,
    FCOSHead,
    FCOSRegressionHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms

from cellseg.models.backbones import ResNetFPN
from cellseg.models.center_mask import Cells, MaskHeads
from cellseg.models.network_settings import CenterMaskFCOSNetwork
from cellseg.models.region_proposals import Anchors

STRIDE = 4
"""Of the finest level that proposes."""
REACH = 1.5
"""How many positions from a cell's centre a point is still one of the cell."""
TYPICAL_DISTANCE = 4.0
"""From a point to the sides of its cell, in strides of its level: where learning starts from."""
OVERLAP = 0.6
"""Of two boxes of one class that overlap by this IoU the better one is kept: FCOS finds a cell at
many points."""


class Towers(FCOSHead):  # type: ignore[misc]
    """torchvision's FCOS head, normalised over the channels of each position.

    Its own group normalisation takes the mean of the whole window: what is found
    in one place would depend on everything else that the window shows. Normalised
    by batch, the levels, which share the towers, would share one mean.
    """

    def __init__(self, settings: CenterMaskFCOSNetwork) -> None:
        width, count = settings.pyramid_channels, settings.convolutions
        super().__init__(width, 1, settings.classes, 1)
        norm = LayerNorm2d
        self.classification_head = FCOSClassificationHead(
            width, 1, settings.classes, count, norm_layer=norm
        )
        self.regression_head = FCOSRegressionHead(width, 1, count, norm_layer=norm)
        # Distances pass a ReLU: from 0, many would have no gradient to grow by.
        nn.init.constant_(self.regression_head.bbox_reg.bias, TYPICAL_DISTANCE)

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Return the logits of class and centre-ness and the boxes, float32 at any precision."""
        return {name: value.float() for name, value in super().forward(x).items()}


class _Matching:
    """What torchvision's matching of points and true boxes asks of its detector.

    It hands on which box each point was given, so that masks are taught at the same points.
    """

    center_sampling_radius = REACH

    def __init__(self, towers: Towers) -> None:
        self.towers = towers
        self.matched: list[Tensor] = []

    @property
    def head(self) -> _Matching:
        return self

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return FCOS's losses, and remember the matches."""
        self.matched = matched
        found: dict[str, Tensor] = self.towers.compute_loss(targets, outputs, anchors, matched)
        return found


class CenterMaskFCOS(nn.Module):
    """CenterMask on FCOS under the contract of `cellseg.models.center_mask.CenterMask`.

    Parameters
    ----------
    settings : CenterMaskFCOSNetwork
    """

    def __init__(self, settings: CenterMaskFCOSNetwork) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = ResNetFPN(settings)
        self.towers = Towers(settings)
        width = self.backbone.out_channels
        self.masks = MaskHeads(width, width, settings, width)
        levels = len(self.backbone.proposing)
        sizes = tuple((STRIDE * 2**level,) for level in range(levels))
        self.anchors = Anchors(sizes=sizes, aspect_ratios=((1.0,),) * levels)
        self.least = 0.05

    def set_least_score(self, score: float) -> None:
        """Let points below `score` go before their masks are assembled."""
        self.least = score

    def forward(
        self, images: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor | list[Tensor]]]:
        """Return losses (training) or detections (evaluation)."""
        levels = self.backbone(images)
        features = [levels[name] for name in self.backbone.proposing]
        shape = int(images.shape[-2]), int(images.shape[-1])
        anchors = self.anchors(ImageList(images, [shape] * len(images)), features)
        outputs = self.towers(features)
        maps = None
        if self.masks.saliency is not None:
            maps = self.masks.saliency(levels.get("fine", features[0]), features[0])
        if self.training and targets is not None:
            return self._losses(features, maps, outputs, anchors, targets)
        return [
            self._detections(features, maps, outputs, anchors[image], image, shape)
            for image in range(len(images))
        ]

    def _losses(
        self,
        features: list[Tensor],
        maps: Tensor | None,
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return FCOS's losses, and those of the masks at the points of each cell."""
        counts = [level.shape[-2] * level.shape[-1] for level in features]
        matching: Any = _Matching(self.towers)
        zero_based = [{**one, "labels": one["labels"] - 1} for one in targets]
        losses = FCOS.compute_loss(matching, zero_based, outputs, anchors, counts)
        matched = torch.stack(matching.matched)
        image, point = torch.nonzero(matched >= 0, as_tuple=True)
        owner = matched[image, point]
        firsts = torch.tensor([0, *(len(one["boxes"]) for one in targets)], device=owner.device)
        true = torch.cumsum(firsts, 0)[image] + owner
        boxes = torch.cat([one["boxes"] for one in targets])[:, [1, 0, 3, 2]]
        labels = torch.cat([one["labels"] for one in zero_based])
        cells = Cells(boxes[true], image, labels[true], true)
        shapes = self._shapes(features, image, point)
        named = {f"loss_{name}": value for name, value in losses.items()}
        return {**named, **self.masks.losses(shapes, maps, cells, targets)}

    def _shapes(self, features: Sequence[Tensor], image: Tensor, point: Tensor) -> Tensor | None:
        """Return the local shapes at points, numbered through all levels, in their order."""
        branch = self.masks.shapes
        if branch is None:
            return None
        shapes = features[0].new_zeros((len(point), branch.side, branch.side), dtype=torch.float32)
        first = 0
        for level in features:
            height, width = level.shape[-2:]
            here = torch.nonzero((point >= first) & (point < first + height * width))[:, 0]
            place = point[here] - first
            y = torch.div(place, width, rounding_mode="floor")
            shapes = shapes.index_put((here,), branch(level, image[here], y, place % width))
            first += height * width
        return shapes

    def _detections(
        self,
        features: Sequence[Tensor],
        maps: Tensor | None,
        outputs: dict[str, Tensor],
        anchors: Tensor,
        image: int,
        shape: tuple[int, int],
    ) -> dict[str, Tensor | list[Tensor]]:
        """Return what is found in one image of the batch; none is dropped for its number."""
        centred = torch.sigmoid(outputs["bbox_ctrness"][image])
        scores = torch.sqrt(torch.sigmoid(outputs["cls_logits"][image]) * centred)
        point, classes = torch.nonzero(scores >= self.least, as_tuple=True)
        score = scores[point, classes]
        regression = outputs["bbox_regression"][image][point]
        boxes = self.towers.box_coder.decode(regression, anchors[point])
        kept = batched_nms(boxes, score, classes, OVERLAP)
        point, classes, boxes = point[kept], classes[kept], boxes[kept]
        swap, first = [1, 0, 3, 2], torch.zeros_like(point)
        cells = Cells(boxes[:, swap], first, classes, first)
        own = [level[image : image + 1] for level in features]
        one = None if maps is None else maps[image : image + 1]
        masks, over = self.masks.masks(self._shapes(own, first, point), one, cells, shape)
        return {
            "boxes": boxes,
            "scores": score[kept],
            "labels": classes + 1,
            "masks": masks,
            "mask_boxes": over[:, swap],
        }
