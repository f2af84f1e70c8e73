"""Distillation: a network in training follows a larger one, beside the labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss

from cellseg.models.errors import CellsegError
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.networks import load_network
from cellseg.models.weights import find_weights

BEND = 1 / 9
"""Error of a box's correction from which its loss grows straight, as in torchvision's."""


class Teacher:
    """A trained Mask R-CNN, asked at the very places where another one answers in training.

    After Hinton et al., "Distilling the knowledge in a neural network", 2015, on all four
    answers of the network: whether an anchor holds a cell, its box, a region's class and box,
    and its mask. Where the teacher is unsure the labels of a crop say too much.

    Parameters
    ----------
    network : MaskRCNN
        In training; what it answers is watched.
    teacher : MaskRCNN
        With the same anchors and classes.

    Raises
    ------
    CellsegError
        If their answers cannot be compared.
    """

    def __init__(self, network: MaskRCNN, teacher: MaskRCNN) -> None:
        _check_alike(network, teacher)
        self.network = teacher.eval().requires_grad_(False)
        self._seen: dict[str, Any] = {}
        heads = network.roi_heads
        watched = {
            "anchors": network.rpn.head,
            "regions": heads.box_roi_pool,
            "classes": heads.box_predictor,
        }
        if heads.settings.masks:
            watched |= {"cells": heads.mask_roi_pool, "masks": heads.mask_predictor}
        for name, module in watched.items():
            module.register_forward_hook(self._watch(name))

    def _watch(self, name: str) -> Any:
        def note(_module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
            self._seen[name] = given, answer

        return note

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        """Return how far the network was from the teacher in its last step, by answer.

        Parameters
        ----------
        images : float (B, C, H, W)
            What the network has just seen.
        """
        with torch.no_grad():
            levels = self.network.backbone(images)
        found = self._anchors(levels) | self._regions(levels)
        if "masks" in self._seen:
            found |= self._masks(levels)
        self._seen.clear()
        return found

    def _anchors(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compare what is said of all anchors; boxes count where there is a cell."""
        _, (own, moves) = self._seen["anchors"]
        with torch.no_grad():
            proposing = [levels[name] for name in self.network.backbone.proposing]
            teacher, their_moves = self.network.rpn.head(proposing)
        cells = sum(each.sigmoid().sum() for each in teacher).clamp(min=1)
        objectness = own[0].new_zeros(())
        box = own[0].new_zeros(())
        for mine, theirs, move, their_move in zip(own, teacher, moves, their_moves, strict=True):
            sure = theirs.sigmoid()
            apart = (mine.detach().sigmoid() - sure).abs()
            each = binary_cross_entropy_with_logits(mine, sure, reduction="none")
            objectness = objectness + (apart * each).sum() / cells
            shape = (len(move), -1, 4, *move.shape[-2:])
            far = smooth_l1_loss(
                move.view(shape), their_move.view(shape), reduction="none", beta=BEND
            )
            box = box + (sure * far.sum(2)).sum() / cells
        return {"taught_objectness": objectness, "taught_box": box}

    def _regions(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compare class and box of the regions that the step has learned from."""
        (_, boxes, shapes), _ = self._seen["regions"]
        _, (logits, moves) = self._seen["classes"]
        with torch.no_grad():
            teacher, their_moves = self.network.roi_heads._classify(levels, boxes, shapes)
        sure = teacher.softmax(1)
        far = smooth_l1_loss(moves, their_moves, reduction="none", beta=BEND)
        far = far.view(len(far), -1, 4).sum(2) * sure
        cells = sure[:, 1:].sum().clamp(min=1)
        return {
            "taught_class": cross_entropy(logits, sure),
            "taught_region": far[:, 1:].sum() / cells,
        }

    def _masks(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compare the masks of the regions that are cells."""
        (_, boxes, shapes), _ = self._seen["cells"]
        _, logits = self._seen["masks"]
        if not len(logits):
            return {"taught_mask": logits.sum() * 0}
        with torch.no_grad():
            theirs = self.network.roi_heads._mask_logits(levels, boxes, shapes).sigmoid()
        return {"taught_mask": binary_cross_entropy_with_logits(logits, theirs)}


def load_teacher(weights: str, network: nn.Module, device: str) -> Teacher:
    """Return the network whose weights are given as the teacher of one in training.

    Raises
    ------
    CellsegError
        If there is no such file, or one of the two is no Mask R-CNN.
    """
    teacher = load_network(find_weights(weights))
    if not (isinstance(network, MaskRCNN) and isinstance(teacher, MaskRCNN)):
        raise CellsegError(
            f'teacher = "{weights}": only a mask_rcnn can teach another one. Leave it out.'
        )
    return Teacher(network, teacher.to(device).to(memory_format=torch.channels_last))


def _check_alike(network: MaskRCNN, teacher: MaskRCNN) -> None:
    one, other = network.roi_heads.settings, teacher.roi_heads.settings
    keys = ("anchors_px", "stages", "form", "classes", "in_channels", "mask_classes", "mask_loss")
    differ = [key for key in keys if getattr(one, key) != getattr(other, key)]
    if differ:
        raise CellsegError(
            f"teacher: its network differs from [network] in {', '.join(differ)}. Give [network]"
            " these as the teacher has them; all widths may differ."
        )
