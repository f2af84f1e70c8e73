"""Outlines and masks come back from the programs they are written for, to the pixel."""

from __future__ import annotations

import json
import uuid
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import roifile
import shapely
import tifffile
from numpy.typing import NDArray
from pycocotools.coco import COCO

from cellseg.models import CellsegError
from cellseg.pipeline.exported import find_images
from cellseg.pipeline.geojson import read_geojson
from cellseg.pipeline.polygons import Feature, edges_of
from cellseg.pipeline.tiles import Box
from exact import Exact
from exported_runs import exports, grown, pile, plate, run_on, stack, truth

NAMES = ["plate", "pile", "stack"]
FIRST = {"plate": "A01_1_DAPI", "pile": "pile", "stack": "stack"}
"""The image of each run that has cells."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {make.__name__: make(folder / make.__name__) for make in (plate, pile, stack)}


def features(path: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as packed:
        (name,) = packed.namelist()
        assert name == path.stem
        document = json.loads(packed.read(name))
    assert document["type"] == "FeatureCollection"
    found: list[dict[str, Any]] = document["features"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_geojson_gives_back_the_very_masks(runs: dict[str, Path], name: str) -> None:
    path = exports(runs[name], "geojson") / f"{FIRST[name]}.geojson.zip"
    masks = truth(name)
    found = features(path)
    areas = read_geojson(path)
    keys = []
    for feature, area in zip(found, areas, strict=True):
        assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
        assert shapely.geometry.shape(feature["geometry"]).is_valid
        plane = feature["geometry"].get("plane", {"z": 0})
        key = int(feature["properties"]["name"]), plane["z"]
        keys.append(key)
        height, width = masks[key].shape
        assert np.array_equal(area.inside(Box(0, 0, height, width)), masks[key])
    assert sorted(keys) == sorted(masks)
    assert len({feature["id"] for feature in found}) == len(found)
    assert all(str(uuid.UUID(feature["id"])) == feature["id"] for feature in found)


def test_holes_stay_holes_and_parts_stay_parts(runs: dict[str, Path]) -> None:
    found = features(exports(runs["plate"], "geojson") / "A01_1_DAPI.geojson.zip")
    shapes = [(f["geometry"]["type"], len(f["geometry"]["coordinates"])) for f in found]
    # Of a Polygon its rings are counted, of a MultiPolygon its parts.
    assert sorted(shapes) == [("MultiPolygon", 2)] * 2 + [("Polygon", 1)] * 3 + [("Polygon", 2)] * 2
    assert features(exports(runs["plate"], "geojson") / "A02_1_DAPI.geojson.zip") == []


def test_qupath_reads_detections_with_classes_and_measurements(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    results = grown(pile(tmp_path / "pile"))
    path = exports(results, "geojson") / "pile.geojson.zip"
    found = [feature["properties"] for feature in features(path)]
    assert {each["objectType"] for each in found} == {"detection"}
    assert [each.get("classification", {}).get("name") for each in found[:5]] == [
        "positive_ck: positive_cd3",
        None,
        "positive_ck",
        "positive_cd3",
        "positive_ck",
    ]
    colours = {
        e["classification"]["name"]: tuple(e["classification"]["color"])
        for e in found
        if "classification" in e
    }
    assert len(set(colours.values())) == 2
    assert all(0 <= value <= 255 for colour in colours.values() for value in colour)
    assert [each["measurements"]["feret_max_px"] for each in found[:3]] == [0, 1, 2]
    # What is unknown is left out: JSON has no NaN.
    assert "median_DAPI" not in found[1]["measurements"]
    assert found[2]["measurements"]["median_DAPI"] == 2
    again = path.read_bytes()
    assert exports(results, "geojson").joinpath(path.name).read_bytes() == again
    # Ids are those of the other run's cells of the same image and labels.
    other = exports(runs["pile"], "geojson") / path.name
    assert [f["id"] for f in features(other)] == [f["id"] for f in features(path)]


def test_geopandas_opens_geojson_as_it_is(runs: dict[str, Path]) -> None:
    path = exports(runs["plate"], "geojson") / "A01_1_DAPI.geojson.zip"
    # GeoJSON has no way to say that its numbers are px, so they are taken for degrees.
    frame = geopandas.read_file(path).set_crs(None, allow_override=True)
    assert len(frame) == 7
    assert frame.area.sum() == sum(mask.sum() for mask in truth("plate").values())


def filled(rings: list[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels inside an odd number of rings of x, y."""
    edges = edges_of([ring[:, ::-1].astype(np.float64) for ring in rings])
    return Feature("", (edges,)).inside(Box(0, 0, *shape))


