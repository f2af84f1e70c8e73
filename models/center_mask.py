"""CenterMask: cells as points, each with a local shape, on one global saliency map.

Wang, Xu, Shen, Cheng, Yang, "CenterMask: single shot instance segmentation with point
representation", CVPR 2020. Departures, for cells: masks are assembled at every pixel of the box
rather than at stride 4; as many centres as there are, not 100; and centres and saliency map may
have stride 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from cellseg.models.dla import DLA34
from cellseg.models.hourglass import Hourglass
from cellseg.models.network_settings import CenterMaskNetwork, MaskBranches
from cellseg.models.point_masks import (
    Finer,
    Pixels,
    Saliency,
    Shapes,
    assembled,
    assembled_loss,
    pixels_of,
    saliency_logits,
    shape_logits,
)
from cellseg.models.points import (
    Points,
    centre_loss,
    centre_target,
    convolved_at,
    peaks,
    regression_loss,
)

SIZE_WEIGHT = 0.1
"""Of the size's loss; all others weigh 1."""
RARE_CENTRE = -2.19
"""Logit of 0.1: at the start hardly anything is a centre, or the many others would swamp them."""
TYPICAL_SIZE = 20.0
"""Px: where the regression of sizes starts from."""


def backbone(settings: CenterMaskNetwork) -> Hourglass | DLA34:
    """Return the backbone that `settings` name."""
    if settings.backbone == "dla_34":
        return DLA34(settings.in_channels)
    return Hourglass(settings.backbone, settings.in_channels)


