"""CenterMask's formulas in plain numpy, written from the papers: what the network is checked by."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def convolved(image: Floats, weight: Floats, bias: Floats) -> Floats:
    """Return a convolution (C, h, w) with odd kernels (D, C, k, k) and zeros around, (D, h, w)."""
    outer, _, size, _ = weight.shape
    padded = np.pad(image, ((0, 0), (size // 2,) * 2, (size // 2,) * 2))
    result = np.zeros((outer, *image.shape[1:]))
    for d in range(outer):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                result[d, y, x] = (padded[:, y : y + size, x : x + size] * weight[d]).sum()
        result[d] += bias[d]
    return result


def head(image: Floats, parameters: dict[str, Floats]) -> Floats:
    """Return a 3 x 3 convolution, ReLU and a 1 x 1 convolution, (D, h, w)."""
    hidden = np.maximum(convolved(image, parameters["0.weight"], parameters["0.bias"]), 0)
    return convolved(hidden, parameters["2.weight"], parameters["2.bias"])


def gaussian_radius(height: float, width: float, overlap: float = 0.7) -> int:
    """Return CornerNet's radius: the largest move of the corners that keeps an IoU of `overlap`.

    The three cases are solved by bisection of the IoU itself.
    """

    def iou_moved(r: float) -> float:
        inner = (height - r) * (width - r)
        return inner / (2 * height * width - inner)

    def iou_inside(r: float) -> float:
        return (height - 2 * r) * (width - 2 * r) / (height * width)

    def iou_outside(r: float) -> float:
        return height * width / ((height + 2 * r) * (width + 2 * r))

    radii = []
    for iou, most in (
        (iou_moved, min(height, width)),
        (iou_inside, min(height, width) / 2),
        (iou_outside, 100 * max(height, width)),
    ):
        low, high = 0.0, most
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if iou(middle) >= overlap else (low, middle)
        radii.append(low)
    return math.floor(min(radii) + 1e-9)


def centre_map(
    cells: list[tuple[int, int, int, float, float]], shape: tuple[int, int, int]
) -> Floats:
    """Return the Gaussians of cells (class, y, x, height, width) on a map (C, h, w)."""
    target = np.zeros(shape)
    for class_, cy, cx, height, width in cells:
        r = gaussian_radius(height, width)
        sigma = (2 * r + 1) / 6
        for y in range(shape[1]):
            for x in range(shape[2]):
                if abs(y - cy) <= r and abs(x - cx) <= r:
                    bump = math.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
                    target[class_, y, x] = max(target[class_, y, x], bump)
    return target


def focal_loss(logits: Floats, target: Floats, alpha: float = 2, beta: float = 4) -> float:
    """Return the modified focal loss of CornerNet, equation 1."""
    chance = sigmoid(logits)
    total = 0.0
    for p, y in zip(chance.ravel(), target.ravel(), strict=True):
        total += (
            (1 - p) ** alpha * math.log(p)
            if y == 1
            else (1 - y) ** beta * p**alpha * math.log(1 - p)
        )
    return -total / max(int((target == 1).sum()), 1)


def between(values: Floats, y: float, x: float) -> float:
    """Return the bilinear value of a map (h, w) at y, x in its positions, its border going on."""
    rows, columns = values.shape
    y, x = min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)
    a, b = math.floor(y), math.floor(x)
    c, d = min(a + 1, rows - 1), min(b + 1, columns - 1)
    v, u = y - a, x - b
    return float(
        values[a, b] * (1 - v) * (1 - u)
        + values[a, d] * (1 - v) * u
        + values[c, b] * v * (1 - u)
        + values[c, d] * v * u
    )


def resized(shape: Floats, height: int, width: int) -> Floats:
    """Return a map resized, bilinear between the centres of its cells, its border going on."""
    rows, columns = shape.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) / height * rows - 0.5, (j + 0.5) / width * columns - 0.5
            result[i, j] = between(shape, y, x)
    return result


def assembled(shape: Floats, saliency: Floats, box: tuple[int, int, int, int]) -> Floats:
    """Return the mask of a box of whole pixels: the shape resized to it, times the saliency's crop.

    The saliency (h, w) is one value a pixel.
    """
    y0, x0, y1, x1 = box
    return sigmoid(resized(shape, y1 - y0, x1 - x0)) * sigmoid(saliency[y0:y1, x0:x1])


def assembled_pixels(
    shape: Floats, saliency: Floats, stride: int, box: tuple[float, float, float, float]
) -> dict[tuple[int, int], float]:
    """Return the same at each pixel whose centre lies in a box of any edges.

    Pixel i lies at i, position k of the saliency (h, w) at stride * k.
    """
    y0, x0, y1, x1 = box
    side = len(shape)
    found = {}
    for y in range(max(math.ceil(y0), 0), min(math.floor(y1) + 1, stride * saliency.shape[0])):
        for x in range(max(math.ceil(x0), 0), min(math.floor(x1) + 1, stride * saliency.shape[1])):
            v, u = (y - y0) / (y1 - y0) * side - 0.5, (x - x0) / (x1 - x0) * side - 0.5
            local = sigmoid(np.array(between(shape, v, u)))
            found[y, x] = float(
                local * sigmoid(np.array(between(saliency, y / stride, x / stride)))
            )
    return found


def cross_entropy(chance: Floats, truth: Floats) -> Floats:
    return -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance))
