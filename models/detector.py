"""Any detector under torchvision's contract as a `Segmenter`: padding, pasting, shared pixels."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from cellseg.models import MODELS, Overlap
from cellseg.models.arithmetic import steady
from cellseg.models.calibrate import calibrated, raw_score
from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.networks import build, stride_of
from cellseg.models.scale import magnify, zoom_for
from cellseg.models.settings import DetectorSettings
from cellseg.models.weights import check_fit, find_weights, load_tensors, read_card

Masks = Sequence[NDArray[np.float32]] | NDArray[np.float32]
SHARED = 0.5
"""An object that loses more than this part of its area to better ones is a second guess at them."""


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
    device, precision : str
        See `cellseg.models.load_model`.
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
        height, width = plane.shape[1:]
        seen = magnify(plane, self.zoom)
        before = [round(start * self.zoom) % self.stride for start in corner]
        pads = [
            (first, -(first + length) % self.stride)
            for first, length in zip(before, seen.shape[1:], strict=True)
        ]
        padded = np.pad(seen, [(0, 0), *pads])
        image = torch.from_numpy(padded)[None].to(self.device, memory_format=torch.channels_last)
        low = self.precision == "bfloat16"
        with (
            torch.inference_mode(),
            steady(self.device),
            torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=low),
        ):
            found = self.network(image)[0]
        scores = calibrated(found["scores"].float().cpu().numpy(), self.calibration)
        keep = scores >= self.score
        kept = np.flatnonzero(keep).tolist()
        # Masks lie over their boxes at any resolution: pasting them is the way back.
        over = found.get("mask_boxes", found["boxes"]).float().cpu().numpy()[kept]
        corners = np.tile(before, 2)
        return RULES[self.overlap](
            (over[:, [1, 0, 3, 2]].astype(np.float64) - corners + 0.5) / self.zoom,
            [_plain(found["masks"][index]) for index in kept],
            scores[keep],
            found["labels"].to(torch.uint8).cpu().numpy()[kept],
            (height, width),
            mask_threshold=self.mask_threshold,
            min_area_px=self.min_area_px,
        )


def _plain(mask: Tensor) -> NDArray[np.float32]:
    """Return the probabilities (h, w) of a mask, with or without an axis of length 1 before."""
    return np.asarray(mask.float().cpu().numpy().reshape(mask.shape[-2:]), np.float32)


def paste(
    box: Sequence[float], mask: NDArray[np.float32], shape: tuple[int, int]
) -> tuple[int, int, NDArray[np.float32]]:
    """Resample a box-sized mask to the pixels whose centres lie in its box.

    Parameters
    ----------
    box : (y0, x0, y1, x1)
        In px with fractions; pixel i reaches from i to i + 1.
    mask : float32 (R, S)
        Probabilities over the box.
    shape : (H, W)
        Size of the plane; what lies outside is left out.

    Returns
    -------
    y, x : int
        Corner of the crop.
    probability : float32 (h, w)
        Bilinear between the centres of the mask's cells; may be empty.
    """
    corner, weights = [], []
    for low, high, length, size in zip(box[:2], box[2:], shape, mask.shape, strict=True):
        first = max(int(np.ceil(low - 0.5)), 0)
        last = min(int(np.floor(high - 0.5)) + 1, length)
        corner.append(first)
        weights.append(_bilinear(np.arange(first, last), low, high, size))
    return corner[0], corner[1], np.asarray(weights[0] @ mask @ weights[1].T, np.float32)


def _bilinear(pixels: NDArray[np.intp], low: float, high: float, size: int) -> NDArray[np.float32]:
    """Return the weight of each of `size` samples from `low` to `high` for each pixel's centre."""
    position = (pixels + 0.5 - low) * (size / max(high - low, 1e-6)) - 0.5
    position = np.clip(position, 0, size - 1)
    distance = np.abs(position[:, None] - np.arange(size)[None, :])
    return np.asarray(np.maximum(1 - distance, 0), np.float32)


def separate(
    boxes: NDArray[np.float64],
    masks: Masks,
    scores: NDArray[np.float32],
    classes: NDArray[np.uint8],
    shape: tuple[int, int],
    *,
    mask_threshold: float,
    min_area_px: int,
) -> Instances:
    """Turn detections of touching cells into instances that share no pixel.

    Best scores come first. An object of which better ones already cover more
    than `SHARED` is dropped; a pixel that several claim goes to the one most
    certain of it; of what is left of an object, its largest piece is kept.

    Parameters
    ----------
    boxes : float64 (N, 4) as y0, x0, y1, x1 in px
    masks : N arrays, float32 (R, S), probabilities over each box
    scores : float32 (N,)
    classes : uint8 (N,)
    shape : (H, W) of the plane
    mask_threshold, min_area_px
        See `DetectorSettings`.
    """
    best = np.zeros(shape, np.float32)
    owner = np.full(shape, -1, np.int32)
    placed: list[tuple[int, slice, slice]] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        y, x, probability = paste(boxes[index].tolist(), masks[index], shape)
        window = (slice(y, y + probability.shape[0]), slice(x, x + probability.shape[1]))
        inside = probability >= mask_threshold
        area = np.count_nonzero(inside)
        taken = np.count_nonzero(inside & (owner[window] >= 0))
        if area < min_area_px or taken > SHARED * area:
            continue
        won = inside & (probability > best[window])
        best[window][won] = probability[won]
        owner[window][won] = index
        placed.append((index, *window))
    found = []
    for index, rows, columns in placed:
        mask = _largest_piece(owner[rows, columns] == index)
        if np.count_nonzero(mask) >= min_area_px:
            found.append(
                ((rows.start, columns.start), mask, float(scores[index]), int(classes[index]))
            )
    return Instances.stack(found)


def whole(
    boxes: NDArray[np.float64],
    masks: Masks,
    scores: NDArray[np.float32],
    classes: NDArray[np.uint8],
    shape: tuple[int, int],
    *,
    mask_threshold: float,
    min_area_px: int,
) -> Instances:
    """Turn detections of overlapping cells into instances, each whole, whatever others cover.

    Best scores come first; of each object, its largest piece is kept. Parameters
    are those of `separate`.
    """
    found = []
    for index in np.argsort(-scores, kind="stable").tolist():
        y, x, probability = paste(boxes[index].tolist(), masks[index], shape)
        mask = _largest_piece(probability >= mask_threshold)
        if np.count_nonzero(mask) >= min_area_px:
            found.append(((y, x), mask, float(scores[index]), int(classes[index])))
    return Instances.stack(found)


RULES = {"resolve": separate, "keep": whole}
"""What is done where two cells claim a pixel."""


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest part of a mask that hangs together, the first of equals."""
    pieces, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return np.asarray(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax(), bool)


def load(settings: DetectorSettings, device: str, precision: str) -> Detector:
    """Return the detector whose weights `settings` name.

    Raises
    ------
    CellsegError
        If the weights are missing, of another architecture or for another number of channels.
    """
    path = find_weights(settings.weights)
    card = read_card(path)
    check_fit(settings, card, path)
    network = build(card.network)
    try:
        network.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CellsegError(
            f"{path}: its tensors do not fit its own description ({reason}). Train it again."
        ) from error
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
    )
