"""Optional groups of columns measured cell by cell, slowly: what the fast ones are checked by.

Written from CellProfiler 4.2's modules and from the papers that `docs/measurements.md` names.
`CELLPROFILER` holds what cp_measure 0.3.0, with centrosome 1.3.4 and mahotas 1.4.19, says of the
cells of `picture`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from skimage import morphology

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def picture() -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """An ellipse, a bent cell and one at the edge of the image, in two channels."""
    y, x = np.mgrid[:40, :44]
    labels = np.zeros((40, 44), np.int64)
    labels[((y - 11) / 7) ** 2 + ((x - 12) / 9) ** 2 <= 1] = 1
    labels[8:34, 26:33] = 2
    labels[27:34, 18:33] = 2
    labels[(y >= 24) & (x <= 11) & (x <= y - 18)] = 3
    a, b = (y * y * 7 + x * x * 3 + x * y * 5) % 251, (y * 11 + x * x * 2 + x * y) % 239
    return labels, np.stack([a, b]).astype(np.uint8)


CELLPROFILER = {
    "radial_fraction_1_a": (0.0541980077, 0.0170032573, 0.1201125592),
    "radial_mean_3_a": (0.9770653334, 0.933135722, 1.1448596849),
    "radial_cv_4_a": (0.0776726263, 0.144199678, 0.2785006949),
    "texture_contrast_3_a": (10767.7074819712, 10627.955435366, 9999.6579025014),
    "texture_correlation_3_a": (-0.0073301546, 0.0312380674, -0.0157198413),
    "texture_difference_variance_3_a": (3.05915e-05, 2.5401e-05, 2.96332e-05),
    "texture_information_1_3_a": (-0.8288883997, -0.8295507229, -0.8310087596),
    "texture_information_2_3_a": (0.9999945897, 0.9999950322, 0.9999927564),
    "texture_entropy_3_a": (8.0908283329, 8.1461001137, 7.8463022291),
    "texture_sum_variance_3_a": (10613.1371592507, 11283.0939075996, 9686.2594454203),
    "granularity_1_a": (16.4042097362, 23.7982553769, 39.2166141016),
    "granularity_3_a": (20.6863750904, 18.1115999371, 16.0334657352),
    "pearson_a_b": (0.0610343977, -0.0026426547, -0.0363225409),
    "slope_a_b": (0.0591353561, -0.0024293571, -0.0344807131),
    "manders_1_a_b": (0.6237759591, 0.5903950599, 0.6132791163),
    "manders_2_a_b": (0.6475413987, 0.6323357298, 0.5448985424),
    "overlap_a_b": (0.9352577016, 0.9372792605, 0.9448541618),
    "overlap_k1_a_b": (0.9024892108, 0.8933393123, 0.8945280171),
    "overlap_k2_a_b": (0.969215984, 0.9833804468, 0.9980116553),
    # With circles 1e-12 larger than centrosome's, which loses pixels on them by rounding.
    "zernike_0_0": (0.7741610812, 0.3690998924, 0.6513393047),
    "zernike_2_2": (0.0829614244, 0.0870007428, 0.0706130612),
    "zernike_4_2": (0.0140766688, 0.0346357913, 0.019210523),
    "zernike_9_5": (0.0, 0.0031286887, 0.0045704541),
}
"""Of each cell; Manders' and overlap at a threshold of 0.4, the rest as CellProfiler's defaults."""


def ring(labels: NDArray[np.integer], cell: int, gap: float, width: float) -> Mask:
    """Return the free pixels from `gap` to `gap + width` px, that no other cell is nearer to."""
    own = ndimage.distance_transform_edt(labels != cell)
    others = (labels != cell) & (labels > 0)
    away = ndimage.distance_transform_edt(~others) if others.any() else np.full(labels.shape, 1e9)
    ring: Mask = (labels == 0) & (own > gap) & (own <= gap + width) & (own <= away + 1e-9)
    return ring


def correlation(a: Floats, b: Floats, threshold: float) -> list[float]:
    """Return Pearson, slope, Manders 1 and 2, overlap, k1 and k2 of one cell's grey levels."""
    bright_a, bright_b = a >= threshold * a.max(), b >= threshold * b.max()
    both = bright_a & bright_b
    product, aa, bb = ((u[both] * v[both]).sum() for u, v in ((a, b), (a, a), (b, b)))
    return [
        np.corrcoef(a, b)[0, 1],
        np.polyfit(a, b, 1)[0],
        a[both].sum() / a[bright_a].sum(),
        b[both].sum() / b[bright_b].sum(),
        product / math.sqrt(aa * bb),
        product / aa,
        product / bb,
    ]


