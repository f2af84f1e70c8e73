"""Cells of another size: the diameter is given or estimated, decides the tiles, and is told."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from cards import card_of
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.models import CellsegError, Instances
from cellseg.models.mask_rcnn import MaskRCNN
from cellseg.models.settings import NetworkSettings
from cellseg.models.weights import save_weights
from cellseg.pipeline import Config, Result, Workflow, diameter, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.diameter import Estimated, estimate_from
from cellseg.pipeline.keys import Keys
from cellseg.pipeline.plan import Plan, plan
from cellseg.pipeline.result import Progress
from cellseg.pipeline.segment import Scene
from cellseg.pipeline.shard import Shard
from cellseg.pipeline.shard_records import Part
from cellseg.pipeline.stages import Run
from cellseg.pipeline.stopping import Stopped
from cellseg.pipeline.tiles import Box
from synthetic import cells

CPU = Config(device="cpu", threads=1)
MAY_DIFFER = ("run.json", "workflow.toml", "report.html")
"""Files that say when and where a run was."""
FIELD = Path(__file__).parent.parent / "workflows" / "demo_plate" / "IXMtest_A18_s1_w1.tif"
SMALL = NetworkSettings(stages=2, pyramid_channels=16, box_features=16, mask_channels=8)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run sets torch's threads where it loads a model, and here several share one."""
    monkeypatch.setenv("CELLSEG_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights that says it was trained on cells of 6 px."""
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    card = card_of(SMALL, diameter_px=6)
    save_weights(path, MaskRCNN(SMALL).state_dict(), card)
    return path


@pytest.fixture
def folder(tmp_path: Path, weights: Path) -> Path:
    """Three images and a workflow for the small network."""
    for seed in range(3):
        image, _ = cells(seed, shape=(64, 80), count=8)
        tifffile.imwrite(tmp_path / f"f{seed}.tif", image)
    text = f'images = "*.tif"\n[model]\nweights = "{weights}"\nscore = 0.52\n'
    (tmp_path / "w.toml").write_text(text)
    return tmp_path


def workflow(folder: Path, name: str, *overrides: str) -> Workflow:
    return read_workflow(folder / "w.toml", overrides, output=folder / name)


def planned(folder: Path, *overrides: str) -> Plan:
    return plan(workflow(folder, "out", *overrides), CPU)


def write_sized(path: Path, y_um: float, x_um: float) -> None:
    sizes = {"PhysicalSizeY": y_um, "PhysicalSizeX": x_um}
    units = {f"{name}Unit": "µm" for name in sizes}
    pixels = np.zeros((64, 64), np.uint8)
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "YX", **sizes, **units})


