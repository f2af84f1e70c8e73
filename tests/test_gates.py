"""Gates: rules in words, thresholds in numbers, columns in the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from cellseg.models import CellsegError
from cellseg.pipeline import Config, Result, read_workflow, run
from cellseg.pipeline.gate_settings import Controls, check_columns, parse
from cellseg.pipeline.gates import (
    BINS,
    Gate,
    Rows,
    decide_gates,
    gate_warnings,
    otsu_bin,
    values_of,
)
from cellseg.pipeline.remeasure import RunAgain
from exact import Counting, Exact
from synthetic import cells

CPU = Config(device="cpu")
otsu: Callable[..., float] = threshold_otsu


@pytest.mark.parametrize(
    ("text", "column", "comparison", "number"),
    [
        ("mean_Pan-CK > otsu", "mean_Pan-CK", ">", None),
        ("area_px >= 400", "area_px", ">=", 400.0),
        ("mean_a > b<=-1.5e2", "mean_a > b", "<=", -150.0),
        ("  mean_CD45 (cy5) < otsu ", "mean_CD45 (cy5)", "<", None),
        ("mean_<c>>2", "mean_<c>", ">", 2.0),
    ],
)
def test_a_rule_is_read_from_the_right(
    text: str, column: str, comparison: str, number: float | None
) -> None:
    rule = parse(text)
    assert (rule.column, rule.comparison, rule.number) == (column, comparison, number)
    assert rule.method == ("otsu" if number is None else "number")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('big = "area_px"', '[gates] big = "area_px" is no rule'),
        ('big = "area_px > tall"', "tall is not a number, nor otsu"),
        ('big = "area_px > nan"', "nan is not a number"),
        ('big = "> 3"', "is no rule"),
        ('big = "area_px = 3"', "is no rule"),
        ("big = 3", "[gates] big is not text in quotes"),
        ('"1st" = "area_px > 3"', '"1st" is no name for a gate'),
        ('"a-b" = "area_px > 3"', '"a-b" is no name for a gate'),
    ],
)
def test_a_bad_rule_is_refused_when_the_workflow_is_read(
    tmp_path: Path, table: str, said: str
) -> None:
    (tmp_path / "w.toml").write_text(f'images = "x.tif"\n[gates]\n{table}\n')
    with pytest.raises(CellsegError) as caught:
        read_workflow(tmp_path / "w.toml")
    assert said.replace('"', "'") in str(caught.value).replace('\\"', "'").replace('"', "'")
    assert "\n" not in str(caught.value)


def test_a_gate_on_a_column_that_there_is_not_names_the_nearest() -> None:
    columns = {"area_px": True, "mean_DAPI": True, "well": False}
    check_columns({"big": "area_px > 3"}, columns)
    with pytest.raises(CellsegError, match=r'"mean_DAP" is no column.*Did you mean mean_DAPI\?'):
        check_columns({"on": "mean_DAP > otsu"}, columns)
    with pytest.raises(CellsegError, match='"well" does not hold numbers'):
        check_columns({"on": "well > 3"}, columns)
    with pytest.raises(CellsegError, match=r"\[gates\] well: the cell table has a column of that"):
        check_columns({"well": "area_px > 3"}, columns)


def parts(*columns: dict[str, Any]) -> Rows:
    """Tables as those of images are read."""

    def rows(names: Sequence[str]) -> Iterator[pa.Table]:
        for each in columns:
            yield pa.table({name: pa.array(each[name]) for name in names if name in each})

    return rows


counted = st.lists(st.integers(0, 40), min_size=2, max_size=60).filter(
    lambda counts: np.count_nonzero(counts) > 1
)


@given(counted)
def test_otsu_is_scikit_images_on_the_same_bins(counts: list[int]) -> None:
    mine = otsu_bin(np.array(counts, np.int64))
    centres = np.arange(len(counts), dtype=float)
    theirs = otsu(hist=(np.array(counts, float), centres))
    # Rounding lets it choose any of several bins that part the cells alike.
    low, high = sorted((mine, int(theirs)))
    assert not any(counts[low + 1 : high + 1]) or between(counts, mine) == pytest.approx(
        between(counts, int(theirs)), rel=1e-9
    )


def between(counts: list[int], last: int) -> float:
    """The variance between classes, as the paper defines it."""
    share, level = np.array(counts) / sum(counts), np.arange(len(counts))
    low, high = share[: last + 1], share[last + 1 :]
    means = [(part * at).sum() / part.sum() for part, at in zip(
        (low, high), (level[: last + 1], level[last + 1 :]), strict=True)]  # fmt: skip
    return float(low.sum() * high.sum() * (means[1] - means[0]) ** 2)


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=40).filter(
        lambda values: len(set(values)) > 1
    ),
    st.randoms(use_true_random=False),
)
def test_the_threshold_depends_on_no_order_and_lies_between_the_cells(
    values: list[float], random: Any
) -> None:
    rules = {"on": "m > otsu"}
    (one,) = decide_gates(rules, parts({"m": values}))
    shuffled = random.sample(values, len(values))
    some = len(values) // 2
    (two,) = decide_gates(
        rules, parts({"m": shuffled[:some]}, {"m": shuffled[some:]}, {"other": [1.0]})
    )
    assert one == two
    assert one.threshold is not None
    assert min(values) <= one.threshold <= max(values)
    positive, _ = one.passed(np.array(values))
    assert 0 < positive.sum() < len(values)


def test_the_threshold_is_that_of_scikit_image_on_two_populations() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(100, 10, 3000), random.normal(160, 15, 1000)])
    (gate,) = decide_gates({"on": "m > otsu"}, parts({"m": values}))
    step = np.ptp(values) / BINS
    assert gate.threshold == pytest.approx(otsu(values, nbins=BINS), abs=1.5 * step)


@pytest.mark.parametrize(
    "values", [[], [3.0], [3.0, 3.0, None], [None, float("nan")], [float("inf"), 2.0]]
)
def test_without_two_values_nobody_is_positive_and_that_is_said(
    values: list[float | None],
) -> None:
    column = pa.array(values, pa.float64())
    (gate,) = decide_gates({"on": "m > otsu"}, parts({"m": column}))
    assert gate.threshold is None
    (said,) = gate_warnings({"on": gate.document(3, 0)})
    assert said.startswith("gate on: m has fewer than two different values")
    found = gate.column(pa.table({"m": column})).to_pylist()
    assert found == [None if value is None or value != value else False for value in values]


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (">", [False, False, True, None, None]),
        (">=", [False, True, True, None, None]),
        ("<", [True, False, False, None, None]),
        ("<=", [True, True, False, None, None]),
    ],
)
def test_what_is_unknown_is_null(comparison: str, expected: list[bool | None]) -> None:
    gate = Gate("on", parse(f"m {comparison} 2"), 2.0)
    rows = pa.table({"m": pa.array([1, 2, 3, None, float("nan")], pa.float64())})
    assert gate.column(rows).to_pylist() == expected
    assert gate.column(pa.table({"other": [1, 2]})).to_pylist() == [None, None]
    whole = pa.table({"m": pa.array([1, 2, 3, None], pa.int64())})
    assert gate.column(whole).to_pylist() == expected[:4]
    assert np.isnan(values_of(whole, "m")).tolist() == [False, False, False, True]


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Three wells of two channels, and a workflow."""
    for seed, well in enumerate(("A01", "A02", "B01")):
        image, labels = cells(seed, shape=(130, 140), count=25, radius=(4, 9))
        stack = np.stack([labels.astype(np.uint16), image])
        metadata = {"axes": "CYX", "Labels": ["Mask", "Pan-CK"]}
        tifffile.imwrite(tmp_path / f"{well}_1.tif", stack, imagej=True, metadata=metadata)
    text = 'images = "*.tif"\npattern = "{well}_{site}.tif"\n[normalise]\nmethod = "none"\n'
    text += "[output]\noverview = false\n"
    gates = '[gates]\nbright = "mean_1 > otsu"\nbig = "area_px >= 150"\n'
    (tmp_path / "w.toml").write_text(f"{text}{gates}")
    return tmp_path


