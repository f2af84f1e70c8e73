"""Summary tables: images, wells and controls, against pandas and numpy on small runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cellseg.models import Instances
from cellseg.pipeline import Config, Result, read_workflow, run, summary
from cellseg.pipeline.gather import gather
from cellseg.pipeline.plan import ImageReport
from cellseg.pipeline.results import Results
from cellseg.pipeline.statistics import (
    QUANTILES,
    STATISTICS,
    compare,
    robust_z_scores,
    statistics_of,
    z_scores,
)
from cellseg.pipeline.table import FIRST, SIZES, measurements
from exact import Exact, Known
from sections import ellipsoids
from synthetic import cells

CPU = Config(device="cpu")
SHAPE = (130, 140)
WORDS = 'pattern = "{well}_{site}.tif"\n[normalise]\nmethod = "none"\n[output]\noverview = false\n'
MEASURED = ("area_px", "straight_edge", "solidity", "mean_0", "sum_0")
FIELDS = {"A01_1": 0, "A01_2": 1, "A02_1": 2, "B01_1": 3, "B02_1": 4, "B10_1": 5, "B02_2": 6}


def write(folder: Path, name: str, labels: NDArray[Any]) -> None:
    """An image with grey levels that are its labels, and pixels of half a um."""
    tifffile.imwrite(
        folder / f"{name}.tif",
        labels.astype(np.uint16),
        imagej=True,
        resolution=(2.0, 2.0),
        metadata={"unit": "um", "axes": "YX"},
    )


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Six wells, two of two images, one of which has no cells and one a single cell."""
    folder = tmp_path / "p1"
    folder.mkdir()
    for name, seed in FIELDS.items():
        _, labels = cells(seed, shape=SHAPE, count=20 + 3 * seed, radius=(4, 9))
        labels[labels > {"B10_1": 0, "B01_1": 1}.get(name, 999)] = 0
        write(folder, name, labels)
    text = f'images = "."\n{WORDS}[gates]\nbig = "area_px > otsu"\n'
    (folder / "w.toml").write_text(text)
    return folder


def go(folder: Path, *overrides: str, name: str = "out") -> Result:
    workflow = read_workflow(folder / "w.toml", overrides, output=folder.parent / name)
    return run(workflow, CPU, Exact())


