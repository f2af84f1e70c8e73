"""What becomes of each region: its features cut out, its class and box, and its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, relu
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    project_masks_on_boxes,
)

from cellseg.models.backbones import Stage5
from cellseg.models.settings import NetworkSettings
from cellseg.models.timing import part

PART = 1024
"""Regions that a head sees at a time on a GPU."""
IN_CACHE = 2**21
"""Features that are cut out and seen at a time on a CPU, 8 MB: they stay in its cache."""
STAGE_5_SAMPLES = 7
MASK_SAMPLES = 14


def in_parts(regions: Tensor, training: bool) -> list[Tensor]:
    """Return regions (N, ...) in parts for a head, of which its results are cut to N.

    On a GPU each has `PART` regions, the last filled up with zeros: how its sums are done
    depends on their number, and must not on what else is in the batch. Elsewhere all at once.
    """
    if training or not regions.is_cuda:
        return [regions]
    count = max(1, -(-len(regions) // PART))
    filled = regions.new_zeros((count * PART, *regions.shape[1:]))
    filled[: len(regions)] = regions
    return list(torch.split(filled, PART))


class BoxHead(TwoMLPHead):  # type: ignore[misc]
    """torchvision's two layers, which take regions as RoIAlign leaves them: channels side by side.

    To put the features in torchvision's order would take as long as the layers.
    """

    _turned: tuple[Tensor, int, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return one vector for each region (N, C, S, S)."""
        if self.training or x.is_contiguous():
            vectors: Tensor = super().forward(x)
            return vectors
        features = x.permute(0, 2, 3, 1).flatten(1)
        return relu(self.fc7(relu(linear(features, self._by_position(x.shape), self.fc6.bias))))

    def _by_position(self, shape: Sequence[int]) -> Tensor:
        """Return the first layer's weights, their columns in the order of the features."""
        weight = self.fc6.weight
        if (
            self._turned is None
            or self._turned[0] is not weight
            or self._turned[1] != weight._version
        ):
            by_channel = weight.detach().view(len(weight), *shape[1:])
            turned = by_channel.permute(0, 2, 3, 1).flatten(1)
            self._turned = weight, weight._version, turned
        return self._turned[2]


class Held(nn.Module):
    """A head under the name ``head``, as weights files have its tensors."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Return what the head returns."""
        found: Tensor = self.head(x)
        return found


class C4BoxHead(nn.Module):
    """The fifth stage and an average over the region: (N, C, 7, 7) to (N, D)."""

    def __init__(self, backbone: str, width: int) -> None:
        super().__init__()
        self.stage = Stage5(backbone, width)
        self.out_channels = self.stage.out_channels

    def forward(self, regions: Tensor) -> Tensor:
        """Return one vector a region."""
        features: Tensor = self.stage(regions).mean((2, 3))
        return features


