"""A run with a region, as a user does it: the cells of the whole run whose centre is inside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from cellseg.models import CellsegError
from cellseg.pipeline import Config, Result, Workflow, read_workflow, run
from cellseg.pipeline.cli import main
from cellseg.pipeline.keys import Keys
from cellseg.pipeline.overview import REGION
from cellseg.pipeline.pictures import read_picture
from cellseg.pipeline.plan import plan
from cellseg.pipeline.tiles import Box
from exact import Counting, Exact
from synthetic import cells

CPU = Config(device="cpu")
SHAPE = (400, 360)
DEMO = Path(__file__).parent.parent / "workflows" / "demo_plate"
STAR = [[40, 30], [300, 60], [250, 200], [330, 380], [180, 300], [60, 350], [110, 180]]
"""x and y of a polygon."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images whose grey levels are the labels, a workflow, and a region for each."""
    (tmp_path / "regions").mkdir()
    for seed, name in enumerate("ab"):
        labels = cells(seed, shape=SHAPE, count=150, radius=(3, 14))[1]
        tifffile.imwrite(tmp_path / f"{name}.tif", labels.astype(np.uint16))
    draw(tmp_path / "regions" / "a.geojson", [STAR])
    draw(tmp_path / "regions" / "b.geojson", [[[x + 20, y + 10] for x, y in STAR]])
    text = 'images = "*.tif"\n[normalise]\nmethod = "none"\n[tiling]\nsize = 64\nhalo = 24\n'
    (tmp_path / "w.toml").write_text(text)
    return tmp_path


