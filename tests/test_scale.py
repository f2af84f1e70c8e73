"""Cells of any size are seen at the size the model knows, and come back in px of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances, load_model
from cellseg.models.scale import estimate_diameter, magnify, nearest_zoom, zoom_for
from cellseg.models.settings import MaskRCNNSettings
from cellseg.models.weights import read_card, shipped


@given(st.floats(0.01, 100))
def test_magnifications_are_eighths_in_range(factor: float) -> None:
    zoom = nearest_zoom(factor)
    assert 1 / 8 <= zoom <= 8
    assert (zoom * 8).is_integer()
    if 0.5 <= factor <= 8:
        assert abs(zoom - factor) <= 1 / 16


def test_the_diameter_asks_for_its_magnification() -> None:
    card = read_card(shipped()["nuclei"])
    assert zoom_for(card, MaskRCNNSettings()) == 1
    assert zoom_for(card, MaskRCNNSettings(diameter_px=card.diameter_px)) == 1
    assert zoom_for(card, MaskRCNNSettings(diameter_px=card.diameter_px / 3)) == 3
    for undecided in (MaskRCNNSettings(diameter_px="auto"), MaskRCNNSettings(diameter_um=9)):
        with pytest.raises(CellsegError, match="decided by a run"):
            load_model(undecided)
    with pytest.raises(ValueError, match="both set"):
        MaskRCNNSettings(diameter_px=9, diameter_um=9)


@pytest.mark.parametrize("zoom", [0.25, 0.375, 0.5, 0.625, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("shift", [(8, 0), (16, 40)])
def test_a_window_is_sampled_where_its_neighbour_is(zoom: float, shift: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random((1, 120, 136), np.float32)
    whole = magnify(plane, zoom)
    part = magnify(plane[:, shift[0] :, shift[1] :], zoom)
    y, x = (round(s * zoom) for s in shift)
    edge = 8  # the filter of a reduction reaches over the edge
    assert np.allclose(part[:, edge:, edge:], whole[:, y + edge :, x + edge :], atol=1e-5)
    assert whole.shape[1:] == (round(120 * zoom), round(136 * zoom))


def test_a_pixel_stays_where_it_is() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32), (1, 64, 64)).copy()
    for zoom in (0.5, 2.0, 0.75):
        seen = magnify(ramp, zoom)[0, 20]
        expected = (np.arange(len(seen)) + 0.5) / zoom - 0.5
        assert seen[4:-4] == pytest.approx(expected[4:-4], abs=0.05)


@dataclass
class Discs:
    """A segmenter that finds bright discs whose seen diameter is near the one it knows."""

    diameter_px: float = 20
    zoom: float = 1

    def at_zoom(self, zoom: float) -> Discs:
        return replace(self, zoom=zoom)

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        found = []
        for plane in planes:
            cells = Instances.from_labels(plane[0].astype(np.int32))
            seen = 2 * np.sqrt(cells.areas() / np.pi) * self.zoom
            fit = np.exp(-(np.log(seen / self.diameter_px) ** 2))
            cells = replace(cells, scores=fit.astype(np.float32))
            found.append(cells.take(np.flatnonzero(fit > 0.4)))
        return found


@pytest.mark.parametrize("diameter", [5, 9, 20, 41, 80])
def test_the_diameter_is_found_whatever_it_is(diameter: int) -> None:
    y, x = np.indices((400, 400))
    pitch = int(diameter * 1.3) + 1
    inside = (y % pitch - pitch / 2) ** 2 + (x % pitch - pitch / 2) ** 2 <= (diameter / 2) ** 2
    labels = np.where(inside, 1 + y // pitch * 100 + x // pitch, 0)
    got = estimate_diameter(Discs(), [labels[None].astype(np.float32)])
    assert got == pytest.approx(diameter, rel=0.2)


def test_nothing_is_estimated_from_nothing() -> None:
    assert estimate_diameter(Discs(), [np.zeros((1, 50, 50), np.float32)]) is None
    assert estimate_diameter(Discs(), []) is None
