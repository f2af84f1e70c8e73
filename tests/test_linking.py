"""Volumes through a whole run: exact planes give exact volumes, by any tiling, worker or death."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline import (
    Config,
    Result,
    Workflow,
    linking,
    order,
    pyramid,
    read_workflow,
    region,
    run,
    tasks,
)
from cellseg.pipeline import job as jobs
from cellseg.pipeline.plan import Plan, plan
from cellseg.pipeline.stages import Run
from exact import LEVELS, Exact, Known
from sections import ellipsoids

CPU = Config(device="cpu")
SHAPE = (12, 70, 90)
Labels = NDArray[np.uint32]


@pytest.fixture
def volumes(tmp_path: Path) -> NDArray[np.uint16]:
    """Two time points whose grey levels are the true labels, and a workflow beside them."""
    truth = np.stack([ellipsoids(seed, SHAPE, 90, apart=2, touching=True) for seed in (1, 2)])
    metadata = {"axes": "TZYX", "spacing": 0.5, "unit": "um"}
    resolution = (4.0, 4.0)  # px for each um
    tifffile.imwrite(
        tmp_path / "v.tif", truth, imagej=True, resolution=resolution, metadata=metadata
    )
    text = 'images = "v.tif"\n[output]\noverview = false\n[normalise]\nmethod = "none"\n'
    (tmp_path / "w.toml").write_text(f"{text}[tiling]\nsize = 128\nhalo = 24\n")
    return truth


def workflow(folder: Path, name: str, *overrides: str) -> Workflow:
    return read_workflow(folder / "w.toml", overrides, output=folder / name)


def labels_of(result: Result, layer: str = "cells") -> Labels:
    array = zarr.open_array(result.image("v").labels.path / layer / "0", mode="r")
    return np.asarray(array[:], np.uint32)


def rows_of(result: Result, *without: str) -> list[dict[str, Any]]:
    table = pq.read_table(result.cells_path)
    rows: list[dict[str, Any]] = table.drop_columns(list(without)).to_pylist()
    return rows


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "images").rglob("*"))
        if path.is_file()
    }


def in_order(truth: NDArray[np.uint16]) -> Labels:
    """The true labels, numbered by t and the centre's z, y and x."""
    numbered, count = np.zeros(truth.shape, np.uint32), 0
    for t, volume in enumerate(truth):
        centres = [
            (*np.mean(np.nonzero(volume == label), axis=1), label)
            for label in np.unique(volume[volume > 0])
        ]
        for *_, label in sorted(centres):
            count += 1
            numbered[t][volume == label] = count
    return numbered


def test_exact_planes_give_exact_volumes_by_any_tiling(
    tmp_path: Path, volumes: NDArray[np.uint16]
) -> None:
    exact = in_order(volumes)
    whole = run(workflow(tmp_path, "whole", "link.least_planes=1"), CPU, Exact())
    assert not whole.failed
    assert np.array_equal(labels_of(whole), exact)
    rows = rows_of(whole)
    assert [row["label"] for row in rows] == list(range(1, exact.max() + 1))
    for row in rows:
        z, y, x = np.nonzero(exact[row["t"]] == row["label"])
        box = (z.min(), y.min(), x.min(), z.max() + 1, y.max() + 1, x.max() + 1)
        assert box == tuple(row[f"{a}{n}_px"] for n in "01" for a in "zyx")
        assert row["volume_px"] == len(z)
        assert row["z_px"] == pytest.approx(z.mean())
        assert row["y_px"] == pytest.approx(y.mean())
        assert row["volume_um3"] == pytest.approx(len(z) * 0.5 * 0.25 * 0.25)
        assert row["planes"] == len(np.unique(z))
        assert row["area_px"] == np.bincount(z).max()
        assert row["touches_end"] == (z.min() == 0 or z.max() == SHAPE[0] - 1)
    tiled = run(workflow(tmp_path, "tiled", "link.least_planes=1", "tiling.size=33"), CPU, Exact())
    assert np.array_equal(labels_of(tiled), exact)
    assert rows_of(tiled, "seam") == rows_of(whole, "seam")


