"""The size of a pixel in um, from whatever length and unit a file states."""

from __future__ import annotations

import math

Voxel = tuple[float, float, float]
"""Size along z, y and x, in um."""

UM_PER_UNIT: dict[str, float] = {
    **dict.fromkeys(("µm", "\u03bcm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("Å", "\u212b", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch"), 25_400.0),
}
"""Units as OME-XML, ImageJ and OME-Zarr spell them; mu and Angstrom have two code points each."""


def to_um(length: float | str | None, unit: str | None) -> float | None:
    """Return a length in um, or None where it or its unit is unknown or makes no sense."""
    factor = UM_PER_UNIT.get((unit or "").strip())
    try:
        value = float(length if length is not None else math.nan)
    except ValueError:
        return None
    return value * factor if factor and 0 < value < math.inf else None


def to_voxel(z: float | None, y: float | None, x: float | None, planes: int) -> Voxel | None:
    """Return the size of a pixel from what is known of each axis, in um.

    None if y or x is unknown, or z where there are several planes; a single
    plane of unknown depth counts as 1.0 um.
    """
    if z is None and planes == 1:
        z = 1.0
    return None if z is None or y is None or x is None else (z, y, x)


def enlarged(voxel: Voxel | None, factor: tuple[float, float]) -> Voxel | None:
    """Return the size of a pixel that holds (y, x) times as many, if the size is known."""
    return voxel and (voxel[0], voxel[1] * factor[0], voxel[2] * factor[1])


def step_px(voxel: Voxel) -> float:
    """Return how many px, in a plane, two planes are apart."""
    z, y, x = voxel
    return z / math.sqrt(y * x)


def depth_px(voxel: Voxel | None) -> float:
    """Return how many widths of a pixel a plane is thick: 1 where the size is not known."""
    return voxel[0] / voxel[2] if voxel else 1.0