def tables(result: Result) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The cells, the images by name, the wells by well."""
    frames = [pd.read_parquet(result.folder / f"{n}.parquet") for n in ("cells", "images", "wells")]
    return frames[0], frames[1].set_index("image"), frames[2].set_index("well")


def reports(document: dict[str, Any]) -> list[ImageReport]:
    return [ImageReport.read(line) for line in document["images"]]


def agrees(mine: pd.Series[Any], values: pd.Series[Any], name: str) -> None:
    """Compare the statistics of one column of some cells with those of pandas and numpy."""
    assert mine[f"{name}_mean"] == pytest.approx(values.mean(), nan_ok=True)
    assert mine[f"{name}_std"] == pytest.approx(values.std(), abs=1e-9, nan_ok=True)
    for share in QUANTILES if len(values) else ():
        assert mine[f"{name}_q{round(100 * share):02}"] == np.quantile(values, share)


def test_images_and_wells_agree_with_pandas(plate: Path) -> None:
    result = go(plate)
    frame, images, wells = tables(result)
    assert images.index.tolist() == [report.name for report in result.images]
    for name, mine in images.iterrows():
        own = frame[frame["image"] == name]
        assert mine["cells"] == len(own)
        assert mine["confluence"] == pytest.approx(own["area_px"].sum() / (130 * 140))
        assert mine["cells_per_mm2"] == pytest.approx(len(own) / (130 * 140 * 0.25e-6))
        for column in MEASURED:
            agrees(mine, own[column], column)
    assert wells.index.tolist() == ["A01", "A02", "B01", "B02", "B10"]
    assert wells["images"].tolist() == [2, 1, 1, 2, 1]
    for well, mine in wells.iterrows():
        own = frame[frame["well"] == well]
        assert mine["cells"] == len(own)
        area = 130 * 140 * mine["images"]
        assert mine["confluence"] == pytest.approx(own["area_px"].sum() / area)
        assert mine["big_fraction"] == pytest.approx(own["big"].mean(), nan_ok=True)
        for column in MEASURED:
            agrees(mine, own[column], column)
    assert wells.loc["B10", "cells"] == 0
    assert wells.loc["B10", "confluence"] == 0
    assert wells.filter(regex=r"_(mean|std|q..)$").loc["B10"].isna().all()
    assert wells.loc["B01", "cells"] == 1
    assert wells["area_px_std"].isna().to_dict()["B01"]
    assert (images["flags"] == np.where(images["cells"] == 0, "0 empty", "")).all()


def test_the_columns_are_those_of_the_contract(plate: Path) -> None:
    result = go(plate, "output.csv=true")
    names = ("cells", "images", "wells")
    read = {name: pq.read_schema(result.folder / f"{name}.parquet") for name in names}
    measured = measurements(read["cells"])
    assert set(measured) & set(FIRST) == set(SIZES)
    assert "big" not in measured
    assert "mean_0" in measured
    shared = ["cells", "confluence", "cells_per_mm2", "big_fraction"]
    shared += [f"{name}_{statistic}" for name in measured for statistic in STATISTICS]
    seen = ["background_level_0", "saturated_0", "focus_0", "flags"]
    assert read["images"].names == ["image", "plate", "well", "site", *shared, *seen]
    assert read["wells"].names == ["plate", "well", "images", *shared]
    for name in ("images", "wells"):
        text = pd.read_csv(result.folder / f"{name}.csv")
        assert list(text) == read[name].names
        assert read[name].field("cells").type == pa.int64()
    go(plate)
    assert not list(result.folder.glob("*.csv"))


def test_reading_a_column_at_a_time_changes_nothing(
    plate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("images.parquet", "wells.parquet")
    together = [(go(plate).folder / name).read_bytes() for name in names]
    monkeypatch.setattr(summary, "VALUES", 1)
    assert [(go(plate).folder / name).read_bytes() for name in names] == together


def test_what_is_on_disk_is_gathered_again(plate: Path) -> None:
    result = go(plate, 'controls.negative=["A*"]')
    written = {p.name: p.read_bytes() for p in result.folder.glob("*.parquet")}
    for name in written:
        (result.folder / name).unlink()
    document = json.loads((result.folder / "run.json").read_text())
    workflow = read_workflow(result.folder / "workflow.toml")
    found = gather(Results(result.folder), workflow, reports(document))
    assert found.cells == result.cells
    assert found.gates == document["gates"]
    assert {p.name: p.read_bytes() for p in result.folder.glob("*.parquet")} == written
    # What an older version wrote says less, and is read all the same.
    for image in document["images"]:
        for name in ("shape", "channels", "plate", "well", "site", "quality", "place"):
            del image[name]
    gather(Results(result.folder), workflow, reports(document))
    images = pd.read_parquet(result.folder / "images.parquet")
    assert images["cells"].sum() == result.cells
    assert images["confluence"].isna().all()
    assert not (result.folder / "wells.parquet").exists()


def test_an_image_that_failed_has_no_row(plate: Path) -> None:
    (plate / "A02_1.tif").write_bytes(b"II*\0")
    result = go(plate)
    _, images, wells = tables(result)
    assert len(result.failed) == 1
    assert "A02_1" not in images.index
    assert "A02" not in wells.index


def test_controls_are_compared_with_the_wells_of_their_own_plate(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"p{number}").mkdir()
        for seed, well in enumerate(("A01", "A02", "A03", "B01", "B02", "C01")):
            _, labels = cells(10 * number + seed, shape=SHAPE, count=12 + 4 * seed, radius=(4, 9))
            write(tmp_path / f"p{number}", f"{well}_1", labels)
    text = f'images = ["p1", "p2"]\n{WORDS}[gates]\nbig = "area_px > 100"\n'
    controls = '[controls]\nnegative = ["A*", "p2/Z9"]\npositive = ["p1/B*", "p2/B01"]\n'
    (tmp_path / "w.toml").write_text(text + controls)
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Exact())
    assert any('no well of this run is "p2/Z9"' in warning for warning in result.warnings)
    wells = pd.read_parquet(result.folder / "wells.parquet")
    found = pd.read_parquet(result.folder / "controls.parquet")
    assert wells["plate"].tolist() == ["p1"] * 6 + ["p2"] * 6
    for plate, own in wells.groupby("plate"):
        negative, positive = own[own["well"].str.startswith("A")], own[own["well"].isin(
            {"p1": ["B01", "B02"], "p2": ["B01"]}[str(plate)])]  # fmt: skip
        for name in ("cells", "confluence", "big_fraction", "area_px_mean", "mean_0_mean"):
            mean, spread = negative[name].mean(), negative[name].std()
            assert own[f"{name}_z"].tolist() == pytest.approx(
                ((own[name] - mean) / spread).tolist()
            )
            off = (negative[name] - negative[name].median()).abs().median()
            robust = (own[name] - negative[name].median()) / (1.4826 * off)
            assert own[f"{name}_robust_z"].tolist() == pytest.approx(robust.tolist())
            row = found[(found["plate"] == plate) & (found["measurement"] == name)].iloc[0]
            assert (row["negative_wells"], row["positive_wells"]) == (3, len(positive))
            assert row["negative_std"] == pytest.approx(spread)
            if plate == "p2":
                assert np.isnan(row[["positive_std", "z_prime", "ssmd"]].astype(float)).all()
                continue
            other = positive[name]
            prime = 1 - 3 * (other.std() + spread) / abs(other.mean() - mean)
            apart = (other.mean() - mean) / np.sqrt(other.var() + spread**2)
            assert row["z_prime"] == pytest.approx(prime)
            assert row["ssmd"] == pytest.approx(apart)
    unknown = found[found["measurement"] == "volume_px_mean"]
    assert unknown["negative_wells"].tolist() == [0, 0]
    assert unknown[["negative_mean", "positive_std", "z_prime", "ssmd"]].isna().all(axis=None)


def test_pixels_that_two_cells_share_count_once(tmp_path: Path) -> None:
    square = np.ones((20, 20), np.bool_)
    known = Known(Instances.stack([((10, 10), square, 0.9, 1), ((20, 10), square, 0.8, 1)]))
    tifffile.imwrite(tmp_path / "a.tif", np.full((64, 64), 5, np.uint16))
    (tmp_path / "w.toml").write_text('images = "a.tif"\n[normalise]\nmethod = "none"\n'
                                     "[tiling]\nskip_background = false\n")  # fmt: skip
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, known)
    images = pd.read_parquet(result.folder / "images.parquet")
    assert images["overlap_px_mean"].tolist() == [200]
    assert images["confluence"].tolist() == [600 / 64**2]
    assert images["cells_per_mm2"].isna().all()
    assert not (result.folder / "wells.parquet").exists()


def test_the_region_of_interest_is_what_is_imaged(plate: Path) -> None:
    result = go(plate, "region.box_px=[0, 0, 130, 70]")
    frame, images, _ = tables(result)
    own = frame[frame["image"] == "A02_1"]
    assert images.loc["A02_1", "confluence"] == pytest.approx(own["area_px"].sum() / (130 * 70))
    assert images.loc["A02_1", "cells_per_mm2"] == pytest.approx(len(own) / (130 * 70 * 0.25e-6))


def test_confluence_of_volumes_is_the_share_of_voxels(tmp_path: Path) -> None:
    truth = np.stack([ellipsoids(seed, (6, 60, 70), 30, apart=2) for seed in (1, 2)])
    metadata = {"axes": "TZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(
        tmp_path / "v.tif", truth, imagej=True, resolution=(4.0, 4.0), metadata=metadata
    )
    text = 'images = "v.tif"\n[output]\noverview = false\n[normalise]\nmethod = "none"\n'
    (tmp_path / "w.toml").write_text(text)
    mm2 = 60 * 70 * 0.0625e-6
    for link, planes in (("true", 2), ("false", 12)):
        overrides = [f"link.z={link}", "link.least_planes=1"]
        workflow = read_workflow(tmp_path / "w.toml", overrides, output=tmp_path / link)
        result = run(workflow, CPU, Exact())
        (row,) = pd.read_parquet(result.folder / "images.parquet").to_dict("records")
        assert row["confluence"] == pytest.approx(np.mean(truth > 0))
        assert row["cells_per_mm2"] == pytest.approx(result.cells / (planes * mm2))
        assert np.isnan(row["volume_px_mean"]) == (link == "false")


floats = st.floats(-1e6, 1e6) | st.just(np.nan) | st.just(np.inf)


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(0, 12)), elements=floats))
def test_statistics_are_those_of_numpy_in_any_order(values: NDArray[np.float64]) -> None:
    found = statistics_of(values)
    assert np.array_equal(found, statistics_of(values[:, ::-1]), equal_nan=True)
    for row, mine in zip(values, found, strict=True):
        known = row[np.isfinite(row)]
        if not len(known):
            assert np.isnan(mine).all()
            continue
        assert mine[0] == pytest.approx(known.mean(), rel=1e-9, abs=1e-9)
        if len(known) > 1:
            assert mine[1] == pytest.approx(known.std(ddof=1), rel=1e-6, abs=1e-6)
        else:
            assert np.isnan(mine[1])
        assert mine[2:].tolist() == np.quantile(known, QUANTILES).tolist()


def test_what_has_no_spread_or_too_few_wells_has_no_score() -> None:
    # 0.1 three times has a mean that is not 0.1.
    alike, few = [0.1, 0.1, 0.1, 5.0], [1.0, np.nan, np.nan, 5.0]
    wells = np.array([alike, few])
    negative = np.array([True, True, True, False])
    assert np.isnan(z_scores(wells, negative)).all()
    assert np.isnan(robust_z_scores(wells, negative)).all()
    nobody = np.zeros(4, np.bool_)
    assert np.isnan(z_scores(wells, nobody)).all()
    same = compare(wells[:, [3, 3]], wells[:, :3])
    assert np.isnan(same["ssmd"]).all()
    assert np.isnan(same["z_prime"]).all()
    assert same["negative_wells"].tolist() == [3, 1]
    assert same["negative_std"][0] == 0
    equal = compare(np.array([[1.0, 3.0]]), np.array([[1.0, 3.0]]))
    assert equal["ssmd"].tolist() == [0]
    assert np.isnan(equal["z_prime"]).all()
