"""Position: distances to the edge of the image, not of the window."""

from __future__ import annotations

import numpy as np
import pytest

from cellseg.pipeline.measure import measure
from cellseg.pipeline.measure_settings import Measure

SETTINGS = Measure(groups=("position",))


def test_distances_to_the_edge_of_the_image() -> None:
    labels = np.zeros((10, 12), np.int64)
    labels[2:5, 4:6] = 1  # rows 102 to 104, columns 44 to 45 of 120 and 50
    found = measure(
        labels,
        np.zeros((0, 10, 12)),
        [1],
        [],
        settings=SETTINGS,
        origin=(100, 40),
        extent=(120, 50),
        pixel_um=(0.5, 2.0),
    )
    assert found["edge_distance_px"][0] == 50 - 45  # the centre is at 45, counted from the edge
    assert found["edge_gap_px"][0] == 4
    assert found["edge_distance_um"][0] == min(16.5 * 0.5, 5 * 2)
    assert found["edge_gap_um"][0] == min(15 * 0.5, 4 * 2)
    assert found["y_relative"][0] == pytest.approx(103.5 / 120)
    assert found["x_relative"][0] == pytest.approx(45 / 50)


def test_a_cell_at_the_edge_has_no_gap() -> None:
    found = measure(np.ones((4, 6), np.int64), np.zeros((0, 4, 6)), [1], [], settings=SETTINGS)
    assert (found["edge_gap_px"][0], found["edge_distance_px"][0]) == (0, 2)
    assert (found["y_relative"][0], found["x_relative"][0]) == (0.5, 0.5)
    assert np.isnan(found["edge_distance_um"][0])
    assert np.isnan(found["edge_gap_um"][0])
