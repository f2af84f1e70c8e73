"""What a person drew becomes the very cells, and what is no cell is said and why."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from roifile import ROI_TYPE, ImagejRoi

from annotated import geojson_of, labelme, labelme_of, roi_of, rois_of
from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.models.layers import to_layers
from cellseg.pipeline.annotations import Annotations, Drawn
from cellseg.pipeline.coco import read_coco, read_unlisted
from cellseg.pipeline.evaluate import evaluate_paths
from cellseg.pipeline.masks import find_masks
from synthetic import discs

SHAPE = (30, 40)
SQUARE = [[2, 3], [8, 3], [8, 9], [2, 9]]


def read(path: Path, shape: tuple[int, int] = SHAPE) -> Annotations:
    (source,) = find_masks(path).values()
    assert isinstance(source.annotated, Annotations)
    return source.annotated.over(shape)


def why(drawn: Drawn) -> list[str]:
    return [skipped.why for skipped in drawn.skipped]


def same(one: Instances, other: Instances) -> bool:
    return np.array_equal(one.boxes, other.boxes) and all(
        map(np.array_equal, one.masks, other.masks)
    )


ANY_MASKS = st.lists(
    arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)), max_size=4
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY_MASKS, st.integers(0, 20), st.integers(0, 30))
def test_outlines_along_pixels_come_back_as_the_same_masks(
    tmp_path: Path, masks: list[Any], y: int, x: int
) -> None:
    cells = Instances.stack([((y, x), mask, 1.0, 1) for mask in masks])
    if not len(cells):
        return
    for path in (geojson_of(tmp_path / "a.geojson", cells), rois_of(tmp_path / "a.zip", cells)):
        assert same(read(path).instances(), cells), path


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_cells_that_overlap_stay_whole_in_every_form(tmp_path: Path, seed: int, count: int) -> None:
    cells = discs(seed, SHAPE, count)
    for path in (
        labelme_of(tmp_path / "a.json", cells, SHAPE, "a.png"),
        geojson_of(tmp_path / "b.geojson", cells),
        rois_of(tmp_path / "c_rois.zip", cells),
    ):
        (name, source) = next(iter(find_masks(path).items()))
        assert name == path.stem[0]
        layers, _ = source.read(1, SHAPE).label_layers()
        assert np.array_equal(layers, to_layers(cells, SHAPE))


def test_labelme_shapes_are_areas_or_said_to_be_none(tmp_path: Path) -> None:
    picture = np.zeros((4, 5), np.uint8)
    picture[1:3, 1:4] = 255
    png = base64.b64encode(imagecodecs.png_encode(picture)).decode()
    shapes: list[dict[str, Any]] = [
        {"shape_type": "polygon", "points": SQUARE},
        {"shape_type": "rectangle", "points": [[20, 12], [10.0, 4.0]]},
        {"shape_type": "rotation", "points": [[15, 20], [18, 23], [15, 26], [12, 23]]},
        {"shape_type": "circle", "points": [[20, 20], [20, 24]]},
        {"shape_type": "mask", "points": [[30, 20], [34, 23]], "mask": png},
        {"shape_type": "polygon", "points": [[1, 1], [5, 5]]},
        {"shape_type": "polygon", "points": [[1, 1], [5, 5], [5, 5], [1, 1]]},
        {"shape_type": "linestrip", "points": SQUARE},
        {"shape_type": "point", "points": [[4, 4]]},
        {"shape_type": "star", "points": SQUARE},
        {"shape_type": "polygon", "points": [[100, 3], [120, 3], [120, 9]]},
        {"shape_type": "polygon", "points": [[3.6, 3.6], [4.4, 3.6], [4.4, 4.4]]},
        {"shape_type": "polygon", "points": [["a", 3], [120, 3], [120, 9]]},
        {"shape_type": "polygon", "points": [[float("nan"), 3], [120, 3], [120, 9]]},
        {"shape_type": "mask", "points": [[30, 20], [34, 23]], "mask": "?"},
        {"shape_type": "circle", "points": [[20, 20]]},
    ]
    path = labelme(tmp_path / "a.json", shapes, SHAPE, r"..\images\field.1.png")
    assert list(find_masks(path)) == ["field.1"]
    drawn = read(path).drawn()
    assert drawn.cells.boxes.tolist() == [
        [3, 2, 9, 8],
        [4, 10, 12, 20],
        [20, 12, 26, 17],
        [16, 16, 24, 24],
        [21, 31, 23, 34],
    ]
    assert drawn.cells.areas().tolist()[:2] == [36, 80]
    assert drawn.cells.areas()[3] == pytest.approx(np.pi * 16, rel=0.06)
    assert why(drawn) == [
        "an outline of 2 corners; an area needs 3",
        "an outline of 2 corners; an area needs 3",
        "a linestrip, which is no area",
        "a point, which is no area",
        "of the unknown type star; known are polygon, rectangle, oriented_rectangle, rotation,"
        " circle, mask",
        "its points are not pairs of numbers",
        "its points are not pairs of numbers",
        "its mask is no PNG in base64",
        "a circle of 1 points; it needs its centre and one on its edge",
        "outside the image of 30 x 40 px",
        "holds the centre of no pixel of the image",
    ]
    assert str(drawn.skipped[0]).startswith(f"{path}: shape 6 (cell): ")
    with pytest.raises(CellsegError, match=r"shape 6 .* \(and 10 more\).* cellseg import"):
        read(path).instances()


def test_shapes_of_one_group_are_one_cell_and_reach_no_further_than_the_image(
    tmp_path: Path,
) -> None:
    shapes: list[dict[str, Any]] = [
        {"points": SQUARE, "group_id": 7, "label": "nucleus"},
        {"points": [[20, 20], [60, 20], [60, 50], [20, 50]], "label": "debris"},
        {"points": [[10, 3], [12, 3], [12, 9], [10, 9]], "group_id": 7, "label": "nucleus"},
    ]
    path = labelme(tmp_path / "a.json", shapes, SHAPE, "a.png")
    drawn = read(path).drawn()
    assert drawn.cells.boxes.tolist() == [[3, 2, 9, 12], [20, 20, 30, 40]]
    assert drawn.cells.areas().tolist() == [48, 200]
    assert drawn.cells.classes.tolist() == [1, 1]
    chosen = read(path).drawn(("debris", "nucleus"))
    assert chosen.cells.classes.tolist() == [2, 1]
    assert why(read(path).drawn(("nucleus",))) == ["called debris, which is not asked for"]


def test_geojson_features_are_areas_or_said_to_be_none(tmp_path: Path) -> None:
    square = {"type": "Polygon", "coordinates": [[*SQUARE, SQUARE[0]]]}
    geometries: list[Any] = [
        square,
        {"type": "LineString", "coordinates": SQUARE},
        {"type": "Polygon", "coordinates": [SQUARE[:2]]},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[["a", 1]]]},
        square | {"plane": {"c": -1, "z": 3, "t": 0}},
        None,
        {"type": "MultiPolygon", "coordinates": [[[[20, 20], [24, 20], [24, 24]]], [SQUARE]]},
    ]
    features = [{"type": "Feature", "geometry": each} for each in geometries]
    (tmp_path / "a.json").write_text(json.dumps(features))
    drawn = read(tmp_path / "a.json").drawn()
    assert drawn.cells.boxes.tolist()[0] == [3, 2, 9, 8]
    assert len(drawn.cells) == 2
    assert why(drawn) == [
        "LineString; a cell is a Polygon or a MultiPolygon",
        "has an outline of 2 corners; an area needs 3 different ones",
        "empty",
        'has the corner ["a", 1]; expected two numbers [x, y], in px of the image',
        "in a later plane, z = 3; only the first is taken",
        "without a geometry; a cell is a Polygon or a MultiPolygon",
    ]
    bundle = tmp_path / "b.geojson.zip"
    with zipfile.ZipFile(bundle, "w") as packed:
        packed.writestr("b.geojson", json.dumps(features[:1]))
    assert list(find_masks(bundle)) == ["b"]
    assert len(read(bundle).instances()) == 1


def test_rois_are_areas_or_said_to_be_none(tmp_path: Path) -> None:
    corners = np.array(SQUARE, np.int32)
    box: dict[str, Any] = {"left": 10, "top": 4, "right": 20, "bottom": 12}
    line = ImagejRoi.frompoints(corners)
    line.roitype = ROI_TYPE.POLYLINE
    later, elsewhere = ImagejRoi.frompoints(corners), ImagejRoi.frompoints(corners)
    later.position, elsewhere.z_position = 4, 2
    channel = ImagejRoi.frompoints(corners)
    channel.position, channel.c_position = 2, 2
    hole = np.array([[4, 5], [4, 7], [6, 7], [6, 5]], np.int32)
    rois = {
        "polygon": roi_of([corners]),
        "rectangle": ImagejRoi(roitype=ROI_TYPE.RECT, **box).tobytes(),
        "oval": ImagejRoi(roitype=ROI_TYPE.OVAL, **box).tobytes(),
        "composite": roi_of([corners, hole]),
        "channel": channel.tobytes(),
        "line": line.tobytes(),
        "later": later.tobytes(),
        "elsewhere": elsewhere.tobytes(),
        "cut": roi_of([corners])[:20],
    }
    with zipfile.ZipFile(tmp_path / "field_RoiSet.zip", "w") as packed:
        for name, data in rois.items():
            packed.writestr(f"{name}.roi", data)
    assert list(find_masks(tmp_path / "field_RoiSet.zip")) == ["field"]
    drawn = read(tmp_path / "field_RoiSet.zip").drawn()
    assert drawn.cells.areas().tolist() == [36, 80, drawn.cells.areas()[2], 32, 36]
    assert drawn.cells.areas()[2] == pytest.approx(np.pi * 20, rel=0.05)
    assert drawn.cells.boxes[2].tolist() == [4, 10, 12, 20]
    assert why(drawn)[:3] == [
        "a line, which is no area",
        "in plane 4 of a stack; only the first is taken",
        "in plane 2; only the first is taken",
    ]
    assert why(drawn)[3].startswith("damaged (")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as packed:
        packed.writestr("1.roi", rois["polygon"])
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("1.roi", rois["rectangle"])
    twice = read(tmp_path / "twice.zip").drawn()
    assert twice.cells.areas().tolist() == [36, 80]
    (tmp_path / "one.roi").write_bytes(rois["polygon"])
    assert len(read(tmp_path / "one.roi").instances()) == 1


def test_coco_says_what_it_skips(tmp_path: Path) -> None:
    square = [2, 3, 8, 3, 8, 9, 2, 9]
    annotations: list[dict[str, Any]] = [
        {"id": 1, "image_id": 1, "category_id": 5, "segmentation": [square]},
        {"id": 2, "image_id": 1, "category_id": 4, "segmentation": {"counts": "?"}},
        {"id": 3, "image_id": 1, "category_id": 4, "segmentation": [[1, 1, 5, 5]]},
        {"id": 4, "image_id": 1, "iscrowd": 1},
        {"id": 5, "image_id": 9, "segmentation": [square]},
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}],
        "annotations": annotations,
        "categories": [{"id": 4, "name": "nucleus"}, {"id": 5, "name": "debris"}],
    }
    path = tmp_path / "c.json"
    path.write_text(json.dumps(document))
    (image,) = read_coco(path)
    drawn = image.drawn(("nucleus", "debris"))
    assert drawn.cells.classes.tolist() == [2]
    assert why(drawn) == [
        "1 crowds, which are no single cells",
        'its segmentation is neither a list of polygons nor "size" and "counts"',
        "holds the centre of no pixel of the image",
    ]
    assert [str(each) for each in read_unlisted(path)] == [
        f"{path}: image_id 9: 1 annotations, and no such image is listed"
    ]


def test_labels_are_evaluated_against_rois_that_know_no_size(tmp_path: Path) -> None:
    cells = Instances.stack([((2, 3), np.ones((5, 6), bool), 1.0, 1)])
    tifffile.imwrite(tmp_path / "a.tif", to_layers(cells, SHAPE)[0].astype(np.uint16))
    truth = rois_of(tmp_path / "a.zip", cells)
    for one, other in ((tmp_path / "a.tif", truth), (truth, tmp_path / "a.tif"), (truth, truth)):
        assert evaluate_paths(one, other).pooled[0].average_precision == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", '{"shapes": 3}', "no list"),
        ("a.json", '{"other": 3}', "no COCO file"),
        ("a.geojson", "[", "not GeoJSON"),
        ("a.zip", "PK", "cannot be read"),
    ],
)
def test_damaged_files_are_refused_in_a_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CellsegError, match=words):
        find_masks(tmp_path / name)