def gated(plate: Path, *overrides: str, segmenter: Exact | None = None) -> Result:
    return run(read_workflow(plate / "w.toml", overrides, output=plate / "out"), CPU,
               segmenter or Exact())  # fmt: skip


def test_gates_of_a_run_are_columns_fractions_and_facts(plate: Path) -> None:
    result = gated(plate, "output.csv=true")
    table = pq.read_table(result.cells_path)
    assert table.column_names[-2:] == ["bright", "big"]
    frame = table.to_pandas()
    facts = json.loads((plate / "out" / "gates.json").read_text())
    threshold = facts["bright"]["threshold"]
    step = np.ptp(frame["mean_1"]) / BINS
    theirs = otsu(frame["mean_1"].to_numpy(), nbins=BINS)
    assert threshold == pytest.approx(theirs, abs=1.5 * step)
    assert (frame["bright"] == (frame["mean_1"] > threshold)).all()
    assert (frame["big"] == (frame["area_px"] >= 150)).all()
    assert facts["big"] == {
        "rule": "area_px >= 150",
        "column": "area_px",
        "comparison": ">=",
        "threshold": 150.0,
        "method": "number",
        "cells": len(frame),
        "positive": int(frame["big"].sum()),
    }
    document = json.loads((plate / "out" / "run.json").read_text())
    assert document["gates"] == facts
    wells = pd.read_parquet(plate / "out" / "wells.parquet").set_index("well")
    shares = frame.groupby("well")["bright"].mean()
    assert wells["bright_fraction"].to_dict() == pytest.approx(shares.to_dict())
    text = pd.read_csv(plate / "out" / "cells.csv")
    assert text["bright"].tolist() == frame["bright"].tolist()


