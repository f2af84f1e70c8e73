"""The table comes back from CSV, CellProfiler's files and AnnData, whatever columns it has."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from cellseg.pipeline import annotated
from cellseg.pipeline.cell_columns import gates, measurements
from cellseg.pipeline.to_cellprofiler import names
from exact import Exact
from exported_runs import exports, grown, pile, plate, run_on, stack


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {make.__name__: grown(make(folder / make.__name__)) for make in (plate, pile, stack)}


def table(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "cells.parquet")


def test_measurements_and_gates_follow_from_the_columns_alone() -> None:
    columns = ["mean_a", "mean_a_b", "std_a_b", "feret_max_px", "count", "corr_a_b"]
    columns += ["edge_sum_a", "p99p9_a", "mass_displacement_px_a", "orientation_rad"]
    schema = pa.schema(
        [
            ("label", pa.uint32()),
            ("area_um2", pa.float64()),
            ("score", pa.float32()),
            ("touches_edge", pa.bool_()),
            *((name, pa.float32()) for name in columns),
            ("positive", pa.bool_()),
        ]
    )
    found = {each.name: (each.what, each.unit, each.channel) for each in measurements(schema)}
    assert found == {
        "area_um2": ("area", "um^2", ""),
        "score": ("score", "", ""),
        "mean_a": ("mean", "grey level", "a"),
        "mean_a_b": ("mean", "grey level", "a_b"),
        "std_a_b": ("std", "grey level", "a_b"),
        "feret_max_px": ("feret_max", "px", ""),
        "count": ("count", "", ""),
        "corr_a_b": ("corr", "", "a_b"),
        "edge_sum_a": ("edge_sum", "grey level", "a"),
        "p99p9_a": ("p99p9", "grey level", "a"),
        "mass_displacement_px_a": ("mass_displacement", "px", "a"),
        "orientation_rad": ("orientation", "radian", ""),
    }
    assert gates(schema) == ["positive"]


@pytest.mark.parametrize("name", ["plate", "pile", "stack"])
def test_csv_has_every_row_and_column(runs: dict[str, Path], name: str) -> None:
    truth = table(runs[name])
    found = pd.read_csv(exports(runs[name], "csv"))
    assert list(found) == list(truth)
    assert len(found) == len(truth)
    numbers = [c for c in truth if pd.api.types.is_float_dtype(truth[c])]
    pd.testing.assert_frame_equal(found[numbers], truth[numbers], check_dtype=False)
    listed = [" ".join(map(str, labels)) for labels in truth["overlaps_with"]]
    assert found["overlaps_with"].fillna("").astype(str).tolist() == listed


@pytest.mark.parametrize("name", ["plate", "pile", "stack"])
def test_anndata_has_the_measurements_and_what_describes_each_cell(
    runs: dict[str, Path], name: str
) -> None:
    truth = table(runs[name])
    found = anndata.read_h5ad(exports(runs[name], "anndata"))
    assert found.obs_names.tolist() == [
        f"{image}/{label}" for image, label in zip(truth["image"], truth["label"], strict=True)
    ]
    assert found.obs_names.is_unique
    assert found.X.dtype == np.float32
    measured = found.var_names.tolist()
    assert {"area_px", "mean_0", "feret_max_px", "median_DAPI", "neighbours"} <= {
        column.replace("mean_DAPI", "mean_0") for column in measured
    }
    np.testing.assert_array_equal(found.X, truth[measured].to_numpy(np.float32))
    assert np.isnan(found[:, "median_DAPI"].X[1, 0])
    assert found.var.loc["area_um2", "unit"] == "um^2"
    assert found.var.loc["median_DAPI"].tolist() == (
        ["grey level", "DAPI"] if name == "plate" else ["", ""]
    )
    # Nothing of the table is lost but columns without any value.
    left = {column for column in truth if truth[column].notna().any()}
    assert left == {*measured, *found.obs}
    for column in ("label", "class", "t", "z", "positive_ck", "seam"):
        assert found.obs[column].tolist() == truth[column].tolist()
    assert found.obs["seam"].dtype == "category"
    assert found.obs["positive_ck"].dtype == bool
    assert found.uns["spatial_unit"] == "um"
    np.testing.assert_array_equal(found.obsm["spatial"], truth[["x_um", "y_um"]])


def test_anndata_is_the_same_however_many_cells_are_written_together(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = anndata.read_h5ad(exports(runs["pile"], "anndata", tmp_path / "a.h5ad"))
    monkeypatch.setattr(annotated, "ROWS", 7)
    parts = anndata.read_h5ad(exports(runs["pile"], "anndata", tmp_path / "b.h5ad"))
    np.testing.assert_array_equal(whole.X, parts.X)
    pd.testing.assert_frame_equal(whole.obs, parts.obs)


def test_values_that_are_known_of_some_cells_stay_so(runs: dict[str, Path], tmp_path: Path) -> None:
    cells = pq.read_table(runs["pile"] / "cells.parquet")
    half = np.arange(len(cells)) % 2 == 0
    for name, values in {
        "track": pa.array(np.arange(len(cells), dtype=np.uint32), mask=half),
        "positive_ck": pa.array(half, mask=~half),
        "x_um": pa.array(np.zeros(len(cells)), mask=half),
    }.items():
        cells = cells.set_column(cells.column_names.index(name), name, values)
    original = (runs["pile"] / "cells.parquet").read_bytes()
    pq.write_table(cells, runs["pile"] / "cells.parquet")
    found = anndata.read_h5ad(exports(runs["pile"], "anndata", tmp_path / "some.h5ad"))
    (runs["pile"] / "cells.parquet").write_bytes(original)
    assert found.obs["track"].isna().tolist() == half.tolist()
    assert found.obs["positive_ck"].isna().tolist() == (~half).tolist()
    assert found.uns["spatial_unit"] == "px"
    assert found.obsm["spatial"][:, 0].tolist() == cells["x_px"].to_pylist()


def test_cellprofiler_names_what_it_has_a_name_for(runs: dict[str, Path]) -> None:
    truth = table(runs["plate"])
    folder = exports(runs["plate"], "cellprofiler")
    images = pd.read_csv(folder / "Image.csv")
    cells = pd.read_csv(folder / "Cells.csv")
    assert images["ImageNumber"].tolist() == [1, 2]
    assert images["Count_Cells"].tolist() == [len(truth), 0]
    assert images["FileName_Image"].tolist() == ["A01_1_DAPI.tif", "A02_1_DAPI.tif"]
    assert images["Metadata_Well"][0] == "A01"
    for theirs, ours in {
        "ObjectNumber": "label",
        "Metadata_Well": "well",
        "Metadata_Site": "site",
        "AreaShape_Area": "area_px",
        "AreaShape_Perimeter": "perimeter_px",
        "AreaShape_MaxFeretDiameter": "feret_max_px",
        "Location_Center_X": "x_px",
        "Intensity_MeanIntensity_DAPI": "mean_DAPI",
        "Intensity_MedianIntensity_DAPI": "median_DAPI",
        "Cellseg_neighbours": "neighbours",
        "Cellseg_positive_ck": "positive_ck",
        "Cellseg_score": "score",
    }.items():
        expected = truth[ours].astype(cells[theirs].dtype)
        pd.testing.assert_series_equal(cells[theirs], expected, check_names=False)
    assert cells["ImageNumber"].tolist() == [1] * len(truth)


def test_a_volume_is_one_image_set_to_cellprofiler(runs: dict[str, Path]) -> None:
    folder = exports(runs["stack"], "cellprofiler")
    truth = table(runs["stack"])
    images = pd.read_csv(folder / "Image.csv")
    assert images["Count_Cells"].tolist() == [len(truth)]
    assert pd.read_csv(folder / "Cells.csv")["AreaShape_Volume"].tolist() == list(
        truth["volume_px"]
    )


def test_planes_that_are_not_linked_are_image_sets_of_their_own(tmp_path: Path) -> None:
    planes = np.zeros((3, 64, 70), np.uint16)
    planes[0, 5:15, 5:15], planes[2, 5:15, 5:15], planes[2, 30:40, 30:44] = 1, 1, 2
    tifffile.imwrite(tmp_path / "s.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    folder = exports(run_on(tmp_path, Exact(), "link.z=false"), "cellprofiler")
    images = pd.read_csv(folder / "Image.csv")
    assert images["Metadata_Z"].tolist() == [0, 1, 2]
    assert images["Count_Cells"].tolist() == [1, 0, 2]
    assert pd.read_csv(folder / "Cells.csv")["ImageNumber"].tolist() == [1, 3, 3]


def test_names_of_cellprofiler_follow_from_ours() -> None:
    columns = ["label", "edge_sum_a", "p25_a", "mass_displacement_px_a", "mean_a", "texture_a"]
    found = names(pa.schema([(name, pa.float64()) for name in columns]))
    assert list(found.values()) == [
        "ObjectNumber",
        "Intensity_IntegratedIntensityEdge_a",
        "Intensity_LowerQuartileIntensity_a",
        "Intensity_MassDisplacement_a",
        "Intensity_MeanIntensity_a",
        "Cellseg_texture_a",
    ]
