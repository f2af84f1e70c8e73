"""Composed images: light that adds or is absorbed, full masks, and no cell lost on the way."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg.models.arrange import Placed
from cellseg.models.blend import absorbed, saturated, sum_of_density, sum_of_light
from cellseg.models.compose import CellLibrary, Composed, compose, cut_cells
from cellseg.models.compose_settings import ComposeSettings
from cellseg.models.cut import RIM
from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from cellseg.models.layers import from_layers
from cellseg.models.pose import Posed, pose
from synthetic import cells

SETTINGS = ComposeSettings()
STILL = ComposeSettings(scale=0, stretch=0, shear=0, bend=0, gain=0)
SIDE = 96


def sample(seed: int, channels: int = 1, touching: float = 0.0) -> Sample:
    """An annotated image whose background is 0 and whose cells are about 1."""
    image, labels = cells(seed, (160, 180), 24, touching=touching)
    pixels = (image.astype(np.float32) - 200) / 3000
    weights = np.linspace(1, 0.5, channels)[:, None, None]
    classes = np.append(0, 1 + np.arange(labels.max()) % 3).astype(np.uint8)
    light = (pixels * weights).astype(np.float32)
    return Sample(str(seed), light, labels.astype(np.int32)[None], classes)


@cache
def library(channels: int = 1) -> CellLibrary:
    return cut_cells([sample(seed, channels) for seed in range(3)])


def placed(seed: int, count: int = 6, channels: int = 1) -> list[tuple[Placed, Posed]]:
    """Cells at random places, some of them across the crop's border."""
    random = np.random.default_rng(seed)
    poses = [
        pose(library(channels).cells[int(random.integers(len(library())))], 1.0, SETTINGS, random)
        for _ in range(count)
    ]
    corners = random.integers(-10, SIDE - 10, (count, 2)).tolist()
    return [
        (Placed(y, x, posed.mask, int(posed.mask.sum())), posed)
        for posed, (y, x) in zip(poses, corners, strict=True)
    ]


# Posing


def test_without_changes_a_pose_is_the_cell_turned() -> None:
    for number, cell in enumerate(library().cells[:12]):
        posed = pose(cell, 1.0, STILL, np.random.default_rng(number))
        assert posed.mask.sum() == pytest.approx(cell.mask.sum(), rel=0.06)
        assert posed.light.sum() == pytest.approx(cell.light.sum(dtype=np.float64), rel=0.02)
        assert posed.class_ == cell.class_


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.0]))
def test_a_pose_is_whole_and_its_rim_ends_softly(seed: int, zoom: float) -> None:
    random = np.random.default_rng(seed)
    cell = library().cells[seed % len(library())]
    posed = pose(cell, zoom, SETTINGS, random)
    edge = np.ones(posed.mask.shape, bool)
    edge[1:-1, 1:-1] = False
    assert not posed.mask[edge].any()
    assert np.abs(posed.light[:, edge]).max() < 0.1 * posed.light.max()
    assert np.array_equal(posed.mask, posed.soft >= 0.5)


def test_all_channels_are_bent_alike() -> None:
    cell = library(3).cells[0]
    light = pose(cell, 1.3, SETTINGS, np.random.default_rng(1)).light
    assert light.shape[0] == 3
    assert light[1] == pytest.approx(0.75 * light[0], abs=0.01)
    assert light[2] == pytest.approx(0.5 * light[0], abs=0.01)


# Drawing


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([1, 2]))
def test_light_adds_up(seed: int, channels: int) -> None:
    drawn = placed(seed, channels=channels)
    each = [sum_of_light([one], channels, SIDE) for one in drawn]
    assert sum_of_light(drawn, channels, SIDE) == pytest.approx(np.sum(each, axis=0), abs=1e-5)
    for (place, posed), alone in zip(drawn, each, strict=True):
        padded = np.pad(alone, ((0, 0), (40, 40), (40, 40)))
        y, x = place.y0 + 40, place.x0 + 40
        patch = padded[:, y : y + posed.mask.shape[0], x : x + posed.mask.shape[1]]
        assert np.array_equal(patch[patch != 0], posed.light[patch != 0])


def test_absorption_multiplies() -> None:
    drawn, strength = placed(3, channels=2), np.array([0.4, 0.9], np.float32)
    light = np.random.default_rng(0).uniform(0.8, 1, (2, SIDE, SIDE)).astype(np.float32)
    together = absorbed(light, sum_of_density(drawn, SIDE, 0.8, 0.5, strength))
    through = light
    for one in drawn:
        through = absorbed(through, sum_of_density([one], SIDE, 0.8, 0.5, strength))
    assert together == pytest.approx(through, abs=1e-4)
    assert absorbed(2 * light, sum_of_density(drawn, SIDE, 0.8, 0.5, strength)) == pytest.approx(
        2 * together, abs=1e-4
    )
    assert together.min() < 0.5 * light.min()