def digest(folder: Path) -> dict[str, str]:
    """Hash every file of a results folder that must not depend on how the run went."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in MAY_DIFFER and path.suffix != ".log"
    }


def told(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((result.folder / "run.json").read_text())
    return document


@pytest.mark.parametrize(
    ("overrides", "zoom", "text"),
    [
        ((), 1, None),
        (("model.diameter_px=6",), 1, "cells are 6 px across; seen as they are"),
        (("model.diameter_px=17.5",), 0.375, "cells are 17.5 px across; seen at 0.375 times"),
        (("model.diameter_px=3",), 2, "seen at 2 times their size"),
        (("model.diameter_um=4.8", "pixel_size_um=0.4"), 0.5, "cells are 4.8 um across"),
        (("model.diameter_px=auto",), 1, '"auto", estimated when the run starts'),
    ],
)
def test_a_diameter_decides_how_the_images_are_seen(
    folder: Path, overrides: tuple[str, ...], zoom: float, text: str | None
) -> None:
    found = planned(folder, *overrides)
    assert {scene.zoom for scene in found.scenes} == {zoom}
    assert found.notes == ()
    assert found.undecided == ("auto" in str(overrides))
    if text is None:
        assert found.diameter is None
    else:
        assert found.diameter is not None
        assert text in found.diameter.text


def test_um_are_turned_into_px_image_by_image_and_one_without_pixel_size_fails_alone(
    tmp_path: Path, folder: Path
) -> None:
    write_sized(folder / "a.tif", 0.5, 0.5)
    write_sized(folder / "b.tif", 1.0, 4.0)
    found = planned(folder, "model.diameter_um=6")
    assert [(scene.name, scene.diameter_px, scene.zoom) for scene in found.scenes] == [
        ("a", 12, 0.5),
        ("b", 3, 2),
    ]
    assert found.diameter is not None
    assert found.diameter.text == "cells are 6 um across; seen at 0.5 to 2 times their size"
    assert [report.name for report in found.unreadable] == ["f0", "f1", "f2"]
    reason = str(found.unreadable[0].reason)
    assert reason.startswith(f"{folder / 'f0.tif'}: ")
    assert reason.endswith("diameter_um = 6 needs. Set pixel_size_um, or diameter_px.")
    for name in ("f1", "f2"):
        (folder / f"{name}.tif").unlink()
    result = run(workflow(folder, "out", "model.diameter_um=6"), CPU)
    assert [(image.name, image.state) for image in result.images] == [
        ("a", "done"),
        ("b", "done"),
        ("f0", "failed"),
    ]
    document = told(result)
    assert document["model"]["diameter"] == {"um": 6.0}
    assert [image["zoom"] for image in document["images"]] == [0.5, 2, None]
    for name in ("a", "b"):
        (folder / f"{name}.tif").unlink()
    with pytest.raises(CellsegError, match="Set pixel_size_um, or diameter_px"):
        planned(folder, "model.diameter_um=6")


def test_the_tiles_of_another_diameter_are_others_and_the_same_however_it_is_given(
    folder: Path,
) -> None:
    def keys(found: Plan) -> list[str]:
        return [Keys.of(scene).tiles for scene in found.scenes]

    number = planned(folder, "model.diameter_px=12")
    others = [
        planned(folder),
        planned(folder, "model.diameter_px=12.1"),
        planned(folder, "model.diameter_px=3"),
    ]
    everyone = [key for found in (number, *others) for key in keys(found)]
    assert len(set(everyone)) == len(everyone)
    um = planned(folder, "model.diameter_um=6", "pixel_size_um=0.5")
    auto = planned(folder, "model.diameter_px=auto").sized(Estimated(12.0, ("f0",)))
    assert keys(number) == keys(um) == keys(auto)
    assert not auto.undecided
    assert {scene.zoom for scene in auto.scenes} == {0.5}


def test_tiles_are_in_px_as_the_model_sees_them(folder: Path) -> None:
    (scene, *_) = planned(folder, "model.diameter_px=12").scenes
    assert (scene.grid.size, scene.grid.halo, scene.tiling.margin) == (2048, 128, 8)
    (scene, *_) = planned(folder, "model.diameter_px=1.5").scenes
    assert (scene.grid.size, scene.grid.halo, scene.tiling.margin) == (256, 16, 1)


def test_a_magnification_out_of_reach_is_a_warning(folder: Path) -> None:
    (note,) = planned(folder, "model.diameter_px=1000").notes
    assert note == (
        "f0 and 2 more: cells 1e+03 px across are seen at 0.125 times their size, the least there"
        " is, and not at the 6 px that the model was trained on"
    )
    (note,) = planned(folder, "model.diameter_px=0.7").notes
    assert "0.7 px across are seen at 8 times their size, the most there is" in note


def test_the_estimate_is_written_told_and_used_by_later_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = workflow(folder, "out", "model.diameter_px=auto")
    first = run(auto, CPU)
    assert not first.failed
    before, path = digest(first.folder), first.folder / "diameter.json"
    written = json.loads(path.read_text())
    assert written["estimated_from"] == ["f0", "f1", "f2"]
    assert round(written["px"], 1) == written["px"]
    document = told(first)
    zoom = document["model"]["diameter"].pop("zoom")
    assert document["model"]["diameter"] == {
        "px": written["px"],
        "estimated_from": ["f0", "f1", "f2"],
    }
    assert {image["zoom"] for image in document["images"]} == {zoom}

    with monkeypatch.context() as patch:
        patch.setattr(diameter, "estimate_diameter", lambda model, planes: 1 / 0)
        assert run(auto, CPU).cells == first.cells
        tifffile.imwrite(folder / "f3.tif", cells(3, shape=(64, 80), count=8)[0])
        assert len(run(auto, CPU).images) == 4
        path.write_text(json.dumps(written | {"px": 12.0}))
        assert told(run(auto, CPU))["model"]["diameter"]["zoom"] == 0.5
        for other in ("normalise.high=99", "model.score=0.5"):
            with pytest.raises(CellsegError, match=r'"auto": ZeroDivisionError.*a number'):
                run(workflow(folder, "out", "model.diameter_px=auto", other), CPU)
    (folder / "f3.tif").unlink()
    assert run(auto, CPU, fresh=True).cells == first.cells
    (first.folder / "images" / "f3" / "cells.parquet").parent.rename(folder / "f3")
    assert digest(first.folder) == before


def test_a_run_killed_after_the_estimate_goes_on_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(workflow(folder, "expected", "model.diameter_px=auto"), CPU)
    auto = workflow(folder, "killed", "model.diameter_px=auto")
    steps = Run(plan(auto, CPU), CPU).steps()
    next(steps), next(steps)
    steps.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(diameter, "estimate_diameter", lambda model, planes: 1 / 0)
    assert digest(run(auto, CPU).folder) == digest(expected.folder)


def test_of_shards_one_estimates_for_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(workflow(folder, "expected", "model.diameter_px=auto"), CPU)
    auto = workflow(folder, "out", "model.diameter_px=auto")
    one, two = (Shard(plan(auto, CPU), CPU, Part(number, 2)) for number in (1, 2))
    steps = one.steps()
    next(steps)
    with monkeypatch.context() as patch:
        patch.setattr(diameter, "estimate_diameter", lambda model, planes: 1 / 0)
        list(two.steps())
    list(steps)
    assert digest(run(auto, CPU).folder) == digest(expected.folder)


def test_two_workers_estimate_and_find_the_same_as_one(folder: Path) -> None:
    one = run(workflow(folder, "one", "model.diameter_px=auto"), CPU)
    two = run(
        workflow(folder, "two", "model.diameter_px=auto"),
        Config(device="cpu", workers=2, threads=1),
    )
    assert not two.failed
    assert digest(one.folder) == digest(two.folder)


def test_where_no_cells_are_found_the_images_are_seen_as_they_are_and_a_warning_says_so(
    folder: Path,
) -> None:
    options = ["-o", str(folder / "out"), "--device", "cpu", "--set", "model.diameter_px=auto"]
    shown = CliRunner().invoke(
        main, ["run", str(folder / "w.toml"), *options, "--set", "model.score=1"]
    )
    assert shown.exit_code == 0, shown.output
    warning = 'diameter_px = "auto": no cells were found in f0, f1, f2; all images are seen as'
    assert f"  note: {warning}" in shown.output
    document = json.loads((folder / "out" / "run.json").read_text())
    assert document["model"]["diameter"]["px"] is None
    assert document["model"]["diameter"]["zoom"] == 1
    assert document["warnings"][0].startswith(warning)


def test_the_command_line_says_how_large_the_cells_are(folder: Path) -> None:
    def shown(*options: str) -> list[str]:
        arguments = ["run", str(folder / "w.toml"), "-o", str(folder / "out"), "--device", "cpu"]
        result = CliRunner().invoke(main, [*arguments, *options])
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    lines = shown("--dry-run", "--set", "model.diameter_px=12")
    assert lines[1] == "  cells are 12 px across; seen at 0.5 times their size"
    lines = shown("--dry-run", "--set", "model.diameter_px=auto")
    assert "tiles" not in lines[0]
    assert lines[1] == '  cells: diameter_px = "auto", estimated when the run starts'
    assert "seen as it is: an estimated diameter may change that" in lines[2]
    lines = shown("--set", "model.diameter_px=auto")
    assert lines[2].startswith("  cells are about ")
    assert ", estimated from 3 images; seen " in lines[2]
    assert shown("--dry-run", "--set", "model.diameter_px=auto")[1] == lines[2]


@dataclass
class Recorder:
    """Finds every grey level above 5, and keeps what it was shown at magnification 1."""

    diameter_px: float = 20
    zoom: float = 1
    shown: list[NDArray[np.float32]] = field(default_factory=list)

    def at_zoom(self, zoom: float) -> Recorder:
        return replace(self, zoom=zoom)

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        if self.zoom == 1:
            self.shown += planes
        return [Instances.from_labels(np.maximum(p[0] - 5, 0).astype(np.int32)) for p in planes]


def scenes(folder: Path, count: int, size: int) -> tuple[Scene, ...]:
    """Images of value 0 to 3 with a cell each, in the lower right corner."""
    for index in range(count):
        image = np.full((700, 650), index % 4, np.uint8)
        image[-60:-40, -60:-40] = 10 + index
        tifffile.imwrite(folder / f"g{index:02}.tif", image)
    text = f'images = "g*.tif"\n[normalise]\nmethod = "none"\n[tiling]\nsize = {size}\n'
    (folder / "g.toml").write_text(text)
    return plan(read_workflow(folder / "g.toml"), CPU, Recorder()).scenes


def test_one_telling_window_of_up_to_four_images_is_looked_at(tmp_path: Path) -> None:
    made = scenes(tmp_path, 10, 1024)
    model = made[0].segmenter
    assert isinstance(model, Recorder)
    found = estimate_from(made)
    assert found == Estimated(22.6, ("g01", "g03", "g06", "g08"))
    assert [plane.max() for plane in model.shown[:4]] == [11, 13, 16, 18]
    assert {plane.shape for plane in model.shown[:4]} == {(1, 512, 512)}
    assert estimate_from(scenes(tmp_path, 10, 64)) == found
    (tmp_path / "g03.tif").write_bytes((tmp_path / "g03.tif").read_bytes()[:900])
    assert estimate_from(made).images == ("g01", "g06", "g08", "g00")


def test_a_plan_with_a_diameter_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\n"
        "import cellseg.pipeline.stages\n"
        "from cellseg.pipeline import Config, read_workflow\n"
        "from cellseg.pipeline.plan import plan\n"
        f"w = read_workflow({str(folder / 'w.toml')!r}, ['model.diameter_px=20'])\n"
        "assert plan(w, Config(device='cpu')).scenes[0].zoom == 0.25\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nuclei_at_twice_their_size_are_found_as_the_same_nuclei(tmp_path: Path) -> None:
    crop = tifffile.imread(FIELD)[100:356, 200:456]
    tifffile.imwrite(tmp_path / "small.tif", crop)
    tifffile.imwrite(
        tmp_path / "large.tif", ndimage.zoom(crop, 2, order=1, grid_mode=True, mode="nearest")
    )
    (tmp_path / "w.toml").write_text('images = "small.tif"\n[model]\ndiameter_px = "auto"\n')

    def found(name: str, *overrides: str) -> tuple[Result, NDArray[np.uint32], float]:
        image = tmp_path / f"{name}.tif"
        output = tmp_path / "-".join([name, *overrides])
        made = read_workflow(tmp_path / "w.toml", overrides, [image], output)
        result = run(made, CPU)
        side = 256 if name == "small" else 512
        labels = result.image(name).labels.read(0, 0, Box(0, 0, side, side))
        return result, labels, told(result)["model"]["diameter"]["px"]

    small, small_labels, small_px = found("small")
    large, large_labels, large_px = found("large")
    assert large_px == pytest.approx(2 * small_px, rel=0.15)
    assert small.cells > 15
    assert large.cells == pytest.approx(small.cells, abs=2)
    agree = (large_labels[::2, ::2] > 0) == (small_labels > 0)
    assert agree.mean() > 0.97
    tiled, tiled_labels, _ = found("large", f"model.diameter_px={large_px}", "tiling.size=64")
    assert tiled.image("large").count_cells() == pytest.approx(large.cells, abs=1)
    assert ((tiled_labels > 0) == (large_labels > 0)).mean() > 0.99


def test_no_shard_waits_for_an_estimate_that_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = workflow(folder, "out", "model.diameter_px=auto")
    one, two, three = (Shard(plan(auto, CPU), CPU, Part(number, 3)) for number in (1, 2, 3))
    with monkeypatch.context() as patch:
        patch.setattr(diameter, "estimate_diameter", lambda model, planes: 1 / 0)
        for shard, said in ((one, "ZeroDivisionError"), (two, "no shard could estimate it")):
            with pytest.raises(CellsegError, match=said):
                list(shard.steps())
    with pytest.raises(CellsegError, match="no shard could estimate it"):
        list(three.steps())
    assert not run(auto, CPU).failed


def test_a_shard_that_stops_while_it_estimates_leaves_that_to_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = workflow(folder, "out", "model.diameter_px=auto")
    for number in (1, 2, 3, 4):
        shard = Shard(plan(auto, CPU), CPU, Part(number, 5))
        monkeypatch.setattr(shard, "_steps", _stop)
        with pytest.raises(Stopped):
            list(shard.steps())
    assert list(Shard(plan(auto, CPU), CPU, Part(5, 5)).steps())


def _stop() -> Iterator[Progress]:
    """Be asked to stop before anything is done."""
    yield from ()
    raise Stopped("asked to stop")
