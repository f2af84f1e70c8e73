"""The overview shows the image and the outline of every cell, touching ones apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.overview import LARGEST, OUTLINE, outlines
from exact import Exact


def test_outlines_keep_touching_cells_apart_and_stay_on_cells() -> None:
    labels = np.zeros((8, 12), np.uint32)
    labels[1:7, 1:6], labels[1:7, 6:11] = 1, 2
    lines = outlines(labels)
    assert lines[3, 5]
    assert lines[3, 6]
    assert not lines[3, 3]
    assert not lines[labels == 0].any()


def test_a_large_image_is_shown_small_with_its_cells(tmp_path: Path) -> None:
    labels = np.zeros((300, LARGEST + 500), np.uint16)
    labels[100:160, 1000:1100] = 500
    tifffile.imwrite(tmp_path / "wide.tif", labels)
    (tmp_path / "w.toml").write_text('images = "wide.tif"\n[normalise]\nmethod = "none"\n')
    workflow = read_workflow(tmp_path / "w.toml", output=tmp_path / "out")
    result = run(workflow, Config(device="cpu"), Exact())
    picture = np.asarray(Image.open(result.image("wide").overview_path))
    assert picture.shape == (150, LARGEST // 2 + 250, 3)
    assert tuple(picture[65, 500]) == OUTLINE
    assert tuple(picture[65, 525]) == (255, 255, 255)
    assert not picture[10].any()
