"""A whole run: same bytes for any tiling, workers or death; bad images never cost good ones."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from cellseg.models import CellsegError, Instances
from cellseg.pipeline import Config, Result, Workflow, read_workflow, run
from cellseg.pipeline.files import own_name
from cellseg.pipeline.keys import Keys
from cellseg.pipeline.labels import LabelStore
from cellseg.pipeline.plan import plan
from cellseg.pipeline.table import OF_VOLUMES
from cellseg.pipeline.tiles import Box
from exact import Counting, Exact
from synthetic import cells

CPU = Config(device="cpu")
MAY_DIFFER = ("run.json", "workflow.toml", "report.html")
"""Files that say when and where a run was."""
FIRST = (
    "image, plate, well, site, label, t, z, y_px, x_px, y_um, x_um, area_px, area_um2,"
    " layer, overlap_px, overlaps_with, y0_px, x0_px,"
    " y1_px, x1_px, class, score, seam, touches_edge, region,"
    " z_px, z_um, z0_px, z1_px, planes, volume_px, volume_um3, surface_um2, touches_end,"
    " track, parent, straight_edge, perimeter_px, major_axis_px,"
    " minor_axis_px, eccentricity, orientation_rad, solidity, convex_area_px, feret_max_px,"
    " feret_min_px, extent, form_factor, euler_number, equivalent_diameter_px,"
    " perimeter_um, major_axis_um, minor_axis_um, feret_max_um, feret_min_um,"
    " equivalent_diameter_um,"
    " mean_w1, std_w1, min_w1, max_w1, sum_w1, median_w1, mad_w1, p05_w1, p25_w1, p75_w1, p95_w1,"
    " mass_displacement_px_w1, mass_displacement_um_w1,"
    " edge_mean_w1, edge_std_w1, edge_min_w1, edge_max_w1, edge_sum_w1"
)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Three fields whose grey levels are the labels, and a workflow beside them."""
    folder = tmp_path / "plate"
    folder.mkdir()
    for seed, site in enumerate((1, 2, 3)):
        _, labels = cells(seed, shape=(260, 300), count=90, radius=(3, 14))
        tifffile.imwrite(folder / f"X_B0{site}_s{site}_w1.tif", labels.astype(np.uint16))
    text = 'images = "."\npattern = "imagexpress"\n[normalise]\nmethod = "none"\n'
    (folder / "exact.toml").write_text(text + "[tiling]\nsize = 96\nhalo = 20\n")
    return folder


def workflow(plate: Path, name: str, *overrides: str) -> Workflow:
    return read_workflow(plate / "exact.toml", overrides, output=plate.parent / name)