def draw(path: Path, rings: list[Any], names: Sequence[str] = ()) -> None:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            "properties": {"classification": {"name": name}} if name else {},
        }
        for ring, name in zip(rings, list(names) or [""] * len(rings), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def workflow(folder: Path, name: str, *overrides: str) -> Workflow:
    return read_workflow(folder / "w.toml", overrides, output=folder / "out" / name)


def rows_of(result: Result, image: str = "a") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(result.cells_path).to_pylist()
    return [row for row in rows if row["image"] == image]


def labels_of(result: Result, image: str = "a", shape: tuple[int, int] = SHAPE) -> Any:
    return result.image(image).labels.read(0, 0, Box(0, 0, *shape))


def inside(rows: list[dict[str, Any]], region: NDArray[Any]) -> list[dict[str, Any]]:
    """Return the rows whose centre lies where a region as large as the image is not 0."""
    return [row for row in rows if region[int(row["y_px"] + 0.5), int(row["x_px"] + 0.5)]]


def check(part: Result, whole: Result, region: NDArray[Any], image: str = "a") -> None:
    """Compare cells, masks and scores."""
    shape = region.shape[0], region.shape[1]
    kept, mine = inside(rows_of(whole, image), region), rows_of(part, image)
    apart = ("label", "region")
    strip = [{k: v for k, v in row.items() if k not in apart} for row in kept]
    assert strip == [{k: v for k, v in row.items() if k not in apart} for row in mine]
    assert [row["label"] for row in mine] == list(range(1, len(mine) + 1))
    labels, expected = labels_of(whole, image, shape), np.zeros(shape, np.uint32)
    for new, row in enumerate(kept, 1):
        expected[labels == row["label"]] = new
    assert np.array_equal(labels_of(part, image, shape), expected)


def polygon(ring: list[list[int]], shape: tuple[int, int] = SHAPE) -> NDArray[np.bool_]:
    """Fill a ring by the crossings of each row, one by one."""
    filled = np.zeros(shape, bool)
    for row in range(shape[0]):
        for (xa, ya), (xb, yb) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if (ya <= row + 0.5) != (yb <= row + 0.5):
                across = xa + (row + 0.5 - ya) * (xb - xa) / (yb - ya)
                filled[row, np.arange(shape[1]) + 0.5 >= across] ^= True
    return filled


@pytest.mark.parametrize("tiling", [(), ("tiling.size=1024",), ("tiling.size=96",)])
def test_polygons_keep_the_cells_inside_them_and_no_others(
    folder: Path, tiling: tuple[str, ...]
) -> None:
    whole = run(workflow(folder, "whole", *tiling), CPU, Exact())
    region = f"region.geojson='{folder / 'regions' / '{image}.geojson'}'"
    part = run(workflow(folder, "part", region, *tiling), CPU, Exact())
    check(part, whole, polygon(STAR))
    check(part, whole, polygon([[x + 20, y + 10] for x, y in STAR]), "b")
    assert 0 < part.cells < whole.cells
    assert {row["region"] for row in rows_of(part)} == {"1"}
    assert {row["region"] for row in rows_of(whole)} == {None}
    report = json.loads((part.folder / "run.json").read_text())["images"][0]
    area = int(polygon(STAR).sum())
    assert report["region"]["area_px"] == report["region"]["parts"]["1"]["area_px"] == area
    assert report["region"]["cells"] == len(rows_of(part))


def test_a_small_region_costs_little_and_dry_run_counts_it(folder: Path) -> None:
    counting, box = Counting(), "region.box_px=[140, 140, 180, 170]"
    part = run(workflow(folder, "part", box), CPU, counting)
    whole = run(workflow(folder, "whole"), CPU, Exact())
    region = np.zeros(SHAPE, bool)
    region[140:180, 140:170] = True
    check(part, whole, region)
    assert [report.tiles for report in part.images] == [9, 9]
    # With the windows in which cells larger than the halo are predicted again.
    assert 18 <= counting.windows < 42
    assert [report.tiles for report in whole.images] == [42, 42]
    arguments = ["run", str(folder / "w.toml"), "--dry-run", "--set", box]
    arguments += ["--set", "model.name=threshold", "-o", str(folder / "dry")]
    output = CliRunner().invoke(main, arguments).output
    assert "2 images, 18 tiles" in output
    assert "region in 2 images: 18 of 84 tiles are looked at" in output
    assert not (folder / "dry").exists()


def test_masks_at_another_scale_name_the_parts_by_their_values(folder: Path) -> None:
    mask = np.zeros((200, 180), np.uint8)
    mask[20:90, 30:100], mask[80:180, 90:160] = 7, 200
    (folder / "masks").mkdir()
    tifffile.imwrite(folder / "masks" / "a.tif", mask)
    tifffile.imwrite(folder / "masks" / "b.tif", mask[:, :100])
    part = run(workflow(folder, "part", f"region.mask='{folder / 'masks'}'"), CPU, Exact())
    whole = run(workflow(folder, "whole"), CPU, Exact())
    large = mask.repeat(2, 0).repeat(2, 1)
    check(part, whole, large)
    for row in rows_of(part):
        assert row["region"] == str(large[int(row["y_px"] + 0.5), int(row["x_px"] + 0.5)])
    (failed,) = part.failed
    assert failed.name == "b"
    assert "other proportions" in str(failed.reason)


def test_classes_choose_and_the_first_of_overlapping_features_names_a_cell(folder: Path) -> None:
    square = [[50, 50], [250, 50], [250, 250], [50, 250]]
    other = [[150, 150], [350, 150], [350, 350], [150, 350]]
    path = folder / "all.geojson"
    draw(path, [square, other, STAR], ["Tumor", "Stroma", "Fold"])
    region = f"region.geojson='{path}'"
    classes = "region.classes=['Tumor', 'Stroma']"
    whole = run(workflow(folder, "whole"), CPU, Exact())
    part = run(workflow(folder, "part", region, classes), CPU, Exact())
    first, second = polygon(square), polygon(other)
    check(part, whole, first | second)
    for row in rows_of(part):
        there = int(row["y_px"] + 0.5), int(row["x_px"] + 0.5)
        assert row["region"] == ("Tumor" if first[there] else "Stroma")
    facts = part.images[0].region
    assert facts is not None
    assert facts["parts"]["Tumor"]["area_px"] == first.sum()
    assert facts["parts"]["Stroma"]["area_px"] == (second & ~first).sum()


def test_what_is_wrong_with_a_region_costs_its_own_image_only(folder: Path) -> None:
    (folder / "regions" / "b.geojson").write_text('{"type": "FeatureCollection", "features": [')
    region = f"region.geojson='{folder / 'regions'}'"
    result = run(workflow(folder, "part", region), CPU, Exact())
    (failed,) = result.failed
    assert "b.geojson: not GeoJSON" in str(failed.reason)
    assert rows_of(result)
    (folder / "regions" / "b.geojson").unlink()
    again = run(workflow(folder, "part", region), CPU, Exact())
    assert "no region file" in str(again.failed[0].reason)
    none = run(workflow(folder, "part", region, "region.missing=none"), CPU, Exact())
    assert none.images[1].warnings == (
        "no cells were found in the region",
        'region: none for this image, and [region] missing = "none"',
    )
    everything = run(workflow(folder, "part", region, "region.missing=all"), CPU, Exact())
    whole = run(workflow(folder, "whole"), CPU, Exact())
    assert rows_of(everything, "b") == rows_of(whole, "b")
    assert rows_of(everything) == rows_of(result)
    with pytest.raises(CellsegError, match="box_um needs the size of a pixel"):
        run(workflow(folder, "part", "region.box_um=[0, 0, 5, 5]"), CPU, Exact())


def test_another_region_goes_on_with_the_tiles_of_a_run_that_was_stopped(folder: Path) -> None:
    first, second = "region.box_px=[20, 20, 200, 200]", "region.box_px=[20, 60, 200, 340]"
    with pytest.raises(KeyboardInterrupt):
        run(workflow(folder, "out", first), CPU, Counting(dies_at=12))
    resumed, fresh = Counting(), Counting()
    result = run(workflow(folder, "out", second), CPU, resumed)
    expected = run(workflow(folder, "fresh", second), CPU, fresh)
    assert 0 < fresh.windows - resumed.windows <= 12
    assert pq.read_table(result.cells_path) == pq.read_table(expected.cells_path)


def test_the_keys_of_labels_know_the_region_and_those_of_tiles_do_not(folder: Path) -> None:
    region = f"region.geojson='{folder / 'regions'}'"

    def keys(*overrides: str) -> Keys:
        return Keys.of(plan(workflow(folder, "out", *overrides), CPU, Exact()).scenes[0])

    whole, part = keys(), keys(region)
    assert whole.tiles == part.tiles
    assert whole.labels != part.labels != keys(region, "region.classes=[]").cells
    shutil.copytree(folder / "regions", folder / "moved")
    assert keys(f"region.geojson='{folder / 'moved'}'") == part
    draw(folder / "regions" / "a.geojson", [STAR[:-1]])
    assert keys(region).labels != part.labels
    assert keys(region).tiles == part.tiles


def test_workers_and_other_measurements_change_nothing(folder: Path) -> None:
    region = f"region.geojson='{folder / 'regions'}'"
    one = run(workflow(folder, "one", region), CPU, Exact())
    two = run(workflow(folder, "two", region), Config(device="cpu", workers=2, threads=1), Exact())
    assert not two.failed
    assert pq.read_table(one.cells_path) == pq.read_table(two.cells_path)
    counting = Counting()
    fewer = run(workflow(folder, "one", region, 'measure.groups=["shape"]'), CPU, counting)
    assert counting.windows == 0
    regions = [row["region"] for row in rows_of(fewer)]
    assert regions == [row["region"] for row in rows_of(two)]


def test_the_picture_shows_the_outline(folder: Path) -> None:
    box = "region.box_px=[100, 50, 220, 300]"
    part = run(workflow(folder, "part", box), CPU, Exact())
    picture = read_picture(part.image("a").overview_path)
    drawn = (picture == REGION).all(axis=2)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max()) == (100, 219)
    assert (columns.min(), columns.max()) == (50, 299)
    assert not drawn[104:216, 54:296].any()


@pytest.mark.parametrize("box", [(100, 150, 330, 420), (0, 0, 40, 60)])
def test_the_shipped_model_finds_the_same_cells(
    tmp_path: Path, box: tuple[int, int, int, int]
) -> None:
    shutil.copy(DEMO / "IXMtest_B21_s4_w1.tif", tmp_path / "a.tif")
    text = 'images = "a.tif"\n[tiling]\nsize = 128\nhalo = 48\n'
    (tmp_path / "w.toml").write_text(text)
    sides = f"region.box_px={list(box)}"
    part = run(workflow(tmp_path, "part", sides), CPU)
    whole = run(workflow(tmp_path, "whole"), CPU)
    image = tifffile.imread(tmp_path / "a.tif")
    region = np.zeros(image.shape, bool)
    region[Box(*box).slices] = True
    check(part, whole, region)
    assert part.images[0].tiles < whole.images[0].tiles
