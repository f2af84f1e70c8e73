from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops_table

from cellseg.models.errors import CellsegError
from cellseg.pipeline.measure import (
    MEASUREMENTS,
    Columns,
    Group,
    Patch,
    column_types,
    empty,
    measure,
)
from cellseg.pipeline.measure_settings import Measure

BOTH = Measure(groups=("shape", "intensity"))
POSITION = ["y_px", "x_px", "y_um", "x_um", "area_px", "area_um2", "straight_edge"]
SHAPE = [
    *("perimeter_px", "major_axis_px", "minor_axis_px", "eccentricity", "orientation_rad"),
    *("solidity", "convex_area_px", "feret_max_px", "feret_min_px", "extent", "form_factor"),
    *("euler_number", "equivalent_diameter_px", "perimeter_um", "major_axis_um", "minor_axis_um"),
    *("feret_max_um", "feret_min_um", "equivalent_diameter_um"),
]
LEVELS = [
    *("mean", "std", "min", "max", "sum", "median", "mad", "p05", "p25", "p75", "p95"),
    *("mass_displacement_px", "mass_displacement_um"),
    *("edge_mean", "edge_std", "edge_min", "edge_max", "edge_sum"),
]
WHOLE = ["area_px", "convex_area_px", "euler_number"]
IN_SKIMAGE = {
    "area": "area_px",
    "centroid-0": "y_px",
    "centroid-1": "x_px",
    "perimeter": "perimeter_px",
    "axis_major_length": "major_axis_px",
    "axis_minor_length": "minor_axis_px",
    "eccentricity": "eccentricity",
    "orientation": "orientation_rad",
    "solidity": "solidity",
    "area_convex": "convex_area_px",
    "feret_diameter_max": "feret_max_px",
    "extent": "extent",
    "euler_number": "euler_number",
    "equivalent_diameter_area": "equivalent_diameter_px",
    "intensity_mean-1": "mean_b",
    "intensity_std-1": "std_b",
    "intensity_min-1": "min_b",
    "intensity_max-1": "max_b",
}

