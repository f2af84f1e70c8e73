"""Thresholds move without the network, and what was chosen is a workflow that runs alike."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.models import MODELS, CellsegError, Instances
from cellseg.models.layers import from_layers
from cellseg.models.proposals import Proposals
from cellseg.pipeline import Config, read_workflow, run
from cellseg.pipeline.review.annotate import empty_labels, save_pair
from cellseg.pipeline.review.segment_here import (
    Cuts,
    Look,
    View,
    chosen,
    look,
    shipped_weights,
    write_workflow,
)
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.training_set import TrainingSet
from cellseg.pipeline.workflow import Workflow
from synthetic import cells

SHAPE = (120, 140)
IMAGE, _ = cells(5, SHAPE, 14)
VIEW = View((IMAGE // 3, IMAGE), ("DAPI", "GFP"))
CPU = Config(device="cpu")


def workflow(folder: Path, model: str) -> Workflow:
    (folder / "in").mkdir(exist_ok=True)
    tifffile.imwrite(folder / "in" / "a.tif", IMAGE)
    (folder / "w.toml").write_text(f'images = "in"\n[model]\n{model}\n')
    return read_workflow(folder / "w.toml", output=folder / "out")


def same(one: Instances, other: Instances) -> bool:
    return np.array_equal(one.boxes, other.boxes) and all(
        map(np.array_equal, one.masks, other.masks)
    )


@pytest.mark.parametrize("name", ["mask_rcnn", "threshold"])
def test_a_look_gives_the_cells_of_a_run_with_the_same_settings(tmp_path: Path, name: str) -> None:
    asked = workflow(tmp_path, f'name = "{name}"')
    seen = look(View((IMAGE,), ("0",)), asked, CPU)
    cuts = Cuts.of(asked.model)
    layers = seen.labels(cuts)
    result = run(asked, CPU)
    assert not result.failed
    path = tmp_path / "out" / "images" / "a" / "labels.zarr"
    from cellseg.pipeline.labels import LabelStore

    drawn = LabelStore(path).read(0, 0, Box(0, 0, *SHAPE))
    assert np.array_equal(drawn > 0, layers[0] > 0)
    assert len(np.unique(drawn)) == len(np.unique(layers))


def test_cuts_only_ever_take_away(tmp_path: Path) -> None:
    seen = look(VIEW, workflow(tmp_path, 'channels = ["GFP"]\ndiameter_px = 18'), CPU)
    assert seen.diameter_px == 18
    scores = [len(seen.instances(Cuts(score, 0.5, 10))) for score in (0.05, 0.3, 0.6, 0.9)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] >= 14
    areas = [seen.instances(Cuts(0.5, cut, 10)).areas().sum() for cut in (0.2, 0.5, 0.8)]
    assert areas == sorted(areas, reverse=True)
    assert not len(seen.instances(Cuts(0.5, 0.5, 10_000)))


def test_a_window_is_seen_as_the_plane_is(tmp_path: Path) -> None:
    asked = workflow(tmp_path, 'name = "threshold"\nchannels = [1]')
    whole = from_layers(look(VIEW, asked, CPU).labels(Cuts()))
    window = Box(16, 24, 120, 140)
    part = look(View(VIEW.channels, VIEW.names, window), asked, CPU)
    assert part.window == window
    inner = (whole.boxes[:, :2] > (20, 28)).all(axis=1)
    found = part.instances(Cuts()).shifted(16, 24).boxes.tolist()
    assert inner.any()
    assert all(box in found for box in whole.boxes[inner].tolist())
    with pytest.raises(CellsegError, match="shows nothing"):
        look(View(VIEW.channels, VIEW.names, Box(500, 500, 600, 600)), asked, CPU)
    with pytest.raises(CellsegError, match="no channel 'CY5'"):
        look(VIEW, workflow(tmp_path, 'channels = ["CY5"]'), CPU)


def test_a_view_that_is_too_large_says_so(tmp_path: Path) -> None:
    large = np.zeros((4000, 4000), np.uint8)
    with pytest.raises(CellsegError, match="Zoom in to about 1448 x 1448 px"):
        look(View((large,), ("0",)), workflow(tmp_path, 'name = "threshold"'), CPU)


@pytest.mark.parametrize("name", ["mask_rcnn", "threshold", "center_mask"])
def test_what_is_written_is_read_back_equal(tmp_path: Path, name: str) -> None:
    made = chosen(workflow(tmp_path, f'name = "{name}"'), Cuts(0.37, 0.61, 33))
    write_workflow(tmp_path / "sub" / "mine.toml", made)
    assert read_workflow(tmp_path / "sub" / "mine.toml") == made
    if name != "threshold":
        assert Cuts.of(made.model) == Cuts(0.37, 0.61, 33)
    assert made.model.min_area_px == 33  # type: ignore[attr-defined]


def test_thresholds_of_a_thousand_cells_move_in_well_under_a_tenth_of_a_second() -> None:
    random, count = np.random.default_rng(0), 1000
    low = np.stack(np.divmod(np.arange(count), 32), axis=1) * 30.0 + random.uniform(
        0, 4, (count, 2)
    )
    y, x = np.ogrid[-1:1:28j, -1:1:28j]
    mask = np.clip(1.5 - y**2 - x**2, 0, 1).astype(np.float32)
    proposals = Proposals.pasted(
        np.concatenate([low, low + 26], axis=1),
        [mask] * count,
        random.uniform(0.1, 1, count).astype(np.float32),
        np.ones(count, np.uint8),
        (1000, 1000),
        "resolve",
    )
    seen = Look(proposals, Box(0, 0, 1000, 1000))
    started = time.perf_counter()
    assert len(seen.instances(Cuts(0.05, 0.5, 10))) == count
    # About 35 ms; a busy machine may take its time.
    assert time.perf_counter() - started < 1


def test_every_model_has_the_weights_that_fit_it() -> None:
    assert shipped_weights("mask_rcnn") == ["nuclei", "nuclei_large"]
    assert shipped_weights("center_mask") == ["nuclei_overlap"]
    assert shipped_weights("threshold") == []
    assert set(MODELS) >= {"mask_rcnn", "center_mask", "threshold"}


def test_what_is_drawn_on_an_image_is_a_pair_of_a_training_set(tmp_path: Path) -> None:
    drawn = empty_labels((3, *SHAPE))
    with pytest.raises(CellsegError, match="nothing is drawn"):
        save_pair(tmp_path, "a", [IMAGE], [drawn])
    drawn[3:9, 4:12], drawn[20:30, 20:30] = 1, 5
    assert save_pair(tmp_path, "my image", [IMAGE], [drawn]) == 2
    assert TrainingSet(tmp_path).names() == ["my_image"]
    assert tifffile.imread(tmp_path / "labels" / "my_image.tif").max() == 2
    with pytest.raises(CellsegError, match="of 2 sizes"):
        save_pair(tmp_path, "a", [IMAGE], [drawn[:-1]])
