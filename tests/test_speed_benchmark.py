"""The speed benchmark: what a network does is counted right, and every row is measured."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from cellseg.models import load_model
from cellseg.models.detector import Detector
from cellseg.models.settings import MaskRCNNSettings
from synthetic import cells

# The benchmarks are not installed.
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import agreement, floor, growth, machine, speed, speed_scenes
from benchmarks.floor import Ceilings, Layer, Work
from benchmarks.pairs import find_pairs
from benchmarks.speed_runs import Configuration, Ran


def test_operations_and_values_of_a_convolution_are_counted() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 5),
    )
    first, second, third = floor.count(network, torch.zeros(2, 3, 16, 16)).layers
    assert first.operations == 2 * (2 * 8 * 8 * 8) * (3 * 3 * 3)
    assert first.values == 2 * 3 * 16 * 16 + (8 * 27 + 8) + 2 * 8 * 8 * 8
    assert second.operations == 2 * (2 * 8 * 8 * 8) * (4 * 2 * 2)
    assert third.operations == 2 * (2 * 5) * (4 * 16 * 16)
    assert third.values == 2 * 1024 + (1024 * 5 + 5) + 2 * 5


def test_the_parts_of_the_shipped_network_grow_with_what_they_work_on() -> None:
    detector = load_model(MaskRCNNSettings())
    assert isinstance(detector, Detector)
    pixels, _ = cells(0, (128, 128), 12)
    image = torch.from_numpy(pixels[None, None].astype(np.float32) / 3000)
    one = floor.count(detector.network, image)
    two = floor.count(detector.network, image.repeat(1, 1, 2, 1))
    assert {layer.section for layer in one.layers} == set(floor.SECTIONS)
    assert one.rows["mask head"] >= 10
    for section in floor.DENSE:
        assert two.operations(section) == pytest.approx(2 * one.operations(section))
    for section in ("box head", "mask head"):
        each = [work.operations(section) / work.rows[section] for work in (one, two)]
        assert each[0] == pytest.approx(each[1])


def test_a_layer_takes_as_long_as_the_ceiling_that_it_meets_first() -> None:
    work = Work(1.0, [Layer("backbone", 8e9, 1e6), Layer("mask head", 1e6, 1e9)], Counter())
    limits = Ceilings({"float32": {1: 1e9, 2: 2e9}, "bfloat16": {1: 4e9, 2: 4e9}}, {1: 1e9, 2: 2e9})
    assert limits.seconds(work, "float32", 1) == pytest.approx(8 + 4)
    assert limits.seconds(work, "float32", 2) == pytest.approx(4 + 2)
    assert limits.seconds(work, "bfloat16", 1, "backbone") == pytest.approx(2)
    assert limits.precision("mixed") == limits.precision("auto") == "float32"
    assert limits.precision("float32") == "float32"


def test_inputs_are_the_same_every_time_and_hold_what_they_say(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        crowd = speed_scenes.crowd(folder, 300, 400)
        empty = speed_scenes.nearly_empty(folder, 700, 2, 10)
        plate = speed_scenes.demo_plate(folder, 30)
    for path in (crowd.images, empty.images):
        first, second = (tifffile.imread(tmp_path / n / path.name) for n in ("0", "1"))
        assert first.dtype == np.uint16
        assert np.array_equal(first, second)
    assert np.mean(tifffile.imread(empty.images) > 400) < 0.1
    assert np.mean(tifffile.imread(crowd.images) > 400) > 0.5
    assert plate.fields == 30
    assert plate.megapixels == pytest.approx(30 * 520 * 696 / 1e6)
    assert tifffile.imread(next(plate.images.glob("*_B06_*"))).shape == (520, 696)


def test_configurations_are_read_from_the_command_line() -> None:
    arguments = speed.parse(["--precisions", "float32", "bfloat16", "--config", "workers=2"])
    names = [each.name for each in speed.configurations(arguments)]
    assert names == ["precision=float32", "precision=bfloat16", "workers=2"]
    assert speed.configurations(arguments)[2].config.workers == 2
    assert [each.name for each in speed.configurations(speed.parse([]))] == ["as shipped"]
    two = Configuration.read("workers=2, device=cpu")
    assert two.keys == (("workers", 2), ("device", "cpu"))


def test_growth_counts_what_follows_on_the_start(tmp_path: Path) -> None:
    series = list(growth.inputs("pixels", 64, tmp_path))
    assert [given.megapixels * 1e6 for _, given in series] == [64**2, 128**2, 256**2]
    profile = {"start_seconds": 2.0, "cells": 3, "rows": []}
    stages = [{"path": "plan", "core_seconds": 1.0}, {"path": "segment", "core_seconds": 4.0}]
    first = Ran(4.0, 5.0, 100.0, profile | {"rows": stages})
    fourth = Ran(12.0, 25.0, 100.0, profile | {"rows": [*stages, stages[1] | {"path": "paint"}]})
    row = growth._row("threshold", "pixels", 4, series[1][1], [fourth], [first])
    assert row["seconds_to_linear"] == pytest.approx((12 - 2) / (4 - 2) / 4)
    assert row["core_seconds_to_linear"] == pytest.approx(8 / 4 / 4)


def test_cells_of_two_precisions_agree_and_are_compared_with_the_truth(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    image, truth = cells(1, (160, 160), 20)
    tifffile.imwrite(tmp_path / "images" / "a.tif", image)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", truth.astype(np.uint16))
    pairs = find_pairs(tmp_path / "images", tmp_path / "labels")
    crop = agreement.crop_of(tmp_path / "images" / "a.tif", 96)
    assert np.array_equal(crop[0], image[32:128, 32:128])
    configurations = [Configuration.read("precision=bfloat16")]
    between, accuracy = agreement.agreement(configurations, pairs, crop)
    assert [row["on"] for row in between] == ["images", "slide"]
    assert all(row["f1"] > 0.9 and row["cells"] > 3 for row in between)
    assert [row["configuration"] for row in accuracy] == [
        agreement.reference().name,
        "precision=bfloat16",
    ]
    assert accuracy[0]["ap_0.5_off"] == 0
    assert accuracy[1]["ap_0.5"] > 0.7


def numbers(value: Any) -> list[float]:
    """All numbers of a JSON document."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [number for each in inside for number in numbers(each)]
    return [value] if isinstance(value, float) else []


