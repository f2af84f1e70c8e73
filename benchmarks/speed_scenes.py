"""What speed is measured on: a slide, a plate, a slide with next to nothing on it, a crowd.

All that is drawn follows from a seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

BACKGROUND, NOISE = 200, 20.0
BRIGHT = (1500.0, 4000.0)
STRIP = 512
"""Rows that are drawn at a time."""
FIELDS = 43
"""Of the plate that is made of the demo plate's twelve."""
WELLS_A_ROW = 24


@dataclass(frozen=True)
class Input:
    """Images that a run is timed on.

    Parameters
    ----------
    name : str
    images : Path
        A file or a folder.
    megapixels : float
        Of one channel.
    fields : int
        Number of images.
    """

    name: str
    images: Path
    megapixels: float
    fields: int = 1

    def workflow(self, folder: Path, model: str) -> Path:
        """Write the workflow of a run with a model, all else as shipped; return it."""
        path = folder / f"{self.name}_{model}.toml"
        text = f'images = "{self.images.resolve()}"\n[model]\nname = "{model}"\nchannels = [0]\n'
        path.write_text(text, encoding="utf-8")
        return path


def of_file(path: Path, name: str = "slide") -> Input:
    """Return a TIFF that is there."""
    with tifffile.TiffFile(path) as file:
        height, width = file.series[0].keyframe.shape[:2]
    return Input(name, path, height * width / 1e6)


def of_folder(folder: Path) -> Input:
    """Return the TIFFs of a folder."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".tif", ".tiff"))
    return Input("plate", folder, sum(of_file(path).megapixels for path in files), len(files))


def demo_plate(folder: Path, fields: int = FIELDS) -> Input:
    """Write the fields of the demo plate again and again, as wells of a larger one."""
    plate = folder / "plate"
    plate.mkdir()
    with resources.as_file(resources.files("cellseg.workflows") / "demo_plate") as demo:
        sources = sorted(demo.glob("*.tif"))
        for number in range(fields):
            row, column = divmod(number, WELLS_A_ROW)
            name = f"IXMtest_{chr(ord('A') + row)}{column + 1:02}_s1_w1.tif"
            shutil.copyfile(sources[number % len(sources)], plate / name)
    return of_folder(plate)


def nearly_empty(folder: Path, side: int = 8192, clusters: int = 20, cells: int = 40) -> Input:
    """Draw noise with a few clusters of cells."""
    random = np.random.default_rng(1)
    middles = random.uniform(200, max(side - 200, 201), (clusters, 1, 2))
    centres = (middles + random.normal(0, 70, (clusters, cells, 2))).reshape(-1, 2)
    return _written(folder, "nearly empty", side, centres, (7.0, 11.0))


def crowd(folder: Path, side: int = 2048, cells: int = 20_000, name: str = "crowd") -> Input:
    """Draw cells everywhere, side by side, each as large as there is room for."""
    centres, pitch = lattice(side, cells)
    return _written(folder, name, side, centres, (0.36 * pitch, 0.48 * pitch))


def tissue(folder: Path, side: int, cells: int, name: str) -> Input:
    """Draw cells of one size, however many there are: none meets another up to 2,000 a Mpx."""
    return _written(folder, name, side, lattice(side, cells)[0], (5.0, 8.0))


def lattice(side: int, cells: int) -> tuple[NDArray[np.float64], float]:
    """Return centres (N, 2) of that many cells, spread evenly but for chance, and their pitch."""
    across = int(np.ceil(np.sqrt(cells)))
    pitch = side / across
    places = (np.indices((across, across)).reshape(2, -1).T + 0.5) * pitch
    random = np.random.default_rng(2)
    chosen = np.sort(random.permutation(len(places))[:cells])
    return places[chosen] + random.uniform(-0.12, 0.12, (cells, 2)) * pitch, pitch


def _written(
    folder: Path,
    name: str,
    side: int,
    centres: NDArray[np.float64],
    radii: tuple[float, float],
) -> Input:
    path = folder / f"{name.replace(' ', '_')}.tif"
    pixels = draw(side, centres, radii)
    tifffile.imwrite(path, pixels, tile=(256, 256), compression="zlib")
    return of_file(path, name)


def draw(
    side: int, centres: Sequence[Sequence[float]] | NDArray[np.float64], radii: tuple[float, float]
) -> NDArray[np.uint16]:
    """Draw ellipses with soft edges on a noisy background.

    Parameters
    ----------
    side : int
        Height and width, px.
    centres : float (N, 2)
        Rows and columns, px.
    radii : (float, float)
        Range of the semi-axes, px.

    Returns
    -------
    uint16 (side, side)
    """
    random = np.random.default_rng(0)
    pixels = np.empty((side, side), np.uint16)
    for start in range(0, side, STRIP):
        strip = pixels[start : start + STRIP]
        strip[:] = np.clip(random.normal(BACKGROUND, NOISE, strip.shape), 0, None)
    reach = int(np.ceil(1.3 * radii[1]))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for row, column in np.asarray(centres):
        _add_cell(pixels, random, (int(row), int(column)), (y, x), radii)
    return pixels


def _add_cell(
    pixels: NDArray[np.uint16],
    random: np.random.Generator,
    centre: tuple[int, int],
    around: tuple[NDArray[np.int64], NDArray[np.int64]],
    radii: tuple[float, float],
) -> None:
    """Add a cell to what is there, as far as it lies inside."""
    (y, x), (long, short) = around, random.uniform(*radii, 2)
    angle, bright = random.uniform(0, np.pi), random.uniform(*BRIGHT)
    along = (y * np.sin(angle) + x * np.cos(angle)) / long
    across = (y * np.cos(angle) - x * np.sin(angle)) / short
    soft = np.clip((1.15 - np.hypot(along, across)) / 0.3, 0, 1) * bright
    first = np.array(centre) - len(y) // 2
    low = np.clip(first, 0, len(pixels))
    high = np.clip(first + soft.shape, 0, len(pixels))
    inside = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
    rows, columns = (slice(a, b) for a, b in zip(low, high, strict=True))
    if (high > low).all():
        pixels[rows, columns] += soft[inside].astype(np.uint16)
