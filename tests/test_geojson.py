"""GeoJSON as QuPath writes it; what is no area is refused by name."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellseg.models import CellsegError
from cellseg.pipeline.geojson import read_geojson
from cellseg.pipeline.tiles import Box

SQUARE = [[[10, 20], [30, 20], [30, 40], [10, 40], [10, 20]]]
"""x from 10 to 30, y from 20 to 40."""


def feature(coordinates: Any, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "id": "1", "geometry": geometry, "properties": properties}


def written(folder: Path, document: object) -> Path:
    path = folder / "regions.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


TUMOR: dict[str, Any] = {
    "classification": {"name": "Tumor", "color": [200, 0, 0]},
    "objectType": "annotation",
}


@pytest.mark.parametrize(
    "document",
    [
        collection(feature(SQUARE, **TUMOR)),
        [feature(SQUARE, **TUMOR)],
        feature(SQUARE, **TUMOR),
        feature([SQUARE], "MultiPolygon", classification="Tumor"),
        feature([SQUARE[0][:-1]], name="Tumor", classification={"name": "other"}),
    ],
)
def test_every_form_of_a_feature_is_read(tmp_path: Path, document: object) -> None:
    (found,) = read_geojson(written(tmp_path, document))
    assert found.name == "Tumor"
    assert found.bounds == Box(20, 10, 40, 30)


def test_features_without_a_name_have_their_number_in_the_file(tmp_path: Path) -> None:
    bare = {"type": "Polygon", "coordinates": SQUARE}
    path = written(tmp_path, [feature(SQUARE, **TUMOR), feature(SQUARE), bare])
    assert [each.name for each in read_geojson(path)] == ["Tumor", "2", "3"]


def test_holes_and_several_polygons_are_kept(tmp_path: Path) -> None:
    hole = [[15, 25], [25, 25], [25, 35], [15, 35], [15, 25]]
    far = [[[50, 0], [60, 0], [60, 10], [50, 10], [50, 0]]]
    path = written(tmp_path, feature([[*SQUARE, hole], far], "MultiPolygon"))
    inside = read_geojson(path)[0].inside(Box(0, 0, 50, 70))
    expected = np.zeros((50, 70), bool)
    expected[20:40, 10:30] = True
    expected[25:35, 15:25] = False
    expected[:10, 50:60] = True
    assert np.array_equal(inside, expected)


def test_classes_choose_by_name_or_classification_and_need_not_mind_the_others(
    tmp_path: Path,
) -> None:
    line = feature([[0, 0], [1, 1]], "LineString", classification={"name": "Ruler"})
    named = feature(SQUARE, name="A", classification={"name": "Tumor"})
    path = written(tmp_path, collection(feature(SQUARE, **TUMOR), line, named))
    assert [each.name for each in read_geojson(path, ["Tumor"])] == ["Tumor", "A"]
    assert [each.name for each in read_geojson(path, ["A"])] == ["A"]
    with pytest.raises(CellsegError, match=r"called Tumour.* Did you mean Tumor\? Known: A, Ruler"):
        read_geojson(path, ["Tumour"])
    with pytest.raises(CellsegError, match=r"feature 2 \(Ruler\) is LineString"):
        read_geojson(path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not GeoJSON"),
        ("[" * 100_000, "not GeoJSON"),
        ("42", "feature 1 is 42"),
        ({"type": "FeatureCollection"}, "feature 1 is null"),
        (collection(), "no features"),
        ([None], "feature 1 is null"),
        (feature([]), "feature 1 has an empty polygon"),
        (feature([], "MultiPolygon"), "feature 1 is empty"),
        (feature([[]]), "an outline of 0 corners"),
        (feature([[[1, 1], [2, 2], [1, 1]]], **TUMOR), r"\(Tumor\) has an outline of 2 corners"),
        (feature([[[1, 1], [2, "2"], [3, 1]]]), r"the corner \[2, \"2\"\]"),
        (feature([[[1, 1], [2], [3, 1]]]), r"the corner \[2\]"),
        (feature([[1, 2], [3, 4]]), "the corner 1;"),
        (feature([[[1, 1], [float("nan"), 2], [3, 1]]]), r"the corner \[NaN, 2\]"),
        (feature([[[1, 1], [1e300, 2], [3, 1]]]), "the corner"),
        (feature(SQUARE, "Point"), "feature 1 is Point"),
        ({"type": "Feature", "geometry": None}, "feature 1 is without a geometry"),
        (feature([[[0, 0], [10, 10], [10, 0], [0, 10]]]), r"crosses itself near x = 5, y = 5"),
    ],
)
def test_what_is_no_area_is_refused_in_one_line(
    tmp_path: Path, document: object, message: str
) -> None:
    path = written(tmp_path, document)
    with pytest.raises(CellsegError, match=message) as caught:
        read_geojson(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_zip_file_with_one_file_is_read_as_that_file(tmp_path: Path) -> None:
    text = json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [3, 0], [3, 3], [0, 0]]]})
    path = tmp_path / "a.geojson.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.geojson", text)
    (one,) = read_geojson(path)
    assert one.bounds == Box(0, 0, 3, 3)
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("b.geojson", text)
    with pytest.raises(CellsegError, match="a zip file with 2 files in it; one is expected"):
        read_geojson(path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(CellsegError, match="not GeoJSON"):
        read_geojson(path)
