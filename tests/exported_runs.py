"""Small runs whose results the tests of exports write for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.export import EXPORTERS, Export
from exact import Exact, Known
from sections import ellipsoids
from synthetic import discs

CPU = Config(device="cpu")
SHAPE = (300, 340)
FORMS = tuple(form for form in EXPORTERS if form != "training")
"""What any results can be written as; a training needs corrections, see test_to_training."""
UM = 0.5


def shaped() -> NDArray[np.uint16]:
    """Cells with a hole, with a hole that meets its edge in a corner, of two parts, and plain."""
    labels = np.zeros(SHAPE, np.uint16)
    labels[10:30, 10:30], labels[15:20, 15:25] = 1, 0
    labels[40:46, 10:16], labels[41:45, 11:15], labels[40, 10] = 2, 0, 0
    labels[10:20, 100:110], labels[40:50, 100:120] = 3, 3
    labels[60:70, 60:70], labels[70:80, 70:80] = 4, 4  # they meet in a corner
    labels[100:101, 100:101], labels[299, 300:340], labels[200:260, 200:300] = 5, 6, 7
    return labels


def overlapping() -> Instances:
    """Discs up to four deep."""
    return discs(3, SHAPE, 60)


def volume() -> NDArray[np.uint16]:
    """Ellipsoids."""
    return ellipsoids(4, (5, 90, 100), 9)


def run_on(folder: Path, segmenter: Exact | Known, *overrides: str) -> Path:
    """Run on the TIFF files of a folder; return the results."""
    (folder / "w.toml").write_text(
        f'images = "*.tif"\npixel_size_um = {UM}\n[normalise]\nmethod = "none"\n'
        "[tiling]\nsize = 128\nhalo = 32\nskip_background = false\n[output]\noverview = false\n"
    )
    output = folder / "out"
    result = run(read_workflow(folder / "w.toml", overrides, output=output), CPU, segmenter)
    assert not result.failed
    return output


def plate(folder: Path) -> Path:
    """Two wells, without a cell in the second."""
    folder.mkdir()
    for name, labels in (("A01_1_DAPI", shaped()), ("A02_1_DAPI", np.zeros(SHAPE, np.uint16))):
        tifffile.imwrite(folder / f"{name}.tif", labels)
    return run_on(folder, Exact())


def pile(folder: Path) -> Path:
    """One image of cells that overlap."""
    folder.mkdir()
    random = np.random.default_rng(0)
    tifffile.imwrite(folder / "pile.tif", random.integers(0, 1000, SHAPE).astype(np.uint16))
    return run_on(folder, Known(overlapping()))


def stack(folder: Path) -> Path:
    """One image with 3D cells."""
    folder.mkdir()
    tifffile.imwrite(
        folder / "stack.tif",
        volume(),
        imagej=True,
        metadata={"axes": "ZYX", "spacing": 1.0, "unit": "um"},
    )
    return run_on(folder, Exact())


def grown(results: Path) -> Path:
    """Give the table of all cells columns of known values, as measurements and gates have."""
    path = results / "cells.parquet"
    table = pq.read_table(path)
    number = np.arange(len(table), dtype=np.float64)
    unknown = pa.array(np.where(number == 1, np.nan, number), from_pandas=True)
    for name, values in {
        "feret_max_px": pa.array(number),
        "median_DAPI": unknown,
        "neighbours": pa.array(number.astype(np.int32)),
        "positive_ck": pa.array(number % 2 == 0),
        "positive_cd3": pa.array(number % 3 == 0),
    }.items():
        there = [each for each in table.column_names if each != name]
        table = table.select(there).append_column(name, values)
    pq.write_table(table, path)
    return results


def truth(name: str) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """The masks of the run of that name in its whole planes, by label and plane."""
    if name == "pile":
        return {(label, 0): mask for label, mask in _by_position(_full(overlapping()))}
    if name == "plate":
        values = shaped()
        found = [values == label for label in range(1, int(values.max()) + 1)]
        return {(label, 0): mask for label, mask in _by_position(found)}
    values = volume()
    solids = [values == label for label in range(1, int(values.max()) + 1)]
    order = sorted(solids, key=lambda solid: tuple(np.argwhere(solid).mean(axis=0)))
    return {
        (label, z): solid[z]
        for label, solid in enumerate(order, 1)
        for z in range(len(values))
        if solid[z].any()
    }


def _full(cells: Instances) -> list[NDArray[np.bool_]]:
    masks = []
    for (y0, x0, y1, x1), mask in zip(cells.boxes.tolist(), cells.masks, strict=True):
        whole = np.zeros(SHAPE, bool)
        whole[y0:y1, x0:x1] = mask
        masks.append(whole)
    return masks


def _by_position(masks: list[NDArray[np.bool_]]) -> list[tuple[int, NDArray[np.bool_]]]:
    """Masks with their labels, which count by the centre of mass."""
    return list(enumerate(sorted(masks, key=lambda m: tuple(np.argwhere(m).mean(axis=0))), 1))


def exports(results: Path, form: str, output: Path | None = None) -> Path:
    """Export; return where it is."""
    going = Export(results, form, output)
    assert list(going.steps()) == [image.name for image in going.images]
    return going.output