def mask_layers(in_channels: int, width: int, convolutions: int, outputs: int) -> nn.Sequential:
    """Return a fully convolutional mask head: (N, C, S, S) to (N, outputs, 2 S, 2 S) logits.

    Some 3 x 3 convolutions, an upsampling by 2 and a 1 x 1 (He et al., ICCV
    2017, figure 4: four on a pyramid, none after stage 5).
    """
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        in_channels = width
    layers += [nn.ConvTranspose2d(in_channels, width, 2, stride=2), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(width, outputs, 1)]
    head = nn.Sequential(*layers)
    for name, value in head.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(value, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.zeros_(value)
    return head


def mask_outputs(settings: NetworkSettings) -> int:
    """Return how many masks the head gives a region: one a class, one for all, or a background."""
    masks = settings.classes if settings.mask_classes == "per_class" else 1
    return masks + 1 if settings.mask_loss == "softmax" else masks


class Regions(RoIHeads):  # type: ignore[misc]
    """torchvision's region heads with the mask branch's choices.

    Boxes, sampling of regions (1 positive to 3 negative) and their losses are
    torchvision's; the mask loss is on the true class only (He et al., ICCV
    2017, section 3). ``masks`` False leaves a Faster R-CNN, whose masks fill
    their boxes.
    """

    settings: NetworkSettings
    masks_coarser: bool = False
    """Whether masks are computed in bfloat16 while all that decides on cells is in float32."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (evaluation) and losses (training), the other one empty."""
        if self.training and targets is not None:
            return [], self._losses(features, proposals, image_shapes, targets)
        with part("boxes"):
            answers = self._classify(features, proposals, image_shapes)
            detections = self.postprocess_detections(*answers, proposals, image_shapes)
        found = [
            {"boxes": boxes, "scores": scores, "labels": labels}
            for boxes, scores, labels in zip(*detections, strict=True)
        ]
        with part("mask head"):
            masks = self._masks(features, found, image_shapes)
        for one, own in zip(found, masks, strict=True):
            one["masks"] = own
        return found, {}

    def _classify(
        self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Return class logits and box corrections of all regions, float32 at any precision."""

        def head(some: Tensor) -> Tensor:
            return torch.cat(self.box_predictor(self.box_head(some)), 1)

        answers = self._answers(head, self.box_roi_pool, features, boxes, shapes)
        classes: int = self.box_predictor.cls_score.out_features
        return answers[:, :classes], answers[:, classes:]

    def _answers(
        self,
        head: Callable[[Tensor], Tensor],
        pool: nn.Module,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Return what a head says of the regions of all images, float32, in their order."""
        if self.training or boxes[0].is_cuda:
            parts = in_parts(pool(features, boxes, shapes), self.training)
            return torch.cat([head(some) for some in parts])[: sum(map(len, boxes))].float()
        found = []
        for number, own in enumerate(boxes):
            image = {name: level[number : number + 1] for name, level in features.items()}
            found.append(_in_cache(head, pool, image, own, shapes[0]))
        return torch.cat(found) if len(found) > 1 else found[0]

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        boxes, matched, labels, corrections = self.select_training_samples(proposals, targets)
        logits, regression = self._classify(features, boxes, shapes)
        classifier, box = fastrcnn_loss(logits, regression, labels, corrections)
        losses: dict[str, Tensor] = {"loss_classifier": classifier, "loss_box_reg": box}
        if self.settings.masks:
            positive = [torch.nonzero(one > 0)[:, 0] for one in labels]
            cut = [one[p] for one, p in zip(boxes, positive, strict=True)]
            mask_logits = self._mask_logits(features, cut, shapes)
            truth = [
                project_masks_on_boxes(t["masks"], b, m[p], mask_logits.shape[-1])
                for t, b, m, p in zip(targets, cut, matched, positive, strict=True)
            ]
            classes = torch.cat([one[p] for one, p in zip(labels, positive, strict=True)])
            losses["loss_mask"] = self._mask_loss(mask_logits, torch.cat(truth), classes)
        return losses

    def _mask_logits(
        self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]
    ) -> Tensor:
        coarser = self.masks_coarser and not self.training
        kind = boxes[0].device.type
        with torch.autocast(kind, torch.bfloat16) if coarser else nullcontext():
            return self._answers(self.mask_predictor, self.mask_roi_pool, features, boxes, shapes)

    def _mask_loss(self, logits: Tensor, truth: Tensor, classes: Tensor) -> Tensor:
        """Return the mean loss over pixels; 0 with a gradient where there is no region."""
        if not len(classes):
            return logits.sum() * 0
        if self.settings.mask_loss == "softmax":
            logs = logits.log_softmax(1)
            inside, outside = self._of_class(logs, classes), logs[:, 0]
            return -(truth * inside + (1 - truth) * outside).mean()
        return binary_cross_entropy_with_logits(self._of_class(logits, classes), truth)

    def _of_class(self, masks: Tensor, classes: Tensor) -> Tensor:
        """Return the mask (N, S, S) that belongs to each region's class, counted from 1."""
        if self.settings.mask_classes == "agnostic":
            classes = torch.ones_like(classes)
        # Softmax has the background before the first class.
        channels = classes if self.settings.mask_loss == "softmax" else classes - 1
        return masks[torch.arange(len(masks), device=masks.device), channels]

    def _masks(
        self,
        features: dict[str, Tensor],
        found: list[dict[str, Tensor]],
        shapes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Return the probabilities (N, 1, S, S) over each box, an image at a time."""
        counts = [len(one["boxes"]) for one in found]
        if not self.settings.masks:
            return [one["boxes"].new_ones((len(one["boxes"]), 1, 1, 1)) for one in found]
        logits = self._mask_logits(features, [one["boxes"] for one in found], shapes)
        softmax = self.settings.mask_loss == "softmax"
        probability = logits.softmax(1) if softmax else logits.sigmoid()
        chosen = self._of_class(probability, torch.cat([one["labels"] for one in found]))
        return list(torch.split(chosen[:, None], counts))


def _in_cache(
    head: Callable[[Tensor], Tensor],
    pool: nn.Module,
    image: dict[str, Tensor],
    boxes: Tensor,
    shape: tuple[int, int],
) -> Tensor:
    """Return what a head says of the regions of one image on a CPU, float32, in their order.

    So few are cut out at a time that they stay in the processor's cache: thousands of cells in
    a tile must not cost gigabytes. Those of one size go together, as they come from one level.
    """
    size: int = pool.output_size[0]  # type: ignore[index,assignment]
    width = next(iter(image.values())).shape[1]
    at_once = max(1, IN_CACHE // (size * size * width))
    order = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argsort(stable=True)
    parts = [
        head(pool(image, [boxes[some]], [shape])).float()
        for some in torch.split(order, at_once) or [order]
    ]
    answers = torch.cat(parts)
    return torch.empty_like(answers).index_copy_(0, order, answers)


def box_head(settings: NetworkSettings, in_channels: int) -> tuple[nn.Module, int]:
    """Return the box head over regions of `in_channels`, and its width."""
    if settings.form == "c4":
        head = C4BoxHead(settings.backbone, settings.width)
        return Held(head), head.out_channels
    features = settings.box_features
    return BoxHead(in_channels * settings.box_samples**2, features), features


def mask_head(settings: NetworkSettings, in_channels: int) -> tuple[nn.Module, int]:
    """Return the mask head over regions of `in_channels`, and how many samples across it takes.

    In the C4 form it has a stage 5 of its own; in the paper's figure 4 the two
    heads share one, which training alone can make use of.
    """
    outputs = mask_outputs(settings)
    if settings.form == "c4":
        stage = Stage5(settings.backbone, settings.width)
        layers = mask_layers(stage.out_channels, settings.mask_channels, 0, outputs)
        return Held(nn.Sequential(stage, layers)), STAGE_5_SAMPLES
    layers = mask_layers(in_channels, settings.mask_channels, settings.mask_convolutions, outputs)
    return Held(layers), MASK_SAMPLES