def table(result: Result, *without: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(result.cells_path).to_pylist()
    return [{key: value for key, value in row.items() if key not in without} for row in rows]


def digest(folder: Path) -> dict[str, str]:
    """Hash every file of a results folder that must not depend on how the run went."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in MAY_DIFFER and path.suffix != ".log"
    }


def labels_of(result: Result, name: str, shape: tuple[int, int]) -> NDArray[np.uint32]:
    return result.image(name).labels.read(0, 0, Box(0, 0, *shape))


def test_tiling_changes_no_pixel_and_no_row(plate: Path) -> None:
    whole = run(workflow(plate, "whole", "tiling.size=1024"), CPU, Exact())
    for size, halo in ((128, 32), (48, 20)):
        tiled = run(
            workflow(plate, f"tiled{size}", f"tiling.size={size}", f"tiling.halo={halo}"),
            CPU,
            Exact(),
        )
        for report in whole.images:
            assert np.array_equal(
                labels_of(tiled, report.name, (260, 300)), labels_of(whole, report.name, (260, 300))
            )
        assert table(tiled, "seam") == table(whole, "seam")


def test_labels_and_table_agree_id_by_id_and_with_the_truth(plate: Path) -> None:
    result = run(workflow(plate, "out"), CPU, Exact())
    rows = table(result)
    assert ", ".join(rows[0]) == FIRST
    for report in result.images:
        labels = labels_of(result, report.name, (260, 300))
        truth = tifffile.imread(report.source)
        mine = [row for row in rows if row["image"] == report.name]
        assert [row["label"] for row in mine] == list(range(1, labels.max() + 1))
        assert [row["area_px"] for row in mine] == np.bincount(labels.ravel())[1:].tolist()
        assert report.cells == len(mine) == len(np.unique(truth)) - 1
        assert np.array_equal(labels > 0, truth > 0)
        # The grey level of a cell is its true label, so its mean says which cell it is.
        for row in mine:
            assert row["mean_w1"] == row["min_w1"] == row["max_w1"]
            y, x = np.nonzero(labels == row["label"])
            assert (row["y_px"], row["x_px"]) == (pytest.approx(y.mean()), pytest.approx(x.mean()))
            edge = y.min() == 0 or x.min() == 0 or y.max() == 259 or x.max() == 299
            assert row["touches_edge"] == edge
    assert {(row["well"], row["site"]) for row in rows} == {
        ("B01", "1"),
        ("B02", "2"),
        ("B03", "3"),
    }
    positions = [(row["image"], row["t"], row["z"], row["y_px"], row["x_px"]) for row in rows]
    assert positions == sorted(positions)
    assert all(row["area_um2"] is None for row in rows)


def test_two_workers_write_the_same_bytes_as_one(plate: Path) -> None:
    one = run(workflow(plate, "one"), CPU, Exact())
    two = run(workflow(plate, "two"), Config(device="cpu", workers=2, threads=1), Exact())
    assert not one.failed
    assert not two.failed
    assert digest(one.folder) == digest(two.folder)


def test_pixel_size_fills_the_um_columns_and_the_metadata(plate: Path) -> None:
    result = run(workflow(plate, "out", "pixel_size_um=0.5"), CPU, Exact())
    for row in table(result):
        assert row["area_um2"] == pytest.approx(0.25 * row["area_px"])  # type: ignore[operator]
        assert row["y_um"] == pytest.approx(0.5 * row["y_px"])  # type: ignore[operator]
    path = result.image(result.images[0].name).labels.path / "cells"
    group = zarr.open_group(path, mode="r")
    attributes: dict[str, Any] = group.attrs.asdict()
    assert attributes["ome"]["multiscales"][0]["axes"][0] == {
        "name": "y",
        "type": "space",
        "unit": "micrometer",
    }


def test_a_run_goes_on_where_it_died_and_computes_nothing_twice(plate: Path) -> None:
    undisturbed = Counting()
    expected = run(workflow(plate, "undisturbed"), CPU, undisturbed)
    total = 0
    for dies_at in (3, 7, None):
        counting = Counting(dies_at)
        try:
            result = run(workflow(plate, "killed"), CPU, counting)
        except KeyboardInterrupt:
            assert dies_at is not None
        total += counting.windows
    assert total == undisturbed.windows
    assert digest(result.folder) == digest(expected.folder)
    again = Counting()
    assert run(workflow(plate, "killed"), CPU, again).cells == expected.cells
    assert again.windows == 0


def test_what_changed_is_computed_again_and_nothing_else(plate: Path) -> None:
    first = Counting()
    run(workflow(plate, "out"), CPU, first)
    measured = Counting()
    result = run(workflow(plate, "out", 'measure.groups=["intensity"]'), CPU, measured)
    assert measured.windows == 0
    assert "solidity" not in table(result)[0]
    result = run(workflow(plate, "out", "pixel_size_um=2"), CPU, measured)
    assert measured.windows == 0
    assert table(result)[0]["area_um2"] == 4 * table(result)[0]["area_px"]  # type: ignore[operator]
    tiled = Counting()
    run(workflow(plate, "out", "tiling.size=128"), CPU, tiled)
    assert tiled.windows > 0
    source = next(plate.glob("*B02*"))
    changed = tifffile.imread(source)
    time.sleep(0.01)
    tifffile.imwrite(source, np.where(changed == 1, 0, changed))
    third = Counting()
    result = run(workflow(plate, "out", "tiling.size=128"), CPU, third)
    assert third.windows == tiled.windows / 3
    fresh = Counting()
    run(workflow(plate, "out", "tiling.size=128"), CPU, fresh, fresh=True)
    assert fresh.windows == tiled.windows


def test_a_segmenter_without_a_key_never_uses_what_another_found(plate: Path) -> None:
    class Nameless(Counting):
        key = None  # type: ignore[assignment]

    run(workflow(plate, "out"), CPU, Nameless())
    second = Nameless()
    run(workflow(plate, "out"), CPU, second)
    assert second.windows > 0


def test_a_bad_image_among_good_ones_is_listed_and_the_others_finish(plate: Path) -> None:
    good = run(workflow(plate, "good"), CPU, Exact())
    (plate / "X_C01_s1_w1.tif").write_bytes(next(plate.glob("*B01*")).read_bytes()[:3000])
    pixels = np.zeros((50, 60), np.float32)
    pixels[7, 9], pixels[8, 10] = np.nan, np.inf
    tifffile.imwrite(plate / "X_C02_s1_w1.tif", pixels)
    result = run(workflow(plate, "out"), CPU, Exact())
    assert table(result) == table(good)
    reasons = {report.name[2:5]: str(report.reason) for report in result.failed}
    assert sorted(reasons) == ["C01", "C02"]
    assert "truncated" in reasons["C01"]
    assert "2 NaN or infinite pixels" in reasons["C02"]
    assert "y=7, x=9" in reasons["C02"]
    document = json.loads((result.folder / "run.json").read_text())
    failed = [image for image in document["images"] if image["state"] == "failed"]
    assert {image["reason"] for image in failed} == set(reasons.values())


def test_a_segmenter_that_fails_on_one_image_is_tried_again_then_listed(plate: Path) -> None:
    class Moody(Counting):
        failed = 0

        def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
            if planes[0].max() == 44:
                self.failed += 1
                raise RuntimeError("I do not like 44")
            return super().segment(planes)

    number = np.full((40, 40), 44, np.uint16)
    tifffile.imwrite(plate / "X_C02_s1_w1.tif", number)
    moody = Moody()
    result = run(workflow(plate, "out"), CPU, moody)
    assert [report.reason for report in result.failed] == ["RuntimeError: I do not like 44"]
    assert "in segment" in str(result.failed[0].traceback)
    assert moody.failed == 3
    assert len(result.images) == 4


@pytest.mark.parametrize("model", ["threshold", "mask_rcnn"])
@pytest.mark.parametrize("value", [0, 1000])
def test_an_image_without_cells_gives_none_and_says_so(
    tmp_path: Path, model: str, value: int
) -> None:
    tifffile.imwrite(tmp_path / "empty.tif", np.full((80, 90), value, np.uint16))
    (tmp_path / "w.toml").write_text(f'images = "empty.tif"\n[model]\nname = "{model}"\n')
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU)
    cells = pq.read_table(result.cells_path)
    assert cells.num_rows == result.cells == 0
    assert cells.column_names[:4] == ["image", "plate", "well", "site"]
    assert {"solidity", "mean_0"} < set(cells.column_names)
    assert result.images[0].warnings[0] == "no cells were found"
    assert result.image("empty").labels.key() is not None


def test_stacks_and_series_are_segmented_plane_by_plane(tmp_path: Path) -> None:
    truth = np.stack([cells(seed, shape=(80, 100), count=12)[1] for seed in range(6)])
    stack = truth.reshape(2, 3, 80, 100).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "TZYX"})
    text = 'images = "stack.tif"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 48\nhalo = 24\n'
    text += "[link]\nz = false\n"
    (tmp_path / "w.toml").write_text(text)
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Exact())
    rows = table(result)
    assert [row["label"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row[name] for row in rows for name in (*OF_VOLUMES, "track", "parent")} == {None}
    for plane in range(6):
        t, z = divmod(plane, 3)
        painted = result.image("stack").labels.read(t, z, Box(0, 0, 80, 100))
        assert np.array_equal(painted > 0, stack[t, z] > 0)
        mine = {row["label"] for row in rows if (row["t"], row["z"]) == (t, z)}
        assert mine == set(np.unique(painted[painted > 0]).tolist())


def test_what_cannot_be_run_is_said_before_anything_is_computed(plate: Path) -> None:
    counting = Counting()
    for overrides, message in (
        (("model.channels=[3]",), "channel"),
        (("model.channels=['DAPI']",), "DAPI"),
        (("measure.groups=['shapes']",), "shapes"),
        (("images='nowhere'",), "nowhere"),
    ):
        with pytest.raises(CellsegError, match=message):
            run(workflow(plate, "out", *overrides), CPU, counting)
    with pytest.raises(CellsegError, match=r"halo = 6 is less than the cells .* Set halo to"):
        run(workflow(plate, "out", "tiling.halo=6"), CPU)
    assert counting.windows == 0


class Careless:
    """Breaks the contract of instances in every way that can be mended."""

    key = "careless"

    def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
        made = []
        for plane in planes:
            found = Instances.from_labels(plane[0].astype(np.int32))
            loose = found.boxes + np.array([-3, -2, 1, 4], np.int32)
            masks = tuple(np.pad(mask, ((3, 1), (2, 4))) for mask in found.masks)
            empty = np.array([[5, 5, 8, 8], [-9, -9, -5, -5]], np.int32)
            made.append(
                Instances(
                    np.concatenate([loose, empty]),
                    (*masks, np.zeros((3, 3), bool), np.ones((4, 4), bool)),
                    np.ones(len(masks) + 2, np.float32),
                    np.ones(len(masks) + 2, np.uint8),
                )
            )
        return made


def test_loose_boxes_empty_masks_and_masks_outside_change_nothing(plate: Path) -> None:
    exact = run(workflow(plate, "exact"), CPU, Exact())
    careless = run(workflow(plate, "careless"), CPU, Careless())
    assert not careless.failed
    assert table(careless) == table(exact)


def test_a_score_that_is_no_number_is_refused_by_name(plate: Path) -> None:
    class Doubtful(Exact):
        def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
            (found,) = super().segment(planes)
            scores = np.full(len(found), np.nan, np.float32)
            return [Instances(found.boxes, found.masks, scores, found.classes)]

    result = run(workflow(plate, "out"), CPU, Doubtful())
    assert len(result.failed) == 3
    assert "score that is not a number" in str(result.failed[0].reason)


def test_overlapping_masks_of_a_segmenter_give_each_pixel_to_one_cell(tmp_path: Path) -> None:
    class Overlapping:
        key = "overlapping"

        def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
            square = np.ones((20, 20), bool)
            found = [((10, 10), square, 0.9, 1), ((20, 20), square, 0.8, 1)]
            return [Instances.stack(found) for _ in planes]

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((60, 60), np.uint8))
    (tmp_path / "w.toml").write_text('images = "a.tif"\n[tiling]\nskip_background = false\n')
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Overlapping())
    assert [row["area_px"] for row in table(result)] == [400, 300]


def test_a_damaged_file_of_an_earlier_run_is_made_again(plate: Path) -> None:
    expected = run(workflow(plate, "expected"), CPU, Exact())
    with pytest.raises(KeyboardInterrupt):
        run(workflow(plate, "out"), CPU, Counting(dies_at=5))
    tiles = sorted((plate.parent / "out").rglob("work/segment/*/*.safetensors"))
    assert len(tiles) == 5
    tiles[2].write_bytes(b"")
    first = run(workflow(plate, "out"), CPU, Exact())
    assert [report.name[2:5] for report in first.failed] == ["B01"]
    assert "damaged" in str(first.failed[0].reason)
    second = run(workflow(plate, "out"), CPU, Exact())
    assert digest(second.folder) == digest(expected.folder)
    here = second.image(second.images[0].name).folder
    for name in ("cells.parquet", "labels.zarr/zarr.json"):
        (here / name).write_bytes(b"")
        assert digest(run(workflow(plate, "out"), CPU, Exact()).folder) == digest(expected.folder)


def test_a_few_cells_on_a_flat_background_are_not_normalised_away(tmp_path: Path) -> None:
    image = np.full((500, 500), 100, np.uint16)
    y, x = np.indices(image.shape)
    image[(y - 250) ** 2 + (x - 250) ** 2 <= 64] = 900
    tifffile.imwrite(tmp_path / "sparse.tif", image)
    (tmp_path / "w.toml").write_text('images = "sparse.tif"\n[model]\nname = "threshold"\n')
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU)
    assert result.cells == 1


def test_nan_in_a_channel_that_is_only_measured_is_an_error_too(tmp_path: Path) -> None:
    labels = cells(0, shape=(60, 60), count=5)[1].astype(np.float32)
    second = np.where(labels > 0, np.nan, 1).astype(np.float32)
    stack = np.stack([labels, second])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "CYX"})
    (tmp_path / "w.toml").write_text('images = "a.tif"\n[normalise]\nmethod = "none"\n')
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Exact())
    assert "NaN or infinite pixels" in str(result.failed[0].reason)


def test_a_segmenter_that_cannot_be_sent_to_workers_is_refused_at_once(plate: Path) -> None:
    class Local(Exact):
        pass

    with pytest.raises(CellsegError, match=r"Local cannot be sent to workers"):
        run(workflow(plate, "out"), Config(device="cpu", workers=2), Local())


SLOW = """
import sys, time
from pathlib import Path
from typing import Any
sys.path.insert(0, {tests!r})
from exact import Counting, Exact
from cellseg.pipeline import Config, read_workflow, run

class Slow(Exact):
    def segment(self, planes):
        time.sleep(0.02)
        return super().segment(planes)

run(read_workflow({workflow!r}, output={output!r}), Config(device="cpu"), Slow())
"""


def test_killed_at_any_moment_a_run_ends_in_the_same_bytes(plate: Path) -> None:
    expected = run(workflow(plate, "undisturbed"), CPU, Exact())
    output = plate.parent / "killed"
    script = SLOW.format(
        tests=str(Path(__file__).parent), workflow=str(plate / "exact.toml"), output=str(output)
    )
    for files in (2, 9, 14, 20):
        process = subprocess.Popen([sys.executable, "-c", script])
        # Wait for work to appear, so that the kill falls into another stage each time.
        while process.poll() is None and len(list(output.rglob("*"))) < files:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = run(workflow(plate, "killed"), CPU, Exact())
    assert digest(result.folder) == digest(expected.folder)
    assert not list(result.folder.rglob("*.partial"))


def test_what_a_kill_leaves_half_written_is_not_taken_for_done(plate: Path) -> None:
    expected = run(workflow(plate, "out"), CPU, Exact())
    before = digest(expected.folder)
    here = expected.image(expected.images[0].name)
    (here.labels.path / "zarr.json").unlink()
    here.cells_path.unlink()
    other = expected.image(expected.images[1].name)
    other.overview_path.unlink()
    run(workflow(plate, "out"), CPU, Exact())
    assert digest(expected.folder) == before
    assert LabelStore(here.labels.path).key() is not None


def test_an_input_that_vanishes_in_the_middle_costs_no_other_and_goes_on_when_it_is_back(
    plate: Path,
) -> None:
    expected = run(workflow(plate, "expected"), CPU, Exact())
    source = next(plate.glob("*B02*"))
    state = source.stat()
    content = source.read_bytes()

    class Vanishing(Counting):
        def segment(self, planes: Sequence[NDArray[np.float32]]) -> list[Instances]:
            source.unlink(missing_ok=True)
            return super().segment(planes)

    broken = run(workflow(plate, "out"), CPU, Vanishing())
    assert [report.name[2:5] for report in broken.failed] == ["B02"]
    assert str(source) in str(broken.failed[0].reason)
    assert broken.cells == sum(r.cells for r in expected.images if r.name[2:5] != "B02")
    source.write_bytes(content)
    os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    counting = Counting()
    mended = run(workflow(plate, "out"), CPU, counting)
    assert 0 < counting.windows <= expected.images[1].tiles
    assert digest(mended.folder) == digest(expected.folder)


@pytest.mark.parametrize(
    "victim",
    [
        "work/segment/{tiles}/0000003.safetensors",
        "work/complete/{labels}/0000000.safetensors",
        "work/decide/{labels}/0000000.safetensors",
        "work/run/{labels}/0000000.safetensors",
        "cells.parquet",
        "overview.png",
    ],
)
def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(
    plate: Path, victim: str
) -> None:
    expected = run(workflow(plate, "expected"), CPU, Exact())
    settings = workflow(plate, "out")
    planned = plan(settings, CPU, Exact())
    keys = Keys.of(planned.scenes[1])
    here = planned.results.image(planned.scenes[1].name).folder
    name = victim.format(tiles=keys.tiles, labels=keys.labels)
    writer = own_name() if victim.startswith("work") else ""
    partial = here / f"{name}{writer}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    # Nothing that is written to this device finds room.
    partial.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        run(settings, CPU, Exact())
    assert caught.value.filename is not None
    result = run(settings, CPU, Exact())
    assert not result.failed
    assert digest(result.folder) == digest(expected.folder)
