"""Cells are cut whole and clean, with the light of their edge and nothing of their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from cellseg.models.cut import RIM, cut_cells
from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from synthetic import cells


def test_what_is_cut_is_the_cell_less_its_background() -> None:
    image, labels = np.full((1, 60, 60), 0.4, np.float32), np.zeros((1, 60, 60), np.int32)
    image[:, 20:32, 22:30] += 0.5
    labels[:, 20:32, 22:30] = 7
    classes = np.zeros(8, np.uint8)
    classes[7] = 5
    (cell,) = cut_cells([Sample("a", image, labels, classes)]).cells
    assert cell.mask.shape == (12 + 2 * RIM, 8 + 2 * RIM)
    assert cell.mask.sum() == 12 * 8
    assert cell.class_ == 5
    assert cell.light[0][cell.mask] == pytest.approx(0.5, abs=0.01)
    assert cell.light[0][~cell.mask] == pytest.approx(0, abs=0.01)


def test_dark_cells_are_cut_by_what_they_take_away() -> None:
    pixels, labels = cells(0, touching=0)
    image, layers = (pixels[None] / 3000).astype(np.float32), labels[None].astype(np.int32)
    bright, dark = Sample("bright", image, layers), Sample("dark", 1 - image, layers)
    one, other = cut_cells([bright]), cut_cells([dark])
    assert len(one) == len(other) > 5
    for cell, same in zip(one.cells, other.cells, strict=True):
        assert same.light == pytest.approx(cell.light, abs=0.01)


def square(labels: np.ndarray, y: int, x: int, height: int, width: int, label: int) -> None:
    labels[y : y + height, x : x + width] = label


@pytest.mark.parametrize(
    ("why", "box", "other"),
    [
        ("at the border", (0, 20, 12, 12), None),
        ("tiny", (20, 20, 5, 5), None),
        ("a line", (20, 20, 2, 20), None),
        ("beside another", (20, 20, 12, 12), (20, 33, 12, 12)),
        ("under another", (20, 20, 12, 12), (26, 26, 12, 12)),
    ],
)
def test_a_cell_that_cannot_be_cut_cleanly_is_left(
    why: str, box: tuple[int, int, int, int], other: tuple[int, int, int, int] | None
) -> None:
    labels = np.zeros((2, 64, 64), np.int32)
    square(labels[0], *box, 1)
    if other is not None:
        square(labels[1], *other, 2)
    square(labels[0], 45, 45, 10, 10, 3)
    image = (labels.sum(axis=0, keepdims=True) > 0).astype(np.float32)
    (cell,) = cut_cells([Sample(why, image, labels)]).cells
    assert cell.mask.sum() == 100


def test_images_without_a_cell_to_cut_say_what_to_do() -> None:
    empty = Sample("e", np.zeros((1, 40, 40), np.float32), np.zeros((1, 40, 40), np.int32))
    with pytest.raises(CellsegError, match=r"none of the 1 training images.*Add such images"):
        cut_cells([empty])


def test_a_background_that_rises_is_taken_off() -> None:
    labels = np.zeros((1, 120, 120), np.int32)
    for label, (y, x) in enumerate([(20, 20), (20, 85), (85, 20), (85, 85)], 1):
        square(labels[0], y, x, 14, 14, label)
    slope = np.linspace(0, 2, 120, dtype=np.float32)
    image = (labels > 0) * np.float32(0.5) + slope
    library = cut_cells([Sample("slope", image.astype(np.float32), labels)])
    assert library.brightness == pytest.approx([0.5] * 4, abs=0.1)


def test_a_library_knows_which_cells_go_together() -> None:
    labels = np.zeros((1, 100, 100), np.int32)
    square(labels[0], 20, 20, 10, 10, 1)
    square(labels[0], 60, 60, 20, 20, 2)
    image = (labels > 0).astype(np.float32)
    nothing = Sample("nothing", np.zeros_like(image), np.zeros_like(labels))
    one = Sample("one", image, np.where(labels == 2, labels, 0))
    library = cut_cells([Sample("two", image, labels), nothing, one])
    assert [own.tolist() for own in library.sources] == [[0, 1], [2]]
    assert library.areas.tolist() == [100, 400, 400]
    assert library.diameters == pytest.approx([2 * np.sqrt(250 / np.pi), 2 * np.sqrt(400 / np.pi)])