def test_saturation_is_gentle() -> None:
    light = np.linspace(-0.1, 3, 50, dtype=np.float32)
    out = saturated(light, 2.0)
    assert (np.diff(out) > 0).all()
    assert out[:2] == pytest.approx(light[:2], abs=0.01)
    assert out.max() < 2


# Composing


def test_an_empty_library_says_what_to_do() -> None:
    with pytest.raises(CellsegError, match=r"library holds no cells\. Cut them from"):
        compose(CellLibrary(()), SIDE, np.random.default_rng(0), SETTINGS)


def whole(composed: Composed) -> None:
    """Check that labels are 1..N, each whole in one layer, and that each has a class."""
    labels, classes = composed.labels, composed.classes
    assert np.unique(labels).tolist() == list(range(len(classes)))
    found = [layer for layer in labels for _ in np.unique(layer[layer > 0])]
    assert len(found) == len(classes) - 1
    assert classes.dtype == np.uint8
    assert classes[0] == 0
    assert (classes[1:] > 0).all()


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.sampled_from([0.0, 1.0]))
def test_composed_images_keep_the_promises_of_their_shapes(
    seed: int, channels: int, transmission: float
) -> None:
    chosen = SETTINGS.model_copy(update={"transmission": transmission})
    composed = compose(library(channels), SIDE, np.random.default_rng(seed), chosen)
    assert composed.image.shape == (channels, SIDE, SIDE)
    assert composed.image.dtype == np.float32
    assert composed.labels.shape[1:] == (SIDE, SIDE)
    assert composed.labels.dtype == np.int32
    for plane in composed.image:
        assert np.percentile(plane, [1, 99.8]).tolist() == pytest.approx([0, 1], abs=1e-4)
    whole(composed)
    inside = composed.labels.any(axis=0)
    brighter = np.median(composed.image[0][inside]) > np.median(composed.image[0][~inside])
    assert brighter == (transmission == 0)


@pytest.mark.parametrize("with_base", [False, True])
def test_a_seed_gives_the_same_bytes(with_base: bool) -> None:
    base = base_of(sample(5)) if with_base else None
    one, other = (
        compose(library(), SIDE, np.random.default_rng(4), SETTINGS, base) for _ in range(2)
    )
    another = compose(library(), SIDE, np.random.default_rng(5), SETTINGS, base)
    assert one.image.tobytes() == other.image.tobytes()
    assert one.labels.tobytes() == other.labels.tobytes()
    assert one.classes.tobytes() == other.classes.tobytes()
    assert one.image.tobytes() != another.image.tobytes()


def square(labels: np.ndarray, y: int, x: int, height: int, width: int, label: int) -> None:
    labels[y : y + height, x : x + width] = label