def radial(mask: Mask, grey: Floats, bins: int) -> Floats:
    """Return fraction, mean fraction and variation of each ring, (3, bins)."""
    depth = ndimage.distance_transform_edt(mask)
    depth[~mask] = 0
    cy, cx = np.unravel_index(depth.argmax(), mask.shape)
    way = _ways(mask, int(cy), int(cx))
    y, x = np.nonzero(np.isfinite(way))
    place = way[y, x] / (way[y, x] + depth[y, x] + 0.001)
    ring, values = (place * bins).astype(int), grey[y, x]
    wedge = (y > cy) + 2 * (x > cx) + 4 * (np.abs(y - cy) > np.abs(x - cx))
    found = np.zeros((3, bins))
    for each in range(bins):
        mine = ring == each
        found[0, each] = values[mine].sum() / values.sum()
        found[1, each] = found[0, each] / (mine.mean() + np.finfo(float).eps)
        means = [
            values[mine & (wedge == w)].mean() for w in range(8) if (mine & (wedge == w)).any()
        ]
        found[2, each] = np.std(means) / np.mean(means) if means else 0
    return found


def _ways(mask: Mask, y: int, x: int) -> Floats:
    """Return how far each pixel is from one, from neighbour to neighbour."""
    padded = np.pad(mask, 1)
    node = np.cumsum(padded).reshape(padded.shape) - 1
    rows, columns, lengths = [], [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        both = padded & np.roll(padded, (-dy, -dx), (0, 1))
        rows += node[both].tolist()
        columns += np.roll(node, (-dy, -dx), (0, 1))[both].tolist()
        lengths += [math.hypot(dy, dx)] * int(both.sum())
    size = int(mask.sum())
    graph = coo_array((lengths, (rows, columns)), shape=(size, size)).tocsr()
    way = np.full(mask.shape, np.inf)
    way[mask] = dijkstra(graph, directed=False, indices=node[y + 1, x + 1])
    return way


def zernike(mask: Mask, n: int, m: int) -> float:
    """Return the magnitude of a moment of Zernike, in the smallest circle around a mask."""
    y, x = np.nonzero(mask)
    cy, cx, radius = smallest_circle(np.stack([y, x], axis=1).astype(float))
    r, angle = np.hypot(y - cy, x - cx) / radius, np.arctan2(x - cx, y - cy)
    total = 0j
    for k in range((n - m) // 2 + 1):
        factor = (-1) ** k * math.factorial(n - k) / math.factorial(k)
        factor /= math.factorial((n + m) // 2 - k) * math.factorial((n - m) // 2 - k)
        total += (factor * r ** (n - 2 * k) * np.exp(1j * m * angle)).sum()
    return float(abs(total) / (math.pi * radius**2))


def smallest_circle(points: Floats) -> tuple[float, float, float]:
    """Return centre and radius, by trying all circles through two and three corners of the hull."""
    from scipy.spatial import ConvexHull

    hull = points
    if len(points) > 3 and np.ptp(points, axis=0).min() > 0:
        hull = points[ConvexHull(points).vertices]
    best = (0.0, 0.0, math.inf)
    for i, a in enumerate(hull):
        for j, b in enumerate(hull[:i]):
            centres = [(a + b) / 2]
            for c in hull[:j]:
                system = 2 * np.array([b - a, c - a])
                if abs(np.linalg.det(system)) > 1e-9:
                    centres.append(np.linalg.solve(system, [b @ b - a @ a, c @ c - a @ a]))
            for centre in centres:
                radius = float(np.hypot(*(hull - centre).T).max())
                if radius < best[2]:
                    best = float(centre[0]), float(centre[1]), radius
    return best


def haralick(mask: Mask, grey: NDArray[np.integer], scale: int) -> Floats:
    """Return the 13 features of grey levels, averaged over four directions; NaN without pairs."""
    inside = np.where(mask, grey, 0)
    size = int(inside.max()) + 1
    found = []
    for dy, dx in ((0, 1), (1, 1), (1, 0), (1, -1)):
        matrix = np.zeros((size, size))
        for y, x in zip(*np.nonzero(inside), strict=True):
            to_y, to_x = y + dy * scale, x + dx * scale
            if 0 <= to_y < mask.shape[0] and 0 <= to_x < mask.shape[1] and inside[to_y, to_x]:
                matrix[inside[y, x], inside[to_y, to_x]] += 1
                matrix[inside[to_y, to_x], inside[y, x]] += 1
        if not matrix.any():
            return np.full(13, np.nan)
        found.append(_features(matrix / matrix.sum()))
    return np.asarray(np.mean(found, axis=0))


def _features(p: Floats) -> list[float]:
    """Return Haralick's features of one matrix."""
    size = len(p)
    i, j = np.mgrid[:size, :size]
    level, single = np.arange(size), p.sum(axis=0)
    plus = np.bincount((i + j).ravel(), p.ravel(), minlength=2 * size)
    minus = np.bincount(abs(i - j).ravel(), p.ravel(), minlength=size)
    mean = single @ level
    variance = single @ level**2 - mean**2
    covariance = (i * j * p).sum() - mean**2
    alone = _entropy(single)
    crossed = -(p * np.log2(np.where(p > 0, np.outer(single, single), 1))).sum()
    crossed_2 = _entropy(np.outer(single, single))
    entropy, average = _entropy(p), plus @ np.arange(2 * size)
    features: list[Any] = [
        (p * p).sum(),
        minus @ level**2,
        covariance / variance if variance > 1e-12 else 1,
        variance,
        (p / (1 + (i - j) ** 2)).sum(),
        average,
        plus @ np.arange(2 * size) ** 2 - average**2,
        _entropy(plus),
        entropy,
        minus.var(),
        _entropy(minus),
        (entropy - crossed) / (alone if alone > 0 else 1),
        math.sqrt(max(0, 1 - math.exp(-2 * (crossed_2 - entropy)))),
    ]
    return [float(feature) for feature in features]


def _entropy(p: NDArray[Any]) -> float:
    some = p[p > 0]
    return float(-(some * np.log2(some)).sum())


def granularity(
    labels: NDArray[np.integer], grey: Floats, step: int, coarse: int, radius: int, length: int
) -> Floats:
    """Return the spectrum of all cells 1..N of an image, (length, N)."""
    shape = np.array(grey.shape)
    small, numbers = shape // step, np.arange(1, labels.max() + 1)
    pixels = grey[: small[0] * step : step, : small[1] * step : step]
    opened = pixels[::coarse, ::coarse]
    shapes: Any = morphology
    opened = shapes.opening(opened, shapes.disk(radius))
    background = _stretched(opened, small / coarse, small)
    pixels = np.maximum(pixels - background, 0)
    mean = ndimage.mean(grey, labels, numbers)
    start, eroded, spectrum = mean, pixels, []
    for _ in range(length):
        eroded = shapes.erosion(eroded, shapes.disk(1))
        rest = shapes.reconstruction(eroded, pixels, footprint=shapes.disk(1))
        after = ndimage.mean(_stretched(rest, small, shape), labels, numbers)
        spectrum.append((mean - after) * 100 / start)
        mean = after
    return np.array(spectrum)


def _stretched(image: Floats, size: NDArray[np.float64], shape: NDArray[np.int64]) -> Floats:
    """Interpolate an image of a size at every pixel of a finer one."""
    at = np.mgrid[: shape[0], : shape[1]] * ((size - 1) / (shape - 1))[:, None, None]
    stretched: Floats = ndimage.map_coordinates(image, at, order=1, mode="nearest")
    return stretched
