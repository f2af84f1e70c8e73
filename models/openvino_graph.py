"""Parts of a Mask R-CNN as OpenVINO models, built from the layers of the torch module.

OpenVINO's own conversion follows a trace of torch's, which takes seconds; the layers are few.
Batch normalisation becomes part of the convolution before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from cellseg.models.backbones import ResNetFPN, Stage5
from cellseg.models.folding import folded
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.openvino_package import openvino
from cellseg.models.regions import MASK_SAMPLES, STAGE_5_SAMPLES, Held

Node = Any
"""A value in a graph of OpenVINO."""


def dense_model(network: MaskRCNN) -> Any:
    """Return what `MaskRCNN.dense` computes, as a model of images (1, C, H, W).

    Its results are the levels of `backbone.pooled`, each (1, h, w, C), then, of each proposing
    level, objectness and corrections side by side, (1, 5 A, h, w).
    """
    op = openvino().opset13
    first: Any = network.backbone.stem[0]
    image = op.parameter([1, first.in_channels, -1, -1], np.float32, "image")
    levels = _levels(network, image)
    head = network.rpn.head
    last = _side_by_side(head.cls_logits, head.bbox_pred)
    results = [_channels_last(levels[name]) for name in network.backbone.pooled]
    proposing = [_through(levels[name], head.conv) for name in network.backbone.proposing]
    results += [_convolved(level, last) for level in proposing]
    return openvino().Model(results, [image], "dense")


def mask_model(network: MaskRCNN, regions: int) -> Any:
    """Return the mask head as a model of so many regions (N, S, S, C)."""
    op = openvino().opset13
    samples = MASK_SAMPLES if isinstance(network.backbone, ResNetFPN) else STAGE_5_SAMPLES
    shape = [regions, samples, samples, network.backbone.out_channels]
    cut = op.parameter(shape, np.float32, "regions")
    planes = op.transpose(cut, _integers([0, 3, 1, 2]))
    head = network.roi_heads.mask_predictor
    return openvino().Model([_through(planes, [head])], [cut], "masks")


def _levels(network: MaskRCNN, image: Node) -> dict[str, Node]:
    """Return the levels of the backbone by name."""
    op, backbone = openvino().opset13, network.backbone
    first = _through(image, backbone.stem)
    x = _pooled(first, 3, 2, 1)
    stages = []
    for stage in backbone.stages:
        x = _through(x, [stage])
        stages.append(x)
    if not isinstance(backbone, ResNetFPN):
        return {"0": x}
    levels = _pyramid(stages, backbone.pyramid)
    if backbone.fine is not None:
        sum_ = op.add(_convolved(first, backbone.fine), _enlarged(levels["0"], "linear_onnx"))
        # A convolution with a sum in it is put into another order in two slow steps, other results
        # in none: this keeps the values, and 50 to 150 ms a megapixel.
        levels["fine"] = _pooled(sum_, 1, 1, 0)
    return levels


def _pyramid(stages: Sequence[Node], pyramid: nn.Module) -> dict[str, Node]:
    """Return the levels of a feature pyramid (Lin et al., CVPR 2017, figure 3)."""
    op = openvino().opset13
    inner: Any = pyramid.inner_blocks
    outer: Any = pyramid.layer_blocks
    levels: dict[str, Node] = {}
    top = None
    for number in reversed(range(len(stages))):
        x = _through(stages[number], inner[number])
        top = x if top is None else op.add(x, _enlarged(top, "nearest"))
        levels[str(number)] = _through(top, outer[number])
    levels["pool"] = _pooled(levels[str(len(stages) - 1)], 1, 2, 0)
    return levels


def _through(x: Node, layers: Iterable[nn.Module]) -> Node:
    """Return `x` after layers in their order."""
    waiting = list(layers)
    while waiting:
        layer = waiting.pop(0)
        if isinstance(layer, nn.Conv2d) and waiting and isinstance(waiting[0], nn.BatchNorm2d):
            x = _convolved(x, layer, waiting.pop(0))
        elif isinstance(layer, nn.Sequential):
            x = _through(x, layer)
        else:
            x = LAYERS[type(layer)](x, layer)
    return x


def _residual(x: Node, block: Any) -> Node:
    """Return `x` after a block of a residual network."""
    op = openvino().opset13
    kept = x if block.downsample is None else _convolved(x, *block.downsample)
    x = op.relu(_convolved(x, block.conv1, block.bn1))
    x = _convolved(x, block.conv2, block.bn2)
    if isinstance(block, Bottleneck):
        x = _convolved(op.relu(x), block.conv3, block.bn3)
    return op.relu(op.add(x, kept))


def _convolved(x: Node, layer: Any, norm: Any = None) -> Node:
    op = openvino().opset13
    weight, bias = folded(layer, norm)
    pads = list(layer.padding)
    y = op.convolution(x, _floats(weight), list(layer.stride), pads, pads, list(layer.dilation))
    return op.add(y, _floats(bias.reshape(1, -1, 1, 1)))


def _transposed(x: Node, layer: Any) -> Node:
    op = openvino().opset13
    y = op.convolution_backprop_data(x, _floats(layer.weight.detach()), list(layer.stride))
    return op.add(y, _floats(layer.bias.detach().reshape(1, -1, 1, 1)))


def _side_by_side(one: Any, other: Any) -> nn.Conv2d:
    """Return two 1 x 1 convolutions of the same input as one."""
    both = nn.Conv2d(one.in_channels, one.out_channels + other.out_channels, 1)
    both.weight.data = torch.cat([one.weight.detach(), other.weight.detach()])
    both.bias.data = torch.cat([one.bias.detach(), other.bias.detach()])  # type: ignore[union-attr]
    return both


def _pooled(x: Node, size: int, stride: int, padding: int) -> Node:
    """Return the greatest in each window."""
    pads = [padding] * 2
    pool = openvino().opset13.max_pool(x, [stride] * 2, [1, 1], pads, pads, [size] * 2)
    return pool.output(0)


def _enlarged(x: Node, mode: str) -> Node:
    """Return planes at half their stride, position k at 2 k; see `cellseg.models.backbones.twice`.

    With "nearest", 2 k and 2 k + 1 are both position k.
    """
    return openvino().opset13.interpolate(
        x,
        _floats([2, 2]),
        mode,
        "scales",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=_integers([2, 3]),
    )


def _channels_last(x: Node) -> Node:
    return openvino().opset13.transpose(x, _integers([0, 2, 3, 1]))


def _floats(values: ArrayLike) -> Node:
    return openvino().opset13.constant(np.ascontiguousarray(values, np.float32))


def _integers(values: Sequence[int]) -> Node:
    return openvino().opset13.constant(np.array(values, np.int64))


LAYERS: dict[type[nn.Module], Callable[[Node, Any], Node]] = {
    nn.Conv2d: _convolved,
    nn.ConvTranspose2d: _transposed,
    nn.ReLU: lambda x, _: openvino().opset13.relu(x),
    BasicBlock: _residual,
    Bottleneck: _residual,
    Held: lambda x, layer: _through(x, [layer.head]),
    Stage5: lambda x, layer: _through(x, layer.layers),
}
"""What networks are made of, and what adds it to a graph; containers go layer by layer."""
