"""The Mask R-CNN's network on CPUs by OpenVINO, for those who ask in several threads.

What is computed at every position, and the mask head, go to OpenVINO; which of the regions are
cells, and where, is decided in torch in float32 at any precision.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellseg.models.errors import DeviceError
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.openvino_graph import dense_model, mask_model
from cellseg.models.openvino_package import openvino
from cellseg.models.owner import lent
from cellseg.models.region_proposals import Dense
from cellseg.models.timing import part

SHAPES_HELD = 2
"""Shapes of images that a replica is ready for. A row of tiles has two, each with some 200 MB of
memory at 1152 px across; a new one takes about 0.2 s."""
PART = 16
"""Regions that the mask head sees at a time, the last part filled up with zeros: no number of
regions is computed in a way of its own."""
TYPES = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names of precisions."""
PARTS = {
    "float32": ("float32", "float32"),
    "mixed": ("float32", "bfloat16"),
    "bfloat16": ("bfloat16", "bfloat16"),
}
"""Arithmetic of the dense part and of the mask head."""
LOADING = threading.Lock()


class OpenVINONetwork:
    """A `MaskRCNN` in evaluation, under its contract for one image at a time.

    Each thread that asks while another one computes gets a replica of its own, which computes
    on that thread alone: tiles side by side are what keeps cores busy, and so no bit depends on
    how many there are.

    Parameters
    ----------
    network : MaskRCNN
        On the CPU, in evaluation mode; left as it is.
    precision : str
        Of the layers that OpenVINO computes; see `cellseg.models.load_model`.

    Raises
    ------
    CellsegError
        If OpenVINO is not installed, or has no such arithmetic on this CPU.
    """

    def __init__(self, network: MaskRCNN, precision: str) -> None:
        self.network = network
        self.precision = precision
        self._free: list[_Replica] = [_Replica(network, precision)]

    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the detections in one image (1, C, H, W)."""
        with lent(self._free, self._another) as replica:
            return replica(images)

    def dense(self, images: Tensor) -> Dense:
        """Return what `MaskRCNN.dense` does of one image, until the next call."""
        with lent(self._free, self._another) as replica:
            return replica.dense(images)

    def _another(self) -> _Replica:
        with torch.inference_mode(False):  # its tensors are for later, too
            return _Replica(self.network, self.precision)


class _Replica:
    """All that one thread at a time computes with."""

    def __init__(self, network: MaskRCNN, precision: str) -> None:
        self.precision = precision
        with LOADING:
            self.model = dense_model(network)
        self.anchors = network.rpn.head.cls_logits.out_channels
        self.pooled = network.backbone.pooled
        self.deciding = _deciding(network, precision)
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        with part("dense"):
            dense = self.dense(images)
        return self.deciding.found(dense, (images.shape[-2], images.shape[-1]))

    def dense(self, images: Tensor) -> Dense:
        """Return what `MaskRCNN.dense` does, until the next call."""
        pixels = images.contiguous().numpy()
        request = self._request(pixels.shape)
        results = request.infer([pixels], share_inputs=True, share_outputs=True)
        each = [torch.from_numpy(result) for result in results.to_tuple()]
        count = len(self.pooled)
        levels = zip(self.pooled, each[:count], strict=True)
        return Dense(
            {name: level.permute(0, 3, 1, 2) for name, level in levels},
            [head[:, : self.anchors] for head in each[count:]],
            [head[:, self.anchors :] for head in each[count:]],
        )

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            while len(self._requests) >= SHAPES_HELD:
                self._requests.popitem(last=False)
            self.model.reshape(list(shape))
            self._requests[shape] = compiled(self.model, PARTS[self.precision][0])
        self._requests.move_to_end(shape)
        return self._requests[shape]


class _Masks(nn.Module):
    """The mask head, in parts of one size."""

    def __init__(self, network: MaskRCNN, precision: str) -> None:
        super().__init__()
        self.request = compiled(mask_model(network, PART), PARTS[precision][1])

    def forward(self, regions: Tensor) -> Tensor:
        """Return logits (N, outputs, 2 S, 2 S) of regions (N, C, S, S)."""
        cut = regions.permute(0, 2, 3, 1).contiguous().numpy()
        shape = self.request.model_outputs[0].shape
        logits = np.empty((len(cut), *list(shape)[1:]), np.float32)
        for start in range(0, len(cut), PART):
            some = _filled(cut[start : start + PART])
            result = self.request.infer([some], share_inputs=True, share_outputs=True)
            logits[start : start + PART] = result[0][: len(cut) - start]
        return torch.from_numpy(logits)


def _deciding(network: MaskRCNN, precision: str) -> MaskRCNN:
    """Return a copy of a network whose masks are OpenVINO's and that lacks what comes before."""
    heads = network.roi_heads
    left: dict[int, Any] = {id(network.backbone): None, id(heads.mask_predictor): None}
    # The same weights: copied where tensors are for inference only, they would be such.
    weights = chain(network.parameters(), network.buffers())
    copied = deepcopy(network, left | {id(each): each for each in weights})
    if heads.mask_predictor is not None:
        copied.roi_heads.mask_predictor = _Masks(network, precision)
    return copied


def _filled(some: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(some) == PART:
        return some
    return np.concatenate([some, np.zeros((PART - len(some), *some.shape[1:]), np.float32)])


def compiled(model: Any, precision: str) -> Any:
    """Return the request of a model that is ready to compute, on the thread that asks.

    Raises
    ------
    DeviceError
        If the CPU has no such arithmetic.
    """
    properties = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": TYPES[precision],
    }
    ready = openvino().Core().compile_model(model, "CPU", properties)
    if (got := ready.get_property("INFERENCE_PRECISION_HINT").to_string()) != TYPES[precision]:
        raise DeviceError(
            f'precision = "{precision}", but on this CPU OpenVINO computes in {got}.'
            ' Set precision = "float32".'
        )
    return ready.create_infer_request()
