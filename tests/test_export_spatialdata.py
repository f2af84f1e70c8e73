"""SpatialData opens the store: labels, outlines and table, each in its place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.pipeline.export import EXPORTERS
from cellseg.pipeline.exported import find_images
from cellseg.pipeline.tiles import Box
from cellseg.pipeline.to_spatialdata import element_names
from exact import Exact
from exported_runs import FORMS, UM, exports, pile, plate, run_on, stack, truth

# The library makes an object of a class that it depends on and that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {make.__name__: make(folder / make.__name__) for make in (plate, pile, stack)}


def opened(path: Path):  # type: ignore[no-untyped-def]
    # Slow to import, so not before a test needs it.
    import spatialdata

    return spatialdata.read_zarr(path)


@pytest.mark.parametrize("name", ["plate", "pile", "stack"])
def test_labels_outlines_and_table_open_and_belong_together(
    runs: dict[str, Path], name: str
) -> None:
    import spatialdata

    found = opened(exports(runs[name], "spatialdata"))
    masks = truth(name)
    image = find_images(runs[name])[0]
    _, depth, height, width = image.shape
    elements = [f"{image.name}_cells"] + [
        f"{image.name}_cells_{layer + 1}" for layer in range(1, image.results.labels.layers)
    ]
    table = found.tables["cells"]
    assert set(elements) <= set(found.labels)
    for layer, element in enumerate(elements):
        labels = found.labels[element]
        pixels = np.asarray(labels["scale0"]["image"] if hasattr(labels, "children") else labels)
        planes = pixels.reshape(depth, height, width)
        for z in range(depth):
            expected = image.results.labels.read(0, z, Box(0, 0, height, width), layer=layer)
            assert np.array_equal(planes[z], expected)
        # Each of its rows is a label there, and each label one of its rows.
        rows = table[table.obs["element"] == element]
        there = np.unique(pixels[pixels > 0])
        assert sorted(rows.obs["label"]) == there.tolist()
        known = spatialdata.get_element_instances(found.labels[element])
        assert set(known) - {0} == set(there.tolist())
    assert len(table) == len({label for label, _ in masks})
    for z in range(depth):
        suffix = f"_z{z}" if depth > 1 else ""
        shapes = found.shapes[f"{image.name}_outlines{suffix}"]
        assert shapes.is_valid.all()
        areas = {label: mask.sum() for (label, plane), mask in masks.items() if plane == z}
        assert shapes.area.to_dict() == areas


def test_places_are_known_in_px_and_um(runs: dict[str, Path]) -> None:
    from spatialdata.transformations import get_transformation

    found = opened(exports(runs["pile"], "spatialdata"))
    assert set(found.coordinate_systems) == {"pile_px", "pile_um"}
    for element in (found.labels["pile_cells"], found.shapes["pile_outlines"]):
        to_um = get_transformation(element, "pile_um").to_affine_matrix(("x", "y"), ("x", "y"))
        assert np.allclose(np.diag(to_um), [UM, UM, 1])
    assert found.tables["cells"].uns["spatial_unit"] == "um"


def test_centres_lie_in_their_outlines(runs: dict[str, Path]) -> None:
    import shapely

    found = opened(exports(runs["pile"], "spatialdata"))
    x, y = found.tables["cells"].obsm["spatial"].T / UM
    shapes = found.shapes["pile_outlines"].loc[found.tables["cells"].obs["label"]]
    inside = shapely.contains_xy(shapes.geometry.values, x, y)
    assert inside.all()  # they are discs
    centre = shapes.centroid
    assert np.allclose(centre.x, x)
    assert np.allclose(centre.y, y)


def test_time_points_are_elements_of_their_own(tmp_path: Path) -> None:
    frames = np.zeros((2, 64, 70), np.uint16)
    frames[0, 5:15, 5:15], frames[1, 30:40, 30:44] = 1, 2
    tifffile.imwrite(tmp_path / "s.tif", frames, imagej=True, metadata={"axes": "TYX"})
    found = opened(exports(run_on(tmp_path, Exact()), "spatialdata"))
    assert set(found.labels) == {"s_cells_t0", "s_cells_t1"}
    assert set(found.shapes) == {"s_outlines_t0", "s_outlines_t1"}
    assert found.tables["cells"].obs["element"].tolist() == ["s_cells_t0", "s_cells_t1"]
    for t in range(2):
        drawn = np.asarray(found.labels[f"s_cells_t{t}"])
        assert np.array_equal(drawn > 0, frames[t] > 0)


def test_a_run_without_cells_opens_too(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "e.tif", np.zeros((64, 70), np.uint16))
    found = opened(exports(run_on(tmp_path, Exact()), "spatialdata"))
    assert set(found.labels) == {"e_cells"}
    assert not found.shapes
    assert found.tables["cells"].n_obs == 0


def test_only_a_store_of_ours_is_replaced(runs: dict[str, Path], tmp_path: Path) -> None:
    first = exports(runs["pile"], "spatialdata", tmp_path / "a.zarr")
    exports(runs["stack"], "spatialdata", tmp_path / "a.zarr")
    assert set(opened(first).labels) == {"stack_cells"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(OSError, match="was not written by cellseg"):
        exports(runs["pile"], "spatialdata", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_names_are_allowed_ones_and_no_two_alike() -> None:
    names = element_names(["a b", "a_b", "A_b", "__x", "ü"])
    assert names == {"a b": "a_b", "a_b": "a_b-2", "A_b": "A_b-3", "__x": "x", "ü": "image"}


# pycocotools itself: its arrays do not know numpy 2's `copy`.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_the_guide_shows_runs(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "exports.md").read_text(encoding="utf-8")
    for form in FORMS:
        exports(runs["plate"], form)
        assert f"| `{form}` | `{EXPORTERS[form].output}" in guide
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "my_plate").symlink_to(runs["plate"])
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(snippets) == len(FORMS) - 1  # none for masks
    for snippet in snippets:
        exec(snippet, {})  # noqa: S102
