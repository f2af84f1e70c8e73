"""Label images on disk are paired by name and scored; what has no partner is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from cellseg.models.errors import CellsegError
from cellseg.pipeline.evaluate import evaluate_paths
from cellseg.pipeline.masks import find_masks
from cellseg.pipeline.score import THRESHOLDS, Score

Labels = NDArray[Any]


def squares(count: int, dtype: str = "uint16") -> Labels:
    labels = np.zeros((12, 12), dtype)
    for index in range(count):
        labels[1:4, 4 * index : 4 * index + 3] = index + 1
    return labels


def write(path: Path, labels: Labels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels)
    return path


def test_cells_of_volumes_are_matched_as_3d_objects(tmp_path: Path) -> None:
    truth = np.zeros((6, 12, 12), np.uint16)
    truth[0:4, 1:5, 1:5], truth[1:6, 7:11, 7:11] = 1, 2
    own = np.zeros_like(truth)
    # The first one lacks a plane, the second one is two in z.
    own[0:3, 1:5, 1:5], own[1:3, 7:11, 7:11], own[3:6, 7:11, 7:11] = 5, 6, 7
    scored = evaluate_paths(write(tmp_path / "a.tif", own), write(tmp_path / "b.tif", truth))
    by_threshold = {each.threshold: each for each in scored.pooled}
    assert by_threshold[0.5] == Score(0.5, 2, 1, 0, 0.75 + 0.6)
    assert by_threshold[0.7] == Score(0.7, 1, 2, 1, 0.75)


def write_zarr(path: Path, labels: Labels) -> Path:
    """A label image as OME-Zarr 0.5, as cellseg writes it."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", data=labels)
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    scale = {"type": "scale", "scale": [1.0, 1.0]}
    dataset: dict[str, Any] = {"path": "0", "coordinateTransformations": [scale]}
    multiscale: dict[str, Any] = {"name": "cells", "axes": axes, "datasets": [dataset]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "image-label": {}}
    return path


def test_folders_pair_by_name(tmp_path: Path) -> None:
    for name, count in (("a.tif", 3), ("b.TIFF", 2), ("only_here.tif", 1)):
        write(tmp_path / "labels" / name, squares(count))
    for name, count in (("a.ome.tif", 3), ("b.tif", 3), ("A.tif", 1), ("a_GUID.tif", 1)):
        write(tmp_path / "truth" / name, squares(count))
    (tmp_path / "labels" / "notes.txt").write_text("not an image")
    got = evaluate_paths(tmp_path / "labels", tmp_path / "truth", [0.5, 0.9])
    assert [image.name for image in got.images] == ["a", "b"]
    assert got.unpaired_labels == ("only_here",)
    assert got.unpaired_truth == ("A", "a_GUID")
    assert got.images[1].scores == (Score(0.5, 2, 0, 1, 2.0), Score(0.9, 2, 0, 1, 2.0))
    assert got.pooled == [Score(0.5, 5, 0, 1, 5.0), Score(0.9, 5, 0, 1, 5.0)]
    table = got.table()
    assert [(row["image"], row["iou"]) for row in table] == [
        (name, iou) for name in ("a", "b", "(all)") for iou in (0.5, 0.9)
    ]
    assert list(table[0]) == [
        "image",
        "iou",
        "tp",
        "fp",
        "fn",
        "ap",
        "f1",
        "pq",
        "precision",
        "recall",
    ]
    assert table[-1]["ap"] == 5 / 6
    document = json.loads(json.dumps(got.document()))
    assert document["pooled"][0]["recall"] == 5 / 6
    assert document["images"][0]["labels"] == str(tmp_path / "labels" / "a.tif")
    assert document["unpaired"] == {"labels": ["only_here"], "truth": ["A", "a_GUID"]}


def test_names_select_images(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "c.tif"):
        write(tmp_path / "labels" / name, squares(2))
        write(tmp_path / "truth" / name, squares(2))
    write(tmp_path / "truth" / "d.tif", squares(2))
    folders = tmp_path / "labels", tmp_path / "truth"
    got = evaluate_paths(*folders, [0.5], names=["c.tif", "a", "d.tif"])
    assert [image.name for image in got.images] == ["a", "c"]
    assert got.unpaired_truth == ("d",)
    with pytest.raises(CellsegError, match="cc: neither"):
        evaluate_paths(*folders, [0.5], names=["a", "cc"])


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    labels = write(tmp_path / "mine.tif", squares(2, "uint8"))
    truth = write(tmp_path / "theirs.tiff", squares(3)[None])
    got = evaluate_paths(labels, truth, [0.5])
    assert [(image.name, image.scores) for image in got.images] == [
        ("mine", (Score(0.5, 2, 0, 1, 2.0),))
    ]
    assert len(evaluate_paths(labels, truth).pooled) == len(THRESHOLDS)


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint16"])
def test_a_results_folder_and_ome_zarr(tmp_path: Path, dtype: str) -> None:
    for name, count in (("w_A01", 1), ("w.A02", 3)):
        write_zarr(tmp_path / "results" / "images" / name / "labels.zarr", squares(count, dtype))
        write(tmp_path / "truth" / f"{name}.tif", squares(3, dtype))
    got = evaluate_paths(tmp_path / "results", tmp_path / "truth", [0.5])
    assert [(i.name, i.scores[0].true_positive) for i in got.images] == [("w.A02", 3), ("w_A01", 1)]
    write_zarr(tmp_path / "zarrs" / "w_A01.ome.zarr", squares(1, dtype))
    again = evaluate_paths(tmp_path / "results", tmp_path / "zarrs", [0.5])
    assert again.pooled == [Score(0.5, 1, 0, 0, 1.0)]


