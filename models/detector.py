"""Any detector under torchvision's contract as a `Segmenter`: padding, scores, masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellseg.models import MODELS, Overlap
from cellseg.models.calibrate import calibrated, raw_score
from cellseg.models.folding import simplified
from cellseg.models.instances import Instances
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.networks import load_network, stride_of
from cellseg.models.owner import Found, Network, Owner
from cellseg.models.proposals import Proposals
from cellseg.models.scale import magnify, zoom_for
from cellseg.models.settings import DetectorSettings
from cellseg.models.timing import part
from cellseg.models.weights import check_fit, find_weights, read_card

if TYPE_CHECKING:
    from cellseg.models.openvino_network import OpenVINONetwork


class Detector:
    """A detector used on planes of any size.

    Parameters
    ----------
    network : nn.Module
        Under the contract of `cellseg.models.mask_rcnn.MaskRCNN` or that of
        `cellseg.models.center_mask.CenterMask`; put in evaluation mode.
    stride : int
        Planes are padded to multiples of it.
    overlap : str
        What is done where two cells claim a pixel: ``resolve`` or ``keep``.
    score, mask_threshold, min_area_px
        See `DetectorSettings`.
    calibration : (float, float)
        See `Card`.
    diameter_px : float
        Diameter of the cells it was trained on.
    zoom : float
        Magnification at which the network sees a plane, of `cellseg.models.scale.zoom_for`.
    device, precision, inference : str
        See `cellseg.models.load_model`.

    Attributes
    ----------
    compute : Network
        The network as it is computed: its normalisations folded, or by another engine.
    ask : callable
        From one image (C, H, W) to what `compute` finds in it, alone or in a batch.
    """

    def __init__(
        self,
        network: nn.Module,
        stride: int,
        *,
        overlap: Overlap = "resolve",
        score: float = 0.5,
        mask_threshold: float = 0.5,
        min_area_px: int = 10,
        calibration: tuple[float, float] = (1.0, 0.0),
        diameter_px: float = 20.0,
        zoom: float = 1.0,
        device: str = "cpu",
        precision: str = "float32",
        inference: str = "torch",
    ) -> None:
        set_least_score = getattr(network, "set_least_score", None)
        if set_least_score is not None:
            set_least_score(raw_score(score, calibration))
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.stride = stride
        self.overlap = overlap
        self.score = score
        self.mask_threshold = mask_threshold
        self.min_area_px = min_area_px
        self.calibration = calibration
        self.diameter_px = diameter_px
        self.zoom = zoom
        self.device = device
        self.precision = precision
        if inference == "openvino":
            self.compute = Network(_by_openvino(self.network, precision), device, "float32")
        else:
            self.compute = Network(_in_use(self.network, device, precision), device, precision)
        self.ask: Callable[[NDArray[np.float32]], Found] = (
            Alone(self.compute) if device == "cpu" else Owner(self.compute)
        )

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        """Return the objects of each plane (C, H, W), best first.

        Their masks share pixels only where `overlap` is ``keep``.

        The same bits for any number of threads and whatever other planes there are;
        see `cellseg.models.arithmetic`.
        """
        return self.segment_at(planes, [(0, 0)] * len(planes))

    def segment_at(
        self, planes: Sequence[NDArray[np.float32]], corners: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Return the objects of windows of an image; see `cellseg.models.Placed`.

        The coarsest level of the network has a position every few px, from the
        first one it sees. A window is padded so that the same places of the image
        have them whichever window shows them, or other cells would be found.
        """
        return [self._segment(*each) for each in zip(planes, corners, strict=True)]

    def at_zoom(self, zoom: float) -> Detector:
        """Return the same detector, its network shared, at another magnification."""
        other = copy(self)
        other.zoom = zoom
        return other

    def _segment(self, plane: NDArray[np.float32], corner: tuple[int, int]) -> Instances:
        found = self.proposals(plane, corner)
        with part("masks"):
            return found.cut(self.score, self.mask_threshold, self.min_area_px)

    def proposals(self, plane: NDArray[np.float32], corner: tuple[int, int] = (0, 0)) -> Proposals:
        """Return what it finds in a plane (C, H, W) of at least `score`, masks not cut yet."""
        height, width = plane.shape[1:]
        seen = magnify(plane, self.zoom)
        before = [round(start * self.zoom) % self.stride for start in corner]
        pads = [
            (first, -(first + length) % self.stride)
            for first, length in zip(before, seen.shape[1:], strict=True)
        ]
        padded = np.pad(seen, [(0, 0), *pads])
        with part("network"):
            found = self.ask(padded)
        with part("paste"):
            return self._pasted(found, np.tile(before, 2), (height, width))

    def _pasted(
        self, found: Found, corners: NDArray[np.integer], shape: tuple[int, int]
    ) -> Proposals:
        """Return what is found as it lies in a plane of a shape, `corners` px before its edges."""
        scores = calibrated(found.scores, self.calibration)
        keep = scores >= self.score
        kept = np.flatnonzero(keep).tolist()
        return Proposals.pasted(
            (found.boxes[kept][:, [1, 0, 3, 2]].astype(np.float64) - corners + 0.5) / self.zoom,
            [found.masks[index] for index in kept],
            scores[keep],
            found.labels[keep],
            shape,
            self.overlap,
        )


@dataclass(frozen=True)
class Alone:
    """Looks at one image at a time: on a CPU a batch gains nothing."""

    compute: Network

    def __call__(self, image: NDArray[np.float32]) -> Found:
        """Return what is found in an image (C, H, W)."""
        return self.compute([image])[0]


def _in_use(network: nn.Module, device: str, precision: str) -> nn.Module:
    """Return a network as torch computes it."""
    module = simplified(network).to(device).to(memory_format=torch.channels_last)
    if isinstance(module, MaskRCNN):
        module.roi_heads.masks_coarser = precision == "mixed"
    return module


def _by_openvino(network: nn.Module, precision: str) -> OpenVINONetwork:
    """Return a network as OpenVINO computes it."""
    from cellseg.models.openvino_network import OpenVINONetwork

    assert isinstance(network, MaskRCNN)  # noqa: S101 - `load_model` lets no other through
    return OpenVINONetwork(network, precision)


def load(
    settings: DetectorSettings, device: str, precision: str, inference: str = "torch"
) -> Detector:
    """Return the detector whose weights `settings` name.

    Raises
    ------
    CellsegError
        If the weights are missing, of another architecture or for another number of channels.
    """
    path = find_weights(settings.weights)
    card = read_card(path)
    check_fit(settings, card, path)
    network = load_network(path)
    return Detector(
        network,
        stride_of(network),
        overlap=MODELS[settings.name].overlap,
        score=card.score if settings.score is None else settings.score,
        calibration=card.calibration,
        diameter_px=card.diameter_px,
        zoom=zoom_for(card, settings),
        mask_threshold=settings.mask_threshold,
        min_area_px=settings.min_area_px,
        device=device,
        precision=precision,
        inference=inference,
    )
