"""Labels in the input's own group: whole or not listed, and what others wrote stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr

from cellseg.models.errors import CellsegError
from cellseg.pipeline import Config, Result, inside, read_workflow, run
from cellseg.pipeline.evaluate import evaluate_paths
from cellseg.pipeline.export import Export
from cellseg.pipeline.image import open_image
from cellseg.pipeline.ome_zarr import label_layers
from exact import Exact, Known
from plates import write_group, write_image, write_plate
from synthetic import cells, discs

CPU = Config(device="cpu")
versions = pytest.mark.parametrize("version", ["0.4", "0.5"])
TEXT = '[normalise]\nmethod = "none"\n[tiling]\nsize = 96\nhalo = 20\n'


def truth(number: int = 0) -> Any:
    return cells(number, shape=(120, 140), count=20)[1].astype(np.uint16)


def done(folder: Path, images: str, *overrides: str, segmenter: Any = None) -> Result:
    (folder / "w.toml").write_text(f'images = "{images}"\n{TEXT}')
    chosen = ("output.labels=inside", *overrides)
    workflow = read_workflow(folder / "w.toml", chosen, output=folder / "results")
    return run(workflow, CPU, segmenter or Exact())


def valid(path: Path, version: str) -> list[str]:
    """Validate an image with its labels; return the names of those it lists."""
    models: Any = ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05
    group = zarr.open_group(str(path), mode="r")
    models.Image.from_zarr(group)
    if not (path / "labels" / (".zattrs" if version == "0.4" else "zarr.json")).exists():
        return []
    attributes = models.Labels.from_zarr(group["labels"])
    names = (attributes.attributes if version == "0.4" else attributes.ome_attributes).labels
    for name in names:
        model = models.ImageLabel if name.startswith("cells") else models.Image
        model.from_zarr(group[f"labels/{name}"])
    return list(names)


def others(path: Path, version: str, *, stated: bool = True) -> dict[str, bytes]:
    """Write labels beside an image as another program does; return their files."""
    write_image(path / "labels" / "nuclei", np.ones((120, 140), np.uint32), version=version)
    metadata = {"labels": ["nuclei"]}
    if version == "0.5" and not stated:
        node = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": metadata}}
        (path / "labels" / "zarr.json").write_text(json.dumps(node))
    else:
        write_group(path / "labels", metadata | {"note": "kept"}, version)
    folder = path / "labels" / "nuclei"
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@versions
@pytest.mark.parametrize("stated", [True, False])
def test_labels_lie_beside_those_of_others(tmp_path: Path, version: str, stated: bool) -> None:
    path = tmp_path / "image.zarr"
    write_image(path, truth(), version=version)
    before = others(path, version, stated=stated)
    result = done(tmp_path, "image.zarr")
    assert not result.failed
    assert valid(path, version) == ["nuclei", "cells"]
    assert {p: Path(p).read_bytes() for p in before} == before
    found = np.asarray(open_image(path / "labels" / "cells").pixels)[0, 0, 0]
    np.testing.assert_array_equal(found > 0, truth() > 0)
    assert {p.name for p in (result.folder / "images" / "image").iterdir()} == {
        "cells.parquet",
        "overview.png",
    }
    # What is complete is left alone, and the labels do not count as a change of the input.
    stamp = (path / "labels" / "cells").stat().st_mtime_ns
    assert done(tmp_path, "image.zarr").cells == result.cells
    assert (path / "labels" / "cells").stat().st_mtime_ns == stamp
    # Other labels of ours take the place of ours.
    done(tmp_path, "image.zarr", "stitch.overlap=0.5")
    assert (path / "labels" / "cells").stat().st_mtime_ns != stamp
    assert valid(path, version) == ["nuclei", "cells"]


@versions
def test_a_plate_takes_its_labels(tmp_path: Path, version: str) -> None:
    fields = {"B/03/0": truth(0), "C/03/0": truth(1)}
    write_plate(tmp_path / "in.zarr", fields, version)
    result = done(tmp_path, "in.zarr")
    assert not (result.folder / "plate.zarr").exists()
    model: Any = ome_zarr_models.v04.HCS if version == "0.4" else ome_zarr_models.v05.HCS
    model.from_zarr(zarr.open_group(str(tmp_path / "in.zarr"), mode="r"))
    (tmp_path / "truth").mkdir()
    for group, pixels in fields.items():
        assert valid(tmp_path / "in.zarr" / group, version) == ["cells"]
        write_image(tmp_path / "truth" / f"in_{group.replace('/', '_')}.zarr", pixels)
    scores = evaluate_paths(result.folder, tmp_path / "truth").pooled
    assert {score.average_precision for score in scores} == {1.0}
    assert len(list(Export(result.folder, "coco").steps())) == 2


@versions
def test_layers_lie_side_by_side_and_go_with_their_cells(tmp_path: Path, version: str) -> None:
    path, shape = tmp_path / "image.zarr", (120, 140)
    write_image(path, np.ones(shape, np.uint16), version=version)
    others(path, version)
    many = Known(discs(0, shape, 60))
    result = done(tmp_path, "image.zarr", segmenter=many)
    count = result.image("image").labels.layers
    assert count > 1
    names = ["cells", *(f"cells_{number}" for number in range(2, count + 1))]
    assert valid(path, version) == ["nuclei", *names]
    document = list(Export(result.folder, "coco").steps())
    assert document == ["image"]
    # Fewer layers: the rest is ours, and goes.
    done(tmp_path, "image.zarr", segmenter=Known(discs(1, shape, 1)))
    assert valid(path, version) == ["nuclei", "cells"]
    assert {p.name for p in (path / "labels").iterdir() if p.is_dir()} == {"nuclei", "cells"}


@versions
def test_labels_of_others_are_not_overwritten(tmp_path: Path, version: str) -> None:
    path = tmp_path / "image.zarr"
    write_image(path, truth(), version=version)
    write_image(path / "labels" / "cells", truth(), version=version)
    write_group(path / "labels", {"labels": ["cells"]}, version)
    before = {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(CellsegError, match=r"labels/cells: labels that cellseg did not write"):
        done(tmp_path, "image.zarr")
    assert {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_images_without_labels_of_their_own_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    with pytest.raises(CellsegError, match=r'labels = "inside": .*a\.tif is no OME-Zarr image'):
        done(tmp_path, "a.tif")


class Killed(BaseException):
    """What no code catches: the process is gone."""


@versions
def test_a_kill_at_any_moment_leaves_the_input_valid(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, shape = tmp_path / "image.zarr", (120, 140)
    write_image(path, np.ones(shape, np.uint16), version=version)
    others(path, version)
    first, second = Known(discs(0, shape, 30)), Known(discs(1, shape, 30))
    done(tmp_path, "image.zarr", segmenter=first)
    moments, steps = 0, ("_move", "write_json")
    real = {step: getattr(inside, step) for step in steps}
    rmtree = shutil.rmtree

    def interrupted(after: int) -> None:
        count = 0

        def before(do: Any) -> Any:
            def wrapped(*given: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count > after:
                    raise Killed
                return do(*given, **options)

            return wrapped

        for step in steps:
            monkeypatch.setattr(inside, step, before(real[step]))

        def removed(folder: Path, *given: Any, **options: Any) -> None:
            if Path(folder).is_relative_to(path):
                before(rmtree)(folder, *given, **options)
            else:
                rmtree(folder, *given, **options)

        monkeypatch.setattr(shutil, "rmtree", removed)

    whole = False
    while not whole:
        interrupted(moments)
        moments += 1
        try:
            done(tmp_path, "image.zarr", segmenter=second)
            whole = True
        except Killed:
            pass
        listed = valid(path, version)
        assert listed[0] == "nuclei"
        for layer in label_layers(path / "labels"):
            assert open_image(layer).pixels.shape == (1, 1, 1, *shape)
    assert moments > 4
    monkeypatch.undo()
    undisturbed = tmp_path / "other"
    undisturbed.mkdir()
    write_image(undisturbed / "image.zarr", np.ones(shape, np.uint16), version=version)
    expected = done(undisturbed, "image.zarr", segmenter=second).image("image").labels
    for one, two in zip(label_layers(path / "labels")[1:], expected.layer_paths, strict=True):
        mine, theirs = (np.asarray(open_image(layer).pixels) for layer in (one, two))
        np.testing.assert_array_equal(mine, theirs)