def test_masks_are_whole_under_others() -> None:
    labels = np.zeros((1, 150, 150), np.int32)
    for label in range(1, 10):
        square(labels[0], (label - 1) // 3 * 40 + 20, (label - 1) % 3 * 40 + 20, 20, 20, label)
    equal = cut_cells([Sample("equal", (labels > 0).astype(np.float32), labels)])
    crowded = STILL.model_copy(update={"zoom": (1, 1), "density": (0.3, 0.3), "share": (0.3, 0.6)})
    hidden = 0
    for seed in range(5):
        composed = compose(equal, 160, np.random.default_rng(seed), crowded)
        found = from_layers(composed.labels)
        inside = (found.boxes[:, :2] > 0).all(axis=1) & (found.boxes[:, 2:] < 160).all(axis=1)
        assert found.areas()[inside] == pytest.approx(400, rel=0.06)
        hidden += int(((composed.labels > 0).sum(axis=0) > 1).sum())
    assert hidden > 2000


def shares(share: float, covered: float) -> list[float]:
    """The part of the smaller cell that the two of a pair share, over many pairs."""
    chosen = ComposeSettings(
        share=(share, share), usual=1, covered=covered, cluster=2, most_cells=2, scale=0.1
    )
    found = []
    for seed in range(60):
        labels = compose(library(), 160, np.random.default_rng(seed), chosen).labels
        if len(labels) == 2:
            edge = np.concatenate([labels[:, [0, -1]].ravel(), labels[:, :, [0, -1]].ravel()])
            smaller = min(np.count_nonzero(layer) for layer in labels)
            if not edge.any():
                found.append(float((labels > 0).all(axis=0).sum() / smaller))
    return found


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_neighbours_share_what_was_asked_for(share: float) -> None:
    found = shares(share, 0.85)
    assert len(found) > 8
    assert np.mean(found) == pytest.approx(share, abs=0.04)


def test_no_cell_is_hidden_beyond_what_can_be_seen() -> None:
    crowded = ComposeSettings(density=(0.6, 0.6), share=(0.3, 0.9), cluster=9, covered=0.7)
    largest = []
    for seed in range(5):
        labels = compose(library(), 128, np.random.default_rng(seed), crowded).labels
        depth = (labels > 0).sum(axis=0)
        for layer in labels:
            present = np.unique(layer[layer > 0])
            largest += [float((depth[layer == label] > 1).mean()) for label in present]
    assert 0.5 < max(largest) <= 0.7
    assert depth.max() <= 6


def test_classes_follow_their_cells() -> None:
    # In each image all cells of a class are equally large, so the mask says the class.
    labels, classes = np.zeros((1, 130, 130), np.int32), np.zeros(10, np.uint8)
    for label in range(1, 10):
        classes[label] = 1 + label % 2
        y, x = (label - 1) // 3 * 40 + 10, (label - 1) % 3 * 40 + 10
        square(labels[0], y, x, *((10, 10) if label % 2 else (26, 26)), label)
    two = cut_cells([Sample("two", (labels > 0).astype(np.float32), labels, classes)])
    still = STILL.model_copy(update={"zoom": (1, 1)})
    for seed in range(5):
        composed = compose(two, 200, np.random.default_rng(seed), still)
        found = from_layers(composed.labels)
        inside = (found.boxes[:, :2] > 0).all(axis=1) & (found.boxes[:, 2:] < 200).all(axis=1)
        large = found.areas()[inside] > 300
        assert composed.classes[1:][inside].tolist() == np.where(large, 1, 2).tolist()


# On a base


def base_of(shown: Sample) -> Composed:
    """A crop of an annotated image; its labels have gaps, as a crop's may."""
    labels = shown.labels[:, 30 : 30 + SIDE, 40 : 40 + SIDE]
    assert shown.classes is not None
    return Composed(shown.image[:, 30 : 30 + SIDE, 40 : 40 + SIDE], labels, shown.classes)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_cells_of_a_base_stay_and_others_come(channels: int) -> None:
    base = base_of(sample(7, channels, touching=0.5))
    before = from_layers(base.labels)
    for seed in range(5):
        composed = compose(library(channels), SIDE, np.random.default_rng(seed), SETTINGS, base)
        whole(composed)
        after = from_layers(composed.labels)
        assert len(after) > len(before)
        assert np.array_equal(after.boxes[: len(before)], before.boxes)
        for kept, mask in zip(after.masks, before.masks, strict=False):
            assert np.array_equal(kept, mask)
        present = np.unique(base.labels[base.labels > 0])
        assert np.array_equal(composed.classes[1 : 1 + len(before)], base.classes[present])
        # Where no light was added, the image is that of the base, but for its brightest pixel.
        added = np.isin(composed.labels, np.arange(len(before) + 1, len(after) + 1)).any(axis=0)
        away = ~ndimage.binary_dilation(added, iterations=3 * RIM)
        # Of a cell beyond the border, the soft rim may still shine in.
        seen = np.pad((away & base.labels.any(axis=0))[16:-16, 16:-16], 16)
        ratio = composed.image[:, seen] / base.image[:, seen]
        assert ratio.shape[1] > 0
        assert ratio.max() <= 1 + 1e-6
        assert np.ptp(ratio, axis=1).max() < 1e-4
        highest = np.percentile([base.image, composed.image], 99.8, axis=(2, 3))
        assert (highest[1] <= np.maximum(highest[0], 1) + 1e-4).all()


def test_on_dark_cells_dark_ones_are_added() -> None:
    shown = sample(7)
    base = base_of(Sample("dark", 1 - shown.image, shown.labels, shown.classes))
    composed = compose(library(), SIDE, np.random.default_rng(0), SETTINGS, base)
    assert (composed.image <= base.image + 0.05).all()
    assert composed.image.mean() < base.image.mean() - 0.01


def test_a_base_without_cells_gets_some() -> None:
    random = np.random.default_rng(0)
    image = random.normal(0, 0.02, (1, SIDE, SIDE)).astype(np.float32)
    empty = Composed(image, np.zeros((1, SIDE, SIDE), np.int32), np.zeros(1, np.uint8))
    composed = compose(library(), SIDE, random, SETTINGS, empty)
    assert len(composed.classes) > 2
    whole(composed)


def test_a_base_of_another_shape_is_refused() -> None:
    with pytest.raises(CellsegError, match=r"a base of \(2, 96, 96\) does not fit"):
        compose(library(), SIDE, np.random.default_rng(0), SETTINGS, base_of(sample(1, channels=2)))
