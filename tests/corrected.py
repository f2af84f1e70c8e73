"""Results to correct, and what corrections come to on a plain array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import zarr
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.review.edits import Editor
from cellseg.pipeline.tiles import Box
from exact import Exact, Known

CPU = Config(device="cpu")
TEXT = 'images = "in"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 128\nhalo = 40\n'
Labels = NDArray[np.uint32]


def results_of(folder: Path, labels: NDArray[Any], *overrides: str, **how: Any) -> Path:
    """Run on an image whose grey levels are its labels; return the results folder."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "in" / "one.tif", labels.astype(np.uint16), **how)
    return ran(folder, Exact(), *overrides)


def overlapping_results_of(folder: Path, cells: Instances, shape: tuple[int, int]) -> Path:
    """Run on an image with cells that may overlap; return the results folder."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "in" / "one.tif", np.full(shape, 9, np.uint16))
    return ran(folder, Known(cells), "tiling.skip_background=false")


def ran(folder: Path, segmenter: Any, *overrides: str) -> Path:
    (folder / "w.toml").write_text(TEXT, encoding="utf-8")
    run(read_workflow(folder / "w.toml", overrides, output=folder / "out"), CPU, segmenter)
    return folder / "out"


def table(results: Path) -> Any:
    """Return the table of cells, by label; typed loosely, as pandas is."""
    return pd.read_parquet(results / "cells.parquet").set_index("label")


def on_disk(results: Path, level: int = 0, layer: str = "cells", name: str = "one") -> Labels:
    path = results / "images" / name / "labels.zarr" / layer / str(level)
    return np.asarray(zarr.open_array(path, mode="r")[:], np.uint32)


def view(editor: Editor, t: int = 0, z: int = 0, layer: int = 0) -> Labels:
    """Return a whole plane as it is with all edits."""
    return editor.labels(t, z, Box(0, 0, *editor.shape[2:]), layer)
