"""Mask R-CNN (He et al., ICCV 2017) from torchvision's parts, set for cells.

What torchvision presets for photographs and cells need otherwise: anchors
from 6 px, no resizing to 800 px, as many proposals and detections as a tile
holds instead of 100, no ImageNet statistics, masks left box-sized.

Boxes inside the network are ``x0, y0, x1, y1`` in *pixel-centre* coordinates:
pixel i lies at i, so the box of a mask in columns a to b (half open) is a - 0.5 to
b - 0.5. RoIAlign reads pixel i at i, and only so are the mask targets not
half a pixel off, which for a cell 6 px across is a large part of it.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList

from cellseg.models.backbones import BACKBONES
from cellseg.models.region_proposals import (
    PROPOSALS_OVERLAP,
    Anchors,
    Dense,
    ProposalHead,
    RegionProposals,
)
from cellseg.models.regions import Regions, box_head, mask_head
from cellseg.models.roi_pool import region_pool
from cellseg.models.settings import NetworkSettings
from cellseg.models.timing import part

DETECTIONS_OVERLAP = 0.6
"""IoU of boxes at which a detection is dropped for a better one. Long cells side by side at 45
degrees have boxes that overlap far more than they do; which of two detections is a second guess is
decided by their masks (`cellseg.models.detector.separate`)."""
ASPECT_RATIOS = (0.5, 1.0, 2.0)
REGIONS_LEARNED = {"fpn": 128, "c4": 64}
"""Regions an image that a training step learns from. The heads take nearly all the time of the C4
form: the fewer there are the paper's (section 3.1)."""


class Predictor(FastRCNNPredictor):  # type: ignore[misc]
    """torchvision's, its results as float32, for the reason of `ProposalHead`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits and box corrections of each region."""
        logits, corrections = super().forward(x)
        return logits.float(), corrections.float()


class MaskRCNN(nn.Module):
    """The network, under torchvision's contract for detectors.

    In training mode ``forward(images, targets)`` returns the losses by name;
    in evaluation mode ``forward(images)`` returns a dict per image with
    ``boxes`` (N, 4), ``labels`` (N,), ``scores`` (N,) and ``masks``
    (N, 1, S, S), the probabilities of each mask over its box, S = 28 on a
    pyramid, 14 in the C4 form and 1 without masks.

    Images are one float tensor (B, C, H, W); targets hold ``boxes`` (M, 4),
    ``labels`` (M,) int64 from 1, and ``masks`` (M, H, W) uint8.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.backbone = BACKBONES[settings.form](settings)
        width = self.backbone.out_channels
        anchors = _anchors(settings, len(self.backbone.proposing))
        self.rpn = RegionProposals(
            anchors,
            ProposalHead(width, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 1000, "testing": 1000},
            post_nms_top_n={"training": 1000, "testing": 1000},
            nms_thresh=PROPOSALS_OVERLAP["training"],
        )
        pooled = self.backbone.pooled
        boxes, features = box_head(settings, width)
        masks, samples = mask_head(settings, width)
        self.roi_heads = Regions(
            region_pool(settings, pooled, settings.box_samples, settings.box_looks),
            boxes,
            Predictor(features, settings.classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=REGIONS_LEARNED[settings.form],
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.05,
            nms_thresh=DETECTIONS_OVERLAP,
            detections_per_img=sys.maxsize,  # as many as there are proposals
            # A mask's samples lie about one position of their level apart: one look each.
            mask_roi_pool=region_pool(settings, pooled, samples, 1) if settings.masks else None,
            mask_predictor=masks if settings.masks else None,
        )
        self.roi_heads.settings = settings

    def forward(
        self, images: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return losses (training) or detections (evaluation)."""
        if not self.training:
            with part("dense"):
                dense = self.dense(images)
            return self.found(dense, (int(images.shape[-2]), int(images.shape[-1])))
        height, width = int(images.shape[-2]), int(images.shape[-1])
        features = self.backbone(images)
        batch = ImageList(images, [(height, width)] * len(images))
        proposing = {name: features[name] for name in self.backbone.proposing}
        proposals, rpn_losses = self.rpn(batch, proposing, targets)
        _, roi_losses = self.roi_heads(features, proposals, batch.image_sizes, targets)
        losses: dict[str, Tensor] = {**rpn_losses, **roi_losses}
        return losses

    def dense(self, images: Tensor) -> Dense:
        """Return what is computed at every position of images (B, C, H, W), cells or not."""
        levels = self.backbone(images)
        objectness, corrections = self.rpn.head([levels[name] for name in self.backbone.proposing])
        # Regions are cut from them many times: once and for all as RoIAlign wants them.
        pooled = {
            name: levels[name].float().contiguous(memory_format=torch.channels_last)
            for name in self.backbone.pooled
        }
        return Dense(pooled, objectness, corrections)

    def found(self, dense: Dense, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """Return the detections in images of a size (H, W), from what `dense` returns."""
        count = len(dense.objectness[0])
        with part("proposals"):
            proposals = [self.rpn.propose(*dense.of(number), size) for number in range(count)]
        found: list[dict[str, Tensor]]
        with part("regions"):
            found, _ = self.roi_heads(dense.levels, proposals, [size] * count)
        return found

    def set_least_score(self, score: float) -> None:
        """Let detections below `score` go before their masks are computed.

        Changes no other detection: a lower score never suppresses a higher one.
        """
        self.roi_heads.score_thresh = score


def _anchors(settings: NetworkSettings, levels: int) -> AnchorGenerator:
    """Return anchors of two sizes a level, or of all sizes where there is one level only."""
    sizes = [(size, size * 2**0.5) for size in settings.anchors_px]
    if levels == 1:
        each = [tuple(size for pair in sizes for size in pair)]
    else:
        each = [sizes[min(level, len(sizes) - 1)] for level in range(levels)]
    return Anchors(sizes=tuple(each), aspect_ratios=(ASPECT_RATIOS,) * levels)
