"""The shipped CenterMask on the demo of overlapping cells, from images to exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellseg.models.layers import from_layers
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.evaluate import evaluate_paths
from cellseg.pipeline.image import open_image
from cellseg.pipeline.ome_zarr import label_layers

WORKFLOWS = Path(__file__).parent.parent / "workflows"
IMAGE = WORKFLOWS / "demo_overlap" / "fluorescence_2.tif"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of one of the demo's images, in tiles smaller than it."""
    folder = tmp_path_factory.mktemp("overlap") / "results"
    given = [f'images="{IMAGE}"', f'output.path="{folder}"', "tiling.size=256"]
    result = run(read_workflow(WORKFLOWS / "overlap.toml", given), Config(device="cpu"))
    assert not result.failed
    return folder


def test_most_cells_are_found_though_others_cover_them(results: Path) -> None:
    truth = WORKFLOWS / "demo_overlap" / "truth" / IMAGE.name
    (image,) = evaluate_paths(results, truth, [0.5]).images
    assert image.scores[0].f1 > 0.7


def test_every_cell_is_whole_in_one_layer(results: Path) -> None:
    paths = label_layers(results / "images" / IMAGE.stem / "labels.zarr")
    assert len(paths) > 1
    layers = np.stack([np.asarray(open_image(path).pixels).squeeze() for path in paths])
    cells, table = from_layers(layers), pd.read_parquet(results / "cells.parquet")
    assert cells.areas().tolist() == table["area_px"].tolist()
    depth = (layers > 0).sum(axis=0)
    covered = [
        int((depth[y0:y1, x0:x1][mask] > 1).sum())
        for (y0, x0, y1, x1), mask in zip(cells.boxes.tolist(), cells.masks, strict=True)
    ]
    assert covered == table["overlap_px"].tolist()
    assert max(covered) > 0
