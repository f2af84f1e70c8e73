"""COCO's run lengths and polygons are the masks that the published format says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon2mask

from cellseg.models.errors import CellsegError
from cellseg.models.instances import Instances
from cellseg.pipeline.coco import format_counts, mask_of, parse_counts, read_coco, rle_of


def whole(segmentation: object, shape: tuple[int, int]) -> np.ndarray:
    """The mask of a segmentation in its whole image."""
    (y, x), mask = mask_of(segmentation, shape, "here")
    image = np.zeros(shape, bool)
    image[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return image


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([5, 2, 9], "529"),
        ([0, 4, 12], "04<"),
        # 16 has the bit of the sign, so a second group says that it is positive.
        ([16], "`0"),
        # 100 is 00100 and 00011, the lower group first, with 32 added as more follows.
        ([100], "T3"),
        # From the fourth on, differences: 1 - 2 = -1 is 11111; 9 - 3 = 6.
        ([1, 2, 3, 1, 9], "123O6"),
        # 3 - 40 = -37 is 11011 and, as the sign, 11110.
        ([7, 40, 7, 3], "7X17kN"),
    ],
)
def test_run_lengths_are_written_as_the_format_says(counts: list[int], text: str) -> None:
    assert format_counts(counts) == text
    assert parse_counts(text) == counts


@given(st.lists(st.integers(0, 2**40)))
def test_any_run_lengths_come_back(counts: list[int]) -> None:
    assert parse_counts(format_counts(counts)) == counts


@given(
    arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))),
    st.tuples(*[st.integers(0, 4)] * 4),
)
def test_any_mask_comes_back_from_its_place(
    mask: np.ndarray, around: tuple[int, int, int, int]
) -> None:
    top, left, bottom, right = around
    image = np.pad(mask, ((top, bottom), (left, right)))
    height, width = image.shape
    rle = rle_of((top, left), mask, (height, width))
    assert np.array_equal(whole(rle, (height, width)), image)
    # Down the columns, gaps first, no run empty but the first.
    counts = parse_counts(rle["counts"])
    assert all(counts[1:])
    drawn = np.repeat(np.arange(len(counts)) % 2, counts).reshape(width, height).T
    assert np.array_equal(drawn > 0, image)
    assert np.array_equal(
        whole({"size": [height, width], "counts": counts}, (height, width)), image
    )


def test_empty_runs_join_their_neighbours() -> None:
    assert whole({"size": [2, 3], "counts": [1, 2, 0, 1, 2]}, (2, 3)).tolist() == [
        [False, True, False],
        [True, True, False],
    ]


def test_a_polygon_of_whole_pixels_covers_them() -> None:
    mask = whole([[2, 1, 6, 1, 6, 4, 2, 4]], (6, 8))
    assert mask[1:4, 2:6].all()
    assert mask.sum() == 12


@given(st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 12)), min_size=3, max_size=6))
def test_polygons_cover_the_pixels_whose_centres_they_hold(
    corners: list[tuple[float, float]],
) -> None:
    flat = [value for corner in corners for value in corner]
    centred = np.array(corners)[:, ::-1] - 0.5
    drawn = polygon2mask((16, 20), centred + 4)  # type: ignore[no-untyped-call]
    expected = drawn[4:13, 4:17]
    found = whole([flat], (9, 13))
    # A centre exactly on an edge may fall to either side.
    assert np.count_nonzero(found != expected) <= 2


def test_parts_of_a_polygon_add_up_and_what_is_too_small_is_nothing() -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 4, 1, 4, 4, 1, 4], [5, 5, 6, 6]]
    mask = whole(parts, (5, 5))
    assert mask.sum() == 4 + 9 - 1
    assert not whole([[0.6, 0.6, 0.9, 0.6, 0.9, 0.9]], (5, 5)).any()
    assert not whole([], (5, 5)).any()


def coco(path: Path, **changes: Any) -> Path:
    """A file with two images, three cells, a crowd, and a stray annotation."""
    square = {"segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}
    document = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 6, "width": 5},
            {"id": 3, "file_name": "sub/b.tif", "height": 4, "width": 4},
        ],
        "categories": [{"id": 30, "name": "late"}, {"id": 4, "name": "early"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 30, "score": 0.25, **square},
            {"id": 2, "image_id": 3, "category_id": 4, **square},
            {
                "id": 3,
                "image_id": 7,
                "category_id": 4,
                "segmentation": rle_of((1, 1), np.ones((3, 3), bool), (6, 5)),
            },
            {"id": 4, "image_id": 7, "category_id": 4, "iscrowd": 1, **square},
            {"id": 5, "image_id": 99, "category_id": 4, **square},
            {"id": 6, "image_id": 7, "category_id": 4, "segmentation": []},
        ],
    }
    path.write_text(json.dumps(document | changes))
    return path


def test_a_file_gives_each_image_its_cells(tmp_path: Path) -> None:
    one, other = read_coco(coco(tmp_path / "c.json"))
    assert (one.file_name, one.shape) == ("a.png", (6, 5))
    cells = one.instances()
    assert cells.boxes.tolist() == [[0, 0, 3, 3], [1, 1, 4, 4]]
    assert cells.classes.tolist() == [2, 1]
    assert cells.scores.tolist() == [0.25, 1.0]
    assert len(other.instances()) == 1


def test_classes_are_ranks_where_no_categories_are_listed(tmp_path: Path) -> None:
    one, _ = read_coco(coco(tmp_path / "c.json", categories=[]))
    assert one.instances().classes.tolist() == [2, 1]


def test_an_image_without_annotations_has_no_cells(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a", "height": 3, "width": 3}]
    (image,) = read_coco(coco(tmp_path / "c.json", images=images))
    found = image.instances()
    assert isinstance(found, Instances)
    assert len(found) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": 3}, "no COCO file of instances"),
        ({"images": ["a"]}, "no COCO file of instances"),
        ({"images": [{"id": 1, "file_name": "a"}]}, "image a has no height and width"),
        ({"categories": [{"id": 4}]}, "category 30 is in use and not listed"),
        ({"categories": [{"id": i} for i in range(300)]}, "300 categories; up to 255"),
    ],
)
def test_a_damaged_file_is_said_in_one_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(CellsegError, match=words):
        read_coco(coco(tmp_path / "c.json", **changes))


def test_what_is_no_json_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(CellsegError, match=r"c\.json: not JSON"):
        read_coco(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "neither a list of polygons nor"),
        ({"size": [2, 2]}, "neither a list of polygons nor"),
        ({"size": [4, 4], "counts": "T"}, "run lengths are damaged"),
        ({"size": [4, 4], "counts": "é"}, "run lengths are damaged"),
        ({"size": [4, 4], "counts": [3, "x"]}, "run lengths are damaged"),
        ({"size": [4, 4], "counts": [3, 4]}, "of 7 px and size .* do not fit"),
        ({"size": [4, 4], "counts": [20, -4]}, "do not fit"),
        ({"size": [2, 8], "counts": [16]}, "do not fit"),
        ([[1, 2, 3]], "a polygon is not x, y"),
        ([7], "a polygon is not x, y"),
        ([["a", "b"]], "a polygon is not x, y"),
        ([[1, 2, float("nan"), 2, 3, 3]], "a corner that is no number"),
    ],
)
def test_a_damaged_segmentation_names_its_annotation(segmentation: object, words: str) -> None:
    with pytest.raises(CellsegError, match=f"a.json, annotation 3: .*{words}"):
        mask_of(segmentation, (4, 4), "a.json, annotation 3")