def test_bad_paths_are_named(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels" / "a.tif", squares(1))
    truth = write(tmp_path / "truth" / "b.tif", squares(1))
    with pytest.raises(CellsegError, match=r"no label image has one of the same name.*a; truth b"):
        evaluate_paths(labels.parent, truth.parent)
    with pytest.raises(CellsegError, match="nowhere: no such"):
        evaluate_paths(tmp_path / "nowhere", truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CellsegError, match="empty: no label images"):
        find_masks(tmp_path / "empty")
    write(labels.parent / "a.tiff", squares(1))
    with pytest.raises(CellsegError, match=r"a\.tif and a\.tiff have one name"):
        find_masks(labels.parent)
    wide = write(tmp_path / "wide.tif", np.zeros((12, 13), np.uint8))
    with pytest.raises(CellsegError, match=r"wide\.tif against .*b\.tif: .* differ in shape"):
        evaluate_paths(wide, truth)
    grey = write(tmp_path / "grey.tif", np.zeros((12, 12), np.float32))
    with pytest.raises(CellsegError, match=r"grey\.tif against .*: labels: pixels are float32"):
        evaluate_paths(grey, truth)


def bars(folder: Path, name: str, spans: list[tuple[int, int]]) -> Path:
    """A stack of cells of a row each."""
    planes = np.zeros((len(spans), 6, 60), np.uint8)
    for plane, (start, stop) in zip(planes, spans, strict=True):
        plane[2, start:stop] = 1
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / name, planes, photometric="minisblack")
    return folder


def test_where_cells_overlap_recall_is_told_by_share(tmp_path: Path) -> None:
    truth = bars(tmp_path / "truth", "a.tif", [(0, 10), (6, 16), (15, 35), (40, 50)])
    found = bars(tmp_path / "labels", "a.tif", [(0, 10), (15, 35), (40, 50)])
    write(truth / "b.tif", np.arange(12, dtype=np.uint8).reshape(2, 6))
    write(found / "b.tif", np.arange(12, dtype=np.uint8).reshape(2, 6))
    got = evaluate_paths(found, truth, [0.5, 0.9])
    assert got.pooled[0] == Score(0.5, 14, 0, 1, 14.0)
    # Shares: 0.4, 0.5, 0.05 and 0, and eleven cells of the image without overlap.
    assert [(each.name, each.cells, each.matched) for each in got.recall] == [
        ("0-10 %", 13, 13),
        ("10-25 %", 0, 0),
        ("25-50 %", 2, 1),
        ("50-100 %", 0, 0),
    ]
    document = json.loads(json.dumps(got.document()))
    assert document["recall_by_share"][2] == {
        "share": "25-50 %",
        "cells": 2,
        "matched": 1,
        "recall": 0.5,
    }
    assert document["images"][1]["recall_by_share"][0]["cells"] == 11
    table = got.text.split("\n\n")[1].splitlines()
    assert table[0].startswith("Recall at IoU 0.5 by share")
    assert table[-1].split() == ["(all)", "50-100", "%", "0", "0", "-"]


def test_without_overlap_nothing_is_said_of_it(tmp_path: Path) -> None:
    labels = write(tmp_path / "a.tif", squares(3))
    got = evaluate_paths(labels, labels, [0.5])
    assert (got.recall, got.recall_table(), len(got.text.split("\n\n"))) == ([], [], 1)
    assert got.document()["recall_by_share"] == []
    assert got.images[0].scores == (Score(0.5, 3, 0, 0, 3.0),)


def test_a_stack_of_another_plane_is_refused(tmp_path: Path) -> None:
    truth = bars(tmp_path, "a.tif", [(0, 10), (6, 16)]) / "a.tif"
    labels = write(tmp_path / "b.tif", squares(3))
    with pytest.raises(CellsegError, match=r"\(12, 12\) and truth \(6, 60\) differ in shape"):
        evaluate_paths(labels, truth)