Case = tuple[NDArray[np.uint32], NDArray[Any]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A label image (compact, touching, hollow, torn and thin cells, any ids) and two channels."""
    seed = draw(st.integers(0, 10**6))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    smooth, kinds = draw(st.floats(0, 4)), draw(st.integers(1, 6))
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.random((height, width)), smooth)
    bands = np.searchsorted(np.quantile(field, np.linspace(0, 1, kinds + 1)[1:-1]), field)
    ids = np.unique(rng.integers(1, 2**32, 3 * kinds + 3, dtype=np.uint32))[: kinds + 1]
    ids[rng.integers(len(ids))] = 0
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    pixels = rng.integers(0, 255, (2, height, width)) * (0.5 + smooth / 8)
    return ids[bands], pixels.astype(dtype)


def ids_in(labels: NDArray[Any]) -> NDArray[Any]:
    found = np.unique(labels)
    return found[found > 0]


def same(a: Columns, b: Columns, names: list[str] | None = None) -> None:
    """Check that two results agree to the last bit, in order, names and dtypes too."""
    assert list(a) == list(b)
    for name in names or a:
        assert a[name].dtype == b[name].dtype, name
        assert a[name].tobytes() == b[name].tobytes(), name


@settings(max_examples=100, deadline=None)
@given(cases())
def test_agrees_with_scikit_image(case: Case) -> None:
    labels, pixels = case
    ids = ids_in(labels)
    got = measure(labels, pixels, ids, ["a", "b"], settings=BOTH)
    assert all(len(values) == len(ids) for values in got.values())
    if len(ids) == 0:
        return
    ranks = np.searchsorted(np.concatenate([[0], ids]), labels)
    image = np.moveaxis(pixels, 0, -1).astype(float)
    names = {name.split("-")[0] for name in IN_SKIMAGE}
    expected = regionprops_table(  # type: ignore[no-untyped-call]
        ranks, image, properties=sorted(names)
    )
    for theirs, ours in IN_SKIMAGE.items():
        if theirs == "orientation":
            # A turn by half a circle is none; what is as wide as it is long has no direction.
            turn = np.abs(got[ours] - expected[theirs])
            turn = np.minimum(turn, np.pi - turn)
            np.testing.assert_allclose(turn[got["eccentricity"] > 0.05], 0, atol=1e-6)
            continue
        np.testing.assert_allclose(got[ours], expected[theirs], rtol=1e-6, atol=1e-6, err_msg=ours)
    np.testing.assert_array_equal(got["solidity"], expected["solidity"])
    for row, id_ in enumerate(ids):
        assert got["sum_a"][row] == float(pixels[0][labels == id_].sum(dtype=float))


def longest_edge(mask: NDArray[np.bool_]) -> int:
    """Walk along each row of each side of a mask, and return the longest straight edge in px."""
    longest = 0
    for turned in (mask, mask[::-1], mask.T, mask.T[::-1]):
        above = np.zeros(turned.shape[1], bool)
        for row in turned:
            run = 0
            for edge in row & ~above:
                run = run + 1 if edge else 0
                longest = max(longest, run)
            above = row
    return longest


@settings(max_examples=60, deadline=None)
@given(cases())
def test_straight_edge_is_the_longest_run_over_the_diameter(case: Case) -> None:
    labels, _ = case
    ids = ids_in(labels)
    got = measure(labels, np.zeros((0, *labels.shape)), ids, [], settings=Measure(groups=()))[
        "straight_edge"
    ]
    expected = [
        longest_edge(labels == i) / math.sqrt((labels == i).sum() * 4 / math.pi) for i in ids
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases(), st.tuples(*[st.integers(0, 9)] * 4), st.integers(0, 10**6))
def test_the_window_and_the_other_cells_change_no_bit(
    case: Case, pad: tuple[int, int, int, int], seed: int
) -> None:
    labels, pixels = case
    rng = np.random.default_rng(seed)
    ids = ids_in(labels)
    whole = measure(labels, pixels, ids, ["a", "b"], settings=BOTH, pixel_um=(0.3, 0.7))
    top, bottom, left, right = pad
    margins = ((top, bottom), (left, right))
    for row, id_ in enumerate(ids[:3]):
        mask = np.pad(labels == id_, margins)
        others = rng.integers(0, 2**32, mask.shape, np.uint32)
        wider = np.where(mask, id_, np.where(others == id_, 0, others))
        alone = measure(
            wider,
            np.pad(pixels, ((0, 0), *margins), constant_values=7),
            [int(id_)],
            ["a", "b"],
            settings=BOTH,
            pixel_um=(0.3, 0.7),
            origin=(-top, -left),
        )
        same(alone, {name: values[row : row + 1] for name, values in whole.items()})


@settings(max_examples=30, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_ids_is_the_order_of_rows(case: Case, random: Any) -> None:
    labels, pixels = case
    ids = ids_in(labels)
    order = list(range(len(ids)))
    random.shuffle(order)
    straight = measure(labels, pixels, ids, ["a", "b"], settings=BOTH)
    shuffled = measure(labels, pixels, ids[order], ["a", "b"], settings=BOTH)
    same(shuffled, {name: values[order] for name, values in straight.items()})


def disc(radius: int, value: int = 1) -> NDArray[np.uint32]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.where(y * y + x * x <= radius * radius, value, 0).astype(np.uint32)


def straight(labels: NDArray[np.uint32]) -> list[float]:
    pixels = np.zeros((0, *labels.shape))
    got: list[float] = measure(labels, pixels, ids_in(labels), [])["straight_edge"].tolist()
    return got


@pytest.mark.parametrize("radius", [6, 12, 40])
def test_a_cut_disc_has_a_straight_edge_and_a_whole_one_does_not(radius: int) -> None:
    whole = disc(radius)
    upper, left = whole.copy(), whole.copy()
    upper[radius:] = 0
    left[:, radius:] = 0
    assert straight(whole)[0] < 0.55
    assert straight(upper)[0] == straight(left)[0] > 1.2
    # Two halves that touch are two straight edges: another cell is no part of one's own.
    assert min(straight(np.where(upper > 0, 2, whole))) > 1.2


@pytest.mark.parametrize(
    ("name", "mask", "edge"),
    [
        ("one pixel", [[1]], 1),
        ("row", [[1, 1, 1, 1, 1]], 5),
        ("column", [[1], [1], [1]], 3),
        ("diagonal", np.eye(4).tolist(), 1),
        ("a gap ends a run", [[1, 1, 0, 1, 1, 1]], 3),
        ("a step ends a run", [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], 5),
        ("the edge of a hole counts", [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]], 4),
        ("rows do not run on", [[0, 1, 1], [1, 1, 0]], 2),
    ],
)
def test_straight_edges_of_small_cells(name: str, mask: list[list[int]], edge: int) -> None:
    labels = np.array(mask, np.uint32)
    assert straight(labels)[0] == pytest.approx(edge / math.sqrt(4 * labels.sum() / math.pi))


def test_translation_changes_position_only() -> None:
    labels = np.pad(disc(9), ((3, 40), (5, 40)))
    pixels = np.random.default_rng(0).integers(0, 4000, (1, *labels.shape), dtype=np.uint16)
    a = measure(labels, pixels, [1], ["0"])
    b = measure(np.roll(labels, (17, 23), (0, 1)), np.roll(pixels, (17, 23), (1, 2)), [1], ["0"])
    same(a, b, [name for name in a if name not in POSITION[:4]])
    assert (a["y_px"][0], a["x_px"][0]) == (12, 14)
    assert (b["y_px"][0], b["x_px"][0]) == (29, 37)


def test_origin_is_added_to_the_position() -> None:
    labels, pixels = disc(4), np.zeros((1, 9, 9))
    got = measure(labels, pixels, [1], ["0"], origin=(1000, 2000), pixel_um=(0.5, 2.0))
    assert (got["y_px"][0], got["x_px"][0]) == (1004, 2004)
    assert (got["y_um"][0], got["x_um"][0]) == (502, 4008)


def test_pixel_size_changes_um_columns_only() -> None:
    labels, pixels = disc(6), np.arange(169, dtype=np.uint8).reshape(1, 13, 13)
    unknown = measure(labels, pixels, [1], ["0"])
    wide = measure(labels, pixels, [1], ["0"], pixel_um=(0.5, 0.25))
    square = measure(labels, pixels, [1], ["0"], pixel_um=(0.5, 0.5))
    um = [name for name in square if "_um" in name]
    assert um[:3] == ["y_um", "x_um", "area_um2"]
    for known in (wide, square):
        same(unknown, known, [name for name in known if name not in um])
    assert all(math.isnan(unknown[name][0]) for name in um)
    assert wide["y_um"][0] == 3
    assert wide["x_um"][0] == 1.5
    assert wide["area_um2"][0] == unknown["area_px"][0] / 8
    for name in SHAPE[-6:]:
        assert math.isnan(wide[name][0])
        assert square[name][0] == unknown[name.replace("_um", "_px")][0] / 2
    displaced = "mass_displacement_px_0", "mass_displacement_um_0"
    assert square[displaced[1]][0] == pytest.approx(unknown[displaced[0]][0] / 2)
    assert 0 < wide[displaced[1]][0] < square[displaced[1]][0]


@pytest.mark.parametrize("channels", [[], ["DAPI"], ["DAPI", "1"]])
def test_columns_are_the_same_with_and_without_cells(channels: list[str]) -> None:
    pixels = np.zeros((len(channels), 3, 3), np.uint16)
    full = measure(np.ones((3, 3), np.uint32), pixels, [1], channels)
    none = empty(BOTH, channels)
    assert {name: values.dtype for name, values in none.items()} == column_types(BOTH, channels)
    assert list(full) == list(none)
    assert all(len(values) == 0 for values in none.values())
    assert [v.dtype for v in full.values()] == [v.dtype for v in none.values()]
    per_channel = [f"{what}_{c}" for c in channels for what in LEVELS]
    assert list(full) == POSITION + SHAPE + per_channel
    assert [name for name, values in full.items() if values.dtype != np.float64] == WHOLE
    assert all(full[name].dtype == np.int64 for name in WHOLE)


def test_cells_that_are_not_asked_for_are_background() -> None:
    labels = np.array([[1, 2, 2], [1, 3, 2]], np.uint32)
    got = measure(labels, np.zeros((0, 2, 3)), [2], [])
    assert got["area_px"].tolist() == [3]
    none = measure(labels, np.zeros((0, 2, 3)), [], [])
    assert all(len(values) == 0 for values in none.values())


@pytest.mark.parametrize(
    ("name", "mask", "solidity", "major", "minor"),
    [
        ("one pixel", [[1]], 1, 0, 0),
        ("row", [[1, 1, 1, 1, 1]], 1, 4 * math.sqrt(2), 0),
        ("column", [[1], [1], [1]], 1, 4 * math.sqrt(2 / 3), 0),
        ("diagonal", np.eye(4).tolist(), 1, 4 * math.sqrt(2.5), 0),
        ("two torn pixels", [[1, 0, 0, 0, 1]], 2 / 5, 8, 0),
        ("ring", [[1, 1, 1], [1, 0, 1], [1, 1, 1]], 8 / 9, 2 * math.sqrt(3), 2 * math.sqrt(3)),
    ],
)
def test_degenerate_cells(
    name: str, mask: list[list[int]], solidity: float, major: float, minor: float
) -> None:
    labels = np.array(mask, np.uint32)
    got = measure(labels, np.zeros((1, *labels.shape)), [1], ["0"])
    assert got["solidity"][0] == solidity
    assert got["major_axis_px"][0] == pytest.approx(major)
    assert got["minor_axis_px"][0] == pytest.approx(minor)
    assert got["eccentricity"][0] == (1 if major > minor else 0)


@pytest.mark.parametrize("value", [np.uint16(0), np.uint16(65535), np.float64(0.1)])
def test_constant_intensity_has_no_deviation(value: Any) -> None:
    labels = disc(20)
    got = measure(
        labels,
        np.full((1, *labels.shape), value),
        [1],
        ["0"],
        settings=Measure(groups=("intensity",)),
    )
    assert got["std_0"][0] == 0
    assert got["min_0"][0] == got["max_0"][0] == float(value)
    assert got["mean_0"][0] == pytest.approx(float(value), rel=1e-12)


def test_sums_do_not_overflow() -> None:
    pixels = np.full((1, 700, 700), 65535, np.uint16)
    got = measure(np.ones((700, 700), np.uint8), pixels, [1], ["0"])
    assert got["sum_0"][0] == 65535 * 490_000
    assert got["mean_0"][0] == 65535


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_long_thin_cell_keeps_its_short_axis(width: int) -> None:
    labels = np.ones((width, 20_000), np.uint32)
    got = measure(
        labels, np.zeros((0, *labels.shape)), [1], [], settings=Measure(groups=("shape",))
    )
    for axis, side in (("minor_axis_px", width), ("major_axis_px", 20_000)):
        assert got[axis][0] == pytest.approx(4 * math.sqrt((side**2 - 1) / 12), rel=1e-12)


def test_a_group_is_one_function_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def spread(patch: Patch) -> Columns:
        values = patch.intensity(0)
        return {"spread": patch.greatest(values) - patch.least(values)}

    monkeypatch.setitem(MEASUREMENTS, "spread", Group(spread))
    pixels = np.array([[[1, 5, 9, 2]]], np.uint8)
    got = measure(
        np.array([[4, 4, 7, 7]]), pixels, [7, 4], ["0"], settings=Measure(groups=("spread",))
    )
    assert got["spread"].tolist() == [7, 4]
    assert list(empty(Measure(groups=("spread",)), ["0"])) == [*POSITION, "spread"]


def test_what_cannot_be_measured_is_refused() -> None:
    labels, pixels = np.ones((2, 2), np.uint32), np.zeros((1, 2, 2))
    with pytest.raises(CellsegError, match=r"\[measure\] groups: .*Did you mean shape\?"):
        measure(labels, pixels, [1], ["0"], settings=Measure(groups=("shapes",)))
    with pytest.raises(CellsegError, match='"DAPI" names 2 channels'):
        empty(BOTH, ["DAPI", "DAPI"])
    for ids in ([2], [1, 1], [0]):
        with pytest.raises(ValueError, match="repeated or not among"):
            measure(labels, pixels, ids, ["0"])
    with pytest.raises(ValueError, match="do not fit 2 channels"):
        measure(labels, pixels, [1], ["0", "1"])
    with pytest.raises(ValueError, match="integers"):
        measure(labels.astype(float), pixels, [1], ["0"])