def test_the_same_bytes_in_small_parts_by_two_workers_and_after_deaths(
    tmp_path: Path, volumes: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = workflow(tmp_path, "one", "tiling.size=64")
    one = run(here, CPU, Exact())
    workers = Config(device="cpu", workers=2, threads=1)
    two = run(workflow(tmp_path, "two", "tiling.size=64"), workers, Exact())
    assert digest(one.folder) == digest(two.folder)
    # Units in any order, each twice, in runs of a few cells: killed after each.
    monkeypatch.setattr(jobs, "TOGETHER", 1)
    for module in (order, tasks, region, linking):
        monkeypatch.setattr(module, "RUN", 7, raising=True)
    monkeypatch.setattr(order.runs, "__defaults__", (7,))
    going = Run(planned(tmp_path), CPU)
    steps = 0
    for _ in range(200):
        for taken, _ in enumerate(going.steps()):
            if taken == 4:
                break
        else:
            break
        steps += 1
        going = Run(planned(tmp_path), CPU)
    assert steps > 5
    killed = going.result()
    assert np.array_equal(labels_of(killed), labels_of(one))
    assert rows_of(killed) == rows_of(one)


def planned(folder: Path) -> Plan:
    return plan(workflow(folder, "killed", "tiling.size=64"), CPU, Exact())


def test_a_plane_is_matched_region_by_region(
    tmp_path: Path, volumes: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = labels_of(run(workflow(tmp_path, "whole"), CPU, Exact()))
    for name, value in (("CHUNK", 32), ("SHARD", 32)):
        monkeypatch.setattr(pyramid, name, value)
    assert np.array_equal(labels_of(run(workflow(tmp_path, "parts"), CPU, Exact())), expected)


def test_other_measurements_are_made_on_the_same_volumes(
    tmp_path: Path, volumes: NDArray[np.uint16]
) -> None:
    first = run(workflow(tmp_path, "out"), CPU, Exact())
    before, links = rows_of(first), first.images[0].links

    class Silent(Exact):
        def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
            raise AssertionError("nothing is to be segmented again")

    less = run(workflow(tmp_path, "out", 'measure.groups=["shape"]'), CPU, Silent())
    kept = [{k: row[k] for k in rows_of(less)[0]} for row in before]
    assert not less.failed
    assert rows_of(less) == kept
    again = run(workflow(tmp_path, "out"), CPU, Silent())
    assert rows_of(again) == before
    assert again.images[0].links == links
    assert links is not None
    assert links["cells"] == len(before)


def test_what_is_too_short_is_left_out_and_said(
    tmp_path: Path, volumes: NDArray[np.uint16]
) -> None:
    least = run(workflow(tmp_path, "least", "link.least_planes=1"), CPU, Exact())
    long = run(workflow(tmp_path, "long", "link.least_planes=5"), CPU, Exact())
    kept = [r for r in rows_of(least) if r["touches_end"] or r["planes"] >= 5]
    report = long.images[0]
    assert report.cells == len(kept) < least.cells
    assert report.links is not None
    assert report.links["short"] == least.cells - len(kept)
    assert f"{least.cells - len(kept)} cells in fewer than 5 planes" in report.warnings[-1]
    assert [r["volume_px"] for r in rows_of(long)] == [r["volume_px"] for r in kept]


def test_the_settings_of_linking_count_only_for_volumes(
    tmp_path: Path, volumes: NDArray[np.uint16]
) -> None:
    planes = run(workflow(tmp_path, "out", "link.z=false"), CPU, Exact())
    rows = rows_of(planes)
    assert {row["volume_px"] for row in rows} == {None}
    assert sum(row["area_px"] for row in rows) == np.count_nonzero(volumes)
    assert planes.images[0].links is None


@pytest.mark.parametrize("size", [128, 40])
def test_cells_that_overlap_lie_whole_in_one_layer_over_all_planes(
    tmp_path: Path, size: int
) -> None:
    truth = overlapping_balls()
    random = np.random.default_rng(0)
    depth, (height, width) = len(truth[0]), truth[0].shape[1:]
    noise = random.integers(0, LEVELS, (depth, height, width))
    levels = noise + np.arange(depth)[:, None, None] * LEVELS
    tifffile.imwrite(
        tmp_path / "v.tif", levels.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"}
    )
    text = 'images = "v.tif"\n[normalise]\nmethod = "none"\n[tiling]\nskip_background = false\n'
    (tmp_path / "w.toml").write_text(f"{text}size = {size}\nhalo = 34\n")
    planes = [
        Instances.stack([((0, 0), ball[z], 0.9, 1) for ball in truth if ball[z].any()])
        for z in range(depth)
    ]
    result = run(workflow(tmp_path, "out"), CPU, Known(*planes))
    rows, layers = rows_of(result), result.image("v").labels.layers
    assert not result.failed
    assert layers == 2
    painted = [labels_of(result, name) for name in ("cells", "cells_2")]
    found = {row["label"]: painted[int(row["layer"]) - 1] == row["label"] for row in rows}
    assert len(found) == len(truth)
    depth_at = sum(ball.astype(int) for ball in truth)
    for row in rows:
        mask = found[row["label"]]
        assert any(np.array_equal(mask, ball) for ball in truth)
        assert row["volume_px"] == np.count_nonzero(mask)
        assert row["overlap_px"] == np.count_nonzero(mask & (depth_at > 1))
        others = [label for label, other in found.items() if (other & mask).any()]
        assert row["overlaps_with"] == [label for label in others if label != row["label"]]


def overlapping_balls() -> list[NDArray[np.bool_]]:
    z, y, x = np.ogrid[:9, :60, :80]
    balls = [(4, 20, 15), (4, 26, 30), (5, 22, 46), (3, 45, 60)]
    return [
        ((z - cz) / 3.6) ** 2 + ((y - cy) / 10) ** 2 + ((x - cx) / 11) ** 2 <= 1
        for cz, cy, cx in balls
    ]


def test_a_region_keeps_the_3d_cells_whose_centre_is_inside_whole(
    tmp_path: Path, volumes: NDArray[np.uint16]
) -> None:
    whole = run(workflow(tmp_path, "whole"), CPU, Exact())
    box = ("region.box_px=[20, 30, 70, 60]", "tiling.size=33")
    part = run(workflow(tmp_path, "part", *box), CPU, Exact())
    assert not part.failed

    def inside(row: dict[str, Any]) -> bool:
        y, x = np.floor(row["y_px"] + 0.5), np.floor(row["x_px"] + 0.5)
        return bool(20 <= y < 70 and 30 <= x < 60)

    without = ("label", "seam", "region")
    expected = [row for row in rows_of(whole, "seam", "region") if inside(row)]
    assert 0 < len(expected) < whole.cells
    names = [row.pop("label") for row in expected]
    assert rows_of(part, *without) == expected
    found, every = labels_of(part), labels_of(whole)
    for number, name in enumerate(names, 1):
        assert np.array_equal(found == number, every == name)
    assert found.max() == len(names)
