"""Make the demo of overlapping cells again: six images composed of real nuclei, and their truth.

    python -m benchmarks.compose_demo --data FOLDER

FOLDER holds `images/`, `labels/` and `val.txt`, the images of Data Science Bowl
2018 that no shipped model was trained on; only those are used. The same
versions of numpy and scipy give the same pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

# Python puts the folder of a script on its path, not the one that holds `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cellseg.models.compose import CellLibrary, compose, cut_cells
from cellseg.models.compose_settings import ComposeSettings
from cellseg.models.dataset import Sample
from cellseg.models.errors import CellsegError
from cellseg.models.layers import from_layers
from cellseg.models.normalise import decide
from cellseg.models.settings import Percentile
from cellseg.pipeline.image import open_image
from cellseg.pipeline.tiles import Box

FOLDER = Path(__file__).resolve().parent.parent / "workflows" / "demo_overlap"
SIDE = 384
DARK, FULL = 500, 1500
"""Grey levels of 0 and 1: dim enough that noise takes few bits, as the demo must be small."""
SEEDS = {
    "fluorescence_1": 2,
    "fluorescence_2": 5,
    "fluorescence_3": 10,
    "fluorescence_4": 21,
    "bright_field_1": 57,
    "bright_field_2": 63,
}


def settings(name: str) -> ComposeSettings:
    """Return how an image is composed: fairly crowded, cells about as large as they are."""
    return ComposeSettings(
        density=(0.1, 0.22),
        zoom=(0.8, 1.4),
        transmission=float(name.startswith("bright_field")),
    )


def read(folder: Path) -> list[Sample]:
    """Read the validation images of a folder, and their labels."""
    listed = folder / "val.txt"
    if not listed.is_file():
        raise CellsegError(f"{listed}: no such file. Give the folder with images/ and val.txt.")
    names = sorted(line.strip() for line in listed.read_text(encoding="utf-8").splitlines())
    return [_sample(folder, name) for name in names if name]


def _sample(folder: Path, name: str) -> Sample:
    pixels, labels = (_pixels(folder / kind / name) for kind in ("images", "labels"))
    image = decide(Percentile(), [pixels]).apply(pixels)
    return Sample(Path(name).stem, image, labels.astype(np.int32))


def _pixels(path: Path) -> NDArray[np.generic]:
    """Return the first channel of an image, (1, H, W)."""
    image = open_image(path)
    return image.read(0, 0, Box(0, 0, *image.pixels.shape[3:]), [0])


def write(library: CellLibrary, name: str, folder: Path) -> tuple[int, int, float]:
    """Compose and write an image and its truth.

    Returns
    -------
    (cells, layers, overlapped)
        The last is the part of all covered pixels that two cells or more cover.
    """
    composed = compose(library, SIDE, np.random.default_rng(SEEDS[name]), settings(name))
    levels = np.rint(DARK + (FULL - DARK) * composed.image[0])
    image = np.clip(levels, 0, 65535).astype(np.uint16)
    found = from_layers(composed.labels)
    planes = np.zeros((len(found), SIDE, SIDE), np.uint8)
    for plane, (y0, x0, y1, x1), mask in zip(
        planes, found.boxes.tolist(), found.masks, strict=True
    ):
        plane[y0:y1, x0:x1][mask] = 255
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    _save(folder / f"{name}.tif", image, "YX")
    _save(folder / "truth" / f"{name}.tif", planes, "IYX")
    depth = (planes > 0).sum(axis=0)
    return len(found), len(composed.labels), float((depth > 1).sum() / (depth > 0).sum())


def _save(path: Path, pixels: NDArray[np.generic], axes: str) -> None:
    tifffile.imwrite(
        path,
        pixels,
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": 9},
        predictor=pixels.dtype == np.uint16,
        metadata={"axes": axes},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the demo; what the user can mend is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the validation images")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the demo")
    options = parser.parse_args(arguments)
    try:
        library = cut_cells(read(options.data))
    except CellsegError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{len(library)} cells cut from {len(library.sources)} images")
    for name in SEEDS:
        cells, layers, overlapped = write(library, name, options.output)
        print(f"{name}: {cells} cells in {layers} layers, {100 * overlapped:.0f} % overlap")


if __name__ == "__main__":
    main()