def test_other_gates_and_controls_compute_nothing_of_an_image(plate: Path) -> None:
    gated(plate)
    tables = sorted((plate / "out").rglob("images/*/cells.parquet"))
    before = [path.stat().st_mtime_ns for path in tables]
    counting = Counting()
    result = gated(plate, "gates.bright=mean_1 < 100", "controls.negative=['A*']",
                   segmenter=counting)  # fmt: skip
    assert counting.windows == 0
    assert [path.stat().st_mtime_ns for path in tables] == before
    assert not pq.read_table(result.cells_path)["bright"].to_pandas().any()
    assert (plate / "out" / "controls.parquet").is_file()
    gated(plate, "gates={}", segmenter=counting)
    assert counting.windows == 0
    left = {path.name for path in (plate / "out").iterdir()}
    assert not {"controls.parquet", "gates.json"} & left
    assert "bright" not in pq.read_schema(result.cells_path).names


def test_a_gate_that_cannot_be_is_refused_before_the_run(plate: Path) -> None:
    with pytest.raises(CellsegError, match=r"\[gates\] on = .*no column.*Did you mean mean_1"):
        gated(plate, "gates.on=mean_l > otsu")
    assert not (plate / "out").exists()


def test_an_otsu_gate_without_cells_warns(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint16))
    (tmp_path / "w.toml").write_text('images = "a.tif"\n[gates]\nbig = "area_px > otsu"\n')
    result = run(read_workflow(tmp_path / "w.toml", output=tmp_path / "out"), CPU, Exact())
    assert any("fewer than two different values" in warning for warning in result.warnings)
    assert pq.read_schema(result.cells_path).field("big").type == pa.bool_()
    facts = json.loads((tmp_path / "out" / "gates.json").read_text())
    assert facts["big"]["threshold"] is None
    assert facts["big"]["cells"] == facts["big"]["positive"] == 0


def test_wells_are_named_by_globs_and_plates() -> None:
    controls = Controls(negative=("A1", "p2/B*"), positive=("C0?",))
    assert controls.kind("p1", "A01") == "negative"
    assert controls.kind("p1", "A10") is None
    assert controls.kind("p1", "B03") is None
    assert controls.kind("p2", "B03") == "negative"
    assert controls.kind(None, "C07") == "positive"
    assert controls.remarks([("p1", "A01"), ("p2", "B03"), (None, "C07")]) == []
    (remark,) = controls.remarks([("p1", "A01"), ("p2", "B03")])
    assert remark.startswith('[controls] positive: no well of this run is "C0?".')
    with pytest.raises(CellsegError, match="well A01 is named as negative and as positive"):
        Controls(negative=("A*",), positive=("A01",)).remarks([(None, "A01")])


def test_measuring_again_takes_other_gates_and_refuses_bad_ones(plate: Path) -> None:
    gated(plate, "gates.bright=area_px > otsu")
    out = plate / "out"
    again = RunAgain(out, CPU, ["gates.bright=mean_1 < 100"])
    list(again.steps())
    facts = json.loads((out / "run.json").read_text())["gates"]
    assert facts == json.loads((out / "gates.json").read_text())
    assert facts["bright"]["threshold"] == 100
    assert facts["bright"]["positive"] == 0
    with pytest.raises(CellsegError, match="is no column of the cell table"):
        RunAgain(out, CPU, ["gates.bright=mean_l < 100"])