@pytest.mark.parametrize("name", NAMES)
def test_imagej_gets_the_very_masks(runs: dict[str, Path], name: str) -> None:
    path = exports(runs[name], "roi") / f"{FIRST[name]}_rois.zip"
    found = roifile.roiread(path)
    assert isinstance(found, list)
    masks = truth(name)
    seen = []
    for roi in found:
        label = int(roi.name.split("_")[0])
        key = label, max(roi.z_position - 1, 0)
        seen.append(key)
        if roi.composite:
            rings = [np.asarray(ring) for ring in roi.coordinates(multi=True)]
        else:
            assert roi.roitype == roifile.ROI_TYPE.TRACED
            rings = [roi.integer_coordinates + np.array([roi.left, roi.top])]
        assert np.array_equal(filled(rings, masks[key].shape), masks[key])
    assert sorted(seen) == sorted(masks)
    with zipfile.ZipFile(path) as packed:
        names = packed.namelist()
    assert names == [f"{roi.name}.roi" for roi in found]
    if name == "stack":
        assert {roi.position for roi in found} == {1, 2, 3, 4, 5}


def test_an_image_without_cells_gives_a_zip_file_without_rois(runs: dict[str, Path]) -> None:
    with zipfile.ZipFile(exports(runs["plate"], "roi") / "A02_1_DAPI_rois.zip") as packed:
        assert packed.namelist() == []


def test_rois_beyond_what_imagej_counts_in_whole_numbers_keep_their_place() -> None:
    from cellseg.pipeline.outline import outlines
    from cellseg.pipeline.to_roi import _composite, _polygon

    for mask in (np.ones((3, 4), bool), np.pad(np.zeros((1, 1), bool), 1, constant_values=True)):
        ((rings,),) = outlines(np.array([[40_000, 70_000]]), [mask]).polygons()
        roi = _polygon(rings[0]) if len(rings) == 1 else _composite(rings)
        back = roifile.ImagejRoi.frombytes(roi.tobytes())
        corners = back.coordinates(multi=True)[0] if back.composite else back.subpixel_coordinates
        assert np.asarray(corners).min(axis=0).tolist() == [70_000, 40_000]
        assert np.asarray(corners).max(axis=0).tolist() == [
            70_000 + mask.shape[1],
            40_000 + mask.shape[0],
        ]


# pycocotools itself: its arrays do not know numpy 2's `copy`.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_pycocotools_decodes_the_very_masks(runs: dict[str, Path], name: str) -> None:
    coco = COCO(str(exports(runs[name], "coco")))
    masks = truth(name)
    seen = []
    for annotation in coco.loadAnns(coco.getAnnIds()):
        (image,) = coco.loadImgs(annotation["image_id"])
        z = int(image["file_name"].partition("_z")[2].split(".")[0] or 0) if name == "stack" else 0
        key = annotation["label"], z
        seen.append(key)
        assert np.array_equal(coco.annToMask(annotation) > 0, masks[key])
        assert annotation["area"] == masks[key].sum()
    assert sorted(seen) == sorted(masks)


def test_px_are_those_of_the_full_resolution_where_a_coarser_level_was_read(
    tmp_path: Path,
) -> None:
    full = np.zeros((400, 600), np.uint16)
    full[100:140, 200:260] = 1
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        tiled: dict[str, Any] = {"tile": (128, 128), "photometric": "minisblack"}
        file.write(full, subifds=1, metadata={"axes": "YX"}, **tiled)
        file.write(full[::2, ::2], subfiletype=1, **tiled)
    results = run_on(tmp_path, Exact(), "level=1")
    (image,) = find_images(results)
    assert image.shape == (1, 1, 200, 300)
    (cell,) = features(exports(results, "geojson") / "a.geojson.zip")
    assert shapely.geometry.shape(cell["geometry"]).bounds == (200, 100, 260, 140)
    # Where the image is gone, what it was read at is not known.
    (tmp_path / "a.ome.tif").unlink()
    with pytest.raises(CellsegError, match="Put the image back"):
        exports(results, "geojson")
    exports(results, "roi")