def test_a_quick_run_measures_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    files = ["--json", str(path), "--markdown", str(tmp_path / "speed.md")]
    speed.main(["--quick", "--repeats", "1", *files])
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["what"]: row for row in document["rows"]}
    floors = {f"floor, {name}" for name in document["ceilings"]["gigaops_s"]}
    assert floors >= {"floor, float32", "floor, bfloat16"}
    parts = {f"tile: {name}" for name in ("read", "normalise", "model/network", "write")}
    stages = {f"run: {name}" for name in ("segment", "order", "paint", "measure", "finish")}
    whole = {"network, dense part", "network", "tile", "run without start-up", "run"}
    assert floors | parts | stages | whole <= set(rows)
    assert all(math.isfinite(number) for number in numbers(document))
    for name in whole:
        assert all(rows[name][key] > 0 for key in ("seconds", "core_seconds", "mpx_s", "cells_s"))
        assert rows[name]["times_floor"] > 0
    sections = {row["section"]: row for row in document["work"]}
    assert {sections[name]["for a"] for name in floor.DENSE} == {"megapixel"}
    assert sections["mask head"]["for a"] == "cell"
    assert all(row["Gop"] > 0 and row["ms in float32"] > 0 for row in sections.values())
    (facts,) = document["facts"]
    assert 0 < facts["start_seconds"] < rows["run"]["seconds"]
    assert 0 < facts["network_share"] < 1
    assert facts["peak_mb"] > 100
    assert facts["cells"] > 40
    printed = capsys.readouterr().out
    assert machine.processor() in printed
    assert all(name in printed for name in rows)
    table = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert all(f"| crowd | as shipped | {name} |" in table for name in floors | whole)
    assert "tile: read" not in table