class Head(nn.Sequential):
    """A 3 x 3 convolution, ReLU and a 1 x 1 convolution that starts at `bias`."""

    def __init__(self, in_channels: int, width: int, outputs: int, bias: float = 0.0) -> None:
        last = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]
        super().__init__(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(inplace=True), last)

    def at(self, features: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Return the outputs at positions y, x (N,) of images (N,), float32 (N, outputs)."""
        first: nn.Conv2d = self[0]  # type: ignore[assignment]
        last: nn.Conv2d = self[2]  # type: ignore[assignment]
        hidden = torch.relu(convolved_at(first, features, image, y, x))
        return linear(hidden, last.weight.flatten(1), last.bias).float()


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells whose masks are assembled.

    Parameters
    ----------
    boxes : float32 (N, 4)
        y0, x0, y1, x1 in px.
    image, classes : int64 (N,)
        Number of the image in the batch, and the class from 0.
    mask : int64 (N,)
        In training, the number of the true mask among those of the batch.
    """

    boxes: Tensor
    image: Tensor
    classes: Tensor
    mask: Tensor


class MaskHeads(nn.Module):
    """The two mask branches, their assembly and their losses.

    Parameters
    ----------
    in_channels, fine_channels : int
        Channels at strides 4 and 2, that the saliency sees.
    settings : MaskBranches
    shape_channels : int
        Channels of the features that the local shape sees.
    """

    def __init__(
        self, in_channels: int, fine_channels: int, settings: MaskBranches, shape_channels: int
    ) -> None:
        super().__init__()
        self.settings = settings
        self.shapes = Shapes(shape_channels, settings) if settings.local_shape else None
        self.saliency: Saliency | None = None
        if settings.saliency:
            self.saliency = Saliency(in_channels, fine_channels, settings)

    def maps_of(self, image: Tensor, classes: Tensor) -> Tensor:
        """Return the saliency map of each cell of an image and a class (N,), among all maps."""
        if self.settings.saliency_classes == "agnostic":
            return image
        return image * self.settings.classes + classes

    def windows(self, boxes: Tensor) -> Tensor:
        """Return the windows (N, 4) over which the masks of boxes (N, 4) are assembled."""
        room = self.settings.room
        if room == 0:
            return boxes
        grow = (boxes[:, 2:] - boxes[:, :2]) * room + 1
        return torch.cat([boxes[:, :2] - grow, boxes[:, 2:] + grow], 1)

    def losses(
        self,
        shapes: Tensor | None,
        maps: Tensor | None,
        cells: Cells,
        targets: Sequence[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return the losses of assembled masks, and of the saliency where it is taught directly.

        Parameters
        ----------
        shapes : float32 (N, S, S) or None
            Logits of each cell.
        maps : float32 (B, M, h, w) or None
            Saliency logits.
        cells : Cells
        targets : sequence of dict
            See `cellseg.models.dataset.target`.
        """
        masks = [one["masks"] for one in targets]
        cells = replace(cells, boxes=self.windows(cells.boxes))
        pixels = pixels_of(cells.boxes, (masks[0].shape[-2], masks[0].shape[-1]))
        truth = torch.cat(masks)[cells.mask[pixels.owner], pixels.y, pixels.x].float()
        each = assembled_loss(*self._logits(shapes, maps, cells, pixels), truth)
        mean = torch.zeros(len(cells.boxes), device=each.device).index_add(0, pixels.owner, each)
        mean = mean / pixels.counts.clamp(min=1)
        losses = {"loss_mask": mean.sum() / max(len(mean), 1)}
        if maps is not None and self.settings.direct_saliency_loss:
            losses["loss_saliency"] = self._direct(maps, targets)
        return losses

    def _logits(
        self, shapes: Tensor | None, maps: Tensor | None, cells: Cells, pixels: Pixels
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the logits of both branches at pixels, None for one that is not there."""
        shape = None if shapes is None else shape_logits(shapes, cells.boxes, pixels)
        if maps is None:
            return shape, None
        own, stride = self.maps_of(cells.image, cells.classes), self.settings.saliency_stride
        return shape, saliency_logits(maps.flatten(0, 1), own, stride, pixels)

    def _direct(self, maps: Tensor, targets: Sequence[dict[str, Tensor]]) -> Tensor:
        """Return the cross-entropy of the maps with the union of the cells' masks."""
        step = self.settings.saliency_stride
        truth = torch.zeros_like(maps)
        for image, one in enumerate(targets):
            for label, mask in zip(one["labels"].tolist(), one["masks"], strict=True):
                plane = truth[image, 0 if maps.shape[1] == 1 else label - 1]
                torch.maximum(plane, mask[::step, ::step].to(plane.dtype), out=plane)
        return binary_cross_entropy_with_logits(maps, truth)

    def masks(
        self, shapes: Tensor | None, maps: Tensor | None, cells: Cells, shape: tuple[int, int]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the probabilities (h, w) over the pixels of each box, and the boxes of these.

        Parameters
        ----------
        shapes, maps, cells
            See `losses`.
        shape : (H, W)
            Of the image.

        Returns
        -------
        masks : list of N float32 (h, w)
            May be empty.
        boxes : float32 (N, 4)
            y0, x0, y1, x1 of the pixels' outer edges.
        """
        cells = replace(cells, boxes=self.windows(cells.boxes))
        pixels = pixels_of(cells.boxes, shape)
        chances = assembled(*self._logits(shapes, maps, cells, pixels))
        parts = torch.split(chances, pixels.counts.tolist())
        sizes = pixels.sizes.tolist()
        found = [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]
        return found, torch.cat([pixels.corners, pixels.corners + pixels.sizes], 1) - 0.5


class Heads(nn.Module):
    """The five heads: centre, offset, size, local shape and saliency.

    Parameters
    ----------
    in_channels, fine_channels : int
        Channels at strides 4 and 2.
    settings : CenterMaskNetwork
        With a stride of 2 all but the saliency, which has its own, see features of stride
        4 enlarged and joined by those at stride 2, on fewer channels: centres 7 px apart,
        those of two nuclei of 20 px that share 60 %, are less than two positions of stride
        4, of which a peak is at most every other one. The centre's head, the only one that
        is asked for everywhere, is half as wide.
    """

    def __init__(self, in_channels: int, fine_channels: int, settings: CenterMaskNetwork) -> None:
        super().__init__()
        self.stride, width, seen = settings.stride, settings.head_channels, in_channels
        centre = width
        self.finer: Finer | None = None
        if self.stride == 2:
            seen, centre = max(width * 3 // 4, 8), max(width // 2, 8)
            self.finer = Finer(in_channels, fine_channels, seen)
        self.centre: nn.Module = Head(seen, centre, settings.classes, RARE_CENTRE)
        self.offset = Head(seen, width, 2)
        self.size = Head(seen, width, 2, TYPICAL_SIZE / self.stride)
        self.masks = MaskHeads(in_channels, fine_channels, settings, seen)

    def losses(
        self, fine: Tensor, features: Tensor, targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return all losses, weighted as published."""
        seen = self._seen(fine, features)
        logits = self.centre(seen).float()
        points = Points.of(targets, (logits.shape[2], logits.shape[3]), self.stride)
        target = centre_target(points, tuple(logits.shape))
        at = points.image, points.y, points.x
        offset, size = self.offset.at(seen, *at), self.size.at(seen, *at)
        own = torch.arange(len(points), device=logits.device)
        boxes = points.boxes_near(offset.detach(), size.detach())
        cells = Cells(boxes, points.image, points.classes, own)
        return {
            "loss_centre": centre_loss(logits, target),
            "loss_offset": regression_loss(offset, points.offsets),
            "loss_size": SIZE_WEIGHT * regression_loss(size, points.sizes),
            **self.masks.losses(
                self._shapes(seen, *at), self._saliency(fine, features), cells, targets
            ),
        }

    def _seen(self, fine: Tensor, features: Tensor) -> Tensor:
        """Return the features that the heads of points see."""
        if self.finer is None:
            return features
        seen: Tensor = self.finer(fine, features)
        return seen

    def _shapes(self, seen: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor | None:
        """Return the local shapes at some positions."""
        return None if self.masks.shapes is None else self.masks.shapes(seen, image, y, x)

    def _saliency(self, fine: Tensor, features: Tensor) -> Tensor | None:
        """Return the saliency maps."""
        return None if self.masks.saliency is None else self.masks.saliency(fine, features)

    def detections(
        self, fine: Tensor, features: Tensor, shape: tuple[int, int], least: float
    ) -> dict[str, Tensor | list[Tensor]]:
        """Return what is found in one image of `shape`, features (1, C, h, w)."""
        seen = self._seen(fine, features)
        scores, classes, y, x = peaks(self.centre(seen)[0].float(), least)
        first = torch.zeros_like(y)
        at = first, y, x
        size = self.size.at(seen, *at).clamp(min=1 / self.stride)
        centre = torch.stack([y, x], 1) + self.offset.at(seen, *at)
        boxes = torch.cat([centre - size / 2, centre + size / 2], 1) * self.stride
        cells = Cells(boxes, first, classes, first)
        masks, over = self.masks.masks(
            self._shapes(seen, *at), self._saliency(fine, features), cells, shape
        )
        swap = [1, 0, 3, 2]
        return {
            "boxes": boxes[:, swap],
            "scores": scores,
            "labels": classes + 1,
            "masks": masks,
            "mask_boxes": over[:, swap],
        }


class CenterMask(nn.Module):
    """CenterMask under torchvision's detection contract; see `cellseg.models.mask_rcnn.MaskRCNN`.

    In training it maps images (B, C, H, W) and targets to losses by name, in
    evaluation images to detections. Beside torchvision's fields these have
    ``mask_boxes``: the masks are a list of probabilities (h, w), each over the
    pixels of its own mask box.

    Parameters
    ----------
    settings : CenterMaskNetwork
    """

    def __init__(self, settings: CenterMaskNetwork) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone(settings)
        widths = self.backbone.out_channels, self.backbone.fine_channels
        self.heads = nn.ModuleList(Heads(*widths, settings) for _ in range(self.backbone.stacks))
        self.least = 0.05

    def set_least_score(self, score: float) -> None:
        """Let centres below `score` go before their masks are assembled."""
        self.least = score

    def forward(
        self, images: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor | list[Tensor]]]:
        """Return losses (training) or detections (evaluation)."""
        fine, features = self.backbone(images)
        if self.training and targets is not None:
            each = [
                heads.losses(fine, one, targets)  # type: ignore[operator]
                for heads, one in zip(self.heads, features, strict=True)
            ]
            return {name: torch.stack([one[name] for one in each]).sum() for name in each[0]}
        shape = int(images.shape[-2]), int(images.shape[-1])
        last: Heads = self.heads[-1]  # type: ignore[assignment]
        return [
            last.detections(fine[i : i + 1], features[-1][i : i + 1], shape, self.least)
            for i in range(len(images))
        ]
