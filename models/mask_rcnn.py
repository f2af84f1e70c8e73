"""Mask R-CNN (He et al., ICCV 2017) from torchvision's parts, set for cells.

What torchvision presets for photographs and cells need otherwise: anchors
from 8 px, no resizing to 800 px, as many proposals and detections as a tile
holds instead of 100, no ImageNet statistics, masks left box-sized.

Boxes inside the network are ``x0, y0, x1, y1`` in *pixel-centre* coordinates:
pixel i lies at i, so the box of a mask in columns a to b (half open) is a - 0.5 to
b - 0.5. RoIAlign reads pixel i at i, and only so are the mask targets not
half a pixel off, which for a cell 6 px across is a large part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from cellseg.models.backbones import ResNetFPN
from cellseg.models.settings import NetworkSettings

LEAST_OBJECTNESS = 0.1
"""Nearly all anchors are background. From 0.02 to 0.3 the accuracy on the validation images is
the same to 0.001; what a dense tile costs is not."""
ASPECT_RATIOS = (0.5, 1.0, 2.0)
MASK_SIZE = 28
PIXELS_A_PROPOSAL = 64
"""Proposals grow with the image: room for a cell of 8 x 8 px next to the other."""


class MaskHead(nn.Sequential):
    """Four 3 x 3 convolutions, an upsampling and a 1 x 1: (N, C, 14, 14) to (N, K, 28, 28) logits.

    In evaluation it works through `CHUNK` objects at a time: thousands of
    cells in a tile must not cost gigabytes.
    """

    CHUNK = 256

    def __init__(self, in_channels: int, width: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            in_channels = width
        layers += [
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, classes, 1),
        ]
        super().__init__(*layers)
        for name, value in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(value, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.zeros_(value)

    def forward(self, x: Tensor) -> Tensor:
        """Return one mask of logits per class for each object."""
        parts = [x] if self.training else list(torch.split(x, self.CHUNK))
        return torch.cat([self._layers(part) for part in parts or [x]])

    def _layers(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


class MaskRCNN(nn.Module):
    """The network, under torchvision's contract for detectors.

    In training mode ``forward(images, targets)`` returns the losses by name;
    in evaluation mode ``forward(images)`` returns a dict per image with
    ``boxes`` (N, 4), ``labels`` (N,), ``scores`` (N,) and ``masks``
    (N, 1, 28, 28), the probabilities of each mask over its box.

    Images are one float tensor (B, C, H, W); targets hold ``boxes`` (M, 4),
    ``labels`` (M,) int64 from 1, and ``masks`` (M, H, W) uint8.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.backbone = ResNetFPN(settings)
        width = self.backbone.out_channels
        levels = settings.stages + 1
        sizes = [settings.anchors_px[min(i, len(settings.anchors_px) - 1)] for i in range(levels)]
        anchors = AnchorGenerator(
            sizes=tuple((size, size * 2**0.5) for size in sizes),
            aspect_ratios=(ASPECT_RATIOS,) * levels,
        )
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(width, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 1000, "testing": 1000},
            post_nms_top_n={"training": 1000, "testing": 1000},
            nms_thresh=0.7,
        )
        pooled = [str(level) for level in range(settings.stages)]
        levels_of = {"canonical_scale": 32, "canonical_level": 3}
        self.roi_heads = RoIHeads(
            MultiScaleRoIAlign(pooled, 7, sampling_ratio=2, **levels_of),
            TwoMLPHead(width * 7 * 7, settings.box_features),
            FastRCNNPredictor(settings.box_features, settings.classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=128,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=1000,
            # A cell is some 5 positions of the finest level across: 14 samples see each twice.
            mask_roi_pool=MultiScaleRoIAlign(pooled, MASK_SIZE // 2, sampling_ratio=1, **levels_of),
            mask_head=nn.Identity(),
            mask_predictor=MaskHead(width, settings.mask_channels, settings.classes + 1),
        )

    def forward(
        self, images: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return losses (training) or detections (evaluation)."""
        height, width = int(images.shape[-2]), int(images.shape[-1])
        self._allow(height * width)
        features = self.backbone(images)
        batch = ImageList(images, [(height, width)] * len(images))
        proposals, rpn_losses = self.rpn(batch, features, targets)
        detections, roi_losses = self.roi_heads(features, proposals, batch.image_sizes, targets)
        if self.training:
            losses: dict[str, Tensor] = {**rpn_losses, **roi_losses}
            return losses
        found: list[dict[str, Tensor]] = detections
        return found

    def set_least_score(self, score: float) -> None:
        """Let detections below `score` go before their masks are computed.

        Changes no other detection: a lower score never suppresses a higher one.
        """
        self.roi_heads.score_thresh = score

    def _allow(self, pixels: int) -> None:
        """Let proposals and detections grow with the image, so that none is dropped for number."""
        allowed = max(1000, pixels // PIXELS_A_PROPOSAL)
        for limit in (self.rpn._pre_nms_top_n, self.rpn._post_nms_top_n):
            limit["testing"] = allowed
        self.roi_heads.detections_per_img = allowed
        self.rpn.score_thresh = 0.0 if self.training else LEAST_OBJECTNESS
