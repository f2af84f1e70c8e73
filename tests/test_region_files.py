"""Which region an image has: its own file, the one of all, none; and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.models import CellsegError
from cellseg.pipeline.interest import Interest
from cellseg.pipeline.plate import Field
from cellseg.pipeline.region_files import check_found, find_interest
from cellseg.pipeline.region_settings import Region
from cellseg.pipeline.tiles import Box

PLANE = Box(0, 0, 50, 80)


def field(folder: Path, name: str = "a", file: str = "a.ome.tif") -> Field:
    return Field(name, folder / file)


def square(path: Path, x: float = 10, y: float = 20, side: float = 8) -> Path:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))
    return path


def find(folder: Path, source: Field | None = None, **region: object) -> Interest | None:
    settings = Region.model_validate(region)
    return find_interest(settings, source or field(folder), PLANE, (1.0, 0.5, 2.0))


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.ome.tif.geojson", "a.ome.geojson"])
def test_in_a_folder_the_file_of_the_images_name_is_found(tmp_path: Path, name: str) -> None:
    square(tmp_path / "regions" / "other.geojson", x=0)
    path = square(tmp_path / "regions" / name)
    found = find(tmp_path, geojson=str(tmp_path / "regions"))
    assert found is not None
    assert found.path == path
    drawn = np.zeros(PLANE.shape, int)
    drawn[20:28, 10:18] = 1
    assert np.array_equal(found.area().numbers(PLANE), drawn)


def test_one_file_is_that_of_all_and_a_pattern_names_one_for_each(tmp_path: Path) -> None:
    one, other = (square(tmp_path / f"{name}.geojson") for name in "ab")
    for name, path in (("a", one), ("b", other)):
        source = field(tmp_path, name)
        found = find(tmp_path, source, geojson=str(tmp_path / "{image}.geojson"))
        assert found is not None
        assert found.path == path
        found = find(tmp_path, source, geojson=str(one))
        assert found is not None
        assert found.path == one


def test_a_mask_is_found_and_told_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "a.ome.tif", np.full((25, 40), 7, np.uint8))
    found = find(tmp_path, mask=str(tmp_path / "masks"))
    assert found is not None
    assert (found.area().numbers(PLANE) == 7).all()


def test_a_box_in_um_is_the_same_box_in_px(tmp_path: Path) -> None:
    assert find(tmp_path, box_um=[5, 20, 10, 60]) == find(tmp_path, box_px=[10, 10, 20, 30])
    settings = Region(box_um=(5, 20, 10, 60))
    with pytest.raises(CellsegError, match=r"a.ome.tif: \[region\] box_um needs the size of a pix"):
        find_interest(settings, field(tmp_path), PLANE, None)


def test_what_a_region_is_follows_from_its_content_not_from_its_path(tmp_path: Path) -> None:
    first = find(tmp_path, geojson=str(square(tmp_path / "one.geojson")))
    same = find(tmp_path, geojson=str(square(tmp_path / "two.geojson")))
    other = find(tmp_path, geojson=str(square(tmp_path / "one.geojson", x=11)))
    assert first is not None
    assert same is not None
    assert other is not None
    assert first.identity == same.identity != other.identity
    with pytest.raises(CellsegError, match=r"one.geojson: changed since the run began"):
        Interest(PLANE, "geojson", None, first.path, ("other",), first.state).area()


@pytest.mark.parametrize("entry", ["regions", "regions/{image}.geojson"])
def test_an_image_without_a_file_is_an_error_or_all_or_nothing(tmp_path: Path, entry: str) -> None:
    square(tmp_path / "regions" / "b.geojson")
    given = str(tmp_path / entry)
    with pytest.raises(CellsegError, match=r"a.ome.tif: no region file: looked for .*regions/a\."):
        find(tmp_path, geojson=given)
    assert find(tmp_path, geojson=given, missing="all") is None
    nothing = find(tmp_path, geojson=given, missing="none")
    assert nothing is not None
    assert not nothing.area().numbers(PLANE).any()


def test_a_path_that_is_not_there_is_an_error_whatever_is_said_of_missing_ones(
    tmp_path: Path,
) -> None:
    with pytest.raises(CellsegError, match=r"nowhere: no such file or folder\. \[region\] mask is"):
        find(tmp_path, mask=str(tmp_path / "nowhere"), missing="all")
    settings = Region(geojson=str(tmp_path / "typo" / "{image}.geojson"), missing="all")
    with pytest.raises(CellsegError, match=r"no image has such a file"):
        check_found(settings, [None, None])
    check_found(settings, [None, Interest(PLANE, "geojson")])
    check_found(Region(box_px=(0, 0, 1, 1)), [Interest(PLANE, "box")])


def test_a_region_outside_the_image_is_refused_and_one_half_outside_is_not(tmp_path: Path) -> None:
    with pytest.raises(CellsegError, match=r"box_px lies outside the image of 50 x 80 px: it span"):
        find(tmp_path, box_px=[60, 0, 70, 10])
    far = square(tmp_path / "far.geojson", x=500)
    with pytest.raises(
        CellsegError, match=r"far.geojson: all features lie outside .* x 500 to 508"
    ):
        find(tmp_path, geojson=str(far))
    assert find(tmp_path, geojson=str(square(tmp_path / "edge.geojson", x=76))) is not None
