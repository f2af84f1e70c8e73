"""Voxel: lengths in any unit become um, or nothing."""

from __future__ import annotations

import pytest

from cellseg.pipeline.voxel import Voxel, to_um, to_voxel


@pytest.mark.parametrize(
    ("length", "unit", "um"),
    [
        (0.5, "µm", 0.5),
        (0.5, "\u03bcm", 0.5),
        ("0.5", "micrometer", 0.5),
        (500, "nanometer", 0.5),
        (0.0005, "mm", 0.5),
        (0.0005, "millimeter", 0.5),
        (5000, "Å", 0.5),
        (1, "inch", 25_400),
        (1, "pixel", None),
        (1, None, None),
        (None, "um", None),
        ("wide", "um", None),
        (0, "um", None),
        (-1, "um", None),
        (float("nan"), "um", None),
        (float("inf"), "um", None),
    ],
)
def test_to_um(length: float | str | None, unit: str | None, um: float | None) -> None:
    assert to_um(length, unit) == (None if um is None else pytest.approx(um))


@pytest.mark.parametrize(
    ("z", "y", "x", "planes", "voxel"),
    [
        (2.0, 0.5, 0.4, 3, (2.0, 0.5, 0.4)),
        (2.0, 0.5, 0.4, 1, (2.0, 0.5, 0.4)),
        (None, 0.5, 0.4, 1, (1.0, 0.5, 0.4)),
        (None, 0.5, 0.4, 3, None),
        (2.0, None, 0.4, 3, None),
        (2.0, 0.5, None, 3, None),
    ],
)
def test_to_voxel(
    z: float | None, y: float | None, x: float | None, planes: int, voxel: Voxel | None
) -> None:
    assert to_voxel(z, y, x, planes) == voxel
